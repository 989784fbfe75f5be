"""Predictions tables of the three arms that an evaluation compares: the model, the covariates, both together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.evaluation.baselines import NotFitted, Rows, covariate_scores, stacked_scores
from ecgcmr.evaluation.covariates import Covariates
from ecgcmr.evaluation.kaplan_meier import add_cox_probabilities
from ecgcmr.evaluation.predictions import check_predictions, make_predictions
from ecgcmr.evaluation.survival import make_survival_predictions
from ecgcmr.evaluation.targets import Target

Array = NDArray[np.float64]

ENOUGH_EVENTS = 20
"""Events among the validation subjects from which the baseline hazard of a Cox head is taken from them."""


@dataclass(frozen=True)
class Items:
    """Items of an evaluation, all parts.

    Attributes:
        subjects: Subject of each item (N,).
        items: Row of the recording or study (N,).
        split: Part (N,).
        rows: One for each target.
        groups: Group columns of each item (N rows).
    """

    subjects: NDArray[np.int64]
    items: NDArray[np.int64]
    split: NDArray[np.str_]
    rows: dict[str, Rows]
    groups: pd.DataFrame


@dataclass
class ArmTables:
    """Tables of the arms, and what could not be fitted.

    Attributes:
        model: Table of the model.
        covariates: Table of the covariates alone; None when no target could be fitted.
        both: Table of both together; None likewise.
        horizons: Outcome -> times at which probabilities are compared.
        not_fitted: (arm, target, why).
        fitted_on: What was fitted where, for the report.
        stacks: Target -> intercept and weights of the combination.
    """

    model: pd.DataFrame
    covariates: pd.DataFrame | None = None
    both: pd.DataFrame | None = None
    horizons: dict[str, tuple[float, ...]] = field(default_factory=dict)
    not_fitted: list[tuple[str, str, str]] = field(default_factory=list)
    fitted_on: dict[str, str] = field(default_factory=dict)
    stacks: dict[str, dict[str, float]] = field(default_factory=dict)


def needs_train(targets: Sequence[Target], items: Items) -> bool:
    """Whether the model must predict training subjects too: for the baseline hazard of a Cox head."""
    return any(
        target.kind == "survival" and not target.ends and _baseline_part(items.rows[target.name]) == "train"
        for target in targets
    )


def make_tables(
    targets: Sequence[Target],
    items: Items,
    outputs: Array,
    covariates: Covariates,
    horizons: Sequence[float] | None = None,
) -> ArmTables:
    """Make the tables.

    Args:
        targets: What is predicted.
        items: All items.
        outputs: Outputs of the head (N, K), NaN for items that it did not see.
        covariates: Age, sex, BMI.
        horizons: Times for outcomes of a Cox head; round ones within most of the follow-up when absent.
    """
    found = ArmTables(pd.DataFrame())
    model, alone, both = [], [], []
    for target in targets:
        rows = items.rows[target.name]
        found.horizons[target.name] = target.ends or tuple(horizons or default_horizons(rows))
        score, risks = _model_scores(target, outputs)
        model.append(_table(items, target, score))
        if risks is not None:
            model[-1] = _with_risks(model[-1], risks, target.ends)
        elif target.kind == "survival":
            part = _baseline_part(rows)
            model[-1] = _add_risks(found, model[-1], target, part, "model")
            found.fitted_on[f"baseline hazard of {target.name}"] = part
        # A head of intervals gives a cumulative hazard; the logarithm is what adds up with other log hazards.
        linear = np.log(np.maximum(score, 1e-12)) if risks is not None else score
        try:
            base = covariate_scores(rows, covariates.for_target(target.name))
        except NotFitted as error:
            found.not_fitted += [(arm, target.name, str(error)) for arm in ("covariates", "both")]
            continue
        alone.append(_add_risks(found, _table(items, target, base), target, "train", "covariates"))
        try:
            together, stack = stacked_scores(rows, linear, base)
        except NotFitted as error:
            found.not_fitted.append(("both", target.name, str(error)))
            continue
        found.stacks[target.name] = stack._asdict()
        both.append(_add_risks(found, _table(items, target, together), target, "val", "both"))
    found.model = _joined(model)
    predicted = found.model[["subject", "item"]].drop_duplicates()
    found.covariates = _joined(alone, predicted) if alone else None
    found.both = _joined(both, predicted) if both else None
    return found


def default_horizons(rows: Rows) -> tuple[float, ...]:
    """Four round times, evenly spaced, within the follow-up of at least a fifth of the subjects; none of no outcome."""
    time = rows.time[~np.isnan(rows.truth) & (rows.split == "train")]
    last = float(np.quantile(time, 0.8)) if rows.kind == "survival" and len(time) else 0.0
    if last <= 0:
        return ()
    power = 10.0 ** np.floor(np.log10(last / 4))
    step = max(factor * power for factor in (1, 2, 2.5, 5) if factor * power <= last / 4 * (1 + 1e-9))
    return tuple(float(f"{step * k:.6g}") for k in (1, 2, 3, 4))


def _baseline_part(rows: Rows) -> str:
    return "val" if np.nansum(rows.truth[rows.seen("val")]) >= ENOUGH_EVENTS else "train"


def _model_scores(target: Target, outputs: Array) -> tuple[Array, Array | None]:
    """Score (N,), and for a head of intervals the probability by the end of each (N, J)."""
    columns = outputs[:, list(target.outputs)]
    if target.kind != "survival" or not target.ends:
        return columns[:, 0], None
    with np.errstate(invalid="ignore"):  # NaN of items that were not predicted
        hazard = np.logaddexp(0.0, columns).cumsum(axis=1)  # minus the log of the chance to live through the intervals
    return hazard[:, -1], 1 - np.exp(-hazard)


def _table(items: Items, target: Target, score: Array) -> pd.DataFrame:
    """Rows of the items that have a score."""
    known = ~np.isnan(score)
    rows = items.rows[target.name]
    groups = {str(name): column[known] for name, column in items.groups.items()}
    who, split = items.subjects[known], items.split[known].tolist()
    truth, found = rows.truth[known], score[known]
    if target.kind != "survival":
        return make_predictions(who, [target.name], (truth, found), split, items.items[known], groups)
    arrays = (rows.time[known], truth, found)
    return make_survival_predictions(who, [target.name], arrays, split, items.items[known], groups)


def _with_risks(table: pd.DataFrame, risks: Array, ends: Sequence[float]) -> pd.DataFrame:
    known = risks[~np.isnan(risks[:, 0])]
    added = [table.assign(prediction=known[:, j], horizon=end) for j, end in enumerate(ends)]
    return pd.concat([table, *added], ignore_index=True)


def _add_risks(found: ArmTables, table: pd.DataFrame, target: Target, part: str, arm: str) -> pd.DataFrame:
    horizons = found.horizons[target.name]
    if target.kind != "survival" or not horizons:
        return table
    try:
        return add_cox_probabilities(table, target.name, horizons, part)
    except ValueError as error:
        found.not_fitted.append((arm, target.name, f"no probabilities: {error}"))
        return table


def _joined(tables: Sequence[pd.DataFrame], predicted: pd.DataFrame | None = None) -> pd.DataFrame:
    """One table; only items that the model predicted too, so that arms are compared on the same rows."""
    columns = dict.fromkeys(name for table in tables for name in table.columns)
    # Columns of follow-up that one kind of target lacks must not come out as objects.
    filled = [table.reindex(columns=list(columns)) for table in tables]
    joined = pd.concat([table.astype({n: float for n in ("time", "horizon") if n in columns}) for table in filled])
    if predicted is not None:
        joined = joined.merge(predicted, on=["subject", "item"])
    return check_predictions(joined)


def make_items(
    arrays: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.str_]],
    targets: Sequence[Target],
    labels: Mapping[str, Array],
    groups: pd.DataFrame,
) -> Items:
    """Put together the items of an evaluation.

    Args:
        arrays: Subjects, items and parts, each (N,).
        targets: What is predicted.
        labels: Label column -> values of the items (N,).
        groups: Group columns by subject.
    """
    subjects, numbers, split = arrays
    rows = {}
    for target in targets:
        columns = np.stack([labels[name] for name in target.columns], axis=1)
        truth = target.truth(columns)
        time = columns[:, 0] if target.kind == "survival" else np.full(len(truth), np.nan)
        if target.kind == "survival":  # who has an event without a time, or the reverse, is at risk of nothing known
            gone = np.isnan(time) | np.isnan(truth)
            time, truth = np.where(gone, np.nan, time), np.where(gone, np.nan, truth)
        rows[target.name] = Rows(target.name, target.kind, subjects, split, truth, time)
    return Items(subjects, numbers, split, rows, groups.loc[subjects].reset_index(drop=True))
