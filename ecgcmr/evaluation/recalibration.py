"""Logistic recalibration for many bootstrap draws at once: logit P(y = 1) = intercept + slope logit(p).

The line has no closed form, but its likelihood is concave with two parameters, and the solution of one draw is close
to that of all subjects. So the first Newton step of all draws is one matrix product at the common solution, and two or
three more steps of each draw finish it. Where they do not (few subjects, nearly separable classes), the draw is solved
from the start with steps that are halved where the likelihood would fall (Cox, Biometrika 1958,
10.1093/biomet/45.3-4.562).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ecgcmr.evaluation.weighting import weighted_sums

Array = NDArray[np.float64]

CLIP = 1e-7
"""Probabilities are kept this far from 0 and 1: a logit has no value there."""
_MAX_STEPS = 100
_MAX_COEFFICIENT = 1e3
_MAX_CONDITION = 1e12
_MAX_PLAIN = 6
_TOO_FAR = 1.0  # a plain step this long may have left the region where Newton's method settles
_SETTLED = 1e-5  # Newton's error is squared in each step, so that of the step taken is about 1e-10


def logit(probability: Array) -> Array:
    """Log-odds (N,) of probabilities (N,) that are kept away from 0 and 1."""
    clipped = np.clip(probability, CLIP, 1 - CLIP)
    return np.asarray(np.log(clipped / (1 - clipped)))


def logistic_lines(truth: Array, probability: Array, rows: NDArray[np.int64], weights: NDArray[np.generic]) -> Array:
    """Slope and intercept of the recalibration in every draw.

    Args:
        truth: 0 or 1 (N,).
        probability: Within [0, 1] (N,).
        rows: Column of the weights that belongs to each row (N,): the subject index, or arange(N).
        weights: Non-negative weights (draws, columns), counts or floats.

    Returns:
        (draws, 2): slope and intercept; NaN in draws with one class, one probability, or classes that a cut separates
        (there the likelihood has no maximum).

    Raises:
        ValueError: For probabilities outside [0, 1].
    """
    if probability.min() < 0 or probability.max() > 1:
        raise ValueError(
            f"probabilities must lie within [0, 1], got {probability.min():.3g} to {probability.max():.3g}"
        )
    x = logit(probability)
    start = _damped(x, truth, rows, np.ones((1, weights.shape[1]), dtype=np.uint16))[0]
    if np.isnan(start).any():
        return _damped(x, truth, rows, weights)
    result = _newton(x, truth, rows, weights, _first_step(x, truth, rows, weights, start))
    failed = np.flatnonzero(np.isnan(result[:, 0]))
    if failed.size:
        result[failed] = _damped(x, truth, rows, weights[failed])
    return result


def _first_step(x: Array, y: Array, rows: NDArray[np.int64], weights: NDArray[np.generic], start: Array) -> Array:
    """Slope and intercept (draws, 2) after one Newton step of every draw from a common (slope, intercept)."""
    mean = 1 / (1 + np.exp(-(start[1] + start[0] * x)))
    residual, curve = y - mean, mean * (1 - mean)
    terms = np.stack([residual, residual * x, curve, curve * x, curve * x * x], axis=1)
    ga, gb, haa, hab, hbb = weighted_sums(terms, rows, weights).T
    det = haa * hbb - hab * hab
    usable = det * _MAX_CONDITION > (haa + hbb) ** 2
    det = np.where(usable, det, 1.0)
    step = np.stack([(haa * gb - hab * ga) / det, (hbb * ga - hab * gb) / det], axis=1)
    return np.asarray(start + np.where(usable[:, None], step, 0.0))


@njit(cache=True, nogil=True)
def _newton(x: Array, y: Array, rows: NDArray[np.int64], weights: NDArray[np.generic], starts: Array) -> Array:
    """Plain Newton steps of each draw; NaN where they do not settle."""
    result = np.full((weights.shape[0], 2), np.nan)
    for draw in range(weights.shape[0]):
        weight = weights[draw]
        b, a = starts[draw, 0], starts[draw, 1]
        for _ in range(_MAX_PLAIN):
            ga, gb, haa, hab, hbb = 0.0, 0.0, 0.0, 0.0, 0.0
            for i in range(x.shape[0]):
                w = np.float64(weight[rows[i]])
                if w == 0.0:
                    continue
                mean = 1.0 / (1.0 + np.exp(-(a + b * x[i])))
                residual, curve = w * (y[i] - mean), w * mean * (1.0 - mean)
                ga += residual
                gb += residual * x[i]
                haa += curve
                hab += curve * x[i]
                hbb += curve * x[i] * x[i]
            det = haa * hbb - hab * hab
            if not det * _MAX_CONDITION > (haa + hbb) ** 2:
                break
            da, db = (hbb * ga - hab * gb) / det, (haa * gb - hab * ga) / det
            a, b = a + da, b + db
            size = max(abs(da), abs(db))
            if not size < _TOO_FAR:
                break
            if size < _SETTLED:
                result[draw, 0], result[draw, 1] = b, a
                break
    return result


@njit(cache=True, nogil=True)
def _damped(x: Array, y: Array, rows: NDArray[np.int64], weights: NDArray[np.generic]) -> Array:
    """Newton steps from a slope of 1 that never lower the likelihood; NaN where it has no maximum."""
    result = np.full((weights.shape[0], 2), np.nan)
    for draw in range(weights.shape[0]):
        weight = weights[draw]
        a, b = 0.0, 1.0
        loss, ga, gb, haa, hab, hbb, positive, total, low, high = _sums(x, y, rows, weight, a, b)
        if positive <= 0.0 or positive >= total or not low < high:
            continue
        solved = False
        for _ in range(_MAX_STEPS):
            det = haa * hbb - hab * hab
            trace = haa + hbb
            # For a symmetric 2x2 matrix trace^2 / det is the condition number plus its inverse plus 2.
            if det <= 0.0 or trace * trace > _MAX_CONDITION * det:
                break
            da, db = (hbb * ga - hab * gb) / det, (haa * gb - hab * ga) / det
            size = max(abs(da), abs(db))
            new = _sums(x, y, rows, weight, a + da, b + db)
            while new[0] > loss * (1 + 1e-12) and size > 1e-12:
                da, db, size = da / 2, db / 2, size / 2
                new = _sums(x, y, rows, weight, a + da, b + db)
            a, b = a + da, b + db
            loss, ga, gb, haa, hab, hbb = new[0], new[1], new[2], new[3], new[4], new[5]
            if abs(a) > _MAX_COEFFICIENT or abs(b) > _MAX_COEFFICIENT:
                break
            if size < _SETTLED:
                solved = True
                break
        if solved:
            result[draw, 0], result[draw, 1] = b, a
    return result


@njit(cache=True, nogil=True)
def _sums(
    x: Array, y: Array, rows: NDArray[np.int64], weight: NDArray[np.generic], a: float, b: float
) -> tuple[float, float, float, float, float, float, float, float, float, float]:
    """Loss, gradient, Hessian, positives, total, and range of x among rows with weight, in one walk."""
    loss, ga, gb, haa, hab, hbb, positive, total = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    low, high = np.inf, -np.inf
    for i in range(x.shape[0]):
        w = np.float64(weight[rows[i]])
        if w == 0.0:
            continue
        score = a + b * x[i]
        e = np.exp(-abs(score))
        mean = 1.0 / (1.0 + e) if score >= 0 else e / (1.0 + e)
        loss += w * (max(score, 0.0) + np.log(1.0 + e) - y[i] * score)
        residual, curve = w * (y[i] - mean), w * e / ((1.0 + e) * (1.0 + e))
        ga += residual
        gb += residual * x[i]
        haa += curve
        hab += curve * x[i]
        hbb += curve * x[i] * x[i]
        positive += w * y[i]
        total += w
        low, high = min(low, x[i]), max(high, x[i])
    return loss, ga, gb, haa, hab, hbb, positive, total, low, high
