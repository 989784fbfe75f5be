"""ingest: folders of real files in, one cohort out; a broken file is a row of the ledger and never stops the job."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgcmr import __version__
from ecgcmr.cohort.ingest_about import About, make_about
from ecgcmr.cohort.ingest_finish import Counts, Ended, finish
from ecgcmr.cohort.ingest_labels import LabelTable, VisitTable
from ecgcmr.cohort.ingest_options import IngestOptions
from ecgcmr.cohort.ingest_plan import Plan, make_plan
from ecgcmr.cohort.ingest_read import ReadOptions
from ecgcmr.cohort.ingest_run import Job, run_chunks
from ecgcmr.cohort.ingest_tables import find_table
from ecgcmr.cohort.pairing import PairCounts
from ecgcmr.cohort.privacy import load_or_create_salt
from ecgcmr.cohort.recipe import CmrFiles, EcgFiles, Recipe
from ecgcmr.cohort.tables import sha256
from ecgcmr.cohort.writer import ABOUT_FOLDER, CohortWriter, check_target

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did.

    Attributes:
        out: The cohort, the part, or the folder of the report; None when nothing was kept and nothing was written.
        read: Kind -> items seen.
        kept: Kind -> items kept.
        dropped: Kind -> reason -> items dropped.
        examples: (item, reason, detail) of dropped items, the first of each kind and reason.
        where: (kind, reason) -> the first dropped item.
        ignored: Suffix -> files that are no signals.
        flags: Kind -> quality flag -> recordings or studies that have it.
        subjects: Number of subjects.
        split: Part -> number of subjects.
        pairs: How ECG and CMR were paired, when there are both.
        statements: What was inferred, one sentence each.
    """

    out: Path | None
    read: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    examples: list[tuple[str, str, str]] = field(default_factory=list)
    where: dict[tuple[str, str], str] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    flags: dict[str, dict[str, int]] = field(default_factory=dict)
    subjects: int = 0
    split: dict[str, int] = field(default_factory=dict)
    pairs: PairCounts | None = None
    statements: list[str] = field(default_factory=list)


def ingest(options: IngestOptions, progress: Progress | None = None) -> IngestReport:
    """Read folders of ECG and CMR files into a cohort.

    Memory is bounded by one array file (or one study) for each worker, beside some hundred bytes for each file. A
    killed ingest goes on when it is repeated with the same files and options, and ends with the same bytes.

    Args:
        options: What to read and how.
        progress: Called with (items done, items in all).

    Raises:
        ValueError, FileNotFoundError, FileExistsError: Options, recipe, tables or target are wrong; files never are.
    """
    options.check()
    check_target(options.out, options.force)
    recipe, root = options.resolve()
    salt = load_or_create_salt(options.salt, options.out) if options.salt is not None else None
    labels, visits, tables = _open_tables(recipe, root)
    plan = make_plan(recipe, root, labels, visits, salt)
    if not len(plan):
        return IngestReport(None, ignored=dict(plan.ignored))
    about = make_about(recipe, options, plan, labels, salt)
    del labels, visits  # as large as the tables; all that is needed from them is in the plan and in `about`
    chunks = plan.chunks()
    first, stop = _share(options.chunk, len(chunks))
    identity = {**about.facts["origin"], "items": plan.digest(), "version": __version__, "tables": tables}
    if options.chunk is not None:
        identity["chunk"] = list(options.chunk)
    with CohortWriter(options.out, identity, stop - first, "uint16", options.force) as writer:
        about.save(writer.partial / ABOUT_FOLDER)
        _read(writer, plan, chunks[first:stop], recipe, options, progress)
        if options.chunk is not None:
            out = writer.finish_part({"chunks": [first, stop, len(chunks)]})
            _keep_map(options.keep_map, plan, None)
            return IngestReport(out, statements=[f"part {options.chunk[0]} of {options.chunk[1]}: merge all parts"])
        ended = finish(writer, about)
    if ended.out is not None:
        _keep_map(options.keep_map, plan, ended.dense)
    return make_report(ended, about)


