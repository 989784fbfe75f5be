"""The demo's page: what an ECG encoder learned from cardiac MRI, and how sure we are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from ecgcmr import __version__
from ecgcmr.demo.compare import gallery
from ecgcmr.demo.context import MAIN, PRETRAINED, RIVALS, SCRATCH, SHUFFLED, DemoContext
from ecgcmr.demo.evaluating import outcomes, phenotypes
from ecgcmr.demo.model_sections import added_value_section, explained_sections, incident_section, nearest_section
from ecgcmr.demo.pictures import example_subject, rank_figures, reconstructions, retrieval_examples, subject_figures
from ecgcmr.evaluation.results import read_results
from ecgcmr.report import Headline, Section, build_report, loss_figure
from ecgcmr.report.evaluation_page import write_evaluation_report
from ecgcmr.report.page import Figure, Table
from ecgcmr.report.retrieval_figure import recall_bars
from ecgcmr.report.sections import (
    ReportPlan,
    difference_sections,
    headline_results,
    label_efficiency_sections,
    results_table_section,
)
from ecgcmr.training.runfolder import read_metrics

TITLES = {arm.key: arm.title for arm in (SCRATCH, *PRETRAINED, SHUFFLED)}
UNITS = {
    "LVEDV": "LV end-diastolic volume [ml]",
    "LVM": "LV mass [g]",
    "LVEF": "LV ejection fraction [%]",
    "LVESV": "LV end-systolic volume [ml]",
    "RVEDV": "RV end-diastolic volume [ml]",
    "mi": "Old myocardial infarction",
    "dcm": "Dilated cardiomyopathy",
    "hcm": "Hypertrophic cardiomyopathy",
    "hhd": "Hypertensive heart disease",
}
INTRO = """One simulated heart makes both a 12-lead ECG and a cine MRI. An ECG encoder and an image encoder are
trained on such pairs without any label, until the ECG of a heart finds the MRI of the same heart. Then the
question is asked on held-out subjects: with few labels, does the ECG tell more about the heart's structure than
it did before it met the MRI?"""
ABOUT_CURVES = """Points are means over label draws; intervals (95 %) hold both the chance of which subjects
were tested and of which were labelled. All arms but one are frozen encoders with a ridge or logistic probe; the
arm from scratch trains the same encoder on the labels. The band is the CMR encoder itself: it has seen the
image, so it is a ceiling and no competitor."""
ABOUT_DIFFERENCES = """The same held-out subjects and the same label draws on both sides, so that chance which
both share cancels. A filled point is a difference whose interval excludes 0."""
ABOUT_RETRIEVAL = """Every held-out ECG ranks the studies of {n} held-out subjects by similarity in the shared
space. The examples are those at the first and the second third of the ranks, not the best ones. The hearts beat, from
end-diastole to end-systole and back, which is the slice that the image encoder saw."""
LIMITS = """The cohort is simulated: multiple-dipole ECGs in an infinite medium, analytic anatomy, painted
tissue. It is a test bench with known truth, built so that morphology comes out of the latent heart; it is not
evidence about patients, and numbers on real cohorts will differ. In UK Biobank, R² from the ECG is about 0.60
for LV mass, 0.50 for LVEDV and 0.22-0.25 for LVEF (arXiv 2308.05764 as tabulated by its authors' later work).

Trainings are minutes long. A masked autoencoder in particular improves with many more steps than a demo has.
Settings were chosen on simulated cohorts of other seeds. Once it was the other way round: after a first look at the
numbers of seed 0 the arm from scratch got more steps, which made it a stronger rival.

The fine-tuned model is one run with one seed: its intervals hold the chance of which subjects were tested, not that of
the training. It is tested on hearts of the simulator that trained it, and age, sex and BMI are linear rivals; a
clinical risk score is a harder one. The follow-up is drawn from hazards that depend on what the MRI measures and, in
part, on a liability that no recording shows: nobody could predict it all. An explanation says what the model used, and
the scar check is about one method and one output."""


def write_report(context: DemoContext) -> None:
    """Write report.html from results.json, the evaluations, the runs and the cohort; and a page of each evaluation."""
    for tuned in (phenotypes(context), outcomes(context)):
        write_evaluation_report(tuned.folder)
    results = _named(read_results(context.out / "results.json"))
    plan = _plan(results)
    first = int(results["n_labels"].min())
    against = [TITLES[rival] for rival in RIVALS[:2]]
    headlines = [*headline_results(results, plan, first, "probe", against), *_recall_headline(results)]
    subject = example_subject(context)
    everyone = list(gallery(context)[:2])
    sections = [
        *label_efficiency_sections(results, plan, ABOUT_CURVES),
        *difference_sections(results, plan, ABOUT_DIFFERENCES),
        added_value_section(context),
        incident_section(context),
        Section(
            "Retrieval",
            ABOUT_RETRIEVAL.format(n=len(gallery(context))),
            [*_recall_figures(results, plan), *rank_figures(context), *retrieval_examples(context)],
        ),
        nearest_section(context),
        Section(
            "What the masked autoencoder fills in",
            "Three of four patches were hidden; drawn is what the decoder put there.",
            reconstructions(context, [int(who) for who in everyone]),
        ),
        Section(
            "One subject",
            f"Subject {subject}, the median of the gallery by LV mass.",
            subject_figures(context, subject),
        ),
        *explained_sections(context),
        Section("Training", "", _losses(context), tables=[_costs(context)]),
        Section("Limits", LIMITS),
        results_table_section(results, plan),
        Section(
            "Reproduce",
            "",
            code=f"ecgcmr demo --preset {context.preset.name} --seed {context.seed} --out {context.out.name}",
        ),
    ]
    facts = {
        "preset": context.preset.name,
        "seed": context.seed,
        "subjects": f"{context.preset.n_subjects:,} (simulated)",
    }
    facts |= {
        "held out": f"{_held_out(results):,} subjects",
        "label draws": context.preset.draws,
        "ecgcmr": __version__,
    }
    build_report(context.out / "report.html", "What an ECG learned from cardiac MRI", INTRO, sections, facts, headlines)


def _named(results: pd.DataFrame) -> pd.DataFrame:
    """Results with titles for keys; the arm from scratch stands beside the probes, which is how they are compared.

    Where pretrained encoders were fine-tuned as well, it stands beside those too.
    """
    scratch = (results["arm"] == SCRATCH.key) & (results["protocol"] == "finetune")
    others_tuned = (~scratch & (results["protocol"] == "finetune")).any()
    named = pd.concat([results if others_tuned else results[~scratch], results[scratch].assign(protocol="probe")])
    named["arm"] = named["arm"].map(TITLES)
    named["compared_to"] = named["compared_to"].map(TITLES, na_action="ignore")
    return named


def _plan(results: pd.DataFrame) -> ReportPlan:
    present = set(results["arm"])
    metrics = {target: "auroc" if target.islower() else "r2" for target in UNITS}
    protocols = {"probe": "probes of frozen encoders, and training from scratch", "finetune": "fine-tuned encoders"}
    arms = [title for title in TITLES.values() if title in present]
    return ReportPlan(arms, UNITS, metrics, protocols, ceiling=TITLES["cmr"], main=TITLES[MAIN])


def _held_out(results: pd.DataFrame) -> int:
    return int(results.loc[results["protocol"] == "probe", "n_subjects"].max())


def _recall(results: pd.DataFrame, direction: str) -> pd.DataFrame:
    chosen = (
        (results["protocol"] == "retrieval") & (results["metric"] == "recall_at_10") & (results["target"] == direction)
    )
    return results[chosen & results["seed"].isna()]


def _recall_headline(results: pd.DataFrame) -> list[Headline]:
    rows = _recall(results, "ecg_to_cmr")
    row = rows[rows["arm"] == TITLES[MAIN]].iloc[0]
    chance = min(1.0, 10 / int(row["n_subjects"]))
    detail = f"95 % interval [{row['lo']:.0%}, {row['hi']:.0%}]; by chance {chance:.0%}"
    label = f"of held-out ECGs find their own MRI among the best 10 of {int(row['n_subjects'])}"
    return [Headline(f"{row['value']:.0%}", label, detail)]


def _recall_figures(results: pd.DataFrame, plan: ReportPlan) -> list[Figure]:
    figures = []
    for direction, name in (("ecg_to_cmr", "ECG to CMR"), ("cmr_to_ecg", "CMR to ECG")):
        rows = _recall(results, direction)
        bars = {
            str(row["arm"]): (float(row["value"]), float(row["lo"]), float(row["hi"]))
            for row in rows.to_dict("records")
        }
        chance = min(1.0, 10 / int(rows["n_subjects"].iloc[0]))
        figures.append(recall_bars(bars, chance, plan.styles, f"{name}: R@10 among {int(rows['n_subjects'].iloc[0])}"))
    return [replace(figure, size="half") for figure in figures]


def _losses(context: DemoContext) -> Sequence[Figure]:
    figures = []
    for run, title in (("ecg_mae", "ECG MAE"), ("cmr_simclr", "CMR SimCLR"), ("mae_aligned", "Alignment after MAE")):
        series = {}
        for event, name in (("train", "training"), ("val", "validation")):
            rows = _whole_epochs([row for row in read_metrics(context.run(run), event) if "loss" in row])
            if rows:
                series[name] = ([row["step"] for row in rows], [row["loss"] for row in rows])
        if series:
            figures.append(loss_figure(series, f"{title}: loss"))
    return figures


def _whole_epochs(rows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Leave out a last row that is the mean of a few steps only: it would look like a jump."""
    if len(rows) > 2 and rows[-1]["step"] - rows[-2]["step"] < (rows[1]["step"] - rows[0]["step"]) / 2:
        return rows[:-1]
    return rows


def _costs(context: DemoContext) -> Table:
    done = json.loads((context.out / "stages.json").read_text())
    rows = [
        [key.replace("_", " "), f"{cost['seconds']:.0f} s", f"{cost['peak_memory_mib']:,.0f} MiB"]
        for key, cost in done.items()
    ]
    return Table(["Stage", "Time", "Peak memory"], rows, "Cost of this demo on this machine")
