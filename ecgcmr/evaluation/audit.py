"""Group audit: a metric for each group with its interval, and the gap between the best and the worst group.

Definitions. The bootstrap draws subjects within each group, so that group sizes stay as they are. The gap is the
largest minus the smallest group value. It can not be negative and is therefore above 0 even when groups do not differ
at all; the mean gap after permuting the group labels over subjects is given beside it (`null_gap`), with the share of
permutations that reach the observed gap (`p`). Groups below `MIN_SUBJECTS` subjects are listed without numbers
("not reported": small-cell suppression). Subjects without a group form the level `unknown`, which is listed but is no
part of the gap.
"""

from __future__ import annotations

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
    rows = _select(table, plan)
    subjects = rows["subject"].to_numpy()
    first = rows.drop_duplicates("subject")
    who, level = first["subject"].to_numpy(), first["level"].to_numpy()
    draws = draw_subjects(who, plan.n_draws, generator, strata=level)
    level = level[np.argsort(who)].astype(str)
    records, reported = [], {}
    for name in sorted(set(level), key=lambda one: (one == UNKNOWN, one)):
        part = rows[rows["level"] == name]
        record: dict[str, Any] = {
            "level": name,
            "n_subjects": int((level == name).sum()),
            "n_items": len(part),
            "prevalence": float(part["truth"].mean()),
            "flags": "",
        }
        if record["n_subjects"] < MIN_SUBJECTS:
            record |= {
                "n_items": None,
                "prevalence": np.nan,
                "flags": f"not reported: fewer than {MIN_SUBJECTS} subjects",
            }
        else:
            found = _metric(plan, part, draws)
            interval = found.interval()
            record |= {"value": interval.value, "lo": interval.lo, "hi": interval.hi}
            if np.isnan(interval.lo):
                record["flags"] = f"interval not estimable: {interval.degenerate} of {plan.n_draws} draws degenerate"
            elif name != UNKNOWN:
                reported[name] = found
        records.append(record)
    if len(reported) > 1:
        permuted = _null_gaps(rows, (draws, level), list(reported), plan, generator)
        records.append(_gap_record(reported, permuted, len(np.unique(subjects))))
    result = pd.DataFrame(records).assign(attribute=plan.attribute, metric=plan.metric)
    return result.reindex(columns=list(AUDIT_COLUMNS))


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


def _metric(plan: AuditPlan, part: pd.DataFrame, draws: SubjectDraws) -> Bootstrapped:
    columns = (part["truth"].to_numpy(), part["prediction"].to_numpy())
    return bootstrap_metrics([plan.metric], columns, part["subject"].to_numpy(), draws, plan.threshold)[plan.metric]


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


def _null_gaps(
    rows: pd.DataFrame,
    drawn: tuple[SubjectDraws, NDArray[Any]],
    names: list[str],
    plan: AuditPlan,
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """Gaps (permutations,) with group labels permuted over subjects: a permutation is a set of 0/1 weights."""
    draws, level = drawn
    levels, codes = np.unique(level, return_inverse=True)
    member = generator.permuted(np.tile(codes.astype(np.int16), (plan.n_permutations, 1)), axis=1)
    values = []
    for name in names:
        weights = SubjectDraws(draws.subjects, (member == np.searchsorted(levels, name)).astype(np.uint16))
        values.append(_metric(plan, rows, weights).draws)
    return np.asarray(np.ptp(np.stack(values), axis=0))
