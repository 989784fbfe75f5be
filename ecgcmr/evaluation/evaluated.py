"""Reading what an evaluation wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ecgcmr.evaluation.describe import FORMAT_VERSION
from ecgcmr.evaluation.evaluate import ABOUT, AUDIT, BOTH, COVARIATES, PREDICTIONS, RESULTS
from ecgcmr.evaluation.predictions import read_predictions
from ecgcmr.evaluation.results import DIFFERENCE, read_results
from ecgcmr.evaluation.target_scores import PRIMARY


@dataclass(frozen=True)
class Evaluated:
    """The content of an evaluation's folder.

    Attributes:
        folder: The folder.
        about: Content of evaluation.json.
        results: Rows of results.json.
        audit: Rows of audit.json.
        tables: Arm (`model`, `covariates`, `both`) -> predictions table.
    """

    folder: Path
    about: dict[str, Any]
    results: pd.DataFrame
    audit: list[dict[str, Any]]
    tables: dict[str, pd.DataFrame]

    def arm(self, name: str) -> str | None:
        """Title of `model`, `covariates` or `both`; None when it was not fitted."""
        title = self.about["arms"].get(name)
        return None if title is None else str(title)


def read_about(folder: Path) -> dict[str, Any]:
    """Content of evaluation.json.

    Raises:
        FileNotFoundError: No finished evaluation is there.
        ValueError: It is broken or of another version.
    """
    path = folder / ABOUT
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no finished evaluation here; `ecgcmr evaluate` writes this file last")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(about, dict) or about.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"{path}: expected an evaluation of format {FORMAT_VERSION}; evaluate again")
    return about


def read_evaluation(folder: str | Path) -> Evaluated:
    """Read all files of an evaluation; raises what `read_about`, `read_results` and `read_predictions` raise."""
    path = Path(folder)
    about = read_about(path)
    names = {"model": PREDICTIONS, "covariates": COVARIATES, "both": BOTH}
    tables = {arm: read_predictions(path / names[arm]) for arm in names if arm in about["arms"]}
    try:
        audit = json.loads((path / AUDIT).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path / AUDIT}: not valid JSON ({error})") from error
    return Evaluated(path, about, read_results(path / RESULTS), audit, tables)


def headline_table(folder: str | Path) -> list[dict[str, str]]:
    """One row for each target: its first metric for each arm, and the added value of the ECG, as text."""
    about, results = read_about(Path(folder)), read_results(Path(folder) / RESULTS)
    arms = about["arms"]
    rows = []
    for target in about["targets"]:
        metric = PRIMARY[target["kind"]]
        row = {"target": target["name"], "metric": metric}
        part = results[results["target"] == target["name"]]
        for title in arms.values():
            row[title] = number_text(part[(part["arm"] == title) & (part["metric"] == metric)])
        if "both" in arms and "covariates" in arms:
            added = part[(part["arm"] == arms["both"]) & (part["compared_to"] == arms["covariates"])]
            row["added value"] = number_text(added[added["metric"] == metric + DIFFERENCE])
        rows.append(row)
    return rows


def number_text(rows: pd.DataFrame, digits: int = 2) -> str:
    """`0.71 [0.65, 0.77]` of the first of some result rows; a dash where there is no number."""
    if rows.empty or pd.isna(rows["value"].iloc[0]):
        return "–"
    value, lo, hi = (float(rows[key].iloc[0]) for key in ("value", "lo", "hi"))
    if pd.isna(lo):
        return f"{value:.{digits}f} [not estimable]".replace("-", "−")
    return f"{value:.{digits}f} [{lo:.{digits}f}, {hi:.{digits}f}]".replace("-", "−")
