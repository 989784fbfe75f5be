"""Weighted AUROC and average precision for many bootstrap draws at once.

The order of the scores is the same in every draw; only the weights differ. So the scores are sorted once, and each
draw is one walk over the sorted rows with two running sums. Ties are handled exactly: a group of equal scores is one
threshold, which gives AUROC the trapezoid (half of a tied pair) and average precision one step.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray


class Ranking(NamedTuple):
    """Rows sorted by falling score.

    Attributes:
        rows: Index into the weights of each sorted row (N,).
        positive: True for the positive class (N,).
        closes: True at the last row of a group of equal scores (N,).
    """

    rows: NDArray[np.int64]
    positive: NDArray[np.bool_]
    closes: NDArray[np.bool_]


def rank_rows(truth: NDArray[np.float64], score: NDArray[np.float64], rows: NDArray[np.int64]) -> Ranking:
    """Sort rows once for `auroc_and_precision`.

    Args:
        truth: 0 or 1 (N,).
        score: Larger means more likely positive (N,).
        rows: Column of the weights that belongs to each row (N,): the subject index, or arange(N).
    """
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    closes = np.ones(len(order), dtype=np.bool_)
    closes[:-1] = ordered[1:] != ordered[:-1]
    return Ranking(rows[order].astype(np.int64), truth[order] > 0.5, closes)


def auroc_and_precision(ranking: Ranking, weights: NDArray[np.generic]) -> NDArray[np.float64]:
    """Weighted AUROC and average precision of the positive class.

    Args:
        ranking: From `rank_rows`.
        weights: Non-negative weights (draws, columns), counts or floats.

    Returns:
        (draws, 2): AUROC and average precision, NaN in draws that hold one class only.
    """
    return _walk(ranking.rows, ranking.positive, ranking.closes, weights)


@njit(cache=True, nogil=True)
def _walk(
    rows: NDArray[np.int64], positive: NDArray[np.bool_], closes: NDArray[np.bool_], weights: NDArray[np.generic]
) -> NDArray[np.float64]:
    n_draws = weights.shape[0]
    result = np.full((n_draws, 2), np.nan)
    for draw in range(n_draws):
        weight = weights[draw]
        true, false, true_before, false_before = 0.0, 0.0, 0.0, 0.0
        area, precision = 0.0, 0.0
        for i in range(rows.shape[0]):
            w = np.float64(weight[rows[i]])
            if positive[i]:
                true += w
            else:
                false += w
            if closes[i]:
                area += (false - false_before) * (true + true_before)
                if true > true_before:
                    precision += (true - true_before) * true / (true + false)
                true_before, false_before = true, false
        if true > 0.0 and false > 0.0:
            result[draw, 0] = area / (2.0 * true * false)
            result[draw, 1] = precision / true
    return result
