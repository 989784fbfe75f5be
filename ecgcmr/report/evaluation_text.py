"""Words of the evaluation page: what was run, limits, and where the items of TRIPOD+AI stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from ecgcmr.evaluation.macro import MACRO
from ecgcmr.report.page import Section, Table, anchor

RUN, FLOW, RESULTS, ADDED = "Model and data", "Who was evaluated", "Results", "What the recording adds"
MEASUREMENTS, DIAGNOSES, OUTCOMES, MAP = "Measurements", "Diagnoses", "Incident outcomes", "Map of the embeddings"
GROUPS, LIMITS, TRIPOD, NUMBERS = "Groups", "Limits", "Reporting items (TRIPOD+AI)", "All numbers"
SIMULATED = (
    "Research software, not a medical device. The cohort is simulated: a test bench whose truth is known, and no "
    "evidence about people."
)
PLAIN = "Research software, not a medical device."


def run_section(about: Mapping[str, Any]) -> Section:
    """What was run: weights, cohort, split, statistics."""
    weights, cohort, split, settings = (about[key] for key in ("weights", "cohort", "split", "settings"))
    run = weights.get("run") or {}
    same = run.get("cohort") == cohort["name"]
    rows = [
        ["Weights", f"{weights['name']} ({weights['stage']}), sha256 {weights['sha256'][:12]}"],
        ["Trained on", weights["trained_on"]],
        ["Provenance, license", f"{weights['provenance']}; {weights['license']}"],
        ["Intended use", weights["intended_use"]],
        ["Cohort", f"{cohort['name']} ({cohort['provenance']}), {cohort['subjects']:,} subjects"],
        ["Split", f"{split['name']}{_how(split['how'])}"],
        ["Same cohort as in training", "yes, by the same split" if same else "no record of it: external or unknown"],
        ["Predicted", f"parts {', '.join(settings['parts'])}; scored: test"],
        ["Intervals", f"95 %, {settings['n_draws']:,} bootstrap draws of subjects, seed {settings['seed']}"],
        ["Evaluated on", str(about["date"])],
    ]
    if weights["without_label"]:
        rows.append(["Outputs without a label here", ", ".join(weights["without_label"])])
    return Section(RUN, "", tables=[Table(["", ""], rows, prose=True)])


def _how(how: Mapping[str, Any]) -> str:
    words = ", ".join(f"{key} {value}" for key, value in how.items() if not isinstance(value, dict))
    return f" ({words})" if words else ""


def characteristics_table(about: Mapping[str, Any]) -> Table:
    """Subjects of the parts side by side: number, covariates, unknown values."""
    parts = about["characteristics"]
    names = {"train": "Training", "val": "Validation", "test": "Test"}
    rows = [["Subjects", *(f"{parts[part]['subjects']:,}" for part in parts)]]
    columns = dict.fromkeys(name for part in parts.values() for name in part["covariates"])
    for name in columns:
        cells = [part["covariates"].get(name) for part in parts.values()]
        rows.append([_covariate(name), *(_mean(name, cell) for cell in cells)])
    return Table(["", *(names[part] for part in parts)], rows, "Characteristics")


def _covariate(name: str) -> str:
    if name.startswith("sex "):
        return f"Sex: {name.removeprefix('sex ')}"
    return f"{'Age [years]' if name == 'age' else name}, mean (SD)"


def _mean(name: str, cell: Mapping[str, Any] | None) -> str:
    if cell is None or cell["mean"] is None:
        return "–"
    text = f"{cell['mean']:.0%}" if name.startswith("sex ") else f"{cell['mean']:.1f} ({cell['sd']:.1f})"
    return text + (f"; {cell['unknown']:,} unknown" if cell["unknown"] else "")


def counts_table(targets: Sequence[Mapping[str, Any]]) -> Table:
    """Labels of each target in each part, with positives or events."""
    rows, timed = [], any(target["kind"] == "survival" for target in targets)
    for target in targets:
        unit = f" [{target['unit']}]" if target["unit"] and target["kind"] == "regression" else ""
        cells = [target["name"] + unit, str(target["description"])]
        for part in ("train", "val", "test"):
            n = target["n"][part]
            text = f"{n['subjects']:,}"
            if "positive" in n:
                text += f" ({n['positive']:,} {'events' if target['kind'] == 'survival' else 'positive'})"
            cells.append(text)
        if timed:
            follow_up = target["n"]["test"].get("median_follow_up")
            cells.append("–" if follow_up is None else f"{follow_up:.1f} {target['unit']}")
        rows.append(cells)
    head = ["Target", "What", "Training", "Validation", "Test", *(["Median follow-up, test"] if timed else [])]
    return Table(head, rows, "Subjects with an observed label", fold=len(rows) > 15)


def flags_table(flags: Sequence[Mapping[str, Any]]) -> Table | None:
    """Everything that stands in the way of a number; None when nothing does."""
    if not flags:
        return None
    arms: dict[tuple[str, str], list[str]] = {}
    for flag in flags:
        target = "mean" if flag["target"] == MACRO else str(flag["target"])
        arms.setdefault((target, str(flag["why"])), []).append(str(flag["arm"]))
    rows = [[target, why, ", ".join(dict.fromkeys(names))] for (target, why), names in arms.items()]
    return Table(["Target", "Remark", "Where"], rows, "Remarks: what could not be measured, or only roughly",
                 len(rows) > 10, prose=True)  # fmt: skip


def limits_section(about: Mapping[str, Any]) -> Section:
    """What this evaluation can not tell."""
    weights = about["weights"]
    ran = weights.get("run") or {}
    words = [str(weights["limits"])]
    if about["cohort"]["provenance"] == "simulated":
        words.append("The cohort is simulated; numbers on real cohorts will differ.")
    if ran.get("cohort") == about["cohort"]["name"]:
        words.append(
            "Test subjects come from the cohort that the model was trained in: hospitals, devices and protocols are "
            "the same, so this is internal evaluation. Another cohort will usually show lower numbers."
        )
    words.append(
        "Intervals hold the chance of which subjects were tested. They do not hold that of the training run: another "
        "seed gives another model."
    )
    if "both" in about["arms"]:
        words.append(
            "The combination with the covariates is fitted on the validation subjects, which have usually chosen the "
            "checkpoint too; with few of them its weights are rough, and kept near the covariates alone by a prior."
        )
    words.append(
        "The covariates enter linearly. A clinical risk score with more variables is a harder rival than age and sex."
    )
    if any(target["kind"] == "survival" for target in about["targets"]):
        words.append("Deaths of other causes count as censoring: risks are those of a world without them.")
    flags = {flag["target"] for flag in about["flags"] if flag["target"] != MACRO}
    if flags:
        words.append(f"For {len(flags)} target(s) something could not be measured, or only roughly: see the remarks.")
    return Section(LIMITS, "\n\n".join(words))


def tripod_section(about: Mapping[str, Any], shown: Sequence[str]) -> Section:
    """Items of TRIPOD+AI with the place on this page, or what the authors have to add.

    Args:
        about: Content of evaluation.json.
        shown: Titles of the sections that are on the page.
    """
    kinds = {target["kind"] for target in about["targets"]}
    figures = [{"regression": MEASUREMENTS, "binary": DIAGNOSES, "survival": OUTCOMES}[kind] for kind in
               ("regression", "binary", "survival") if kind in kinds]  # fmt: skip
    items: list[tuple[str, str, Sequence[str], str]] = [
        ("1", "Title: model, population, outcome", ["Top of the page"], ""),
        ("3a, 3b, 4", "Context, intended use, objectives", [RUN], "healthcare context and care pathway"),
        ("3c, 14", "Health inequalities, fairness", [GROUPS], "what is known of inequalities beforehand"),
        ("5a, 5b, 6a", "Data, dates, setting", [RUN], "dates of recruitment, centers"),
        ("6b, 7, 11", "Eligibility, preparation, missing data", [FLOW], "criteria before the files came here"),
        ("8a", "Outcomes and horizons", [FLOW], "how and by whom they were assessed, blinding (8b, 8c)"),
        ("9b", "Predictors", [RUN, ADDED], "how the recordings were taken"),
        ("10, 21", "Numbers of subjects and events", [FLOW], "why this size suffices"),
        ("12d, 23b", "Heterogeneity between sites and groups", [GROUPS], ""),
        ("12e", "Measures and plots", [RESULTS, *figures], ""),
        ("12f, 24", "Updating", [ADDED], "no other recalibration was done"),
        ("12g, 22", "How predictions were calculated", [RUN], ""),
        ("13", "Class imbalance", figures, "weights or sampling in training, see the run's configuration"),
        ("15", "Output and thresholds", [NUMBERS], ""),
        ("16, 20c", "Training against test data", [RUN, FLOW], ""),
        ("17, 18a-18d, 19", "Ethics, funding, interests, protocol, registration, involvement", [], "all of it"),
        ("18e, 18f", "Data and code", [], "where data are; code: ecgcmr, version at the end of the page"),
        ("20a, 20b", "Flow and characteristics", [FLOW], ""),
        ("23a", "Performance with intervals, also in subgroups", [RESULTS, *figures, GROUPS], ""),
        ("25, 26, 27", "Interpretation, limits, usability", [LIMITS], "interpretation and next steps"),
    ]
    rows = []
    for number, words, where, missing in items:
        links = [_link(title) if title in shown else title for title in where if title in (*shown, "Top of the page")]
        rows.append([number, words, Markup(", ").join(links) if links else "–", missing or "–"])
    text = (
        "Collins et al., BMJ 2024, doi 10.1136/bmj-2023-078378. The page reports what a machine can know; the last "
        "column is left to the authors of a study."
    )
    head = ["Item", "What", "Where on this page", "To be added"]
    return Section(TRIPOD, text, tables=[Table(head, rows, prose=True)])


def _link(title: str) -> Markup:
    return Markup('<a href="#{}">{}</a>').format(anchor(title), escape(title))
