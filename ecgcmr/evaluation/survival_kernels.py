"""Censored outcomes under the weights of many bootstrap draws: walks over rows that were sorted once.

Everything that a draw changes is a weight: of a row, of the censoring distribution, of the survival curve. The order of
times and scores is that of the whole table, so each draw is a few walks over sorted rows.

Ties: an event at time t comes before a censoring at t. So who is censored at t counts as alive at t, and the
distribution of censoring times is estimated among those who had no event at t.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]


class Ordered(NamedTuple):
    """Rows sorted by rising time.

    Attributes:
        order: Place in the table of each sorted row (N,).
        rows: Column of the weights of each sorted row (N,).
        time: Follow-up time (N,), rising.
        event: True where the event was seen (N,).
    """

    order: Index
    rows: Index
    time: Array
    event: NDArray[np.bool_]


def order_by_time(time: Array, event: Array, rows: Index) -> Ordered:
    """Sort rows once, by time; `rows` is the column of the weights of each row (N,)."""
    order = np.argsort(time, kind="stable").astype(np.int64)
    return Ordered(order, rows[order].astype(np.int64), time[order], event[order] > 0.5)


@njit(cache=True, nogil=True)
def survival_at(
    rows: Index, time: Array, event: NDArray[np.bool_], weights: NDArray[np.generic], grid: Array
) -> tuple[Array, Array]:
    """Kaplan-Meier survival (draws, T) at rising times (T,), and the weight still at risk after each.

    Arguments are those of `Ordered`, the weights (draws, columns), and the grid. NaN in a draw without rows, and after
    the last follow-up time unless the curve has reached 0.
    """
    n_draws, n = weights.shape[0], rows.shape[0]
    curve = np.full((n_draws, grid.shape[0]), np.nan)
    risk = np.zeros((n_draws, grid.shape[0]))
    for draw in range(n_draws):
        weight = weights[draw]
        at_risk = 0.0
        for i in range(n):
            at_risk += np.float64(weight[rows[i]])
        if at_risk <= 0.0:
            continue
        value, i = 1.0, 0
        for k in range(grid.shape[0]):
            while i < n and time[i] <= grid[k]:
                t, died, gone = time[i], 0.0, 0.0
                while i < n and time[i] == t:
                    w = np.float64(weight[rows[i]])
                    gone += w
                    if event[i]:
                        died += w
                    i += 1
                if died > 0.0:
                    value *= 1.0 - died / at_risk
                at_risk -= gone
            risk[draw, k] = at_risk
            if at_risk > 0.0 or value <= 0.0 or (i == n and time[n - 1] == grid[k]):
                curve[draw, k] = value
    return curve, risk


@njit(cache=True, nogil=True)
def _censoring(rows: Index, time: Array, event: NDArray[np.bool_], weight: NDArray[np.generic], left: Array) -> None:
    """Fill P(C >= T_i), the chance of not being censored before the row's time, for each sorted row."""
    at_risk = 0.0
    n = rows.shape[0]
    for i in range(n):
        at_risk += np.float64(weight[rows[i]])
    value, i = 1.0, 0
    while i < n:
        t, died, censored = time[i], 0.0, 0.0
        while i < n and time[i] == t:
            left[i] = value
            w = np.float64(weight[rows[i]])
            if event[i]:
                died += w
            else:
                censored += w
            i += 1
        if censored > 0.0 and at_risk - died > 0.0:
            value *= max(1.0 - censored / (at_risk - died), 0.0)
        at_risk -= died + censored


