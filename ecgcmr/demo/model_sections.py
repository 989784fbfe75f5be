"""Sections about the fine-tuned model: what it adds, incident outcomes, nearest hearts, one explained ECG."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ecgcmr.cohort.store import Cohort
from ecgcmr.demo.compare import gallery, retrieve_pairs
from ecgcmr.demo.context import MAIN, DemoContext
from ecgcmr.demo.evaluating import (
    INFARCTION,
    N_HEALTHY,
    Tuned,
    held_out_scars,
    outcomes,
    phenotypes,
    read_scars,
)
from ecgcmr.demo.pictures import first_row, typical_queries
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.evaluation.evaluate import REPORT
from ecgcmr.evaluation.evaluated import Evaluated, read_evaluation
from ecgcmr.evaluation.explain import explain
from ecgcmr.evaluation.explain.planted import PlantedCheck, scarred
from ecgcmr.evaluation.explain.references import healthy_recordings
from ecgcmr.evaluation.neighbours import build_gallery, find_neighbours
from ecgcmr.hub.model import LoadedModel, load_model
from ecgcmr.report.evaluation_figures import outcome_section
from ecgcmr.report.evaluation_results import added_section, legend_of, results_section
from ecgcmr.report.explain_sections import check_section, explanation_section, neighbour_section
from ecgcmr.report.page import PageLink, Section
from ecgcmr.report.sections import metric_label
from ecgcmr.simulation.scar_truth import CONTIGUOUS_LEADS

ADDED, OUTCOMES, NEAREST = "What the ECG adds to age, sex and BMI", "Incident outcomes", "What the nearest hearts tell"
EXPLAINED, BELIEVED = "What one output rests on", "Can the maps be believed?"
ABOUT_ADDED = """The main arm, fine-tuned on all labels ({n} training subjects), beside age, sex and BMI alone and
beside both together, on the held-out subjects. The difference of the last two is what the recording adds. The model
reads the first 2.5 seconds of a recording; the arms above take the mean over all of it."""
ABOUT_OUTCOMES = """Another head on the same encoder, fine-tuned on follow-up: hazards of two-year intervals for the
first infarction, heart failure and atrial fibrillation of those at risk. It stands beside the same rivals as above."""
ABOUT_NEAREST = """Nothing is fine-tuned here: one held-out ECG is placed among the MRI studies of the training
subjects, and its nearest tell their volumes and diagnoses. """
ABOUT_BELIEVED = """Each scarred heart is also computed without its scar, so that it is known what the scar does to
every lead (rank correlation of the map with it), and which leads look at the wall of the closed artery (share of the
map in them). Two null hypotheses, by two-sided permutation tests: the scars of other subjects, which catch a model
that looks at the same leads in everybody, and shuffled leads. `amplitude` is a control that knows nothing of the
model: the size of the signal in each lead. What is explained is the fine-tuned model; occlusion exchanges a lead with
that of healthy subjects."""
FULL = {
    "phenotypes": "All of it: cohort flow, agreement, ROC, calibration, decision curves, group audit, TRIPOD+AI",
    "outcomes": "All of it: who was at risk, every metric, group audit, TRIPOD+AI",
}


def evaluation_link(tuned: Tuned) -> PageLink:
    """Link from the report to the page of an evaluation."""
    name = tuned.folder.name
    return PageLink(f"{tuned.folder.parent.name}/{name}/{REPORT}", FULL[name])


def added_value_section(context: DemoContext) -> Section:
    """Results of the three arms and their paired differences, for measurements and diagnoses."""
    tuned = phenotypes(context)
    found = read_evaluation(tuned.folder)
    n = int(found.about["characteristics"]["train"]["subjects"])
    text = f"{ABOUT_ADDED.format(n=f'{n:,}')}\n\n{added_section(found).text}\n\n{group_sentence(found)}"
    return _digest(found, tuned, ADDED, text)


def group_sentence(found: Evaluated) -> str:
    """How many gaps between groups are larger than chance would make them, and which."""
    gaps = [row for row in found.audit if row["level"] == "gap"]
    if not gaps:
        return "No group was large enough to be compared with another."
    groups = ", ".join(dict.fromkeys(str(row["attribute"]).replace("_", " ") for row in gaps))
    wide = [row for row in gaps if row["q"] is not None and row["q"] < 0.05]
    which = [
        f"{metric_label(row['metric'])} of {row['target']} by {row['attribute']}".replace("_", " ") for row in wide
    ]
    told = (
        f"{len(wide)} of {len(gaps)} gaps have q below 0.05" if wide else f"none of {len(gaps)} gaps has q below 0.05"
    )
    listed = f": {'; '.join(which[:4])}{'; and others' * (len(which) > 4)}" if wide else ""
    return f"Groups by {groups} were audited: {told}{listed}."


def _digest(found: Evaluated, tuned: Tuned, title: str, text: str) -> Section:
    results, added = results_section(found), added_section(found)
    return Section(
        title,
        text,
        [*results.figures, *added.figures],
        [replace(table, fold=True) for table in (*results.tables, *added.tables)],
        legend_of(found),
        pages=[evaluation_link(tuned)],
    )


def incident_section(context: DemoContext) -> Section:
    """Ranks, added value, Kaplan-Meier by predicted risk and calibration of the incident outcomes."""
    tuned = outcomes(context)
    found = read_evaluation(tuned.folder)
    drawn = outcome_section(found)
    text = f"{ABOUT_OUTCOMES}\n\n" + (
        drawn.text if drawn else "No outcome has a number here: too few events were held out."
    )
    digest = _digest(found, tuned, OUTCOMES, text)
    return replace(digest, figures=[*digest.figures, *(drawn.figures if drawn else ())])


def nearest_section(context: DemoContext) -> Section:
    """What the nearest studies say of one held-out ECG, the median of the retrieval gallery by rank."""
    model, cohort = load_model(context.weights(MAIN), device="cpu"), Cohort.open(context.cohort)
    query = typical_queries(retrieve_pairs(context, MAIN)[0].ranks, 1)[0]
    subject = int(gallery(context)[query])
    recording = cohort.recording(first_row(cohort.recordings, subject))
    hearts = build_gallery(model, cohort, "cmr", "train")
    section = neighbour_section(find_neighbours(model, recording, hearts), cohort, recording, title=NEAREST)
    labels = cohort.labels.loc[subject]
    truth = f"The query is subject {subject}: LVEDV {labels['LVEDV']:.0f} ml, LVEF {labels['LVEF']:.0f} %, LVM "
    truth += f"{labels['LVM']:.0f} g."
    return replace(section, text=f"{ABOUT_NEAREST}{truth}\n\n{section.text}")


def explained_sections(context: DemoContext) -> list[Section]:
    """One ECG with what its infarction rests on, and whether such maps point to the scars that were planted."""
    who = held_out_scars(context)
    if not len(who):
        return [Section(EXPLAINED, "No held-out subject has an infarction: with more subjects one would be explained.")]
    subject, chance = _median_infarction(context, who)
    cohort = Cohort.open(context.cohort)
    artery = scarred(cohort, np.array([subject]))[0][1].territory
    words = (
        f"Subject {subject} has an old infarction in the territory of the {artery}: a reader looks at "
        f"{', '.join(CONTIGUOUS_LEADS[artery])}. The model gives a risk of {chance:.0%}, the median of {len(who)} "
        f"held-out infarction{'s' * (len(who) > 1)}. The output is the log-odds of infarction."
    )
    model = load_model(context.weights(phenotypes(context).run), device="cpu")
    recording = cohort.recording(first_row(cohort.recordings, subject))
    return [_explained(model, cohort, recording, words), believed_section(read_scars(context))]


def _explained(model: LoadedModel, cohort: Cohort, recording: EcgRecording, words: str) -> Section:
    """Integrated gradients, and occlusion by lead and wave; what a missing library leaves out is said."""
    healthy = healthy_recordings(cohort, N_HEALTHY)
    leads = explain(model, recording, INFARCTION, "occlusion", by="lead", references=healthy)
    maps, waves = [leads], []
    text = [
        words,
        f"By lead: the lead is exchanged with that of {len(healthy)} healthy subjects. By wave: it is flattened in all "
        "beats. An explanation says what the model used, not what causes the disease.",
    ]
    try:
        maps.insert(0, explain(model, recording, INFARCTION, "ig", references=healthy))
    except ValueError as error:
        text.append(f"Without integrated gradients: {error}.")
    try:
        waves = [explain(model, recording, INFARCTION, "occlusion", by="wave")]
    except ValueError as error:
        text.append(f"Not by wave: {error}.")
    return explanation_section(recording, maps, EXPLAINED, "\n\n".join(text), waves)


def _median_infarction(context: DemoContext, who: np.ndarray) -> tuple[int, float]:
    """Subject with the median predicted risk among those with an infarction, and that risk."""
    table = read_evaluation(phenotypes(context).folder).tables["model"]
    rows = table[(table["target"] == INFARCTION) & table["subject"].isin(who)].sort_values("prediction")
    row = rows.iloc[(len(rows) - 1) // 2]
    return int(row["subject"]), float(row["prediction"])


def believed_section(checks: list[PlantedCheck]) -> Section:
    """The check against planted scars, with its verdict in a sentence."""
    section = check_section(planted=checks, title=BELIEVED)
    return replace(section, text=f"{scar_sentence(checks)}\n\n{ABOUT_BELIEVED}")


def scar_sentence(checks: list[PlantedCheck]) -> str:
    """What the check says of leads that raise the output when they are there."""
    shares = [one for one in checks if one.statistic == "share" and one.method.endswith("(raising)")]
    if not shares:
        return "Too few held-out subjects have a scar to ask whether maps of infarction point to it."
    one = shares[0]
    rest = (
        f"in {len(one.subjects)} held-out subjects with a scar, {one.value:.0%} [{one.lo:.0%}, {one.hi:.0%}] of what "
        f"raises the output lies in the leads of the closed artery; against the scars of other subjects it is "
        f"{one.other_scars:.0%} (p = {one.p_own:.3f}), in shuffled leads {one.shuffled:.0%} (p = {one.p_place:.3f})."
    )
    verdict = {
        "points to the scar": "Yes, by this check",
        "points away from the scar": "No, they point elsewhere",
    }.get(one.verdict, "Not shown")
    return f"{verdict}: {rest}"
