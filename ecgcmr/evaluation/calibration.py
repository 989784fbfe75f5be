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
from ecgcmr.evaluation.moments import ECE_BINS, equal_mass_bins
from ecgcmr.evaluation.recalibration import logistic_lines


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


def calibrate_binary(truth: ArrayLike, probability: ArrayLike, n_bins: int = ECE_BINS) -> Calibration:
    """Calibration of probabilities.

    Args:
        truth: 0/1 (N,).
        probability: Predicted probability of the positive class (N,), within [0, 1].
        n_bins: Number of equal-mass bins of the calibration error.
    """
    y, p = check_pairs(truth, probability, "binary")
    slope, intercept = logistic_lines(y, p, np.arange(len(y)), np.ones((1, len(y))))[0]
    return Calibration(float(slope), float(intercept), _error(y, p, n_bins), _observed_expected(y, p), len(y))


def calibrate_regression(truth: ArrayLike, prediction: ArrayLike, n_bins: int = ECE_BINS) -> Calibration:
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
    code = equal_mass_bins(p, n_bins)
    size = np.bincount(code)
    used = size > 0
    mean_p = np.bincount(code, weights=p, minlength=len(size))[used] / size[used]
    mean_y = np.bincount(code, weights=y, minlength=len(size))[used] / size[used]
    return mean_p, mean_y, size[used].astype(np.int64)


def _error(y: NDArray[np.float64], p: NDArray[np.float64], n_bins: int) -> float:
    mean_p, mean_y, size = reliability_curve(y, p, n_bins)
    return float(np.average(np.abs(mean_y - mean_p), weights=size))


def _observed_expected(y: NDArray[np.float64], p: NDArray[np.float64]) -> float:
    return float(y.mean() / p.mean()) if p.mean() != 0 else float("nan")
