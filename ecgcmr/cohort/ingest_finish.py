"""The end of an ingest: from the rows of the chunks to the tables of a cohort, chunk by chunk."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from ecgcmr import __version__
from ecgcmr.cohort.array_content import ArrayContent
from ecgcmr.cohort.ingest_about import About
from ecgcmr.cohort.ingest_plan import KINDS
from ecgcmr.cohort.pairing import PairCounts, count_pairs, pair
from ecgcmr.cohort.schema import CohortSchema
from ecgcmr.cohort.splits import PARTS, Split, make_split
from ecgcmr.cohort.tables import to_table
from ecgcmr.cohort.writer import CohortWriter

_KEYS = {"recordings": "recording", "studies": "study"}


@dataclass
class Counts:
    """What the ledger holds, counted.

    Attributes:
        read: Kind -> items.
        kept: Kind -> items kept.
        dropped: Kind -> reason -> items dropped.
        flags: Kind -> quality flag -> recordings or studies that have it.
        examples: (item, reason, detail) of dropped items, the first of each kind and reason.
    """

    read: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    dropped: dict[str, Counter[str]] = field(default_factory=dict)
    flags: dict[str, Counter[str]] = field(default_factory=dict)
    examples: dict[tuple[str, str], tuple[str, str, str]] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any], same_item: bool) -> None:
        """Count a row of the ledger; an item of several studies has several rows, one after the other."""
        kind = row["kind"]
        self.flags.setdefault(kind, Counter()).update(flag for flag in row["flags"].split(",") if flag)
        if same_item:
            return
        self.read[kind] += 1
        if row["status"] == "kept":
            self.kept[kind] += 1
        else:
            self.dropped.setdefault(kind, Counter())[row["reason"]] += 1
            self.examples.setdefault((kind, row["reason"]), (row["item"], row["reason"], row["detail"]))


@dataclass(frozen=True)
class Ended:
    """What the end of an ingest found.

    Attributes:
        out: The cohort, or the folder of the report; None when nothing was kept.
        counts: What the ledger holds.
        subjects: Number of subjects.
        split: Part -> number of subjects.
        pairs: How ECG and CMR were paired, when there are both.
        dense: Provisional number of each subject (n,).
    """

    out: Path | None
    counts: Counts
    subjects: int = 0
    split: dict[str, int] = field(default_factory=dict)
    pairs: PairCounts | None = None
    dense: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


class _Scan:
    """First look at the rows: whose they are, on which day, and counts; a few bytes for each."""

    def __init__(self, writer: CohortWriter) -> None:
        self.counts = Counts()
        self.subjects = {name: array("i") for name in _KEYS}
        self.days = {name: array("d") for name in _KEYS}
        self.views = array("b")
        self.view_names: list[str] = []
        self.label_rows = array("i")
        for rows in writer.iter_rows():
            for name in _KEYS:
                self.subjects[name].extend(row["subject"] for row in rows[name])
                self.days[name].extend(row["visit_days"] for row in rows[name])
            for row in rows["studies"]:
                if row["view"] not in self.view_names:
                    self.view_names.append(row["view"])
                self.views.append(self.view_names.index(row["view"]))
            self._count(rows["ledger"])
            if rows["recording_labels"]:
                self._labelled(rows["recording_labels"])

    def _count(self, ledger: list[dict[str, Any]]) -> None:
        before = None
        for row in ledger:
            self.counts.add(row, same_item=before == (row["kind"], row["item"]))
            before = (row["kind"], row["item"])

    def _labelled(self, rows: list[dict[str, Any]]) -> None:
        total = len(self.subjects["recordings"])
        self.label_rows.extend([-1] * (total - len(self.label_rows)))
        for row in rows:
            self.label_rows[row["recording"]] = row["label_row"]

    def of_subjects(self) -> dict[str, NDArray[np.int64]]:
        return {name: np.array(values, dtype=np.int64) for name, values in self.subjects.items()}

    def visit_days(self, size: int) -> dict[str, NDArray[np.float64]]:
        """Days since the subject's first visit, over recordings and studies."""
        owners = self.of_subjects()
        days = {name: np.array(values, dtype=np.float64) for name, values in self.days.items()}
        first = np.full(size, np.inf)
        for name in _KEYS:
            known = ~np.isnan(days[name])
            np.minimum.at(first, owners[name][known], days[name][known])
        return {name: days[name] - first[owners[name]] for name in _KEYS}


