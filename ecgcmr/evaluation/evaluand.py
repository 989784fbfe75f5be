"""What is evaluated: weights, cohort, split and targets that fit together, and the items of all parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgcmr.cohort.dataset import DatasetOptions, PairedDataset
from ecgcmr.cohort.labels import item_labels
from ecgcmr.cohort.splits import Split, open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.tabular import encode_items
from ecgcmr.evaluation.arm_tables import Items, make_items
from ecgcmr.evaluation.embeddings import Modality
from ecgcmr.evaluation.targets import Target, find_targets
from ecgcmr.hub.covariates import columns_of
from ecgcmr.hub.weights import Weights, load_weights
from ecgcmr.models.tabular import tabular_input


@dataclass(frozen=True)
class Evaluand:
    """What is evaluated."""

    weights: Weights
    cohort: Cohort
    split: Split
    modality: Modality
    targets: list[Target]
    absent: list[str]


def open_evaluand(weights: str | Path, cohort: str | Path, name: str) -> Evaluand:
    """Load weights, cohort and split, and match outputs with labels.

    Raises:
        FileNotFoundError, ValueError: What `evaluate_weights` says.
    """
    loaded, opened = load_weights(weights), Cohort.open(cohort)
    split = open_split(opened, name)
    run = loaded.config.get("run") or {}
    hashed = str(opened.schema.files.get(f"splits/{name}.json", ""))[:16]
    if run.get("cohort") == opened.schema.name and (run.get("split"), run.get("split_sha256")) != (name, hashed):
        raise ValueError(
            f"{loaded.folder} was trained with the split {run.get('split')!r} of this cohort, and subjects that are "
            f"tested in {name!r} may have been trained on; evaluate with the split of the run"
        )
    targets, absent = find_targets(loaded, opened)
    width = int(loaded.modules["head"].config["in_features"])  # type: ignore[index]
    if loaded.config["head_options"].get("tabular"):
        width -= int(loaded.modules["tabular"].embed_dim)  # type: ignore[arg-type]
    fits = [m for m in ("ecg", "cmr") if m in loaded.modules and getattr(loaded.modules[m], "embed_dim", None) == width]
    if not fits:
        raise ValueError(f"{loaded.folder}: no encoder gives the {width} numbers that its head reads")
    modality: Modality = "ecg" if fits[0] == "ecg" else "cmr"
    return Evaluand(loaded, opened, split, modality, targets, absent)


def evaluated_items(what: Evaluand, columns: pd.DataFrame) -> tuple[PairedDataset, Items]:
    """Items of all subjects of the split that have the modality, with labels and group columns (by subject)."""
    names = list(dict.fromkeys(column for target in what.targets for column in target.columns))
    ecg = what.modality == "ecg"
    pipelines = (what.weights.ecg_pipeline, None) if ecg else (None, what.weights.cmr_pipeline)
    members = np.concatenate([what.split.train, what.split.val, what.split.test])
    options = DatasetOptions(require=what.modality)
    dataset = PairedDataset(what.cohort, members, pipelines[0], pipelines[1], names, options)
    labels = item_labels(what.cohort, names, dataset.subjects, dataset.recording_rows)
    numbers = dataset.recording_rows if ecg else dataset.study_rows
    arrays = (dataset.subjects, numbers, what.split.part_of(dataset.subjects))
    return dataset, make_items(arrays, what.targets, {name: labels[:, k] for k, name in enumerate(names)}, columns)


def tabular_inputs(what: Evaluand, dataset: PairedDataset, chosen: NDArray[np.int64]) -> Tensor | None:
    """What a head reads beside the embedding (n, 2 C), from the cohort; None for a head that reads the signal alone.

    A column that the cohort lacks is missing for everybody.
    """
    if not what.weights.config["head_options"].get("tabular"):
        return None
    values, known = encode_items(dataset.with_tabular(columns_of(what.weights.modules)))
    return tabular_input(torch.from_numpy(values), torch.from_numpy(known))[torch.from_numpy(chosen)]


def crop_samples(what: Evaluand) -> int | None:
    """Samples that an ECG encoder takes, from the start of the recording as everywhere else; None for CMR."""
    if what.modality == "cmr":
        return None
    return int(what.weights.modules["ecg"].config["n_samples"])  # type: ignore[index]


def identity(what: Evaluand, parts: Sequence[str]) -> dict[str, Any]:
    """What decides the embeddings."""
    pipeline = what.weights.ecg_pipeline if what.modality == "ecg" else what.weights.cmr_pipeline
    assert pipeline is not None, "weights of an encoder hold its pipeline"
    files = {name: value for name, value in what.cohort.schema.files.items() if "label" not in name}
    return {
        "weights": what.weights.config["sha256"],
        "pipeline": pipeline.fingerprint(),
        "modality": what.modality,
        "cohort": [what.cohort.schema.name, files, dict(what.cohort.schema.arrays)],
        "split": what.split.to_json(),
        "parts": sorted(parts),
    }
