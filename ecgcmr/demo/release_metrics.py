"""Numbers for the model cards of released weights: held-out simulated subjects, and the study on real ECGs.

Every number carries a 95 % interval over subjects, how many there were, and what they are. Simulated subjects are a
test bench with known truth: numbers from them say nothing about people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.demo.arms import Predict
from ecgcmr.evaluation.bootstrap import SubjectDraws, draw_subjects
from ecgcmr.evaluation.embeddings import Embeddings, EmbedOptions, embed, input_length
from ecgcmr.evaluation.macro import MACRO
from ecgcmr.evaluation.predictions import make_predictions
from ecgcmr.evaluation.probes import LogisticProbe, RidgeProbe
from ecgcmr.evaluation.retrieval import retrieve_both_ways
from ecgcmr.evaluation.scores import ArmKey, Score, score_predictions
from ecgcmr.hub import load_weights
from ecgcmr.hub.weights import Weights

PROBED = ("LVEDV", "LVEF", "LVM", "mi", "hf")
SIMULATED = "held-out simulated subjects"
REAL = "PTB-XL sample, fold 8"
_NAMES = {"r2": "R²", "auroc": "AUROC", "mae": "MAE", "recall_at_10": "recall at 10", "median_rank": "median rank"}

MetricRow = dict[str, Any]
"""Fields of `ecgcmr.hub.card.Metric`."""


def simulated_metrics(
    folder: Path,
    cohort_path: Path,
    train_subjects: int = 4000,
    test_subjects: int | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
    gallery: int = 200,
    n_draws: int = 2000,
) -> list[MetricRow]:
    """Score released weights on the held-out subjects of the simulated cohort.

    Args:
        folder: Weights folder with an ECG encoder.
        cohort_path: The simulated cohort that it was trained on; its split says who was held out.
        train_subjects: Training subjects that the probes are fitted on.
        test_subjects: How many of the held-out subjects are scored; None for all.
        precision: Of the encoders' matrix products.
        gallery: Candidates of the retrieval.
        n_draws: Bootstrap draws.
    """
    weights, cohort = load_weights(folder), Cohort.open(cohort_path)
    split = open_split(cohort)
    test = split.test[:test_subjects]
    draws = draw_subjects(test, n_draws, np.random.default_rng(23))
    measure = _Measure(weights, cohort, test, draws, precision)
    result = _probe_metrics(measure, split.train[:train_subjects])
    if "head" in weights.modules:
        result += _head_metrics(measure)
    if {"ecg_projection", "cmr", "cmr_projection"} <= weights.modules.keys():
        result += _retrieval_metrics(measure, gallery)
    return result


def real_metrics(table: pd.DataFrame, arm: str) -> list[MetricRow]:
    """Take the rows of one encoder from the results of `ecgcmr.demo.released`."""
    mine = table[(table["arm"] == arm) & table["seed"].isna()]
    protocols = {"probe": "logistic probe", "finetune": "fine-tuned"}
    result = []
    rows: list[dict[str, Any]] = mine[mine["target"] == MACRO].to_dict("records")  # type: ignore[assignment]
    for row in rows:
        labels = "all" if pd.isna(row["n_labels"]) else int(row["n_labels"])
        name = f"macro AUROC, {protocols[row['protocol']]}, {labels} labels"
        if row["metric"] == "auroc_diff":
            trained = row["protocol"] == "finetune" or str(row["compared_to"]).endswith("fine-tuned")
            name += f" − {'the same network trained from scratch' if trained else 'a probe of the untrained network'}"
        result.append(_row(name, row["value"], row["lo"], row["hi"], n=int(row["n_subjects"]), where=REAL))
    return result


@dataclass(frozen=True)
class _Measure:
    """What is measured, on whom, with which bootstrap draws and in which precision."""

    weights: Weights
    cohort: Cohort
    test: NDArray[np.int64]
    draws: SubjectDraws
    precision: Literal["fp32", "bf16"]

    def embed_ecg(
        self, subjects: NDArray[np.int64], labels: Sequence[str] = (), head: nn.Module | None = None, windows: int = 99
    ) -> Embeddings:
        """Embeddings, or outputs of a head, as means over windows that cover the ten seconds."""
        data = PairedDataset(self.cohort, subjects, self.weights.ecg_pipeline, None, labels=tuple(labels))
        length = input_length(self.weights)
        starts = tuple(range(0, data.ecg_shape[-1] - length + 1, length))[:windows]
        options = EmbedOptions(crop_samples=length, crop_starts=starts, precision=self.precision)
        return embed(self.weights, data, "ecg", options=options, projection=head)


def _probe_metrics(measure: _Measure, train: NDArray[np.int64]) -> list[MetricRow]:
    kinds = {name: measure.cohort.label_specs[name].kind for name in PROBED}
    measured = [name for name, kind in kinds.items() if kind == "regression"]
    diagnosed = [name for name, kind in kinds.items() if kind == "binary"]
    names = measured + diagnosed
    fitted, scored = (measure.embed_ecg(subjects, names) for subjects in (train, measure.test))
    n = len(measured)
    ridge = RidgeProbe().fit(fitted.values, fitted.labels[:, :n], fitted.subjects, measured)
    logistic = LogisticProbe().fit(fitted.values, fitted.labels[:, n:], fitted.subjects, diagnosed)
    values = np.hstack([ridge.predict(scored.values), logistic.predict(scored.values)])
    note = f"probe fitted on {len(train):,} training subjects"
    return _score(scored, names, values, kinds, measure.draws, "probe of the embedding", note)


def _head_metrics(measure: _Measure) -> list[MetricRow]:
    kinds = {label["name"]: label["kind"] for label in measure.weights.config["labels"]}
    found = measure.embed_ecg(measure.test, list(kinds), Predict(measure.weights.modules["head"]))
    return _score(found, list(kinds), found.values, kinds, measure.draws, "head", "mean over windows")


def _score(
    found: Embeddings,
    names: Sequence[str],
    values: NDArray[np.floating],
    kinds: dict[str, Any],
    draws: SubjectDraws,
    how: str,
    note: str,
) -> list[MetricRow]:
    table = make_predictions(found.subjects, names, (found.labels, values), ["test"] * len(found.subjects))
    scores = score_predictions({0: table}, kinds, draws, ArmKey("released", "head"), metrics=("r2", "auroc"))
    return [_of_score(one, f"{_NAMES[one.metric]} of {one.target} ({how})", note) for one in scores]


def _of_score(score: Score, name: str, note: str) -> MetricRow:
    interval = score.interval()
    return _row(name, interval.value, interval.lo, interval.hi, n=score.n_subjects, where=SIMULATED, note=note)


def _retrieval_metrics(measure: _Measure, gallery: int) -> list[MetricRow]:
    modules = measure.weights.modules
    ecg = measure.embed_ecg(measure.test, head=modules["ecg_projection"], windows=1)
    studies = PairedDataset(measure.cohort, measure.test, None, measure.weights.cmr_pipeline)
    cmr = embed(measure.weights, studies, "cmr", projection=modules["cmr_projection"])
    assert np.array_equal(ecg.subjects, cmr.subjects), "one recording and one study of each simulated subject"
    result = []
    for way in retrieve_both_ways(ecg.values, cmr.values, ecg.subjects, gallery):
        title = "ECG → CMR" if way.direction == "ecg_to_cmr" else "CMR → ECG"
        for name, found in way.summarise(measure.draws).items():
            if name in _NAMES:
                interval = found.interval()
                note = f"gallery of {gallery}; chance {way.chance(10):.2g}" if name == "recall_at_10" else ""
                row = _row(f"{_NAMES[name]}, {title}", interval.value, interval.lo, interval.hi, n=found.n_subjects)
                result.append({**row, "where": SIMULATED, "note": note})
    return result


def _row(name: str, value: float, lo: float, hi: float, **more: Any) -> MetricRow:
    return {"name": name, "value": round(value, 4), "lo": round(lo, 4), "hi": round(hi, 4), **more}
