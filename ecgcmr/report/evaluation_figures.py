"""Figures of an evaluation by kind of target: agreement, discrimination, calibration, decisions, survival, map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.evaluation.bootstrap import SubjectDraws, draw_subjects
from ecgcmr.evaluation.decision import decision_curve
from ecgcmr.evaluation.evaluate import EMBEDDINGS
from ecgcmr.evaluation.evaluated import Evaluated
from ecgcmr.evaluation.item_embeddings import read_embeddings
from ecgcmr.evaluation.kaplan_meier import predicted_strata
from ecgcmr.evaluation.survival import Survival, survival_rows
from ecgcmr.evaluation.target_scores import FEW
from ecgcmr.report.agreement import bland_altman_figure
from ecgcmr.report.curves import calibration_figure
from ecgcmr.report.decision_figure import decision_figure
from ecgcmr.report.discrimination import precision_recall_figure, roc_figure
from ecgcmr.report.embedding_map import embedding_map, principal_map
from ecgcmr.report.evaluation_results import arm_styles_of, estimate, legend_of, targets_of
from ecgcmr.report.evaluation_text import DIAGNOSES, MAP, MEASUREMENTS, OUTCOMES
from ecgcmr.report.page import Figure, Section
from ecgcmr.report.survival_figures import horizon_calibration_figure, kaplan_meier_figure

Columns = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]

MOST = 6
"""Targets of a kind that get figures of their own; all are in the tables."""
DRAWS = 500


def measurement_section(found: Evaluated) -> Section | None:
    """Bland-Altman and calibration of each measurement."""
    targets = _measured(found, "regression")
    if not targets:
        return None
    styles = arm_styles_of(found)
    model = str(found.arm("model"))
    figures = []
    for target in targets[:MOST]:
        columns = _columns(found, target)
        unit = _fact(found, target, "unit")
        name = f"{target} [{unit}]" if unit else target
        truth, prediction = columns[model]
        lower, bias, upper = (estimate(found, target, metric, model) for metric in ("loa_lower", "bias", "loa_upper"))
        lines = (lower, bias, upper)
        figures.append(
            bland_altman_figure(truth, prediction, lines, styles[model], f"{name}: agreement of {model}", unit)
        )
        figures.append(calibration_figure(columns, styles, f"{name}: calibration", _bins(columns)))
    text = (
        "Agreement: bias with limits of agreement (1.96 standard deviations of the differences), intervals shaded. "
        "Predictions of a model are drawn towards the mean, which a sloping cloud shows. Calibration: mean measured "
        "against mean predicted value in bins of equal size."
    )
    return Section(MEASUREMENTS, text + _cut(targets), _pairs(figures), legend=legend_of(found))


def diagnosis_section(found: Evaluated) -> Section | None:
    """ROC, precision-recall, calibration and decision curve of each diagnosis."""
    targets = _measured(found, "binary")
    if not targets:
        return None
    styles, draws = arm_styles_of(found), _draws(found)
    figures: list[Figure] = []
    unable = []
    for target in targets[:MOST]:
        columns = _columns(found, target)
        truth = next(iter(columns.values()))[0]
        if min(truth.sum(), len(truth) - truth.sum()) < FEW:
            unable.append(f"{target} is not drawn: fewer than {FEW} of the rarer class.")
            continue
        for make, metric, words in (
            (roc_figure, "auroc", "ROC"),
            (precision_recall_figure, "auprc", "precision and recall"),
        ):
            values = {arm: estimate(found, target, metric, arm).value for arm in columns}
            figures.append(make(columns, styles, f"{target}: {words}", values))
        figures.append(calibration_figure(columns, styles, f"{target}: calibration", _bins(columns)))
        cuts = _thresholds(found, target)
        subjects = _test(found.tables["model"], target)["subject"].to_numpy()
        curves = {arm: decision_curve(pair, subjects, draws, cuts) for arm, pair in columns.items()}
        figures.append(decision_figure(curves, styles, f"{target}: decision curve"))
    text = (
        "The dashed line is chance (diagonal, prevalence) or perfect calibration. A model that was trained with "
        "weighted or balanced classes tells risks that are too high: the calibration shows it, and the decision curve "
        "pays for it. A model is useful at a threshold where it lies above both treating everybody and nobody."
    )
    return Section(DIAGNOSES, " ".join([text, *unable]) + _cut(targets), _pairs(figures), legend=legend_of(found))


def outcome_section(found: Evaluated) -> Section | None:
    """Kaplan-Meier by predicted stratum, and calibration at a horizon, of each outcome."""
    targets = _measured(found, "survival")
    if not targets:
        return None
    styles, draws = arm_styles_of(found), _draws(found)
    figures, unable = [], []
    for target in targets[:MOST]:
        unit = _fact(found, target, "unit")
        data = survival_rows(found.tables["model"], target, "test")
        if data.event.sum() < FEW:
            unable.append(f"{target} is not drawn: fewer than {FEW} events.")
            continue
        try:
            strata = predicted_strata(found.tables["model"], target, draws, _steps(data))
            figures.append(kaplan_meier_figure(strata, f"{target}: by predicted risk", unit))
        except ValueError as error:
            unable.append(f"{target}: no strata ({error}).")
        arms, horizon = _with_risks(found, target)
        if arms:
            title = f"{target}: calibration at {horizon:g} {unit}".strip()
            figures.append(horizon_calibration_figure(arms, horizon, styles, title))
    text = (
        "Thirds of the predicted risk, cut at validation (or else training) subjects. Calibration: Kaplan-Meier risk "
        "against mean predicted risk in bins of equal size."
    )
    places: dict[str, list[str]] = {}
    for what, where in found.about["fitted_on"].items():
        places.setdefault({"val": "validation", "train": "training"}[where], []).append(what.split(" of ", 1)[1])
    if places:
        hazards = "; ".join(f"{where} subjects ({', '.join(names)})" for where, names in places.items())
        text += f" A Cox head tells no risk by itself; its baseline hazard comes from {hazards}."
    text = " ".join([text, *unable]) + _cut(targets)
    return Section(OUTCOMES, text, _pairs(figures), legend=legend_of(found))


def map_section(found: Evaluated) -> Section | None:
    """The test embeddings in two dimensions, colored by targets; None when there are too few."""
    try:
        _, values = read_embeddings(found.folder / EMBEDDINGS)
    except (FileNotFoundError, ValueError):
        return None
    table = found.tables["model"]
    first = table[table["target"] == table["target"].iloc[0]]
    first = first[first["horizon"].isna()] if "horizon" in first.columns else first
    first = first.sort_values(["subject", "item"])
    # Embeddings are in the order of the items: by subject, then by recording.
    if len(first) != len(values):
        return None
    test = (first["split"] == "test").to_numpy()
    if test.sum() < 10:
        return None
    try:
        places, shares = principal_map(values[test])
    except ValueError:
        return None
    keys = first.loc[test, ["subject", "item"]]
    targets = [*_measured(found, "regression")[:3], *_measured(found, "binary")[:2], *_measured(found, "survival")[:1]]
    figures = []
    for target in targets[:MOST]:
        truth = _test(table, target, observed=False).set_index(["subject", "item"])["truth"]
        shown = truth.reindex(pd.MultiIndex.from_frame(keys)).to_numpy()
        unit = _fact(found, target, "unit") if target in targets_of(found, "regression") else ""
        name = f"{target} [{unit}]" if unit else target
        figures.append(embedding_map(places, shown, name, target not in targets_of(found, "regression"), shares))
    text = (
        "Each point is a test recording, placed by the first two principal components of its embedding; nothing of the "
        "labels went into the places. Recordings without a label are small rings. Two components are a shadow of many: "
        "what is mixed here may be apart in others."
    )
    return Section(MAP, text, figures) if figures else None


def _measured(found: Evaluated, kind: str) -> list[str]:
    r = found.results
    known = set(r[r["value"].notna() & (r["arm"] == found.arm("model"))]["target"])
    return [target for target in targets_of(found, kind) if target in known]


def _test(table: pd.DataFrame, target: str, observed: bool = True) -> pd.DataFrame:
    rows = table[(table["target"] == target) & (table["split"] == "test")]
    rows = rows[rows["horizon"].isna()] if "horizon" in rows.columns else rows
    rows = rows[rows["truth"].notna()] if observed else rows
    return rows.sort_values(["subject", "item"])


def _columns(found: Evaluated, target: str) -> Columns:
    columns: Columns = {}
    for arm, table in found.tables.items():
        rows = _test(table, target)
        if len(rows):
            columns[str(found.arm(arm))] = (rows["truth"].to_numpy(), rows["prediction"].to_numpy())
    return columns


def _steps(data: Survival, most: int = 80) -> list[float]:
    """Times of the events, where a Kaplan-Meier curve steps, up to when a tenth is still followed."""
    last = float(np.quantile(data.time, 0.9))
    times = np.unique(data.time[(data.event > 0.5) & (data.time <= last)])
    if len(times) > most:
        times = times[np.linspace(0, len(times) - 1, most).round().astype(int)]
    return [float(t) for t in np.unique([*times[times > 0], last])]


def _pairs(figures: Sequence[Figure]) -> list[Figure]:
    """Two in a row, so that those of a target stand together."""
    return [replace(figure, size="half") for figure in figures]


def _bins(columns: Columns) -> int:
    """Ten bins, or fewer where that would leave less than twenty rows in each."""
    return int(np.clip(len(next(iter(columns.values()))[0]) // 20, 3, 10))


def _with_risks(found: Evaluated, target: str) -> tuple[dict[str, Survival], float]:
    arms = {}
    for arm, table in found.tables.items():
        if target in set(table["target"]):
            data = survival_rows(table, target, "test")
            if data.risks is not None:
                arms[str(found.arm(arm))] = data
    horizons = next(iter(arms.values())).horizons if arms else ()
    return arms, horizons[(len(horizons) - 1) // 2] if horizons else float("nan")


def _draws(found: Evaluated) -> SubjectDraws:
    test = found.tables["model"]
    settings = found.about["settings"]
    generator = np.random.default_rng([settings["seed"], 47])
    return draw_subjects(test[test["split"] == "test"]["subject"].unique(), min(DRAWS, settings["n_draws"]), generator)


def _thresholds(found: Evaluated, target: str) -> Sequence[float]:
    """Up to four times the prevalence among training subjects, which is known beforehand, and at most a half."""
    n = next(one["n"]["train"] for one in found.about["targets"] if one["name"] == target)
    share = n["positive"] / n["items"] if n["items"] else 0.25
    last = float(np.clip(np.ceil(share * 4 * 20) / 20, 0.05, 0.5))
    return tuple(np.round(np.linspace(last / 50, last, 50), 4).tolist())


def _fact(found: Evaluated, target: str, name: str) -> str:
    return str(next(one[name] for one in found.about["targets"] if one["name"] == target))


def _cut(targets: Sequence[str]) -> str:
    return f" Drawn are the first {MOST} of {len(targets)} targets." if len(targets) > MOST else ""
