"""The one table of a study, for its page and for Markdown: an arm in each row, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from ecgcmr.evaluation.macro import MACRO
from ecgcmr.evaluation.results import DIFFERENCE
from ecgcmr.study.score import PROBE, RETRIEVAL

MEASURES = ("r2", "auroc", "retrieval")
_METRICS = {"r2": "mean R²", "auroc": "mean AUROC"}
_DIRECTIONS = {"ecg_to_cmr": "ECG → CMR", "cmr_to_ecg": "CMR → ECG"}
_RECALL = "recall_at_10"


def study_table(
    results: pd.DataFrame, titles: Mapping[str, str], compare_to: str, measures: Sequence[str] = MEASURES
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: probes at every number of labels, retrieval both ways, and differences to one arm.

    Args:
        results: Rows of results.json.
        titles: Arm -> title, in the order of the rows.
        compare_to: The arm that was subtracted.
        measures: Which of `MEASURES` to show.

    Returns:
        Names of the columns, and the cells of each row. A difference whose interval excludes 0 is marked by a star.
    """
    means = results[results["seed"].isna()]
    macros = means[(means["protocol"] == PROBE) & (means["target"] == MACRO)]
    counts = sorted(int(n) for n in macros["n_labels"].dropna().unique())
    shown = [metric for metric in _METRICS if metric in measures and (macros["metric"] == metric).any()]
    asked = [(metric, count) for metric in shown for count in counts]
    columns = ["arm"]
    for metric, count in asked:
        columns += [f"{_METRICS[metric]}, {count:,} labels", f"minus {titles[compare_to]}"]
    directions = _DIRECTIONS if "retrieval" in measures else {}
    columns += [f"R@10, {name}" for name in directions.values()]
    rows = []
    for arm, title in titles.items():
        own = macros[macros["arm"] == arm]
        found = [_cell(_one(own, name, count)) for metric, count in asked for name in (metric, metric + DIFFERENCE)]
        retrieved = means[(means["protocol"] == RETRIEVAL) & (means["arm"] == arm) & (means["metric"] == _RECALL)]
        recalls = [_cell(retrieved[retrieved["target"] == direction]) for direction in directions]
        rows.append([title, *found, *recalls])
    return columns, rows


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, ["---"] * len(columns), *rows))


def _one(rows: pd.DataFrame, metric: str, count: int) -> pd.DataFrame:
    return rows[(rows["metric"] == metric) & (rows["n_labels"] == count)]


def _cell(rows: pd.DataFrame) -> str:
    """`value [lo, hi]`, or a dash where an arm has no such number."""
    if rows.empty or pd.isna(rows["value"].iloc[0]):
        return "–"
    row = rows.iloc[0]
    is_difference = str(row["metric"]).endswith(DIFFERENCE)
    value = f"{row['value']:{'+' if is_difference else ''}.3f}"
    if pd.isna(row["lo"]):
        return value.replace("-", "−")
    star = " *" if is_difference and not row["lo"] <= 0 <= row["hi"] else ""
    return f"{value} [{row['lo']:.3f}, {row['hi']:.3f}]{star}".replace("-", "−")
