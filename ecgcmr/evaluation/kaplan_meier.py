"""Kaplan-Meier curves by predicted stratum, the log-rank test between them, and probabilities from a Cox score.

Strata are cut at quantiles of the score of validation (or else training) subjects, never of test subjects, so that a
stratum means the same in every evaluation. A subject counts once, with its first item: the log-rank test takes rows as
independent. Curves have intervals over subjects from the draws that all metrics use; strata stay as they are in a draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2

from ecgcmr.evaluation.bootstrap import SubjectDraws, percentile_interval
from ecgcmr.evaluation.predictions import check_predictions
from ecgcmr.evaluation.survival import survival_rows
from ecgcmr.evaluation.survival_kernels import order_by_time, survival_at

Array = NDArray[np.float64]

CURVE_COLUMNS = ("stratum", "n_subjects", "n_events", "time", "at_risk", "survival", "lo", "hi")


class LogRank(NamedTuple):
    """Test of equal hazards (Mantel, 1966): chi-square statistic, degrees of freedom, p value."""

    statistic: float
    degrees: int
    p: float


@dataclass(frozen=True)
class Strata:
    """Survival by predicted stratum.

    Attributes:
        curves: Columns `CURVE_COLUMNS`; stratum 1 has the lowest scores.
        cuts: Scores between the strata.
        cut_on: Split that the cuts come from.
        test: Log-rank test over all strata that hold subjects.
    """

    curves: pd.DataFrame
    cuts: Array
    cut_on: str
    test: LogRank


def predicted_strata(
    table: pd.DataFrame, target: str, draws: SubjectDraws, times: Sequence[float], n_strata: int = 3
) -> Strata:
    """Kaplan-Meier curves of the test subjects by predicted stratum.

    Args:
        table: Predictions table with the column `time`.
        target: Name of the outcome.
        draws: Subject draws of the test subjects.
        times: Rising times at which the curves are given.
        n_strata: Number of strata, cut at equal shares of the subjects that the cuts come from.

    Raises:
        ValueError: When there are neither validation nor training rows of the outcome to cut on, or no test rows.
    """
    grid = np.asarray(times, dtype=np.float64)
    if n_strata < 2 or not grid.size or (np.diff(grid) <= 0).any() or grid[0] < 0:
        raise ValueError(f"need at least two strata and rising times from 0 on, got {n_strata} and {list(times)}")
    first = table.sort_values(["subject", "item"]).drop_duplicates(
        ["subject", "target"] + (["horizon"] if "horizon" in table.columns else [])
    )
    at_risk = first[(first["target"] == target) & first["truth"].notna()]
    splits = [name for name in ("val", "train") if (at_risk["split"] == name).any()]
    if not splits:
        raise ValueError(f"no val or train rows of {target!r} to cut strata on; test rows must not decide them")
    cuts = np.quantile(survival_rows(first, target, splits[0]).score, np.arange(1, n_strata) / n_strata)
    data = survival_rows(first, target, "test")
    stratum = np.searchsorted(cuts, data.score, side="right")
    columns, records = draws.index(data.subjects), []
    everyone = np.ones((1, draws.counts.shape[1]), dtype=np.uint16)
    for number in range(n_strata):
        inside = stratum == number
        if not inside.any():
            continue
        ordered = order_by_time(data.time[inside], data.event[inside], columns[inside])
        walk = (ordered.rows, ordered.time, ordered.event)
        value, left = survival_at(*walk, everyone, grid)
        drawn, _ = survival_at(*walk, draws.counts, grid)
        for k, t in enumerate(grid):
            interval = percentile_interval(value[0, k], drawn[:, k])
            about = (number + 1, int(inside.sum()), int(data.event[inside].sum()), float(t), int(left[0, k]))
            records.append((*about, interval.value, interval.lo, interval.hi))
    curves = pd.DataFrame(records, columns=list(CURVE_COLUMNS))
    return Strata(curves, cuts, splits[0], logrank(data.time, data.event, stratum))


def logrank(time: ArrayLike, event: ArrayLike, group: ArrayLike) -> LogRank:
    """Log-rank test of equal hazards in all groups; NaN with one group or without an event.

    Args:
        time: Follow-up time (N,).
        event: 1 seen, 0 censored (N,).
        group: Group of each row (N,).
    """
    t, seen = np.asarray(time, dtype=np.float64), np.asarray(event) > 0.5
    names, code = np.unique(np.asarray(group), return_inverse=True)
    k = len(names)
    if k < 2 or not seen.any():
        return LogRank(float("nan"), k - 1, float("nan"))
    moments, at = np.unique(t, return_inverse=True)
    died = np.zeros((len(moments), k))
    gone = np.zeros((len(moments), k))
    np.add.at(died, (at[seen], code[seen]), 1.0)
    np.add.at(gone, (at, code), 1.0)
    risk = gone[::-1].cumsum(axis=0)[::-1]  # at risk just before each time (moments, k)
    n, d = risk.sum(axis=1), died.sum(axis=1)
    share = risk / n[:, None]
    excess = (died - d[:, None] * share).sum(axis=0)
    factor = np.where(n > 1, d * (n - d) / np.maximum(n - 1, 1), 0.0)
    covariance = np.diag((factor[:, None] * share).sum(axis=0)) - np.einsum("t,ti,tj->ij", factor, share, share)
    statistic = float(excess[:-1] @ np.linalg.pinv(covariance[:-1, :-1]) @ excess[:-1])
    return LogRank(statistic, k - 1, float(chi2.sf(statistic, k - 1)))


def breslow(time: ArrayLike, event: ArrayLike, score: ArrayLike, horizons: ArrayLike) -> Array:
    """Cumulative baseline hazard (H,) of a Cox model with these log relative hazards (Breslow, Biometrics 1974).

    Args:
        time: Follow-up time (N,) of the subjects that the model was fitted on.
        event: 1 seen, 0 censored (N,).
        score: Log relative hazard (N,).
        horizons: Times (H,).
    """
    t, seen, s = np.asarray(time, dtype=np.float64), np.asarray(event) > 0.5, np.asarray(score, dtype=np.float64)
    moments, at = np.unique(t, return_inverse=True)
    shift = s.max()
    mass = np.bincount(at, weights=np.exp(s - shift), minlength=len(moments))[::-1].cumsum()[::-1]
    died = np.bincount(at, weights=seen.astype(np.float64), minlength=len(moments))
    cumulative = np.concatenate([[0.0], np.cumsum(died / mass)]) * np.exp(-shift)
    return np.asarray(cumulative[np.searchsorted(moments, np.asarray(horizons), side="right")])


def add_cox_probabilities(
    table: pd.DataFrame, target: str, horizons: Sequence[float], fitted_on: str = "train"
) -> pd.DataFrame:
    """Add rows with the probability of the event by each horizon, from scores that are log relative hazards.

    The baseline hazard is Breslow's on rows of the same table: a Cox score alone says who is at higher risk, not how
    high the risk is.

    Args:
        table: Predictions table with the column `time`.
        target: Name of the outcome.
        horizons: Times at which a probability is wanted.
        fitted_on: Split of those rows. On `train` rows a network's scores may be spread more widely than on others,
            which makes the baseline too low; with enough events `val` rows do not have this fault.

    Raises:
        ValueError: Without such rows at risk, without an event in them, or for a horizon beyond their follow-up.
    """
    fitted = survival_rows(table, target, fitted_on)
    if not fitted.event.any():
        raise ValueError(f"no {fitted_on} subject had the event {target!r}: there is no baseline hazard")
    last = float(fitted.time.max())
    if not len(horizons) or min(horizons) <= 0 or max(horizons) > last:
        raise ValueError(
            f"horizons {tuple(horizons)} must lie above 0 and within the longest {fitted_on} follow-up, {last:g}"
        )
    baseline = breslow(fitted.time, fitted.event, fitted.score, horizons)
    rows = table[(table["target"] == target) & table["horizon"].isna()]
    relative = np.exp(np.clip(rows["prediction"].to_numpy(), -500, 500))
    added = [
        rows.assign(prediction=1 - np.exp(-hazard * relative), horizon=float(horizon))
        for horizon, hazard in zip(horizons, baseline, strict=True)
    ]
    return check_predictions(pd.concat([table, *added], ignore_index=True))
