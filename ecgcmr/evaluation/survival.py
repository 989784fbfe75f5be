"""Outcomes with follow-up: concordance, time-dependent AUC, Brier score, each with its draws.

Definitions. Harrell's C is the share of comparable pairs (an event, and somebody known to live longer) in which the
one with the event has the larger score, ties counting half (Statistics in Medicine 1996,
10.1002/(SICI)1097-0258(19960229)15:4<361::AID-SIM168>3.0.CO;2-4). It depends on how people were censored. Uno's C
weighs each event by the inverse square of the chance of not being censored before (Statistics in Medicine 2011,
10.1002/sim.1154) and counts events before the last horizon. `auc_at_h` compares those with an event by h with those
followed beyond h, weighted likewise (cumulative/dynamic). `brier_at_h` is the squared error of the probability of an
event by h (Graf, Statistics in Medicine 1999), `ibs` its mean over the horizons by the trapezoid rule, and `ipa` is
1 - ibs / ibs of the Kaplan-Meier curve, above 0 for a model that knows more than the average risk. The censoring
distribution is estimated in every draw anew, on the evaluated rows, and does not depend on the score.
`observed_expected_at_h` is the Kaplan-Meier risk by h divided by the mean predicted one: calibration in the large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ecgcmr.evaluation.bootstrap import Bootstrapped, SubjectDraws
from ecgcmr.evaluation.scores import ArmKey, Score, stack_seeds
from ecgcmr.evaluation.survival_kernels import Ordered, auc_and_brier, concordance, order_by_time, survival_at
from ecgcmr.evaluation.weighting import weighted_sums

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Survival:
    """Follow-up and predictions of the rows that were at risk.

    Attributes:
        time: Follow-up time (N,), from 0 on.
        event: 1 where the event was seen, 0 where censored (N,).
        score: Larger means an earlier event (N,).
        subjects: Subject of each row (N,).
        risks: Probability of the event by each horizon (N, H); None without.
        horizons: Rising times (H,).
    """

    time: Array
    event: Array
    score: Array
    subjects: NDArray[np.int64]
    risks: Array | None = None
    horizons: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.time)
        for name in ("time", "event", "score", "subjects"):
            values = getattr(self, name)
            if values.shape != (n,) or n == 0:
                raise ValueError(f"{name} has shape {values.shape}, expected ({n},), with at least one row")
            if not np.isfinite(values).all():
                raise ValueError(f"{name} must be finite; leave out rows that were not at risk")
        if self.time.min() < 0:
            raise ValueError(f"follow-up time {self.time.min():g} is negative; time starts at the recording")
        if not np.isin(self.event, (0.0, 1.0)).all():
            raise ValueError("event must be 1 (seen) or 0 (censored)")
        rising = np.asarray(self.horizons, dtype=np.float64)
        if (rising <= 0).any() or (np.diff(rising) <= 0).any():
            raise ValueError(f"horizons must be above 0 and rising, got {self.horizons}")
        if self.risks is not None:
            if self.risks.shape != (n, len(rising)):
                raise ValueError(f"risks have shape {self.risks.shape}, expected ({n} rows, {len(rising)} horizons)")
            if not ((self.risks >= 0) & (self.risks <= 1)).all():
                raise ValueError("risks must be probabilities within [0, 1]")


def survival_rows(table: pd.DataFrame, target: str, split: str, horizons: Sequence[float] | None = None) -> Survival:
    """The rows of one outcome and split that were at risk.

    Args:
        table: Predictions table with the column `time`.
        target: Name of the outcome.
        split: `train`, `val` or `test`.
        horizons: Times for the AUC; those with probabilities in the table when absent.

    Raises:
        ValueError: When there are no such rows, or a row at risk has no time.
    """
    if "time" not in table.columns:
        raise ValueError("the predictions table has no column 'time'; make it with make_survival_predictions")
    rows = table[(table["target"] == target) & (table["split"] == split) & table["truth"].notna()]
    horizon = rows["horizon"] if "horizon" in rows.columns else pd.Series(np.nan, index=rows.index)
    scores, chances = rows[horizon.isna()], rows[horizon.notna()]
    if scores.empty:
        raise ValueError(f"the predictions table has no {split} rows at risk of {target!r} with a risk score")
    if scores["time"].isna().any():
        raise ValueError(f"{int(scores['time'].isna().sum())} {split} rows of {target!r} have an event but no time")
    found = tuple(sorted(chances["horizon"].unique())) if horizons is None else tuple(float(h) for h in horizons)
    risks = None
    if not chances.empty:
        wide = chances.pivot(index=["subject", "item"], columns="horizon", values="prediction")
        wide = wide.reindex(index=pd.MultiIndex.from_frame(scores[["subject", "item"]]), columns=list(found))
        if wide.isna().to_numpy().any():
            raise ValueError(f"some rows of {target!r} have no probability at one of the horizons {found}")
        risks = wide.to_numpy(dtype=np.float64)
    time, event, score = (scores[name].to_numpy(dtype=np.float64) for name in ("time", "truth", "prediction"))
    return Survival(time, event, score, scores["subject"].to_numpy(), risks, found)


def bootstrap_survival(
    data: Survival, draws: SubjectDraws, names: Sequence[str] | None = None
) -> dict[str, Bootstrapped]:
    """Metrics of one outcome, with their bootstrap distributions.

    Args:
        data: Follow-up and predictions.
        draws: From `draw_subjects`.
        names: Metrics that are wanted, all when absent; walks that none of them needs are left out.

    Returns:
        `harrell_c`, `uno_c`, for each horizon `auc_at_h`, and with probabilities `brier_at_h`,
        `observed_expected_at_h`, `ibs` and `ipa` (these two from two horizons on). A value is NaN where it is not
        defined: no event, or nobody followed that long.
    """
    columns = draws.index(data.subjects)
    ordered = order_by_time(data.time, data.event, columns)
    everyone = np.ones((1, draws.counts.shape[1]), dtype=np.uint16)
    both = [_metrics(data, ordered, counts, names) for counts in (everyone, draws.counts)]
    n_subjects, n = int(np.unique(columns).size), len(data.time)
    return {name: Bootstrapped(float(both[0][name][0]), both[1][name], n_subjects, n) for name in both[0]}


def _metrics(
    data: Survival, ordered: Ordered, counts: NDArray[np.uint16], names: Sequence[str] | None
) -> dict[str, Array]:
    walk = (ordered.rows, ordered.time, ordered.event)
    found: dict[str, Array] = {}
    if _wanted(names, "harrell_c", "uno_c"):
        place = np.unique(data.score, return_inverse=True)[1].astype(np.int64)[ordered.order] + 1
        tau = data.horizons[-1] if data.horizons else np.inf
        pairs = concordance(*walk, place, counts, float(tau))
        found = {"harrell_c": pairs[:, 0], "uno_c": pairs[:, 1]}
    horizons = np.asarray(data.horizons, dtype=np.float64)
    if len(horizons) and _wanted(names, "auc_at_", "brier_at_", "ibs", "ipa"):
        values = np.broadcast_to(data.score, (len(horizons), len(data.score))) if data.risks is None else data.risks.T
        values = np.ascontiguousarray(values[:, ordered.order])
        falling = np.argsort(-values, axis=1, kind="stable").astype(np.int64)
        at = auc_and_brier(*walk, values, falling, horizons, counts)
        found |= {f"auc_at_{h:g}": at[:, k, 0] for k, h in enumerate(data.horizons)}
        if data.risks is not None:
            found |= {f"brier_at_{h:g}": at[:, k, 1] for k, h in enumerate(data.horizons)}
        if data.risks is not None and len(horizons) > 1:
            span = horizons[-1] - horizons[0]
            model, average = (np.trapezoid(at[:, :, k], horizons, axis=1) / span for k in (1, 2))
            found["ibs"] = model
            found["ipa"] = 1 - np.divide(model, average, out=np.full_like(model, np.nan), where=average > 0)
    if data.risks is not None and _wanted(names, "observed_expected_at_"):
        observed = 1 - survival_at(*walk, counts, horizons)[0]
        terms = np.concatenate([np.ones((len(data.risks), 1)), data.risks], axis=1)[ordered.order]
        sums = weighted_sums(terms, ordered.rows, counts)
        expected = np.divide(sums[:, 1:], sums[:, :1], out=np.full_like(observed, np.nan), where=sums[:, :1] > 0)
        ratio = np.divide(observed, expected, out=np.full_like(observed, np.nan), where=expected > 0)
        found |= {f"observed_expected_at_{h:g}": ratio[:, k] for k, h in enumerate(data.horizons)}
    return found if names is None else {name: values for name, values in found.items() if name in names}


def _wanted(names: Sequence[str] | None, *starts: str) -> bool:
    return names is None or any(name.startswith(starts) for name in names)


def score_survival(
    tables: Mapping[int, pd.DataFrame],
    outcomes: Sequence[str],
    draws: SubjectDraws,
    key: ArmKey,
    horizons: Sequence[float] | None = None,
) -> list[Score]:
    """Score the test rows of an arm, one predictions table for each seed, as `score_predictions` does.

    Args:
        tables: Seed -> predictions table.
        outcomes: Targets with follow-up.
        draws: Subject draws of the test subjects.
        key: What the arm is.
        horizons: See `survival_rows`.
    """
    if not tables:
        raise ValueError(f"no predictions for arm {key.arm!r}")
    scores: list[Score] = []
    for target in outcomes:
        by_seed = [bootstrap_survival(survival_rows(t, target, "test", horizons), draws) for t in tables.values()]
        scores += stack_seeds(key, target, tuple(tables), by_seed)
    return scores


def make_survival_predictions(
    subjects: ArrayLike,
    outcomes: Sequence[str],
    arrays: tuple[ArrayLike, ArrayLike, ArrayLike],
    split: str | Sequence[str],
    items: ArrayLike | None = None,
    groups: Mapping[str, ArrayLike] | pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Build a predictions table of risk scores.

    Args:
        subjects: Subject of each row (N,).
        outcomes: Names of the K outcomes.
        arrays: (time, event, score), each (N, K), or (N,) for one outcome; time and event are NaN when not at risk.
        split: One split name for all rows, or one for each row (N,).
        items: See `make_predictions`.
        groups: See `make_predictions`.

    Raises:
        ValueError: Where a shape or a value is wrong, or time and event are not missing together.
    """
    from ecgcmr.evaluation.predictions import check_predictions, make_predictions

    time, event, score = (np.asarray(values, dtype=np.float64) for values in arrays)
    if time.shape != event.shape:
        raise ValueError(f"time has shape {time.shape}, event {event.shape}; one of each for every row and outcome")
    lone = np.isnan(time) != np.isnan(event)
    if lone.any():
        raise ValueError(
            f"{int(lone.sum())} row(s) have a time without an event or the reverse; give both, or NaN twice"
        )
    if not np.isin(event[~np.isnan(event)], (0.0, 1.0)).all():
        raise ValueError("event must be 1 (seen), 0 (censored) or NaN (not at risk)")
    table = make_predictions(subjects, outcomes, (event, score), split, items, groups)
    table = table.assign(time=time.T.reshape(-1), horizon=np.nan)
    return check_predictions(table)
