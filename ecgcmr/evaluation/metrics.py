"""Metrics as weighted closed forms, so that a bootstrap is a matrix product and not a loop.

A moment metric is a function of a few weighted sums: R2 for instance of the sums of 1, y, y^2 and (p - y)^2. The sums
of all draws are one product of the (draws, subjects) counts with a (subjects, terms) matrix. AUROC and average
precision need the order of the scores and come from `ranking`. The unweighted metric is the same formula with weights
of one, so that point estimate and interval can not disagree about a definition.

Definitions: R2 = 1 - SSE/SST about the (weighted) mean of the evaluated subjects; AUPRC is the average precision of
the positive class; ties count half in AUROC. Metrics at a threshold take one chosen on validation (or training)
subjects by `choose_threshold` (largest balanced accuracy) or `threshold_at_specificity`, never on test subjects. The
bins of the calibration error hold equal shares of the evaluated rows and stay as they are in every draw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgcmr.evaluation import moments
from ecgcmr.evaluation.ranking import auroc_and_precision, rank_rows
from ecgcmr.evaluation.recalibration import logistic_lines

Array = NDArray[np.float64]
Kind = Literal["regression", "binary"]
Terms = Callable[[Array, Array, float], Array]
Rule = Literal["balanced", "specificity"]

SPECIFICITY = 0.9
"""Specificity on validation subjects at which `sensitivity_at_spec90` is measured."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: Key in the registry and in results.json.
        label: Name for figures and tables.
        kind: Which targets it belongs to.
        better: `higher`, `lower`, `zero` for a signed error, or `one` for a slope or a ratio.
        terms: For moment metrics, (truth, prediction, threshold) -> terms (N, k) that are summed with weights.
        reduce: From the sums (draws, 1 + k), the first column being the sum of weights, to the metric (draws,).
        rank_column: For rank metrics, the column of `ranking.auroc_and_precision`.
        line_column: For metrics of the recalibration line, the column of `recalibration.logistic_lines`.
        rule: How the threshold is chosen on validation subjects; None for metrics without one.
    """

    name: str
    label: str
    kind: Kind
    better: Literal["higher", "lower", "zero", "one"]
    terms: Terms | None = None
    reduce: Callable[[Array], Array] | None = None
    rank_column: int | None = None
    line_column: int | None = None
    rule: Rule | None = None

    @property
    def needs_threshold(self) -> bool:
        """Whether a threshold chosen on validation subjects is needed."""
        return self.rule is not None


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("r2", "R²", "regression", "higher", moments.variance_terms, moments.r_squared),
        Metric("pearson_r", "Pearson r", "regression", "higher", moments.product_terms, moments.pearson),
        Metric("mae", "MAE", "regression", "lower", lambda y, p, _: np.abs(p - y)[:, None], moments.weighted_mean),
        Metric(
            "rmse",
            "RMSE",
            "regression",
            "lower",
            lambda y, p, _: ((p - y) ** 2)[:, None],
            lambda s: moments.weighted_mean(s) ** 0.5,
        ),
        Metric("bias", "Bias", "regression", "zero", lambda y, p, _: (p - y)[:, None], moments.weighted_mean),
        Metric(
            "loa_lower",
            "Lower limit of agreement",
            "regression",
            "zero",
            moments.error_terms,
            moments.limit_of_agreement(-1),
        ),
        Metric(
            "loa_upper",
            "Upper limit of agreement",
            "regression",
            "zero",
            moments.error_terms,
            moments.limit_of_agreement(1),
        ),
        Metric("auroc", "AUROC", "binary", "higher", rank_column=0),
        Metric("auprc", "AUPRC", "binary", "higher", rank_column=1),
        Metric(
            "brier", "Brier score", "binary", "lower", lambda y, p, _: ((p - y) ** 2)[:, None], moments.weighted_mean
        ),
        Metric(
            "balanced_accuracy",
            "Balanced accuracy",
            "binary",
            "higher",
            moments.decision_terms,
            lambda s: (moments.sensitivity(s) + moments.specificity(s)) / 2,
            rule="balanced",
        ),
        Metric(
            "sensitivity",
            "Sensitivity",
            "binary",
            "higher",
            moments.decision_terms,
            moments.sensitivity,
            rule="balanced",
        ),
        Metric(
            "specificity",
            "Specificity",
            "binary",
            "higher",
            moments.decision_terms,
            moments.specificity,
            rule="balanced",
        ),
        Metric("f1", "F1", "binary", "higher", moments.decision_terms, moments.f1_score, rule="balanced"),
        Metric(
            "sensitivity_at_spec90",
            "Sensitivity at 90 % specificity",
            "binary",
            "higher",
            moments.decision_terms,
            moments.sensitivity,
            rule="specificity",
        ),
        Metric(
            "specificity_at_spec90",
            "Specificity reached at that threshold",
            "binary",
            "higher",
            moments.decision_terms,
            moments.specificity,
            rule="specificity",
        ),
        Metric("calibration_slope", "Calibration slope", "binary", "one", line_column=0),
        Metric("calibration_intercept", "Calibration intercept", "binary", "zero", line_column=1),
        Metric("ece", "Expected calibration error", "binary", "lower", moments.ece_terms, moments.calibration_error),
        Metric(
            "observed_expected",
            "Observed / expected",
            "binary",
            "one",
            moments.sum_terms,
            lambda s: moments.ratio(s[:, 1], s[:, 2]),
        ),
    )
}


def get_metric(name: str) -> Metric:
    """The metric of that name; ValueError naming the known ones otherwise."""
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
    return METRICS[name]


def metrics_for(kind: str, threshold: bool = True) -> tuple[str, ...]:
    """Names of the metrics of a kind of target, with or without those that need a threshold."""
    if kind not in ("regression", "binary"):
        raise ValueError(f"target kind must be 'regression' or 'binary', got {kind!r}")
    return tuple(m.name for m in METRICS.values() if m.kind == kind and (threshold or not m.needs_threshold))


def check_pairs(truth: ArrayLike, prediction: ArrayLike, kind: str) -> tuple[Array, Array]:
    """Both columns as finite float64 (N,); truth of a binary target must be 0 or 1."""
    y, p = np.asarray(truth, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    if y.ndim != 1 or y.shape != p.shape or y.size == 0:
        raise ValueError(f"truth {y.shape} and prediction {p.shape} must be two equal, non-empty columns")
    if not (np.isfinite(y).all() and np.isfinite(p).all()):
        raise ValueError("truth and prediction must be finite; leave out rows without an observed label")
    if kind == "binary" and not np.isin(y, (0.0, 1.0)).all():
        raise ValueError(f"a binary target must be 0 or 1, got values such as {y[~np.isin(y, (0.0, 1.0))][0]}")
    return y, p


def compute(
    name: str,
    truth: ArrayLike,
    prediction: ArrayLike,
    threshold: float | None = None,
    weights: ArrayLike | None = None,
) -> float:
    """One metric of one column.

    Args:
        name: Key of `METRICS`.
        truth: (N,), original unit or 0/1.
        prediction: (N,), original unit or probability.
        threshold: For metrics at a threshold.
        weights: Non-negative weights (N,); ones when absent.

    Returns:
        The metric; NaN where it is not defined (one class only, no variance).
    """
    metric = get_metric(name)
    y, p = check_pairs(truth, prediction, metric.kind)
    w = np.ones((1, len(y))) if weights is None else np.asarray(weights, dtype=np.float64)[None]
    if metric.rank_column is not None:
        ranking = rank_rows(y, p, np.arange(len(y)))
        return float(auroc_and_precision(ranking, w)[0, metric.rank_column])
    if metric.line_column is not None:
        return float(logistic_lines(y, p, np.arange(len(y)), w)[0, metric.line_column])
    return float(reduce_terms(metric, w @ moment_terms(metric, y, p, threshold))[0])


def moment_terms(metric: Metric, truth: Array, prediction: Array, threshold: float | None) -> Array:
    """Terms (N, 1 + k) of a moment metric, the first being one."""
    if metric.terms is None:
        raise ValueError(f"{metric.name} is no function of weighted sums and has no moment terms")
    if metric.needs_threshold and threshold is None:
        chooser = "choose_threshold" if metric.rule == "balanced" else "threshold_at_specificity"
        raise ValueError(f"{metric.name} needs a threshold; choose it with {chooser} on validation subjects")
    terms = metric.terms(truth, prediction, 0.5 if threshold is None else threshold)
    return np.concatenate([np.ones((len(truth), 1)), terms], axis=1)


def reduce_terms(metric: Metric, sums: Array) -> Array:
    """From weighted sums (draws, 1 + k) to the metric (draws,)."""
    assert metric.reduce is not None, "every metric with terms has a reduction"
    return metric.reduce(sums)


def choose_threshold(truth: ArrayLike, prediction: ArrayLike, split: str) -> float:
    """The threshold of the largest balanced accuracy (Youden's J), on subjects that are not test subjects.

    Candidates lie in the middle between neighboring scores; of equally good ones the middle one is taken, which does
    not depend on the order of the rows.

    Args:
        truth: 0/1 (N,).
        prediction: Scores (N,).
        split: Where the rows come from; `test` is refused.

    Raises:
        ValueError: For test rows, or when only one class is there.
    """
    scores, spared, missed = _cuts(truth, prediction, split)
    gain = spared - missed
    best = np.flatnonzero(np.isclose(gain, gain.max(), rtol=0, atol=1e-12))
    return float(scores[best[len(best) // 2]])


def threshold_at_specificity(
    truth: ArrayLike, prediction: ArrayLike, split: str, specificity: float = SPECIFICITY
) -> float:
    """The smallest threshold with at least that specificity, on subjects that are not test subjects.

    Args:
        truth: 0/1 (N,).
        prediction: Scores (N,).
        split: Where the rows come from; `test` is refused.
        specificity: Wanted share of negatives that are not called, in (0, 1).

    Raises:
        ValueError: For test rows, or when only one class is there.
    """
    if not 0 < specificity < 1:
        raise ValueError(f"specificity must lie between 0 and 1, got {specificity}")
    candidates, spared, _ = _cuts(truth, prediction, split)
    return float(candidates[np.argmax(spared >= specificity - 1e-12)])


def _cuts(truth: ArrayLike, prediction: ArrayLike, split: str) -> tuple[Array, Array, Array]:
    """Candidate thresholds (C,), rising, with specificity and 1 - sensitivity of calling at or above each."""
    if split not in ("train", "val"):
        raise ValueError(f"a threshold must be chosen on 'val' or 'train' subjects, got split {split!r}")
    y, p = check_pairs(truth, prediction, "binary")
    if y.min() == y.max():
        raise ValueError(f"no threshold can be chosen: all {len(y)} {split} rows have class {int(y[0])}")
    scores, inverse = np.unique(p, return_inverse=True)
    positive = np.bincount(inverse, weights=y, minlength=len(scores))
    negative = np.bincount(inverse, weights=1 - y, minlength=len(scores))
    # Calling everything at or above candidate i positive loses the positives below it and gains the negatives below.
    missed = np.concatenate([[0.0], np.cumsum(positive)]) / positive.sum()
    spared = np.concatenate([[0.0], np.cumsum(negative)]) / negative.sum()
    candidates = np.concatenate([scores[:1], (scores[1:] + scores[:-1]) / 2, [np.nextafter(scores[-1], np.inf)]])
    return candidates, spared, missed
