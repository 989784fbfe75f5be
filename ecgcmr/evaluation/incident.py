"""From the weights of a survival run to the one predictions table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.evaluation.embeddings import EmbedOptions, embed
from ecgcmr.evaluation.predictions import check_predictions
from ecgcmr.evaluation.survival import make_survival_predictions
from ecgcmr.hub.weights import Weights, load_weights

Array = NDArray[np.float64]


def predict_incident(
    weights: str | Path | Weights, cohort: str | Path | Cohort, split: str = "default"
) -> pd.DataFrame:
    """Predict outcomes for all subjects of a split, from their ECGs.

    Args:
        weights: Weights folder of a run with objective `survival`, or what `load_weights` gave.
        cohort: Folder of the cohort, or what `Cohort.open` gave.
        split: Name of its split; the one that the run was trained with.

    Returns:
        Predictions table with `time` and `horizon`. A Cox head gives scores only (log relative hazards; see
        `add_cox_probabilities`). A head of interval hazards gives the probability of the event by the end of each
        interval, and as the score the cumulative hazard at the end of the last one.

    Raises:
        ValueError: When the weights have no ECG encoder with a head of outcomes, or the cohort lacks their follow-up.
    """
    loaded = weights if isinstance(weights, Weights) else load_weights(weights)
    opened = cohort if isinstance(cohort, Cohort) else Cohort.open(cohort)
    head, encoder = loaded.modules.get("head"), loaded.modules.get("ecg")
    if head is None or encoder is None:
        raise ValueError(f"{loaded.folder}: holds {', '.join(loaded.modules)}; needs an ECG encoder and a head")
    if loaded.config.get("head_options"):
        raise ValueError(
            f"{loaded.folder}: a head with the options {loaded.config['head_options']} cannot be read here"
        )
    outcomes, ends = outcomes_of(loaded)
    labels = [name for outcome in outcomes for name in follow_up_labels(opened, outcome)]
    plan = open_split(opened, split)
    subjects = np.sort(np.concatenate([plan.train, plan.val, plan.test]))
    dataset = PairedDataset(opened, subjects, loaded.ecg_pipeline, None, labels=labels)
    length = int(encoder.config["n_samples"])  # type: ignore[index]
    raw = embed(loaded, dataset, "ecg", options=EmbedOptions(crop_samples=length), projection=head)
    outputs = raw.values.astype(np.float64).reshape(len(raw.values), len(outcomes), -1)
    hazard = np.logaddexp(0.0, outputs).cumsum(axis=2)  # minus the log of the chance to live through the intervals
    score = hazard[:, :, -1] if ends else outputs[:, :, 0]
    arrays = (raw.labels[:, 0::2], raw.labels[:, 1::2], score)
    part = [str(name) for name in plan.part_of(raw.subjects)]
    table = make_survival_predictions(raw.subjects, outcomes, arrays, part)
    added = [
        table.assign(prediction=(1 - np.exp(-hazard[:, :, j])).T.reshape(-1), horizon=end) for j, end in enumerate(ends)
    ]
    return check_predictions(pd.concat([table, *added], ignore_index=True)) if added else table


def outcomes_of(weights: Weights) -> tuple[list[str], list[float]]:
    """Names of the outcomes of a head, and the ends of its intervals (none for a Cox head)."""
    labels = weights.modules["head"].config["labels"]  # type: ignore[index]
    if all(label["unit"] == "log hazard" for label in labels):
        return [label["name"] for label in labels], []
    spans = [label["name"].rsplit("_", 3) for label in labels]
    try:
        if any(label["kind"] != "binary" for label in labels) or any(span[2] != "to" for span in spans):
            raise ValueError
        ends = sorted({float(span[3]) for span in spans})
    except (ValueError, IndexError):
        names = ", ".join(label["name"] for label in labels)
        raise ValueError(
            f"{weights.folder}: the head predicts {names}, no outcomes with follow-up; "
            "train it with objective.name=survival"
        ) from None
    return list(dict.fromkeys(span[0] for span in spans)), ends


def follow_up_labels(cohort: Cohort, outcome: str) -> tuple[str, str]:
    """Names of the time and the event label of an outcome; ValueError unless there is one of each."""
    specs = cohort.label_specs.values()
    times = [spec.name for spec in specs if spec.kind == "time" and spec.name.partition("_time")[0] == outcome]
    events = [spec.name for spec in specs if spec.kind == "event" and spec.name == f"{outcome}_event"]
    if len(times) != 1 or len(events) != 1:
        raise ValueError(
            f"{cohort.path}: needs one label {outcome}_time_... and one {outcome}_event, has {times + events}"
        )
    return times[0], events[0]
