"""Predictions of every arm: one table for each number of labels and label draw, written to disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor, nn

from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.cohort.splits import Split, open_split, write_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.demo import learning
from ecgcmr.demo.context import DIAGNOSES, MEASUREMENTS, SCRATCH, Arm, DemoContext
from ecgcmr.evaluation.embeddings import Embeddings, embed, window_options
from ecgcmr.evaluation.label_draws import draw_labels
from ecgcmr.evaluation.predictions import make_predictions, read_predictions, write_predictions
from ecgcmr.evaluation.probes import LogisticProbe, RidgeProbe
from ecgcmr.hub import load_weights
from ecgcmr.study.stages import Report

TARGETS = (*MEASUREMENTS, *DIAGNOSES)
VAL_SHARE = 4  # one validation label (early stopping, thresholds) for every four training labels


@dataclass(frozen=True)
class ArmEmbedding:
    """Embeddings of all subjects of the split, in the order of `subjects`."""

    subjects: NDArray[np.int64]
    encoder: NDArray[np.float32]
    projection: NDArray[np.float32] | None
    labels: NDArray[np.float64]

    def rows(self, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row of each wanted subject; the demo's cohort has one recording and one study of each."""
        return np.searchsorted(self.subjects, wanted)


def make_label_splits(context: DemoContext) -> None:
    """Write a split for every (number of labels, draw): nested draws, the same for every arm."""
    cohort = Cohort.open(context.cohort)
    split = open_split(cohort)
    positive = cohort.labels[list(DIAGNOSES)]
    for seed in range(context.preset.draws):
        orders = {}
        for part in ("train", "val"):
            pool = split.part(part)
            sizes = [
                n if part == "train" else max(n // VAL_SHARE, 2) for n in context.preset.label_counts if n is not None
            ]
            sizes = [min(size, len(pool)) for size in sizes]
            columns = {name: positive.loc[pool, name].to_numpy() for name in DIAGNOSES}
            orders[part] = draw_labels(pool, columns, sizes, np.random.default_rng([context.seed, seed, part == "val"]))
        for count in context.preset.label_counts:
            train = orders["train"].subjects(count)
            val = orders["val"].subjects(None if count is None else min(max(count // VAL_SHARE, 2), len(split.val)))
            name = split_name(context, count, seed)
            how = {"drawn_from": "default", "labels": len(train), "draw": seed}
            write_split(cohort, Split(name, np.sort(train), np.sort(val), split.test, how))


def split_name(context: DemoContext, count: int | None, seed: int) -> str:
    """Name of the split of a label draw."""
    return f"labels_{context.name_count(count)}_draw{seed}"


def embed_arm(context: DemoContext, arm: Arm) -> ArmEmbedding:
    """Embed all subjects with one arm's encoder and, where there is one, its projection; cached on disk."""
    path = context.out / "embeddings" / f"{arm.key}.npz"
    if path.exists():
        with np.load(path) as saved:
            return ArmEmbedding(saved["subjects"], saved["encoder"], saved.get("projection"), saved["labels"])
    assert arm.run is not None, "the arm from scratch has no embedding of its own"
    weights = load_weights(context.weights(arm.run))
    split = open_split(Cohort.open(context.cohort))
    subjects = np.sort(np.concatenate([split.train, split.val, split.test]))
    ecg, cmr = (weights.ecg_pipeline, None) if arm.modality == "ecg" else (None, weights.cmr_pipeline)
    dataset = PairedDataset(Cohort.open(context.cohort), subjects, ecg, cmr, labels=TARGETS)
    head = weights.modules.get(f"{arm.modality}_projection")
    found = embed(weights, dataset, arm.modality, options=window_options(weights, arm.modality, dataset.ecg_shape[-1]))
    projected = None
    if head is not None:
        first = window_options(weights, arm.modality, dataset.ecg_shape[-1], windows=1)
        projected = embed(weights, dataset, arm.modality, options=first, projection=head).values
    result = ArmEmbedding(found.subjects, found.values, projected, found.labels)
    _save_embedding(path, result)
    return result


def _save_embedding(path: Path, found: ArmEmbedding) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"subjects": found.subjects, "encoder": found.encoder, "labels": found.labels}
    if found.projection is not None:
        arrays["projection"] = found.projection
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **arrays)  # type: ignore[arg-type]
    partial.replace(path)


def predictions_path(context: DemoContext, arm: str, protocol: str, count: int | None, seed: int) -> Path:
    """File of one predictions table."""
    return context.out / "predictions" / f"{arm}-{protocol}-{context.name_count(count)}-{seed}.parquet"


def probe_arm(context: DemoContext, arm: Arm) -> None:
    """Fit ridge and logistic probes on every label draw and write their predictions."""
    found = embed_arm(context, arm)
    cohort = Cohort.open(context.cohort)
    for count, seed in label_draws(context):
        path = predictions_path(context, arm.key, "probe", count, seed)
        if path.exists():
            continue
        if _same_as_first(context, arm, "probe", count, seed):
            continue
        split = open_split(cohort, split_name(context, count, seed))
        train = found.rows(split.train)
        x, y = found.encoder[train], found.labels[train]
        n = len(MEASUREMENTS)
        ridge = RidgeProbe(share_penalty=True).fit(x, y[:, :n], split.train, MEASUREMENTS)
        logistic = LogisticProbe().fit(x, y[:, n:], split.train, DIAGNOSES)
        scored = np.concatenate([split.val, split.test])
        rows = found.rows(scored)
        predicted = np.hstack([ridge.predict(found.encoder[rows]), logistic.predict(found.encoder[rows])])
        write_predictions(path, _table(split, scored, found.labels[rows], predicted))


def _same_as_first(context: DemoContext, arm: Arm, protocol: str, count: int | None, seed: int) -> bool:
    """All labels are the same labels in every draw: repeat the predictions of the first one, if this is such a case."""
    if count is not None or seed == 0:
        return False
    first = read_predictions(predictions_path(context, arm.key, protocol, None, 0))
    write_predictions(predictions_path(context, arm.key, protocol, None, seed), first)
    return True


def finetune_arm(context: DemoContext, arm: Arm, report: Report) -> None:
    """Train the ECG encoder and a head on every label draw and write the predictions."""
    cohort = Cohort.open(context.cohort)
    draws = label_draws(context)
    for number, (count, seed) in enumerate(draws):
        report(number / len(draws))
        path = predictions_path(context, arm.key, "finetune", count, seed)
        if path.exists():
            continue
        if _same_as_first(context, arm, "finetune", count, seed):
            continue
        name = tune(context, arm, count, seed)
        split = open_split(cohort, split_name(context, count, seed))
        scored = np.concatenate([split.val, split.test])
        found = predict_run(context, name, cohort, scored)
        order = np.searchsorted(found.subjects, scored)
        write_predictions(path, _table(split, scored, found.labels[order], found.values[order]))


def tune(context: DemoContext, arm: Arm, count: int | None, seed: int, report: Report | None = None) -> str:
    """Train the ECG encoder of an arm and a head on one label draw, unless that is done; the name of the run."""
    name = f"finetune/{arm.key}-{context.name_count(count)}-{seed}"
    # A label draw is part of the split that the encoder was pretrained on: its held-out subjects are the same.
    start = {"init__ecg": str(context.weights(str(arm.run))), "init__allow_other_split": True, "optim__lr": 3e-4}
    init = {} if arm is SCRATCH else start
    label = f"{arm.key}-{context.name_count(count)}-{seed}"
    values: dict[str, Any] = {"seed": context.seed + seed, "name": label, **init}
    split, steps = split_name(context, count, seed), context.preset.steps_for(count)
    learning.supervise(context, name, split, TARGETS, steps, report, **values)
    return name


def predict_run(context: DemoContext, name: str, cohort: Cohort, subjects: NDArray[np.int64]) -> Embeddings:
    """Predictions of a supervised run (n, K) in original units and probabilities, the mean over crops."""
    weights = load_weights(context.weights(name))
    dataset = PairedDataset(cohort, subjects, weights.ecg_pipeline, None, labels=TARGETS)
    head = Predict(weights.modules["head"])
    options = window_options(weights, "ecg", dataset.ecg_shape[-1])
    return embed(weights, dataset, "ecg", options=options, projection=head)


def label_draws(context: DemoContext) -> Sequence[tuple[int | None, int]]:
    """All (number of labels, seed of the draw)."""
    return [(count, seed) for count in context.preset.label_counts for seed in range(context.preset.draws)]


def _table(
    split: Split, subjects: NDArray[np.int64], truth: NDArray[np.float64], predicted: NDArray[np.floating]
) -> pd.DataFrame:
    where = split.part_of(subjects)
    return make_predictions(subjects, TARGETS, (truth, predicted), [str(part) for part in where])


class Predict(nn.Module):
    """A head that gives original units and probabilities instead of raw outputs."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, D) to (B, K)."""
        return self.head.predict(embedding)  # type: ignore[operator]
