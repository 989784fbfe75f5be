"""Phenotypes from neighbours: k-nearest-neighbour regression, and intervals whose size follows their spread.

The half width of an interval is a factor times the spread of the neighbours; the factor is the quantile that held the
stated share of calibration subjects (normalised split conformal prediction, Lei et al. 2018,
doi:10.1080/01621459.2017.1307116).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgcmr.evaluation.neighbours.search import Neighbours

Array = NDArray[np.float64]
WEIGHTINGS = ("distance", "uniform")
SPREAD_FLOOR = 0.1
"""Least spread as a share of the gallery's standard deviation: twins do not make a phenotype certain."""
_CHUNK = 2048  # queries at a time


@dataclass(frozen=True)
class KnnPrediction:
    """Phenotypes from neighbours.

    Attributes:
        values: Weighted mean of the neighbours (Q, K); NaN where no neighbour has the label.
        spread: Weighted standard deviation of the neighbours (Q, K), with a floor.
        n_neighbours: Neighbours that have the label (Q, K).
    """

    values: Array
    spread: Array
    n_neighbours: NDArray[np.int64]


def neighbour_weights(found: Neighbours, weighting: str = "distance") -> Array:
    """Weights (Q, k): 1 over the distance, or 1; where a distance is 0, its neighbours alone count.

    Raises:
        ValueError: For an unknown weighting.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting is {weighting!r}, expected one of {', '.join(WEIGHTINGS)}")
    there = found.rows >= 0
    if weighting == "uniform":
        return there.astype(np.float64)
    zero = there & (found.distances == 0)
    with np.errstate(divide="ignore"):
        inverse = np.where(there, 1.0 / found.distances, 0.0)
    return np.where(zero.any(axis=1, keepdims=True), zero, inverse)


def regress(found: Neighbours, labels: ArrayLike, weighting: str = "distance") -> KnnPrediction:
    """Weighted means of the neighbours' labels; of 0/1 labels this is the weighted share of positives.

    Args:
        found: Neighbours of each query.
        labels: Labels of the gallery (N, K); NaN where unobserved, which takes the neighbour out for that label.
        weighting: "distance" or "uniform".

    Raises:
        ValueError: Neighbours and labels are not of one gallery.
    """
    y = np.asarray(labels, dtype=np.float64)
    if y.ndim != 2 or (found.rows.size and found.rows.max() >= len(y)):
        raise ValueError(f"labels have shape {y.shape}; they are not those of the gallery that was searched")
    weights = neighbour_weights(found, weighting)
    floor = SPREAD_FLOOR * np.nan_to_num(_spread_of(y))
    shape = (len(found.rows), y.shape[1])
    values, spread, count = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, np.int64)
    for start in range(0, len(found.rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        near = y[found.rows[part]]  # (q, k, K)
        seen = np.isfinite(near) & (found.rows[part] >= 0)[..., None]
        w = weights[part][..., None] * seen
        near = np.where(seen, near, 0.0)
        total = w.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (w * near).sum(axis=1) / total
            variance = (w * (near - mean[:, None]) ** 2).sum(axis=1) / total
        values[part], spread[part] = mean, np.maximum(np.sqrt(variance), floor)
        count[part] = seen.sum(axis=1)
    return KnnPrediction(values, spread, count)


def interval_factors(prediction: KnnPrediction, truth: ArrayLike, level: float = 0.9) -> Array:
    """Factors (K,) so that value ± factor x spread holds the truth of `level` of new subjects.

    Args:
        prediction: For calibration subjects, who are not in the gallery or were left out of it, one row each.
        truth: Their labels (Q, K), NaN where unobserved.
        level: Share.

    Returns:
        NaN for a label with too few calibration subjects for the level.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, expected a share between 0 and 1")
    y = np.asarray(truth, dtype=np.float64)
    factors = np.full(y.shape[1], np.nan)
    for k in range(y.shape[1]):
        with np.errstate(invalid="ignore", divide="ignore"):
            score = np.abs(y[:, k] - prediction.values[:, k]) / prediction.spread[:, k]
        score = np.sort(score[np.isfinite(score)])
        rank = math.ceil((len(score) + 1) * level)
        if 0 < rank <= len(score):
            factors[k] = score[rank - 1]
    return factors


def _spread_of(y: Array) -> Array:
    seen = np.isfinite(y)
    n = np.maximum(seen.sum(axis=0), 1)
    mean = np.where(seen, y, 0.0).sum(axis=0) / n
    return np.asarray(np.sqrt(np.where(seen, (y - mean) ** 2, 0.0).sum(axis=0) / n))