def finish(writer: CohortWriter, about: About) -> Ended:
    """Write tables, split and cohort.json of a writer whose chunks are all merged, and give the cohort its name."""
    scan = _Scan(writer)
    owners = scan.of_subjects()
    kept = np.unique(np.concatenate([owners[name] for name in _KEYS]))
    if about.facts["origin"]["qc"] == "report":
        return Ended(_write_report(writer, scan.counts), scan.counts, len(kept))
    if not len(kept):
        writer.discard()
        return Ended(None, scan.counts)
    size = len(about.subjects)
    number = np.full(size, -1, dtype=np.int64)
    number[kept] = np.arange(len(kept))
    days = scan.visit_days(size)
    seen = ArrayContent()
    tables: dict[str, Any] = {
        "subjects": _subjects(about, kept),
        "labels": _labels(about, kept),
        "recordings": _stream(writer, "recordings", number, days["recordings"], seen),
        "studies": _stream(writer, "studies", number, days["studies"], seen),
        "ledger": _ledger(writer, about),
    }
    if len(about.row_labels):
        tables["recording_labels"] = _recording_labels(about, scan, len(owners["recordings"]))
    pairs, counts = _pairs(scan, days, about.facts["origin"]["pair_days"])
    if pairs is not None and len(pairs):
        tables["pairs"] = pairs
    split = _split(about, kept)
    schema = CohortSchema(
        name=writer.out.name,
        provenance=about.facts["provenance"],
        created_with=__version__,
        labels=tuple(about.specs),
        group_columns=_groups(about, kept),
        origin=about.facts["origin"],
    )
    out = writer.finish(tables, schema, [split], seen)
    parts = {name: len(members) for name, members in split.parts().items()}
    return Ended(out, scan.counts, len(kept), parts, counts, kept)


def _write_report(writer: CohortWriter, counts: Counts) -> Path:
    """A ledger and a summary, and no cohort."""
    summary = {
        "read": dict(counts.read),
        "usable": dict(counts.kept),
        "dropped": {kind: dict(reasons.most_common()) for kind, reasons in counts.dropped.items()},
        "flags": {kind: dict(found.most_common()) for kind, found in counts.flags.items()},
    }
    ledger = pa.concat_tables([to_table("ledger", rows["ledger"]) for rows in writer.iter_rows()])
    unplaced = pa.array(np.full(len(ledger), -1))
    ledger = ledger.set_column(ledger.schema.get_field_index("row"), "row", unplaced)
    return writer.finish_report(ledger, json.dumps(summary, indent=2, sort_keys=True) + "\n")


def _stream(
    writer: CohortWriter, name: str, number: NDArray[np.int64], days: NDArray[np.float64], seen: ArrayContent
) -> Iterator[pa.Table]:
    """Rows of recordings or studies with final subjects and days, chunk by chunk."""
    yield to_table(name, [])
    for rows in writer.iter_rows():
        found = rows[name]
        for row in found:
            row["subject"] = int(number[row["subject"]])
            row["visit_days"] = float(days[row[_KEYS[name]]])
        seen.add(name, found)
        yield to_table(name, found)


def _ledger(writer: CohortWriter, about: About) -> Iterator[pa.Table]:
    yield to_table("ledger", [])
    for rows in writer.iter_rows():
        yield to_table("ledger", rows["ledger"])
    yield about.ignored


def _subjects(about: About, kept: NDArray[np.int64]) -> pa.Table:
    frame = about.subjects.drop(columns="part", errors="ignore").iloc[kept].reset_index(drop=True)
    frame.insert(0, "subject", np.arange(len(kept)))
    head = [name for name in ("subject", "sex", "age_years", "site") if name in frame]
    table = pa.Table.from_pandas(frame[[*head, *(name for name in frame if name not in head)]], preserve_index=False)
    return table.replace_schema_metadata(None)


def _labels(about: About, kept: NDArray[np.int64]) -> pa.Table:
    columns = {name: about.labels[name].to_numpy(dtype=np.float64)[kept] for name in about.labels}
    return pa.table({"subject": np.arange(len(kept)), **columns})


def _recording_labels(about: About, scan: _Scan, size: int) -> pa.Table:
    rows = np.full(size, -1, dtype=np.int64)
    rows[: len(scan.label_rows)] = scan.label_rows
    labelled = np.flatnonzero(rows >= 0)
    columns = {name: about.row_labels[name].to_numpy(dtype=np.float64)[rows[labelled]] for name in about.row_labels}
    return pa.table({"recording": labelled, **columns})


def _pairs(
    scan: _Scan, days: dict[str, NDArray[np.float64]], within_days: float | None
) -> tuple[pa.Table | None, PairCounts | None]:
    owners = scan.of_subjects()
    if any(not len(owners[name]) for name in _KEYS):
        return None, None
    frames = {
        name: pd.DataFrame({key: np.arange(len(owners[name])), "subject": owners[name], "visit_days": days[name]})
        for name, key in _KEYS.items()
    }
    frames["studies"]["view"] = np.array(scan.view_names, dtype=object)[np.array(scan.views)]
    pairs = pair(frames["recordings"], frames["studies"], within_days)
    counts = count_pairs(frames["recordings"], frames["studies"], pairs)
    table = pa.Table.from_pandas(pairs, preserve_index=False).replace_schema_metadata(None)
    return table, counts


def _split(about: About, kept: NDArray[np.int64]) -> Split:
    if about.folds is None:
        return make_split(np.arange(len(kept)), about.facts["origin"]["seed"])
    parts = about.subjects["part"].to_numpy(dtype=object)[kept]
    members = {part: np.flatnonzero(parts == part).astype(np.int64) for part in PARTS}
    return Split(name="default", how=about.folds, **members)


def _groups(about: About, kept: NDArray[np.int64]) -> tuple[str, ...]:
    chosen = about.subjects.iloc[kept]
    known = [name for name in ("sex", "site") if (chosen[name] != "").any()]
    return tuple(dict.fromkeys((*known, *about.groups)))


def items_of(counts: Counts) -> list[str]:
    """Kinds that were read, in the order of the cohort."""
    return [kind for kind in KINDS if counts.read[kind]]
