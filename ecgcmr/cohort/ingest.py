"""ingest: folders of real files in, one cohort out; a broken file is a row of the ledger and never stops the job."""

from __future__ import annotations

import csv
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ecgcmr import __version__
from ecgcmr.cohort.chunks import Rows
from ecgcmr.cohort.ingest_labels import LabelTable, aggregate
from ecgcmr.cohort.ingest_plan import IngestOptions, Item, Plan, make_plan
from ecgcmr.cohort.ingest_read import ReadOptions, read_chunk
from ecgcmr.cohort.ledger import dropped_by_reason
from ecgcmr.cohort.schema import CohortSchema, LabelSpec
from ecgcmr.cohort.splits import Split, make_split, split_from_folds
from ecgcmr.cohort.tables import sha256
from ecgcmr.cohort.writer import CohortWriter, check_target

logger = logging.getLogger(__name__)

CHUNK_ITEMS = {"ecg": 128, "cmr": 2}
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did.

    Attributes:
        out: The cohort, or None when nothing was kept and nothing was written.
        read: Kind -> items seen.
        kept: Kind -> items kept.
        dropped: Kind -> reason -> items dropped.
        examples: (item, reason, detail) of dropped items, the first of each kind and reason.
        ignored: Suffix -> files that are no signals.
        subjects: Number of subjects.
        split: Part -> number of subjects.
        statements: What was inferred, one sentence each.
    """

    out: Path | None
    read: dict[str, int]
    kept: dict[str, int]
    dropped: dict[str, dict[str, int]]
    examples: list[tuple[str, str, str]]
    ignored: dict[str, int]
    subjects: int = 0
    split: dict[str, int] = field(default_factory=dict)
    statements: list[str] = field(default_factory=list)


def ingest(options: IngestOptions, progress: Progress | None = None) -> IngestReport:
    """Read folders of ECG and CMR files into a cohort.

    Memory is bounded by one array file (or one study) for each worker. A killed ingest goes on when it is repeated with
    the same files and options.

    Args:
        options: What to read and how.
        progress: Called with (chunks done, chunks in all).

    Raises:
        ValueError, FileNotFoundError, FileExistsError: Options, labels table or target are wrong; files never are.
    """
    options.check()
    check_target(options.out, options.force)
    labels = None
    if options.labels is not None:
        labels = LabelTable(options.labels, options.subject_column, options.item_column)
        for column in (options.split_column, *options.group_columns):
            labels.require(column)
    plan = make_plan(options, labels)
    if not plan.items:
        return IngestReport(None, {}, {}, {}, [], dict(plan.ignored))
    if labels is not None:
        labels.check_matches([item.label_row for item in plan.items], [item.path.stem for item in plan.items[:1]])
    chunks = _chunks(plan.items)
    identity = {**_origin(options), "items": plan.digest(), "version": __version__}
    if options.labels is not None:
        identity["labels"] = sha256(options.labels)
    with CohortWriter(options.out, identity, len(chunks), "uint16", options.force) as writer:
        for done in _run(writer, chunks, options):
            if progress is not None:
                progress(done, len(chunks))
        rows = writer.collect()
        report = _report(rows, plan)
        if not rows["recordings"] and not rows["studies"]:
            writer.discard()
            return report
        dense = _renumber(rows)
        specs = _add_labels(rows, dense, labels, plan, options)
        split = _split(dense, labels, plan, options)
        schema = CohortSchema(
            name=options.out.name,
            provenance=options.provenance,
            created_with=__version__,
            labels=tuple(specs),
            group_columns=_groups(rows, options),
            origin=_origin(options),
        )
        out = writer.finish(rows, schema, [split])
    if options.keep_map is not None:
        _write_map(options.keep_map, plan, dense)
    statements = _statements(plan, labels, split, len(dense))
    parts = {name: len(members) for name, members in split.parts().items()}
    return replace(report, out=out, subjects=len(dense), split=parts, statements=statements)


def _chunks(items: list[Item]) -> list[list[Item]]:
    """Items in chunks of one kind."""
    chunks: list[list[Item]] = []
    for item in items:
        if not chunks or chunks[-1][0].kind != item.kind or len(chunks[-1]) >= CHUNK_ITEMS[item.kind]:
            chunks.append([])
        chunks[-1].append(item)
    return chunks


def _origin(options: IngestOptions) -> dict[str, Any]:
    """The options that decide the content, without any path."""
    paths = {"out", "ecg", "cmr", "labels", "keep_map", "workers", "force", "provenance"}
    values = {name: value for name, value in asdict(options).items() if name not in paths}
    return {"kind": "ingested", **values}


def _run(writer: CohortWriter, chunks: list[list[Item]], options: IngestOptions) -> Iterator[int]:
    roots = [root for root in (options.ecg, options.cmr) if root is not None]
    names = tuple(dict.fromkeys(str(name) for root in roots for name in (root, root.resolve())))
    read = ReadOptions(
        options.unit, options.rate_hz, options.leads, options.gain_uv_per_unit, options.incomplete, names
    )
    todo = writer.missing()
    yield writer.merge_ready()
    jobs = [(writer.chunk_folder(index), chunks[index], read, writer.cine_dtype) for index in todo]
    if options.workers == 1 or len(jobs) <= 1:
        for job in jobs:
            read_chunk(*job)
            yield writer.merge_ready()
        return
    from joblib import Parallel, delayed, parallel_config

    with parallel_config(backend="loky", inner_max_num_threads=1):
        pool = Parallel(n_jobs=min(options.workers, len(jobs)), return_as="generator_unordered")
        for _ in pool(delayed(read_chunk)(*job) for job in jobs):
            yield writer.merge_ready()


def _report(rows: Rows, plan: Plan) -> IngestReport:
    ledger = rows["ledger"]
    kinds = sorted({item.kind for item in plan.items})
    items = {kind: {row["item"] for row in ledger if row["kind"] == kind} for kind in kinds}
    kept = {kind: {row["item"] for row in ledger if row["kind"] == kind and row["status"] == "kept"} for kind in kinds}
    examples: dict[tuple[str, str], tuple[str, str, str]] = {}
    for row in ledger:
        if row["status"] == "dropped":
            examples.setdefault((row["kind"], row["reason"]), (row["item"], row["reason"], row["detail"]))
    return IngestReport(
        out=None,
        read={kind: len(names) for kind, names in items.items()},
        kept={kind: len(names) for kind, names in kept.items()},
        dropped={kind: dropped_by_reason(ledger, kind) for kind in kinds},
        examples=list(examples.values()),
        ignored=dict(plan.ignored.most_common()),
    )


def _renumber(rows: Rows) -> dict[int, int]:
    """Make the numbers of the subjects that were kept dense; returns provisional -> final."""
    kept = sorted({row["subject"] for name in ("recordings", "studies") for row in rows[name]})
    dense = {subject: number for number, subject in enumerate(kept)}
    for name in ("recordings", "studies"):
        for row in rows[name]:
            row["subject"] = dense[row["subject"]]
    return dense


def _add_labels(
    rows: Rows, dense: dict[int, int], labels: LabelTable | None, plan: Plan, options: IngestOptions
) -> list[LabelSpec]:
    """Fill subjects, labels and recording_labels; returns the label specs."""
    keys = {number: key for key, number in plan.subject_keys.items()}
    own_rows = rows["recording_labels"]
    rows["recording_labels"] = []
    if labels is None:
        for number in dense.values():
            rows["subjects"].append({"subject": number, "sex": "", "age_years": float("nan"), "site": ""})
            rows["labels"].append({"subject": number})
        return []
    leave_out = [column for column in (options.split_column, *options.group_columns) if column]
    specs, values = labels.labels(options.label_columns, leave_out)
    several = False
    for provisional, number in dense.items():
        mine = labels.rows_of(keys[provisional])
        several |= len(mine) > 1
        fields = labels.subject_fields(mine[0] if mine else -1, options.group_columns)
        rows["subjects"].append({"subject": number, **fields})
        rows["labels"].append({"subject": number, **aggregate(specs, values[mine])})
    if several and specs:
        labels.statements.append(
            "some subjects have several rows: labels belong to recordings, and a subject's label is their maximum "
            "(binary, event), minimum (time), first (category) or mean (number)"
        )
        specs = [replace(spec, level="recording") for spec in specs]
        for row in own_rows:
            found = values[row["label_row"]]
            named = {spec.name: float(found[position]) for position, spec in enumerate(specs)}
            rows["recording_labels"].append({"recording": row["recording"], **named})
    return specs


def _split(dense: dict[int, int], labels: LabelTable | None, plan: Plan, options: IngestOptions) -> Split:
    if labels is None or not options.split_column:
        return make_split(np.arange(len(dense)), options.seed)
    keys = {number: key for key, number in plan.subject_keys.items()}
    folds = {
        number: labels.folds(options.split_column, labels.rows_of(keys[provisional]))
        for provisional, number in dense.items()
    }
    return split_from_folds(folds, options.split, options.split_column)


def _groups(rows: Rows, options: IngestOptions) -> tuple[str, ...]:
    known = [name for name in ("sex", "site") if any(row.get(name) for row in rows["subjects"])]
    return (*known, *options.group_columns)


def _statements(plan: Plan, labels: LabelTable | None, split: Split, n_subjects: int) -> list[str]:
    statements = list(labels.statements) if labels is not None else ["no labels table: every item is its own subject"]
    if labels is not None:
        unlabeled = sum(item.label_row < 0 for item in plan.items)
        if unlabeled:
            statements.append(f"{unlabeled} of {len(plan.items)} items have no row in the labels table")
    single = Counter((item.kind, item.subject) for item in plan.items)
    shared = sum(count for count in single.values() if count > 1)
    if shared and (labels is None or labels.subject_column is None):
        statements.append(f"{shared} items share their name with another one: taken as items of one subject")
    outside = n_subjects - sum(len(members) for members in split.parts().values())
    if outside:
        statements.append(f"{outside} subjects are in no part of the split")
    return statements


def _write_map(path: Path, plan: Plan, dense: dict[int, int]) -> None:
    """The list of files, keys and subjects, readable by its owner only."""
    keys = {number: key for key, number in plan.subject_keys.items()}
    temporary = path.with_name(path.name + ".tmp")
    with open(os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", newline="") as stream:  # noqa: PTH123
        writer = csv.writer(stream)
        writer.writerow(["kind", "item", "file", "key", "subject"])
        for item in plan.items:
            subject = dense.get(item.subject, -1)
            writer.writerow([item.kind, item.name, item.path, keys[item.subject], subject])
    temporary.replace(path)