@njit(cache=True, nogil=True)
def concordance(
    rows: Index,
    time: Array,
    event: NDArray[np.bool_],
    place: Index,
    weights: NDArray[np.generic],
    tau: float,
) -> Array:
    """Harrell's and Uno's C (draws, 2); NaN where no pair can be compared.

    A pair is an event and somebody who is known to live longer. Scores are kept in a Fenwick tree by rank while the
    rows are taken in from the longest time to the shortest, so that a draw costs N log N steps.

    Args:
        rows: See `Ordered`, as time and event.
        time: Rising (N,).
        event: Whether the event was seen (N,).
        place: Rank of each sorted row's score among the distinct scores, from 1 (N,).
        weights: (draws, columns).
        tau: Uno's C counts events before this time.
    """
    n, n_ranks = rows.shape[0], place.max()
    result = np.full((weights.shape[0], 2), np.nan)
    tree, mass, left = np.zeros(n_ranks + 1), np.zeros(n_ranks + 1), np.ones(n)
    for draw in range(weights.shape[0]):
        weight = weights[draw]
        tree[:] = 0.0
        mass[:] = 0.0
        _censoring(rows, time, event, weight, left)
        total, good, pairs, good_u, pairs_u = 0.0, 0.0, 0.0, 0.0, 0.0
        end = n
        while end > 0:
            start = end - 1
            while start > 0 and time[start - 1] == time[end - 1]:
                start -= 1
            for alive in (True, False):  # censored at this time: alive, so taken in before the events are compared
                if not alive:
                    for i in range(start, end):
                        w = np.float64(weight[rows[i]])
                        if not event[i] or w == 0.0:
                            continue
                        below, r = 0.0, place[i] - 1
                        while r > 0:
                            below += tree[r]
                            r -= r & -r
                        value = w * (below + 0.5 * mass[place[i]])
                        good += value
                        pairs += w * total
                        if time[i] < tau:
                            inverse = 1.0 / (left[i] * left[i])
                            good_u += value * inverse
                            pairs_u += w * total * inverse
                for i in range(start, end):
                    w = np.float64(weight[rows[i]])
                    if event[i] == alive or w == 0.0:
                        continue
                    total += w
                    mass[place[i]] += w
                    r = place[i]
                    while r <= n_ranks:
                        tree[r] += w
                        r += r & -r
            end = start
        if pairs > 0.0:
            result[draw, 0] = good / pairs
        if pairs_u > 0.0:
            result[draw, 1] = good_u / pairs_u
    return result


@njit(cache=True, nogil=True)
def auc_and_brier(
    rows: Index,
    time: Array,
    event: NDArray[np.bool_],
    risks: Array,
    falling: Index,
    horizons: Array,
    weights: NDArray[np.generic],
) -> Array:
    """Cumulative/dynamic AUC, IPCW Brier score, and that of the Kaplan-Meier curve, (draws, H, 3).

    Cases had the event by the horizon and weigh 1 / P(C >= T); controls were followed beyond it and weigh
    1 / P(C > horizon). Who was censored before the horizon weighs nothing. The weights of cases and controls add up
    to the total (Satten & Datta, American Statistician 2001, 10.1198/000313001317098185), and those of the cases to the
    Kaplan-Meier risk, so that neither curve needs a walk of its own. NaN where nobody was followed beyond the
    horizon, and for the AUC also where nobody had the event by then.

    Args:
        rows: See `Ordered`, as time and event.
        time: Rising (N,).
        event: Whether the event was seen (N,).
        risks: Probability of the event by each horizon, or any score for the AUC alone, of the sorted rows (H, N).
        falling: Sorted rows by falling risk (H, N).
        horizons: Times (H,).
        weights: (draws, columns).
    """
    n = rows.shape[0]
    result = np.full((weights.shape[0], horizons.shape[0], 3), np.nan)
    left = np.ones(n)
    for draw in range(weights.shape[0]):
        weight = weights[draw]
        _censoring(rows, time, event, weight, left)
        for h in range(horizons.shape[0]):
            horizon, risk = horizons[h], risks[h]
            total, controls, cases, case_loss, control_loss = 0.0, 0.0, 0.0, 0.0, 0.0
            seen_before, cases_before, area = 0.0, 0.0, 0.0
            for k in range(n):
                i = falling[h, k]
                w = np.float64(weight[rows[i]])
                total += w
                if time[i] > horizon:
                    controls += w
                    control_loss += w * risk[i] * risk[i]
                elif event[i] and w > 0.0:  # beyond the last row with weight nothing is left to divide by
                    cases += w / left[i]
                    case_loss += w / left[i] * (1.0 - risk[i]) * (1.0 - risk[i])
                if k == n - 1 or risk[falling[h, k + 1]] != risk[i]:
                    area += (controls - seen_before) * (cases + cases_before)
                    seen_before, cases_before = controls, cases
            if controls <= 0.0:
                continue
            chance = cases / total
            result[draw, h, 1] = (case_loss + control_loss * (total - cases) / controls) / total
            result[draw, h, 2] = chance * (1.0 - chance)
            if cases > 0.0:
                result[draw, h, 0] = area / (2.0 * controls * cases)
    return result