def _open_tables(recipe: Recipe, root: Path) -> tuple[LabelTable | None, VisitTable | None, dict[str, str]]:
    """The recipe's tables, as far as they are there or must be, and the hashes of their files."""
    labels = visits = None
    hashes: dict[str, str] = {}
    if recipe.table is not None:
        there = recipe.table.sidecar or find_table(root, recipe.table.file, recipe.table.required, "table.file")
        if there:
            labels = LabelTable(recipe.table, root)
            hashes["table"] = labels.fingerprint()
    if recipe.visits is not None:
        path = find_table(root, recipe.visits.file, recipe.visits.required, "visits.file")
        if path is not None:
            visits = VisitTable(recipe.visits, path)
            hashes["visits"] = sha256(path)
    return labels, visits, hashes


def _share(chunk: tuple[int, int] | None, count: int) -> tuple[int, int]:
    """First and last-but-one chunk of part i of n."""
    if chunk is None:
        return 0, count
    part, parts = chunk
    return count * (part - 1) // parts, count * part // parts


def _read(
    writer: CohortWriter,
    plan: Plan,
    chunks: list[range],
    recipe: Recipe,
    options: IngestOptions,
    progress: Progress | None,
) -> None:
    """Read all chunks that are missing."""
    roots = tuple(dict.fromkeys(str(name) for folder in plan.folders.values() for name in (folder, folder.resolve())))
    read = ReadOptions(recipe.ecg or EcgFiles(), recipe.cmr or CmrFiles(), roots, options.qc, options.time_limit_s)

    def job(index: int) -> Job:
        items = [plan.item(position) for position in chunks[index]]
        return writer.chunk_folder(index), items, read, writer.cine_dtype

    total = sum(map(len, chunks))
    done = total - sum(len(chunks[index]) for index in writer.missing())
    if progress is not None:
        progress(done, total)
    for count in run_chunks(writer, job, options):
        done += count
        if progress is not None:
            progress(done, total)


def make_report(ended: Ended, about: About) -> IngestReport:
    """The report of an ingest or a merge that has ended."""
    counts: Counts = ended.counts
    kinds = list(about.facts["kinds"])
    statements = list(about.statements)
    outside = ended.subjects - sum(ended.split.values())
    if ended.split and outside:
        statements.append(f"{outside} subjects are in no part of the split")
    if ended.pairs is not None:
        why = ", ".join(f"{reason} {count}" for reason, count in ended.pairs.unpaired.items())
        statements.append(
            f"{ended.pairs.paired} recordings have a study"
            + (f"; without one: {why}" if why else "")
            + (f"; {ended.pairs.studies_alone} studies have no recording" if ended.pairs.studies_alone else "")
        )
    return IngestReport(
        out=ended.out,
        read={kind: counts.read[kind] for kind in kinds},
        kept={kind: counts.kept[kind] for kind in kinds},
        dropped={kind: dict(counts.dropped.get(kind, {}).items()) for kind in kinds},
        examples=list(counts.examples.values()),
        where={key: example[0] for key, example in counts.examples.items()},
        ignored=about.facts["ignored"],
        flags={kind: dict(found.most_common()) for kind, found in counts.flags.items() if found},
        subjects=ended.subjects,
        split=ended.split,
        pairs=ended.pairs,
        statements=statements,
    )


def _keep_map(path: Path | None, plan: Plan, kept: NDArray[np.int64] | None) -> None:
    """Write the list of files, keys and subjects, readable by its owner only; in a part, with provisional numbers."""
    if path is None:
        return
    number = {subject: position for position, subject in enumerate(kept.tolist())} if kept is not None else None
    keys = list(plan.subject_keys)
    temporary = path.with_name(path.name + ".tmp")
    with open(os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", newline="") as stream:  # noqa: PTH123
        writer: Any = csv.writer(stream)
        writer.writerow(["kind", "item", "file", "key", "provisional" if number is None else "subject"])
        for index in range(len(plan)):
            item = plan.item(index)
            subject = item.subject if number is None else number.get(item.subject, -1)
            writer.writerow([item.kind, item.name, item.path, keys[item.subject], subject])
    temporary.replace(path)
