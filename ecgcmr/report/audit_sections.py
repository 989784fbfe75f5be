"""The group audit of an evaluation: gaps beside what chance gives, and every group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ecgcmr.evaluation.audit import MIN_SUBJECTS, UNKNOWN
from ecgcmr.report.forest import Estimate, ForestRow, forest_figure
from ecgcmr.report.page import Figure, LegendEntry, Section, Table
from ecgcmr.report.palette import ArmStyle
from ecgcmr.report.sections import metric_label

Row = Mapping[str, Any]

MAX_FIGURES = 12
_LOOK = ("mae", "auroc", "harrell_c")
"""Metrics that are drawn; the others stand in the tables."""
ABOUT = f"""Every target is measured in every group, by one threshold for all. The gap is the largest minus the smallest
value. It is above 0 even where groups do not differ, so beside it stands the mean gap of groups that are shuffled over
subjects, and the share of shuffles that reach the observed gap (p). Many gaps are looked at; q is p after Benjamini and
Hochberg over all of them. Groups of fewer than {MIN_SUBJECTS} subjects are not reported.

A gap is a reason to look, not a verdict: groups differ in age, disease and devices too. Equal ranks (AUROC, C) do not
mean equal calibration, so both are here."""
NOTHING = """No group column is known in this cohort (sex, age, site), or none has two levels: whether the model serves
all groups alike can not be told from this evaluation."""


def audit_section(rows: Sequence[Row], about: Mapping[str, Any], style: ArmStyle) -> Section:
    """The section.

    Args:
        rows: Content of audit.json.
        about: Content of evaluation.json.
        style: Style of the model.
    """
    left_out = [f"`{name}` ({why})" for name, why in about.get("groups_left_out", {}).items()]
    note = f"\n\nNot audited: {', '.join(left_out)}." if left_out else ""
    if not rows:
        return Section("Groups", NOTHING + note)
    title = about["arms"]["model"]
    gaps = [row for row in rows if row["level"] == "gap"]
    wide = [row for row in gaps if row["q"] is not None and row["q"] < 0.05]
    drawn = sorted((row for row in gaps if row["metric"] in _LOOK or row in wide), key=_by_p)
    figures = [_figure(rows, row, (title, style)) for row in drawn[:MAX_FIGURES]]
    words = (
        f"{len(wide)} of {len(gaps)} gaps have q below 0.05: "
        + "; ".join(
            f"{metric_label(row['metric'])} of {row['target']} by {_plain(row['attribute'])}" for row in wide[:8]
        )
        + ("; and others." if len(wide) > 8 else ".")
        if wide
        else f"None of {len(gaps)} gaps has q below 0.05."
    )
    if len(drawn) > MAX_FIGURES:
        words += f" Drawn are {MAX_FIGURES} gaps: of {len(drawn)} those with the smallest p."
    tables = [_gap_table(gaps), _level_table(rows)]
    return Section("Groups", f"{ABOUT}{note}\n\n{words}", figures, tables, [LegendEntry(title, style)])


def _figure(rows: Sequence[Row], gap: Row, arm: tuple[str, ArmStyle]) -> Figure:
    same = ("target", "attribute", "metric")
    levels = [row for row in rows if all(row[key] == gap[key] for key in same) and row["level"] != "gap"]
    shown = [
        ForestRow(f"{row['level']} ({row['n_subjects']:,})", {arm[0]: _estimate(row)})
        for row in sorted(levels, key=lambda row: _rising(str(row["level"])))
        if row["value"] is not None
    ]
    title = f"{gap['target']} by {_plain(gap['attribute'])}"
    name = metric_label(str(gap["metric"]))
    caption = f"Gap {_number(gap['value'])}; of shuffled groups {_number(gap['null_gap'])}; p = {_number(gap['p'], 3)}."
    hidden = sum(row["value"] is None for row in levels)
    if hidden:
        caption += f" {hidden} level{'s' * (hidden > 1)} not shown, see the table."
    return forest_figure(shown, {arm[0]: arm[1]}, title, name, caption=caption)


def _gap_table(gaps: Sequence[Row]) -> Table:
    columns = ["Target", "Metric", "Groups by", "Gap [95 % interval]", "Gap of shuffled groups", "p", "q"]
    cells = [
        [str(row["target"]), metric_label(str(row["metric"])), _plain(row["attribute"]), _estimate(row).text(),
         _number(row["null_gap"]), _number(row["p"], 3), _number(row["q"], 3)]
        for row in sorted(gaps, key=_by_p)
    ]  # fmt: skip
    return Table(columns, cells, "All gaps, by rising p", fold=len(cells) > 12)


def _level_table(rows: Sequence[Row]) -> Table:
    columns = ["Target", "Groups by", "Group", "Subjects", "Share positive or mean", "Metric", "Value [95 % interval]",
               "Remark"]  # fmt: skip
    cells = [
        [str(row["target"]), _plain(row["attribute"]), str(row["level"]), f"{row['n_subjects']:,}",
         _number(row["prevalence"]), metric_label(str(row["metric"])), _estimate(row).text(), str(row["flags"] or "")]
        for row in rows
        if row["level"] != "gap"
    ]  # fmt: skip
    return Table(columns, cells, "Every group", fold=True)


def _by_p(row: Row) -> tuple[bool, float]:
    return row["p"] is None, row["p"] or 0.0


def _rising(level: str) -> tuple[int, str]:
    """`<45` comes before `45-54`, `>=75` and `unknown` come last."""
    return (0 if level.startswith("<") else 2 if level.startswith(">") else 3 if level == UNKNOWN else 1, level)


def _estimate(row: Row) -> Estimate:
    value, lo, hi = (float("nan") if row[key] is None else float(row[key]) for key in ("value", "lo", "hi"))
    return Estimate(value, lo, hi)


def _plain(name: Any) -> str:
    return str(name).replace("_", " ").replace(":", " and ")


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")
