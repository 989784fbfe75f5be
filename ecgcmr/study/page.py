"""What a study leaves for readers: table.md, and report.html with differences, retrieval, all numbers and limits."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from ecgcmr import __version__
from ecgcmr.cohort.store import Cohort
from ecgcmr.evaluation.macro import MACRO
from ecgcmr.evaluation.results import DIFFERENCE, read_results
from ecgcmr.hub.folder import write_text
from ecgcmr.report import Section, build_report
from ecgcmr.report.differences import DifferenceRow, difference_figure
from ecgcmr.report.page import Figure, Table
from ecgcmr.report.retrieval_figure import recall_bars
from ecgcmr.report.sections import ReportPlan, metric_label, results_table_section
from ecgcmr.study.plan import Plan
from ecgcmr.study.score import MAIN_METRIC, PROBE, RETRIEVAL
from ecgcmr.study.table import MEASURES, markdown, study_table

ABOUT_TABLE = """Frozen ECG embeddings with a ridge probe (mean R² over measurements) or a logistic one (mean AUROC
over diagnoses), on {held_out:,} held-out subjects; means over {seeds} trainings, each with a label draw of its own.
Intervals (95 %) hold both the chance of which subjects were tested and of the training and its labels. A star marks a
difference whose interval excludes 0: of {n} such differences, about one in twenty does so by chance alone."""
ABOUT_DIFFERENCES = """The same held-out subjects, seeds and label draws on both sides. A filled point is a difference
whose interval excludes 0."""
SIMULATED = """The cohort is simulated: a test bench with known truth, not evidence about patients. An arm that is
better here need not be better in a clinic."""
SMALL = """Every arm had the same number of steps, chosen once for all: a method that learns more slowly is cut short,
and none was tuned on this cohort beyond its recipe. Methods that read labels (positives or weights by labels,
distillation) saw labels of all training subjects, which the other arms did not."""


def write_pages(plan: Plan, command: str) -> None:
    """Write table.md and report.html from results.json.

    Args:
        plan: The study, evaluated.
        command: How it was started, for the page.
    """
    study = plan.study
    results = read_results(plan.out / "results.json")
    titles = {key: arm.title for key, arm in study.arms.items()}
    columns, rows = study_table(results, titles, study.compare_to)
    write_text(plan.out / "table.md", markdown(columns, rows) + "\n")
    cohort = Cohort.open(plan.cohort)
    simulated = cohort.schema.provenance == "simulated"
    named = results.assign(arm=results["arm"].map(titles), compared_to=results["compared_to"].map(titles))
    stars = int((results["compared_to"].notna() & results["seed"].isna() & (results["target"] == MACRO)).sum())
    held_out = int(results.loc[results["protocol"] == PROBE, "n_subjects"].max())
    about = ABOUT_TABLE.format(held_out=held_out, seeds=len(study.seeds), n=stars)
    sections = [
        Section("Comparison", about, tables=_tables(results, titles, study.compare_to)),
        *_difference_sections(named, list(titles.values()), titles[study.compare_to]),
        *_retrieval_sections(named, list(titles.values())),
        results_table_section(named, _report_plan(plan, cohort, titles)),
        Section("Cost", "Seconds of training on one core.", tables=[_costs(plan, titles)]),
        Section("Limits", (SIMULATED + "\n\n" if simulated else "") + SMALL),
        Section("Reproduce", "", code=command),
    ]
    facts = {
        "study": study.name,
        "subjects": f"{len(cohort.subjects):,}{' (simulated)' if simulated else ''}",
        "held out": f"{held_out:,} subjects",
        "seeds": ", ".join(str(seed) for seed in study.seeds),
        "ecgcmr": __version__,
    }
    build_report(plan.out / "report.html", study.title, study.about, sections, facts)


def _tables(results: pd.DataFrame, titles: dict[str, str], compare_to: str) -> list[Table]:
    """The comparison in tables that fit on a page."""
    tables = [study_table(results, titles, compare_to, [measure]) for measure in MEASURES]
    return [Table(columns, rows) for columns, rows in tables if {cell for row in rows for cell in row[1:]} - {"–"}]


def _report_plan(plan: Plan, cohort: Cohort, titles: dict[str, str]) -> ReportPlan:
    specs = cohort.label_specs
    labels = plan.study.evaluate.labels
    targets = {name: f"{name} [{specs[name].unit}]" if specs[name].unit else name for name in labels}
    metrics = {name: MAIN_METRIC[specs[name].kind] for name in labels}
    return ReportPlan(list(titles.values()), targets, metrics, {PROBE: "probes of frozen embeddings"})


def _difference_sections(results: pd.DataFrame, arms: Sequence[str], other: str) -> list[Section]:
    figures: list[Figure] = []
    chosen = results[results["compared_to"].notna() & results["seed"].isna()]
    for metric in MAIN_METRIC.values():
        rows = chosen[(chosen["metric"] == metric + DIFFERENCE) & (chosen["target"] == MACRO)]
        drawn = []
        for count in sorted(int(n) for n in rows["n_labels"].dropna().unique()):
            drawn += _drawn(rows[rows["n_labels"] == count], arms, f"{count:,} labelled subjects")
        if drawn:
            name = metric_label(metric)
            figures.append(difference_figure(drawn, f"minus {other}: mean {name}", f"difference of mean {name}"))
    rows = chosen[chosen["metric"] == "recall_at_10" + DIFFERENCE]
    drawn = []
    for direction, words in (("ecg_to_cmr", "ECG to CMR"), ("cmr_to_ecg", "CMR to ECG")):
        drawn += _drawn(rows[rows["target"] == direction], arms, words)
    if drawn:
        figures.append(difference_figure(drawn, f"minus {other}: R@10", "difference of R@10"))
    return [Section(f"Paired differences: minus {other}", ABOUT_DIFFERENCES, figures)] if figures else []


def _drawn(rows: pd.DataFrame, arms: Sequence[str], group: str) -> list[DifferenceRow]:
    found = []
    for arm in arms:
        own = rows[(rows["arm"] == arm) & rows["value"].notna()]
        if len(own):
            value, lo, hi = (float(own[key].iloc[0]) for key in ("value", "lo", "hi"))
            found.append(DifferenceRow(arm, value, lo, hi, group))
    return found


def _retrieval_sections(results: pd.DataFrame, arms: Sequence[str]) -> list[Section]:
    figures = []
    chosen = results[
        (results["protocol"] == RETRIEVAL) & results["seed"].isna() & (results["metric"] == "recall_at_10")
    ]
    styles = ReportPlan(arms, {}, {}, {}).styles
    for direction, words in (("ecg_to_cmr", "ECG to CMR"), ("cmr_to_ecg", "CMR to ECG")):
        rows = chosen[chosen["target"] == direction]
        if rows.empty:
            continue
        gallery = int(rows["n_subjects"].max())
        bars = {str(r["arm"]): (float(r["value"]), float(r["lo"]), float(r["hi"])) for r in rows.to_dict("records")}
        figures.append(recall_bars(bars, min(1.0, 10 / gallery), styles, f"{words}: R@10 among {gallery}"))
    return [Section("Retrieval", "Each held-out subject's own partner among all of the gallery.", figures)] * bool(
        figures
    )


def _costs(plan: Plan, titles: dict[str, str]) -> Table:
    rows = []
    for name in (*plan.study.stages, *plan.study.arms):
        found = [json.loads((job.folder / "summary.json").read_text()) for job in plan.trainings(name)]
        if found:
            seconds = [one["seconds"] for one in found]
            title = titles.get(name, f"stage {name}")
            parameters = f"{found[0]['parameters_trained']:,}"
            rows.append([title, f"{found[0]['steps']:,}", f"{sum(seconds) / len(seconds):.0f} s", parameters])
    return Table(["Training", "Steps", "Time of one seed", "Trained parameters"], rows)
