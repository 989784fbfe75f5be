"""Does the main arm serve all groups alike, and do its numbers mean what they say? Group audit and calibration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgcmr.cohort.store import Cohort
from ecgcmr.demo.arms import predictions_path
from ecgcmr.demo.context import KINDS, MAIN, PRETRAINED, SCRATCH, DemoContext
from ecgcmr.evaluation.audit import AuditPlan, audit_groups
from ecgcmr.evaluation.calibration import calibrate_binary, calibrate_regression
from ecgcmr.evaluation.predictions import read_predictions
from ecgcmr.report.curves import calibration_figure
from ecgcmr.report.page import Figure, LegendEntry, Section, Table
from ecgcmr.report.palette import arm_styles

AUDITED = {"LVM": "mae", "LVEDV": "mae", "mi": "auroc"}
ARMS = ((SCRATCH, "finetune"), (next(arm for arm in PRETRAINED if arm.key == MAIN), "probe"))
"""The arms whose calibration is drawn, with their protocol."""
_STYLES = arm_styles([arm.title for arm, _ in ARMS])
ABOUT = """Predictions with all labels, on the held-out subjects. The gap is the largest minus the smallest group value.
It is above 0 even when groups do not differ, so the mean gap of groups that are shuffled over subjects stands beside
it, with the share of shuffles that reach the observed one. Groups of fewer than 10 subjects are not reported.
Calibration: observed against predicted in ten bins of equal size; a slope below 1 means predictions that are too
extreme."""


def predictions_with_groups(context: DemoContext, arm: str, protocol: str) -> pd.DataFrame:
    """Predictions of an arm with all labels (first draw), with the cohort's group columns."""
    cohort = Cohort.open(context.cohort)
    table = read_predictions(predictions_path(context, arm, protocol, None, 0))
    groups = cohort.subjects.set_index("subject")[list(cohort.schema.group_columns)]
    return table.join(groups, on="subject")


def audit_demo(context: DemoContext) -> Path:
    """Audit the main arm over every group column of the cohort and write audit.json.

    Returns:
        The file: a list of rows with the target, its number of held-out subjects and the columns of `audit_groups`.
    """
    table = predictions_with_groups(context, MAIN, "probe")
    rows = []
    for target, metric in AUDITED.items():
        for attribute in Cohort.open(context.cohort).schema.group_columns:
            plan = AuditPlan(target, metric, attribute, n_draws=context.preset.bootstrap_draws)
            found = audit_groups(table, plan, np.random.default_rng([context.seed, 31]))
            rows += found.assign(target=target).to_dict("records")
    path = context.out / "audit.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps([_plain(row) for row in rows], indent=1))
    partial.replace(path)
    return path


def group_section(context: DemoContext, titles: dict[str, str]) -> Section:
    """The section of the report.

    Args:
        context: The demo, with audit.json.
        titles: Target -> name with unit.
    """
    rows: list[dict[str, Any]] = json.loads((context.out / "audit.json").read_text())
    metrics = {"mae": "mean absolute error", "auroc": "AUROC"}
    gaps, levels = [], []
    for row in rows:
        target, attribute, interval = titles[row["target"]], row["attribute"].replace("_", " "), _interval(row)
        if row["level"] == "gap":
            gaps.append(
                [
                    target,
                    metrics[row["metric"]],
                    attribute,
                    _number(row["value"]),
                    _number(row["null_gap"]),
                    _number(row["p"], 3),
                ]
            )
        else:
            levels.append([target, attribute, str(row["level"]), f"{row['n_subjects']:,}", interval, row["flags"]])
    tables = [
        Table(
            ["Target", "Metric", "Groups by", "Gap", "Gap of shuffled groups", "p"],
            gaps,
            "Gaps between groups, MAE + aligned",
        ),
        _calibration_table(context, titles),
        Table(["Target", "Groups by", "Group", "Subjects", "Value", "Remark"], levels, "Every group", fold=True),
    ]
    legend = [LegendEntry(title, style) for title, style in _STYLES.items()]
    return Section("Groups and calibration", ABOUT, _calibration_figures(context, titles), tables, legend)


def _truth_and_prediction(context: DemoContext, target: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    found = {}
    for arm, protocol in ARMS:
        table = read_predictions(predictions_path(context, arm.key, protocol, None, 0))
        rows = table[(table["target"] == target) & (table["split"] == "test") & table["truth"].notna()]
        found[arm.title] = (rows["truth"].to_numpy(), rows["prediction"].to_numpy())
    return found


def _calibration_figures(context: DemoContext, titles: dict[str, str]) -> list[Figure]:
    return [
        calibration_figure(_truth_and_prediction(context, target), _STYLES, f"{titles[target]}: calibration")
        for target in AUDITED
    ]


def _calibration_table(context: DemoContext, titles: dict[str, str]) -> Table:
    cells = []
    for target in AUDITED:
        calibrate = calibrate_binary if KINDS[target] == "binary" else calibrate_regression
        for title, columns in _truth_and_prediction(context, target).items():
            found = calibrate(*columns)
            numbers = (found.slope, found.intercept, found.ece, found.observed_expected)
            cells.append([titles[target], title, *(_number(number) for number in numbers)])
    head = ["Target", "Arm", "Slope", "Intercept", "Calibration error", "Observed / expected"]
    return Table(head, cells, "Calibration (1, 0, 0 and 1 are ideal)")


def _plain(row: dict[Any, Any]) -> dict[str, Any]:
    """JSON has neither NaN nor numpy's numbers."""
    values = {key: value.item() if isinstance(value, np.generic) else value for key, value in row.items()}
    return {key: None if isinstance(value, float) and np.isnan(value) else value for key, value in values.items()}


def _interval(row: dict[str, Any]) -> str:
    return "–" if row["value"] is None else f"{_number(row['value'])} [{_number(row['lo'])}, {_number(row['hi'])}]"


def _number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.{digits}f}".replace("-", "−")
