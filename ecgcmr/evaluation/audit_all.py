"""The group audit of an evaluation: every target by every group column, as plain rows for audit.json.

Many gaps are tested at once, so that some have a small p by chance. `q` is the p value after Benjamini and Hochberg
(JRSS B 1995, 10.1111/j.2517-6161.1995.tb02031.x) over all gaps of the evaluation: among gaps with q below 0.05 at most
about one in twenty is expected to be chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ecgcmr.evaluation.audit import AuditDraws, AuditPlan, audit_draws, audit_metrics
from ecgcmr.evaluation.targets import Target

AUDITED = {
    "regression": ("mae", "bias", "r2"),
    "binary": ("auroc", "brier", "observed_expected", "calibration_slope", "calibration_intercept"),
    "at a threshold": ("sensitivity", "specificity"),
    "survival": ("harrell_c",),
}
"""Metrics that are audited, by kind of target; outcomes with probabilities have calibration at a horizon too."""


def audit_all(
    table: pd.DataFrame,
    targets: Sequence[Target],
    horizons: Mapping[str, Sequence[float]],
    thresholds: Mapping[str, Mapping[str, float]],
    attributes: Sequence[str],
    how: tuple[int, int],
    generator: np.random.Generator,
) -> list[dict[str, Any]]:
    """Audit the test rows of a predictions table.

    Args:
        table: Predictions table with the group columns.
        targets: What was predicted.
        horizons: Outcome -> times of the probabilities; the middle one is audited.
        thresholds: Binary target -> threshold by rule, one for all groups.
        attributes: Group columns.
        how: Numbers of bootstrap draws and of permutations.
        generator: Source of randomness.

    Returns:
        Rows with the target and the columns of `audit_groups`, and `q` for gaps; None where there is no number.
    """
    found: dict[str, list[dict[str, Any]]] = {target.name: [] for target in targets}
    rows = {target.name: _observed(table, target) for target in targets}
    for attribute in attributes:
        # Targets that are observed in the same subjects share their draws, which take most of the time.
        known: dict[bytes, AuditDraws] = {}
        for target in sorted(targets, key=lambda one: _pattern(rows[one.name])):
            mine = rows[target.name]
            if mine.empty:
                continue
            cut = thresholds.get(target.name, {}).get("balanced")
            plan = AuditPlan(target.name, "", attribute, cut, *how)
            pattern = _pattern(mine)
            if pattern not in known:
                known = {pattern: audit_draws(mine, plan, generator)}
            metrics = _metrics(target, mine, horizons.get(target.name, ()), cut)
            audited = audit_metrics(mine, plan, metrics, known[pattern])
            found[target.name] += [{"target": target.name} | _named(row) for row in audited.to_dict("records")]
    plain = [_plain(row) for target in targets for row in found[target.name]]
    for row, q in zip(plain, _false_discovery([row["p"] for row in plain]), strict=True):
        row["q"] = q
    return plain


def _observed(table: pd.DataFrame, target: Target) -> pd.DataFrame:
    return table[(table["target"] == target.name) & (table["split"] == "test") & table["truth"].notna()]


def _pattern(rows: pd.DataFrame) -> bytes:
    return np.unique(rows["subject"].to_numpy()).tobytes()


def _metrics(target: Target, rows: pd.DataFrame, horizons: Sequence[float], cut: float | None) -> tuple[str, ...]:
    if target.kind != "survival":
        return AUDITED[target.kind] + (AUDITED["at a threshold"] if cut is not None else ())
    there = set(rows["horizon"].dropna()) if "horizon" in rows.columns else set()
    known = [h for h in horizons if h in there]
    middle = known[(len(known) - 1) // 2 : (len(known) + 1) // 2 or 1]
    return (*AUDITED["survival"], *(f"observed_expected_at_{h:g}" for h in middle))


def _false_discovery(values: Sequence[float | None]) -> list[float | None]:
    """Benjamini and Hochberg's adjusted p values; None stays None."""
    known = np.array([k for k, p in enumerate(values) if p is not None], dtype=int)
    result: list[float | None] = [None] * len(values)
    if not known.size:
        return result
    p = np.array([values[k] for k in known], dtype=np.float64)
    order = np.argsort(p, kind="stable")
    raw = p[order] * len(p) / np.arange(1, len(p) + 1)
    adjusted = np.minimum(np.minimum.accumulate(raw[::-1])[::-1], 1.0)
    for place, q in zip(known[order], adjusted, strict=True):
        result[int(place)] = float(q)
    return result


def _named(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in row.items()}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has neither NaN nor numpy's numbers."""
    values = {key: value.item() if isinstance(value, np.generic) else value for key, value in row.items()}
    return {key: None if isinstance(value, float) and np.isnan(value) else value for key, value in values.items()}
