"""From files to batches: the cohort on disk (schema, store, ingest, splits, ledger) and what trainers take from it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Cohort": "store",
    "CohortWriter": "writer",
    "Split": "splits",
    "make_split": "splits",
    "open_split": "splits",
    "open_family": "split_plan",
    "check_stages": "split_plan",
    "SplitRequest": "split_plan",
    "split_cohort": "split_plan",
    "build_labels": "label_building.build",
    "simulate_cohort": "simulate",
    "IngestOptions": "ingest_options",
    "validate_cohort": "validate",
    "summarize": "info",
    "PairedDataset": "dataset",
    "MixedDataset": "mixture",
    "LabelStatistics": "labels",
    "DatasetOptions": "dataset",
    "BatchSampler": "sampler",
    "epoch_order": "sampler",
    "sequential_batches": "sampler",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import the home of a public name when it is asked for: opening a cohort must not wait for torch."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public names: {', '.join(__all__)}")
