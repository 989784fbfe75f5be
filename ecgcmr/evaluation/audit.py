"""Group audit: metrics for each group with their intervals, and the gap between the largest and the smallest value.

Definitions. The bootstrap draws subjects within each group, so that group sizes stay as they are. The gap is the
largest minus the smallest group value. It can not be negative and is therefore above 0 even when groups do not differ
at all; the mean gap after permuting the group labels over subjects is given beside it (`null_gap`), with the share of
permutations that reach the observed gap (`p`). Groups below `MIN_SUBJECTS` subjects are listed without numbers
("not reported": small-cell suppression). Subjects without a group form the level `unknown`, which is listed but is no
part of the gap.

Outcomes with follow-up are audited by the metrics of `survival`: `harrell_c` for instance, and for calibration at a
horizon `observed_expected_at_h`. Their rows are those of the predictions table, with and without a horizon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.evaluation.bootstrap import (
    Bootstrapped,
    SubjectDraws,
    bootstrap_metrics,
    draw_subjects,
    percentile_interval,
)
from ecgcmr.evaluation.metrics import METRICS
from ecgcmr.evaluation.survival import bootstrap_survival, survival_rows

MIN_SUBJECTS = 10
UNKNOWN = "unknown"
AUDIT_COLUMNS = (
    "attribute",
    "level",
    "n_subjects",
    "n_items",
    "prevalence",
    "metric",
    "value",
    "lo",
    "hi",
    "null_gap",
    "p",
    "flags",
)


@dataclass(frozen=True)
class AuditPlan:
    """What to audit.

    Attributes:
        target: Name of the label.
        metric: Name of the metric.
        attribute: Group column of the predictions table.
        threshold: For metrics at a threshold: ONE threshold for all groups, chosen on validation subjects.
        n_draws: Bootstrap draws.
        n_permutations: Permutations of the group labels.
    """

    target: str
    metric: str
    attribute: str
    threshold: float | None = None
    n_draws: int = 2000
    n_permutations: int = 1000


def audit_groups(table: pd.DataFrame, plan: AuditPlan, generator: np.random.Generator) -> pd.DataFrame:
    """Audit one metric over one attribute, on the test rows of a predictions table.

    Args:
        table: Predictions table with the group column.
        plan: What to audit.
        generator: Source of randomness of draws and permutations.

    Returns:
        Columns `AUDIT_COLUMNS`; one row for each level; the last row (level `gap`) is largest minus smallest.

    Raises:
        ValueError: When the column is missing, a subject has two groups, or no test row has a label.
    """
    return audit_metrics(table, plan, (plan.metric,), generator)


@dataclass(frozen=True)
class AuditDraws:
    """Draws within groups, and permutations of the groups; the same for all targets that are observed in one set.

    Attributes:
        draws: Subject draws; every group keeps its size.
        level: Group of each subject of `draws` (S,).
        levels: Names of the groups, sorted.
        permuted: Place in `levels` of each subject in each permutation (permutations, S).
    """

    draws: SubjectDraws
    level: NDArray[Any]
    levels: NDArray[Any]
    permuted: NDArray[np.int16]


def audit_draws(table: pd.DataFrame, plan: AuditPlan, generator: np.random.Generator) -> AuditDraws:
    """Draw for one target and attribute; raises what `audit_groups` raises."""
    first = _select(table, plan).drop_duplicates("subject")
    who, level = first["subject"].to_numpy(), first["level"].to_numpy()
    draws = draw_subjects(who, plan.n_draws, generator, strata=level)
    level = level[np.argsort(who)].astype(str)
    levels, codes = np.unique(level, return_inverse=True)
    permuted = generator.permuted(np.tile(codes.astype(np.int16), (plan.n_permutations, 1)), axis=1)
    return AuditDraws(draws, level, levels, permuted)


def audit_metrics(
    table: pd.DataFrame, plan: AuditPlan, metrics: Sequence[str], source: np.random.Generator | AuditDraws
) -> pd.DataFrame:
    """Audit several metrics of one kind by the same draws and permutations; else as `audit_groups`.

    The rows of one metric stand together, in the order of `metrics`; `plan.metric` is not read. `source` is a
    generator, or what `audit_draws` gave for the same subjects and groups.
    """
    made = source if isinstance(source, AuditDraws) else audit_draws(table, plan, source)
    rows, draws, level = _select(table, plan), made.draws, made.level
    sizes = {name: int((level == name).sum()) for name in sorted(set(level), key=lambda one: (one == UNKNOWN, one))}
    large = [name for name, size in sizes.items() if size >= MIN_SUBJECTS]
    parts = {name: rows[rows["level"] == name] for name in sizes}
    values = {name: _metrics(plan, metrics, parts[name], _within(draws, level == name)) for name in large}
    named = [name for name in large if name != UNKNOWN]
    permuted = {}
    if len(named) > 1:
        # A permutation is a set of 0/1 weights.
        weights = {name: made.permuted == np.searchsorted(made.levels, name) for name in named}
        permuted = {
            name: _metrics(plan, metrics, rows, SubjectDraws(draws.subjects, member.astype(np.uint16)))
            for name, member in weights.items()
        }
    records = []
    for metric in metrics:
        reported = {}
        for name, size in sizes.items():
            if name not in values:
                about = {"level": name, "n_subjects": size, "prevalence": np.nan}
                flags = f"not reported: fewer than {MIN_SUBJECTS} subjects"
                records.append(about | {"metric": metric, "flags": flags})
                continue
            found, (n_items, prevalence) = values[name][metric], _size(parts[name])
            interval, flags = found.interval(), ""
            if np.isnan(interval.value):
                flags = "not defined here: one class only, or no event"
            elif np.isnan(interval.lo):
                flags = f"interval not estimable: {interval.degenerate} of {plan.n_draws} draws degenerate"
            elif name != UNKNOWN:
                reported[name] = found
            record = {"level": name, "n_subjects": size, "n_items": n_items, "prevalence": prevalence, "flags": flags}
            records.append(record | {"metric": metric, "value": interval.value, "lo": interval.lo, "hi": interval.hi})
        if len(reported) > 1:
            gaps = np.asarray(np.ptp(np.stack([permuted[name][metric].draws for name in reported]), axis=0))
            records.append({"metric": metric} | _gap_record(reported, gaps, len(draws.subjects)))
    result = pd.DataFrame(records).assign(attribute=plan.attribute)
    return result.reindex(columns=list(AUDIT_COLUMNS))


def _within(draws: SubjectDraws, member: NDArray[np.bool_]) -> SubjectDraws:
    """The draws of some subjects: those of a group were drawn among themselves."""
    return SubjectDraws(draws.subjects[member], draws.counts[:, member])


def _select(table: pd.DataFrame, plan: AuditPlan) -> pd.DataFrame:
    if plan.attribute not in table.columns:
        raise ValueError(f"no group column {plan.attribute!r} in the predictions table; columns: {list(table.columns)}")
    rows = table[(table["target"] == plan.target) & (table["split"] == "test") & table["truth"].notna()]
    if rows.empty:
        raise ValueError(f"no test row with an observed label of target {plan.target!r}")
    rows = rows.assign(
        level=rows[plan.attribute].astype(object).where(rows[plan.attribute].notna(), UNKNOWN).astype(str)
    )
    if (rows.groupby("subject")["level"].nunique() > 1).any():
        raise ValueError(
            f"a subject has two levels of {plan.attribute!r}; a group column must be constant in a subject"
        )
    return rows


def _metrics(
    plan: AuditPlan, metrics: Sequence[str], part: pd.DataFrame, draws: SubjectDraws
) -> dict[str, Bootstrapped]:
    if all(name in METRICS for name in metrics):
        columns = (part["truth"].to_numpy(), part["prediction"].to_numpy())
        return bootstrap_metrics(metrics, columns, part["subject"].to_numpy(), draws, plan.threshold)
    found = bootstrap_survival(survival_rows(part, plan.target, "test"), draws, metrics)
    absent = [name for name in metrics if name not in found]
    if absent:
        raise ValueError(f"no metric {absent[0]!r} of {plan.target!r} in this table; there are {', '.join(found)}")
    return found


def _size(part: pd.DataFrame) -> tuple[int, float]:
    """Number of items and share of the positive class (mean of a measurement); a horizon is no item of its own."""
    rows = part[part["horizon"].isna()] if "horizon" in part.columns else part
    return len(rows), float(rows["truth"].mean())


def _gap_record(reported: dict[str, Bootstrapped], permuted: NDArray[np.float64], n_subjects: int) -> dict[str, Any]:
    values = np.array([found.value for found in reported.values()])
    draws = np.stack([found.draws for found in reported.values()])
    gap = float(np.ptp(values))
    interval = percentile_interval(gap, np.ptp(draws, axis=0))
    good = permuted[~np.isnan(permuted)]
    return {
        "level": "gap",
        "n_subjects": n_subjects,
        "value": gap,
        "lo": interval.lo,
        "hi": interval.hi,
        "null_gap": float(good.mean()) if good.size else np.nan,
        "p": float((1 + np.sum(good >= gap - 1e-12)) / (1 + good.size)) if good.size else np.nan,
        "flags": "largest minus smallest level; compare with null_gap",
    }
