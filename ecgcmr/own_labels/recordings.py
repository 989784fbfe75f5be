"""A cohort of ECG files with own labels: the files that the table knows are ingested, the others are left alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.cohort.ingest import IngestReport, ingest
from ecgcmr.cohort.ingest_labels import LabelTable
from ecgcmr.cohort.ingest_options import IngestOptions
from ecgcmr.cohort.ingest_plan import make_plan
from ecgcmr.cohort.label_file import LabelColumns, write_labels
from ecgcmr.cohort.ledger import Reason
from ecgcmr.own_labels.request import FinetuneRequest
from ecgcmr.own_labels.table import OwnLabels, listed

Progress = Callable[[int, int], None]
MIN_MATCHED = 0.5


def ingest_recordings(
    own: OwnLabels, request: FinetuneRequest, folds: dict[str, tuple[str, ...]], out: Path, progress: Progress | None
) -> tuple[Path, list[str]]:
    """Ingest the ECG files that a table of labels knows.

    Args:
        own: The table.
        request: With the folder and what its files do not say.
        folds: Part -> values of the table's fold column; empty where it has none.
        out: Folder of the new cohort.
        progress: Called with (files done, files in all).

    Returns:
        The cohort, and what must be known about it, one sentence each.

    Raises:
        ValueError: The table knows none of the files, or less than half of its rows match one, or no file could be
            used; says how many, which, and what to do.
    """
    assert request.ecg is not None, "asked for with --ecg"
    with _as_file(own) as table:
        options = IngestOptions(
            out=out,
            ecg=request.ecg,
            labels=table,
            unit=request.unit,
            rate_hz=request.rate_hz,
            leads=request.leads,
            subject_column=own.subject_column,
            item_column=None if own.is_subject else own.key_column,
            label_columns=tuple(spec.name for spec in own.specs),
            group_columns=request.group_columns,
            sex_column="sex" if "sex" in own.about else None,
            age_column="age_years" if "age_years" in own.about else None,
            only_labelled=True,
            subject_regex=request.path_pattern,
            split_column=own.fold_column if folds else None,
            split=folds,
            seed=request.seed,
            provenance=request.provenance,
            workers=request.workers,
        )
        try:
            notes = [_check_matches(own, request, options)]
            report = ingest(options, progress)
        except ValueError as error:  # the user's file, not the copy of it
            raise ValueError(str(error).replace(str(table), str(own.path))) from error
    if report.out is None or not report.kept.get("ecg"):
        raise ValueError(f"--ecg {request.ecg}: no file could be used: {_dropped(report)}")
    dropped = report.read["ecg"] - report.kept["ecg"]
    if dropped:
        notes.append(f"{dropped} of {report.read['ecg']} files could not be used: {_dropped(report)}")
    for flag, count in report.flags.get("ecg", {}).items():
        notes.append(f"{count} recordings have the quality flag {flag!r}")
    return report.out, [note for note in notes if note]


def _check_matches(own: OwnLabels, request: FinetuneRequest, options: IngestOptions) -> str:
    """Say which rows have no file, before a file is read."""
    recipe, root = options.resolve()
    assert recipe.table is not None
    labels = LabelTable(recipe.table, root)
    plan = make_plan(recipe, root, labels)
    if not len(plan):
        unknown = [relative for _, relative, reason in plan.left_out if reason is Reason.NOT_WANTED]
        if not unknown:
            raise ValueError(f"--ecg {request.ecg}: there is no ECG file in this folder or below it")
        raise ValueError(
            f"{own.path}: none of its {len(own.keys)} rows matches one of the {len(unknown)} ECGs below {request.ecg}: "
            f"column {own.key_column!r} holds {_look(own.keys[0])!r} and files are called {_look(unknown[0])!r} "
            "(digits as 0). Name the column of the recordings with --item-column, or say with --path-pattern which "
            "part of a path is the key"
        )
    if own.is_subject:
        matched = labels.subject_of_rows(plan.subject_keys) >= 0
    else:
        matched = np.zeros(len(own.keys), dtype=bool)
        matched[[row for row in plan.label_rows if row >= 0]] = True
    return unmatched(own, matched, f"an ECG file below {request.ecg}", request.allow_unmatched)


def unmatched(own: OwnLabels, matched: NDArray[np.bool_], what: str, allow: bool) -> str:
    """Words about rows that match nothing, "" when all do.

    Raises:
        ValueError: More than half of them do, which is rarely meant.
    """
    if matched.all():
        return ""
    lost = own.rows[~matched]
    text = (
        f"{len(lost)} of {len(matched)} rows match no {what.removeprefix('an ').removeprefix('a ')} "
        f"({matched.mean():.0%} match {what}; without one: data rows {listed(lost)})"
    )
    if matched.mean() < MIN_MATCHED and not allow:
        example = own.keys[int(np.flatnonzero(~matched)[0])]
        raise ValueError(
            f"{own.path}: {text}; their keys look like {_look(example)!r} (digits as 0). Correct the column "
            f"{own.key_column!r}, or say --allow-unmatched if this is as it should be"
        )
    return text


@contextmanager
def _as_file(own: OwnLabels) -> Iterator[Path]:
    """The checked table as a file with declared kinds, which ingest reads; it holds keys and is gone at the end."""
    table = pd.DataFrame({own.key_column: own.keys})
    if own.subjects is not None:
        table[str(own.subject_column)] = own.subjects
    if own.folds is not None:
        table[str(own.fold_column)] = own.folds
    for name in own.about:
        table[name] = own.about[name].to_numpy()
    labels = own.take(np.arange(len(own.keys)))
    table = pd.concat([table, labels.drop(columns=[name for name in labels if name in table])], axis=1)
    with tempfile.TemporaryDirectory(prefix="ecgcmr-") as folder:
        path = Path(folder) / "labels.csv"
        write_labels(path, table, LabelColumns(own.specs))
        yield path


def _dropped(report: IngestReport) -> str:
    reasons = report.dropped.get("ecg", {})
    words = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
    first = next((detail for _, reason, detail in report.examples if reason in reasons), "")
    return f"{words or 'there was none'}{f' (the first: {first})' if first else ''}"


def _look(text: str) -> str:
    return "".join("0" if letter.isdigit() else letter for letter in text)[:40]
