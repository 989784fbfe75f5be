"""Calibration: slope, intercept, expected calibration error, observed/expected.

For a probability the slope and intercept are those of the logistic recalibration logit P(y=1) = a + b logit(p) (Cox,
Biometrika 1958, 10.1093/biomet/45.3-4.562): b < 1 means predictions too extreme. For a measurement they are those of
the straight line truth = a + b prediction. Discrimination (AUROC, R2) can be equal in two groups whose calibration
differs, so both are reported.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgcmr.evaluation.metrics import check_pairs


@dataclass(frozen=True)
class Calibration:
    """Calibration of one column of predictions.

    Attributes:
        slope: 1 when the spread of the predictions is right; NaN when not estimable.
        intercept: 0 when calibrated; in log-odds for a probability, in the target's unit for a measurement.
        ece: Expected calibration error: mean |observed - predicted| over equal-mass bins, weighted by bin size.
        observed_expected: Mean truth / mean prediction.
        n: Number of rows.
    """

    slope: float
    intercept: float
    ece: float
    observed_expected: float
    n: int


def calibrate_binary(truth: ArrayLike, probability: ArrayLike, n_bins: int = 15) -> Calibration:
    """Calibration of probabilities.

    Args:
        truth: 0/1 (N,).
        probability: Predicted probability of the positive class (N,), within [0, 1].
        n_bins: Number of equal-mass bins of the calibration error.
    """
    y, p = check_pairs(truth, probability, "binary")
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"probabilities must lie within [0, 1], got {p.min():.3g} to {p.max():.3g}")
    clipped = np.clip(p, 1e-7, 1 - 1e-7)
    intercept, slope = _logistic_line(np.log(clipped / (1 - clipped)), y)
    return Calibration(slope, intercept, _error(y, p, n_bins), _observed_expected(y, p), len(y))


def calibrate_regression(truth: ArrayLike, prediction: ArrayLike, n_bins: int = 15) -> Calibration:
    """Calibration of a measurement in its own unit: the least-squares line of truth on prediction."""
    y, p = check_pairs(truth, prediction, "regression")
    centred = p - p.mean()
    variance = float(centred @ centred)
    slope = float(centred @ y) / variance if variance > 0 else float("nan")
    return Calibration(
        slope, float(y.mean() - slope * p.mean()), _error(y, p, n_bins), _observed_expected(y, p), len(y)
    )


def reliability_curve(
    truth: ArrayLike, prediction: ArrayLike, n_bins: int = 10
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Mean prediction, mean truth and size of equal-mass bins, each (bins,); equal predictions share a bin."""
    y, p = check_pairs(truth, prediction, "regression")
    edges = np.unique(np.quantile(p, np.linspace(0, 1, n_bins + 1)[1:-1]))
    code = np.searchsorted(edges, p, side="right")
    size = np.bincount(code, minlength=len(edges) + 1)
    used = size > 0
    mean_p = np.bincount(code, weights=p, minlength=len(size))[used] / size[used]
    mean_y = np.bincount(code, weights=y, minlength=len(size))[used] / size[used]
    return mean_p, mean_y, size[used].astype(np.int64)


def _error(y: NDArray[np.float64], p: NDArray[np.float64], n_bins: int) -> float:
    mean_p, mean_y, size = reliability_curve(y, p, n_bins)
    return float(np.average(np.abs(mean_y - mean_p), weights=size))


def _observed_expected(y: NDArray[np.float64], p: NDArray[np.float64]) -> float:
    return float(y.mean() / p.mean()) if p.mean() != 0 else float("nan")


def _logistic_line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Maximum-likelihood (intercept, slope) by damped Newton steps; NaN when the classes can be separated."""
    design = np.stack([np.ones_like(x), x], axis=1)
    if y.min() == y.max() or np.ptp(x) == 0:
        return float("nan"), float("nan")
    beta = np.zeros(2)
    loss = _log_loss(design, y, beta)
    for _ in range(100):
        mean = 1 / (1 + np.exp(-design @ beta))
        gradient = design.T @ (y - mean)
        hessian = (design * (mean * (1 - mean))[:, None]).T @ design
        # Separable classes: the likelihood has no maximum and the Hessian dies away.
        if np.linalg.cond(hessian) > 1e12:
            return float("nan"), float("nan")
        step = np.linalg.solve(hessian, gradient)
        while _log_loss(design, y, beta + step) > loss + 1e-12 and np.abs(step).max() > 1e-12:
            step = step / 2
        beta = beta + step
        loss = _log_loss(design, y, beta)
        if np.abs(step).max() < 1e-10:
            break
    return (float(beta[0]), float(beta[1])) if np.abs(beta).max() < 1e3 else (float("nan"), float("nan"))


def _log_loss(design: NDArray[np.float64], y: NDArray[np.float64], beta: NDArray[np.float64]) -> float:
    score = design @ beta
    return float(np.sum(np.logaddexp(0.0, score) - y * score))
