"""What is in a cohort, as plain values; the command line prints them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ecgcmr.cohort.labels import label_statistics
from ecgcmr.cohort.ledger import dropped_by_reason
from ecgcmr.cohort.splits import read_split
from ecgcmr.cohort.store import Cohort


@dataclass(frozen=True)
class CohortInfo:
    """Summary of a cohort.

    Attributes:
        facts: Name -> value, for the head of the page.
        ecg: One row for each combination of rate, duration, leads and unit.
        cmr: One row for each combination of view and shape.
        labels: One row for each label.
        splits: One row for each split: name and subjects in each part.
        groups: Group column -> value -> number of subjects.
        dropped: Kind -> reason -> number of dropped items.
        megabytes: Array or cache -> size [MB].
    """

    facts: Mapping[str, str]
    ecg: list[dict[str, Any]] = field(default_factory=list)
    cmr: list[dict[str, Any]] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)
    splits: list[dict[str, Any]] = field(default_factory=list)
    groups: dict[str, dict[str, int]] = field(default_factory=dict)
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    megabytes: dict[str, float] = field(default_factory=dict)


def summarize(path: str | Path) -> CohortInfo:
    """Summarize a cohort folder; raises what `Cohort.open` raises."""
    cohort = Cohort.open(path)
    ledger = cohort.ledger.to_dict("records")
    return CohortInfo(
        facts=_facts(cohort),
        ecg=_counts(cohort, "recordings", ["rate_hz", "n_samples", "n_leads", "unit", "source"]),
        cmr=_counts(cohort, "studies", ["view", "n_slices", "n_frames", "rows", "columns", "source"]),
        labels=_labels(cohort),
        splits=[
            {"split": name, **{part: len(members) for part, members in _split(cohort, name).items()}}
            for name in cohort.split_names
        ],
        groups=_groups(cohort),
        dropped={kind: dropped_by_reason(ledger, kind) for kind in ("ecg", "cmr")},
        megabytes=_sizes(cohort),
    )


def _facts(cohort: Cohort) -> dict[str, str]:
    recordings, studies = cohort.recordings, cohort.studies
    both = np.intersect1d(recordings["subject"], studies["subject"])
    origin = {
        key: value
        for key, value in cohort.schema.origin.items()
        if value is not None and not isinstance(value, dict | list)
    }
    return {
        "name": cohort.schema.name,
        "provenance": cohort.schema.provenance,
        "format version": str(cohort.schema.format_version),
        "written by": f"ecgcmr {cohort.schema.created_with}",
        "origin": ", ".join(f"{key} {value}" for key, value in origin.items()),
        "subjects": f"{len(cohort)} ({len(both)} with ECG and CMR)",
        "recordings": str(len(recordings)),
        "studies": str(len(studies)),
    }


def _split(cohort: Cohort, name: str) -> dict[str, Any]:
    return read_split(cohort.path / "splits" / f"{name}.json").parts()  # leaks are told by validate


def _counts(cohort: Cohort, table: str, columns: list[str]) -> list[dict[str, Any]]:
    frame = getattr(cohort, table)
    if not len(frame):
        return []
    counts = frame.groupby(columns, sort=True).size().reset_index(name="count")
    return [{str(key): value for key, value in row.items()} for row in counts.to_dict("records")]


def _labels(cohort: Cohort) -> list[dict[str, Any]]:
    rows = []
    for spec in cohort.schema.labels:
        found = label_statistics(spec, cohort.labels[spec.name].to_numpy(dtype=np.float64))
        rows.append(
            {
                "label": spec.name,
                "kind": spec.kind,
                "unit": spec.unit,
                "observed": found.n,
                "mean": found.mean,
                "sd": found.std,
                "prevalence": found.prevalence,
                "ukb_field": spec.ukb_field,
            }
        )
    return rows


def _groups(cohort: Cohort) -> dict[str, dict[str, int]]:
    found = {}
    for column in cohort.schema.group_columns:
        counts = cohort.subjects[column].value_counts(dropna=False).sort_index()
        if len(counts) <= 20:  # a number such as the body surface area is no group to be counted
            found[column] = {str(value): int(count) for value, count in counts.items()}
    return found


def _sizes(cohort: Cohort) -> dict[str, float]:
    sizes = {str(entry["file"]): entry["bytes"] / 1e6 for entry in cohort.schema.arrays.values()}
    for folder in sorted((cohort.path / "cache").glob("*/")):
        sizes[f"cache/{folder.name}"] = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    return sizes
