"""Terms and reductions of the moment metrics: what is summed for each row, and what becomes of the weighted sums.

A `..._terms` function maps (truth, prediction, threshold) to terms (N, k); a reduction maps the weighted sums
(draws, 1 + k), the first column being the sum of weights, to the metric (draws,). See `metrics`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ECE_BINS = 15
"""Equal-mass bins of the expected calibration error."""
_LIMITS_SD = 1.96


def ratio(numerator: Array, denominator: Array) -> Array:
    """Division that gives NaN, not a warning, where a draw has nothing to divide by."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


def variance_terms(y: Array, p: Array, _: float) -> Array:
    """Centred truth, its square, squared error."""
    # Centering changes nothing in exact arithmetic and keeps the sums of squares accurate (volumes are ~150 ml).
    centred = y - y.mean()
    return np.stack([centred, centred**2, (p - y) ** 2], axis=1)


def r_squared(s: Array) -> Array:
    """1 - SSE/SST, from `variance_terms`."""
    total = s[:, 2] - ratio(s[:, 1] ** 2, s[:, 0])
    # A draw whose subjects all have one value has no variance to explain; rounding must not pretend otherwise.
    total = np.where(total > 1e-12 * np.abs(s[:, 2]), total, 0.0)
    return 1.0 - ratio(s[:, 3], total)


def product_terms(y: Array, p: Array, _: float) -> Array:
    """Truth, prediction, their squares and product, centred."""
    y, p = y - y.mean(), p - p.mean()
    return np.stack([y, p, y * y, p * p, y * p], axis=1)


def pearson(s: Array) -> Array:
    """Pearson correlation, from `product_terms`."""
    n = s[:, 0]
    var_y, var_p = s[:, 3] - ratio(s[:, 1] ** 2, n), s[:, 4] - ratio(s[:, 2] ** 2, n)
    flat = (var_y <= 1e-12 * s[:, 3]) | (var_p <= 1e-12 * s[:, 4])
    return ratio(s[:, 5] - ratio(s[:, 1] * s[:, 2], n), np.sqrt(np.where(flat, 0.0, var_y * var_p)))


def decision_terms(y: Array, p: Array, threshold: float) -> Array:
    """Positives, true positives, negatives, true negatives."""
    positive, called = y > 0.5, p >= threshold
    return np.stack([positive, positive & called, ~positive, ~positive & ~called], axis=1).astype(np.float64)


def weighted_mean(s: Array) -> Array:
    """Mean of one term."""
    return ratio(s[:, 1], s[:, 0])


def sensitivity(s: Array) -> Array:
    """Share of positives that are called, from `decision_terms`."""
    return ratio(s[:, 2], s[:, 1])


def specificity(s: Array) -> Array:
    """Share of negatives that are not called, from `decision_terms`."""
    return ratio(s[:, 4], s[:, 3])


def f1_score(s: Array) -> Array:
    """F1 of the positive class, from `decision_terms`."""
    false_positive = s[:, 3] - s[:, 4]
    return np.where(s[:, 1] > 0, ratio(2 * s[:, 2], s[:, 1] + s[:, 2] + false_positive), np.nan)


def error_terms(y: Array, p: Array, _: float) -> Array:
    """Error and its square."""
    return np.stack([p - y, (p - y) ** 2], axis=1)


def limit_of_agreement(side: int) -> Callable[[Array], Array]:
    """Bland-Altman limit: bias plus or minus 1.96 standard deviations (with n - 1) of the errors.

    Bland & Altman, Lancet 1986, 10.1016/S0140-6736(86)90837-8.
    """

    def reduce(s: Array) -> Array:
        bias = ratio(s[:, 1], s[:, 0])
        variance = ratio(s[:, 2] - s[:, 1] * np.nan_to_num(bias), s[:, 0] - 1.0)
        return np.asarray(bias + side * _LIMITS_SD * np.sqrt(np.maximum(variance, 0.0)))

    return reduce


def equal_mass_bins(prediction: Array, n_bins: int) -> NDArray[np.int64]:
    """Bin (N,) of each prediction (N,), bins of about equal size; equal predictions share a bin."""
    edges = np.unique(np.quantile(prediction, np.linspace(0, 1, n_bins + 1)[1:-1]))
    return np.searchsorted(edges, prediction, side="right").astype(np.int64)


def ece_terms(y: Array, p: Array, _: float) -> Array:
    """Truth minus probability in the column of the row's bin, 0 in the others."""
    refuse_scores(p)
    code = equal_mass_bins(p, ECE_BINS)
    return np.where(code[:, None] == np.arange(code.max() + 1), (y - p)[:, None], 0.0)


def calibration_error(s: Array) -> Array:
    """Mean |observed - predicted| over bins, weighted by their size, from `ece_terms`."""
    return ratio(np.abs(s[:, 1:]).sum(axis=1), s[:, 0])


def sum_terms(y: Array, p: Array, _: float) -> Array:
    """Truth and probability."""
    refuse_scores(p)
    return np.stack([y, p], axis=1)


def refuse_scores(p: Array) -> None:
    """Raise ValueError where predictions are no probabilities."""
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"probabilities must lie within [0, 1], got {p.min():.3g} to {p.max():.3g}")
