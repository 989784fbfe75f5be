"""Standard sections from result rows: label efficiency, paired differences, headline numbers, the table of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecgcmr.evaluation.metrics import METRICS
from ecgcmr.evaluation.results import DIFFERENCE
from ecgcmr.report.differences import DifferenceRow, difference_figure, interval_text
from ecgcmr.report.label_efficiency import Curves, label_efficiency_figure
from ecgcmr.report.page import Figure, Headline, LegendEntry, Section, Table
from ecgcmr.report.palette import ArmStyle, arm_styles

_FOLLOW_UP = {
    "harrell_c": "Harrell's C",
    "uno_c": "Uno's C",
    "auc_at_": "AUC at ",
    "brier_at_": "Brier score at ",
    "observed_expected_at_": "Observed / expected at ",
    "ibs": "Integrated Brier score",
    "ipa": "Index of prediction accuracy",
}


@dataclass(frozen=True)
class ReportPlan:
    """What a report shows, in which order.

    Attributes:
        arms: Arms in the order of legends, the ceiling included.
        targets: Target -> title with unit, in the order of panels.
        metrics: Target -> metric that is drawn (`r2`, `auroc`, ...).
        protocols: Protocol -> name for headings; one block of panels each.
        ceiling: Arm drawn as a band.
        main: The arm that the differences are about.
    """

    arms: Sequence[str]
    targets: Mapping[str, str]
    metrics: Mapping[str, str]
    protocols: Mapping[str, str]
    ceiling: str | None = None
    main: str | None = None

    @property
    def styles(self) -> dict[str, ArmStyle]:
        """Style of every arm."""
        return arm_styles(self.arms)


def metric_label(metric: str) -> str:
    """Readable name of a metric, `r2_diff` and `recall_at_10` included."""
    name = metric.removesuffix(DIFFERENCE)
    if name.startswith("recall_at_"):
        return f"R@{name.removeprefix('recall_at_')}"
    if name in METRICS:
        return METRICS[name].label
    for start, label in _FOLLOW_UP.items():
        if name == start or (start.endswith("_at_") and name.startswith(start)):
            return label + name.removeprefix(start)
    return name.replace("_", " ")


def label_efficiency_sections(results: pd.DataFrame, plan: ReportPlan, text: str = "") -> list[Section]:
    """A section for each protocol, with a panel for each target that has results."""
    sections = []
    for protocol, name in plan.protocols.items():
        rows = results[results["protocol"] == protocol]
        figures: list[Figure] = []
        shown: set[str] = set()
        for target in plan.targets:
            curves = Curves(plan.metrics[target], plan.styles, plan.ceiling, plan.targets)
            part = rows[(rows["target"] == target) & (rows["metric"] == curves.metric) & rows["seed"].isna()]
            if part["value"].notna().any():
                figures.append(label_efficiency_figure(rows, target, curves))
                shown |= set(part["arm"])
        if figures:
            arms = [arm for arm in plan.arms if arm in shown]
            sections.append(Section(f"Label efficiency: {name}", text, figures, legend=_legend(plan, arms)))
    return sections


def difference_sections(results: pd.DataFrame, plan: ReportPlan, text: str = "") -> list[Section]:
    """Paired differences of the main arm: one section for each protocol, one figure for each other arm and metric."""
    sections = []
    chosen = results[(results["arm"] == plan.main) & results["compared_to"].notna() & results["seed"].isna()]
    for protocol, name in plan.protocols.items():
        figures = []
        for other in (arm for arm in plan.arms if arm != plan.main):
            rows = chosen[(chosen["protocol"] == protocol) & (chosen["compared_to"] == other)]
            for metric in dict.fromkeys(plan.metrics[target] for target in plan.targets):
                drawn = _difference_rows(rows, plan, metric)
                if drawn:
                    title = f"{plan.main} minus {other}: {metric_label(metric)}"
                    figures.append(difference_figure(drawn, title, f"difference of {metric_label(metric)}"))
        if figures:
            sections.append(Section(f"Paired differences: {name}", text, figures))
    return sections


def _difference_rows(rows: pd.DataFrame, plan: ReportPlan, metric: str) -> list[DifferenceRow]:
    found = []
    rows = rows[(rows["metric"] == metric + DIFFERENCE) & (rows["arm"] == plan.main) & rows["value"].notna()]
    for n in sorted(rows["n_labels"].dropna().unique()):
        for target in (t for t in plan.targets if plan.metrics[t] == metric):
            part = rows[(rows["n_labels"] == n) & (rows["target"] == target)]
            if len(part):
                lower = metric in METRICS and METRICS[metric].better == "lower"
                value, lo, hi = (float(part[key].iloc[0]) for key in ("value", "lo", "hi"))
                found.append(DifferenceRow(target, value, lo, hi, f"{int(n):,} labelled subjects", lower))
    return found


def headline_results(
    results: pd.DataFrame, plan: ReportPlan, n_labels: int, protocol: str, against: Sequence[str] | None = None
) -> list[Headline]:
    """A card for each difference of the main arm at `n_labels`, for the first two targets.

    The wording follows the interval: "no clear difference" where it holds 0.

    Args:
        results: Result rows.
        plan: What the report shows.
        n_labels: Number of labelled subjects.
        protocol: Protocol to quote.
        against: Arms that are subtracted; all other ECG arms when absent.
    """
    rows = results[results["seed"].isna() & (results["protocol"] == protocol) & (results["n_labels"] == n_labels)]
    others = against or [arm for arm in plan.arms if arm not in (plan.main, plan.ceiling)]
    cards = []
    for target in list(plan.targets)[:2]:
        for other in others:
            chosen = rows[rows["compared_to"] == other]
            cards += [
                _card(one, plan, (target, other))
                for one in _difference_rows(chosen, plan, plan.metrics[target])
                if one.label == target
            ]
    return cards


def _card(row: DifferenceRow, plan: ReportPlan, pair: tuple[str, str]) -> Headline:
    target, other = pair
    words = {"better": f"{plan.main} beats {other}", "worse": f"{plan.main} is worse than {other}"}
    label = words.get(row.verdict, f"no clear difference of {plan.main} and {other}")
    value, interval = interval_text(row).split(" ", 1)
    name = metric_label(plan.metrics[target])
    return Headline(f"{value} {name}", f"{target}: {label}", f"95 % interval {interval}, {row.group}")


def results_table_section(results: pd.DataFrame, plan: ReportPlan, title: str = "All numbers") -> Section:
    """The mean rows of the drawn metrics as folded tables, one for each protocol."""
    tables = []
    for protocol, name in plan.protocols.items():
        rows = results[(results["protocol"] == protocol) & results["seed"].isna() & results["compared_to"].isna()]
        sizes = sorted(int(n) for n in rows["n_labels"].dropna().unique())
        cells = []
        for target in plan.targets:
            for arm in plan.arms:
                part = rows[
                    (rows["target"] == target) & (rows["arm"] == arm) & (rows["metric"] == plan.metrics[target])
                ]
                if len(part):
                    line = [_cell(part[part["n_labels"] == n]) for n in sizes]
                    cells.append([target, metric_label(plan.metrics[target]), arm, *line])
        if cells:
            columns = ["Target", "Metric", "Arm", *(f"{n:,} labels" for n in sizes)]
            tables.append(Table(columns, cells, f"{name}: mean over label draws [95 % interval]", fold=True))
    return Section(title, "Every number, per seed too, is in `results.json`.", tables=tables)


def _cell(rows: pd.DataFrame) -> str:
    if rows.empty or np.isnan(rows["value"].iloc[0]):
        return "–"
    value, lo, hi = (float(rows[key].iloc[0]) for key in ("value", "lo", "hi"))
    interval = f" [{lo:.2f}, {hi:.2f}]" if np.isfinite(lo) else ""
    return f"{value:.2f}{interval}".replace("-", "−")


def _legend(plan: ReportPlan, arms: Sequence[str]) -> list[LegendEntry]:
    styles = plan.styles
    return [
        LegendEntry(f"{arm} (band: its value with all labels)" if arm == plan.ceiling else arm, styles[arm])
        for arm in arms
    ]
