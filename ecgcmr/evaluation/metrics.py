"""Metrics as weighted closed forms, so that a bootstrap is a matrix product and not a loop.

A moment metric is a function of a few weighted sums: R2 for instance of the sums of 1, y, y^2 and (p - y)^2. The sums
of all draws are one product of the (draws, subjects) counts with a (subjects, terms) matrix. AUROC and average
precision need the order of the scores and come from `ranking`. The unweighted metric is the same formula with weights
of one, so that point estimate and interval can not disagree about a definition.

Definitions: R2 = 1 - SSE/SST about the (weighted) mean of the evaluated subjects; AUPRC is the average precision of
the positive class; ties count half in AUROC. Metrics at a threshold take one chosen on validation (or training)
subjects by `choose_threshold`, never on test subjects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgcmr.evaluation.ranking import auroc_and_precision, rank_rows

Array = NDArray[np.float64]
Kind = Literal["regression", "binary"]
Terms = Callable[[Array, Array, float], Array]


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: Key in the registry and in results.json.
        label: Name for figures and tables.
        kind: Which targets it belongs to.
        better: `higher`, `lower`, or `zero` for a signed error.
        terms: For moment metrics, (truth, prediction, threshold) -> terms (N, k) that are summed with weights.
        reduce: From the sums (draws, 1 + k), the first column being the sum of weights, to the metric (draws,).
        rank_column: For rank metrics, the column of `ranking.auroc_and_precision`.
        needs_threshold: Whether a threshold chosen on validation subjects is needed.
    """

    name: str
    label: str
    kind: Kind
    better: Literal["higher", "lower", "zero"]
    terms: Terms | None = None
    reduce: Callable[[Array], Array] | None = None
    rank_column: int | None = None
    needs_threshold: bool = False


def _ratio(numerator: Array, denominator: Array) -> Array:
    """Division that gives NaN, not a warning, where a draw has nothing to divide by."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


def _variance_terms(y: Array, p: Array, _: float) -> Array:
    # Centering changes nothing in exact arithmetic and keeps the sums of squares accurate (volumes are ~150 ml).
    centred = y - y.mean()
    return np.stack([centred, centred**2, (p - y) ** 2], axis=1)


def _r2(s: Array) -> Array:
    total = s[:, 2] - _ratio(s[:, 1] ** 2, s[:, 0])
    # A draw whose subjects all have one value has no variance to explain; rounding must not pretend otherwise.
    total = np.where(total > 1e-12 * np.abs(s[:, 2]), total, 0.0)
    return 1.0 - _ratio(s[:, 3], total)


def _product_terms(y: Array, p: Array, _: float) -> Array:
    y, p = y - y.mean(), p - p.mean()
    return np.stack([y, p, y * y, p * p, y * p], axis=1)


def _pearson(s: Array) -> Array:
    n = s[:, 0]
    var_y, var_p = s[:, 3] - _ratio(s[:, 1] ** 2, n), s[:, 4] - _ratio(s[:, 2] ** 2, n)
    flat = (var_y <= 1e-12 * s[:, 3]) | (var_p <= 1e-12 * s[:, 4])
    return _ratio(s[:, 5] - _ratio(s[:, 1] * s[:, 2], n), np.sqrt(np.where(flat, 0.0, var_y * var_p)))


def _decision_terms(y: Array, p: Array, threshold: float) -> Array:
    positive, called = y > 0.5, p >= threshold
    return np.stack([positive, positive & called, ~positive, ~positive & ~called], axis=1).astype(np.float64)


def _mean(s: Array) -> Array:
    return _ratio(s[:, 1], s[:, 0])


def _sensitivity(s: Array) -> Array:
    return _ratio(s[:, 2], s[:, 1])


def _specificity(s: Array) -> Array:
    return _ratio(s[:, 4], s[:, 3])


def _f1(s: Array) -> Array:
    false_positive = s[:, 3] - s[:, 4]
    return np.where(s[:, 1] > 0, _ratio(2 * s[:, 2], s[:, 1] + s[:, 2] + false_positive), np.nan)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("r2", "R²", "regression", "higher", _variance_terms, _r2),
        Metric("pearson_r", "Pearson r", "regression", "higher", _product_terms, _pearson),
        Metric("mae", "MAE", "regression", "lower", lambda y, p, _: np.abs(p - y)[:, None], _mean),
        Metric(
            "rmse", "RMSE", "regression", "lower", lambda y, p, _: ((p - y) ** 2)[:, None], lambda s: _mean(s) ** 0.5
        ),
        Metric("bias", "Bias", "regression", "zero", lambda y, p, _: (p - y)[:, None], _mean),
        Metric("auroc", "AUROC", "binary", "higher", rank_column=0),
        Metric("auprc", "AUPRC", "binary", "higher", rank_column=1),
        Metric("brier", "Brier score", "binary", "lower", lambda y, p, _: ((p - y) ** 2)[:, None], _mean),
        Metric(
            "balanced_accuracy",
            "Balanced accuracy",
            "binary",
            "higher",
            _decision_terms,
            lambda s: (_sensitivity(s) + _specificity(s)) / 2,
            needs_threshold=True,
        ),
        Metric("sensitivity", "Sensitivity", "binary", "higher", _decision_terms, _sensitivity, needs_threshold=True),
        Metric("specificity", "Specificity", "binary", "higher", _decision_terms, _specificity, needs_threshold=True),
        Metric("f1", "F1", "binary", "higher", _decision_terms, _f1, needs_threshold=True),
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
    return float(reduce_terms(metric, w @ moment_terms(metric, y, p, threshold))[0])


def moment_terms(metric: Metric, truth: Array, prediction: Array, threshold: float | None) -> Array:
    """Terms (N, 1 + k) of a moment metric, the first being one."""
    if metric.terms is None:
        raise ValueError(f"{metric.name} depends on the order of the scores and has no moment terms")
    if metric.needs_threshold and threshold is None:
        raise ValueError(f"{metric.name} needs a threshold; choose it with choose_threshold on validation subjects")
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
    best = np.flatnonzero(np.isclose(spared - missed, (spared - missed).max(), rtol=0, atol=1e-12))
    return float(candidates[best[len(best) // 2]])
