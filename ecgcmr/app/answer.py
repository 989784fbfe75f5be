"""One ECG in, one page out: the ECG, what is odd about it, what the model says, and which hearts are alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ecgcmr.app.hearts import Hearts
from ecgcmr.app.references import Reference
from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.quality import check_ecg
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.evaluation.explain import explain
from ecgcmr.evaluation.neighbours.query import find_neighbours
from ecgcmr.report.ecg_paper import ecg_paper
from ecgcmr.report.explain_sections import explanation_section, neighbour_section
from ecgcmr.report.page import Section, Table
from ecgcmr.report.reference_ranges import Predicted, reference_ranges, short

if TYPE_CHECKING:
    from ecgcmr.hub.model import LoadedModel

LIMITS = """Predictions come from a statistical model and hold, at best, for people like those it was trained on; an
interval says how far truths were from predictions there, in nine of ten. A reference range holds 95 % of the reference
subjects: one in twenty without any diagnosis is outside of it. Similar hearts are similar to the model.
Nothing that was shown here is kept."""


@dataclass(frozen=True)
class Question:
    """An ECG and what is known beside it.

    Attributes:
        recording: The ECG.
        name: How the page calls it.
        sex: A value of the cohort's column `sex`; None for unknown.
        age_years: Age [years]; None for unknown.
        explain: Output of the head to explain; None for none.
        subject: Subject of the cohort, for an example whose truth is known.
    """

    recording: EcgRecording
    name: str
    sex: str | None = None
    age_years: float | None = None
    explain: str | None = None
    subject: int | None = None


def answer(model: LoadedModel, hearts: Hearts, question: Question) -> list[Section]:
    """Give the sections of the page.

    Args:
        model: The model.
        hearts: What it compares with.
        question: The ECG.

    Raises:
        ValueError: The recording does not suit the model, or age or sex are no such thing.
    """
    sections = [_the_ecg(question)]
    if model.labels:
        sections += _predictions(model, hearts, question)
    if hearts.gallery is not None:
        near = find_neighbours(model, question.recording, hearts.gallery, subject=question.subject)
        sections.append(neighbour_section(near, hearts.cohort, question.recording))
    if question.explain is not None:
        sections.append(_explanation(model, hearts, question.recording, question.explain))
    return [*sections, Section("How to read this", LIMITS)]


def _explanation(model: LoadedModel, hearts: Hearts, recording: EcgRecording, target: str) -> Section:
    """What the output rests on; where that cannot be told for this recording, the reason instead.

    Leads give way to those of healthy subjects: of all methods only this one found planted scars (docs/explain.md).
    """
    title = f"What {target} rests on"
    text = (
        "Each lead in turn is replaced by that of healthy subjects of the cohort; the color is how much the output "
        "changes. That says what the model used, not what causes the disease."
    )
    try:
        leads = explain(model, recording, target, "occlusion", by="lead", references=hearts.healthy)
    except ValueError as error:
        return Section(title, f"No explanation: {error}.")
    return explanation_section(recording, [leads], title, text)


def _the_ecg(question: Question) -> Section:
    recording = question.recording
    flags = check_ecg(recording)
    text = f"{recording.duration_s:.1f} s at {recording.rate_hz:g} Hz, leads {', '.join(recording.leads)}."
    text += " Nothing odd was found." if not flags else f" {len(flags)} finding(s) that may disturb the prediction:"
    figures = [ecg_paper(recording)] if set(LEADS) <= set(recording.leads) else []
    tables = [Table(("finding", "detail"), [(flag.code.replace("_", " "), flag.detail) for flag in flags])]
    return Section("The ECG", text, figures, tables if flags else ())


def _predictions(model: LoadedModel, hearts: Hearts, question: Question) -> list[Section]:
    row = model.predict(question.recording).iloc[0]
    truth = hearts.truth(question.subject) if question.subject is not None else {}
    measured = [label for label in model.labels if label["kind"] == "regression"]
    found = hearts.references.find([label["name"] for label in measured], question.sex, question.age_years)
    sections = []
    if measured:
        rows = [_predicted(label, row, found.get(label["name"])) for label in measured]
        origin = "simulated hearts" if hearts.simulated else f"the cohort {hearts.cohort.schema.name}"
        caption = (
            f"Reference ranges: {_who(found, origin)}." if found else "No reference range: too few subjects known."
        )
        columns = ["phenotype", "unit", "prediction", "90 % interval", "reference range"]
        cells = [_cells(one, found.get(one.name), truth) for one in rows]
        table = Table([*columns, "truth"] if truth else columns, [c if truth else c[:-1] for c in cells])
        sections.append(
            Section("Heart structure and function, from the ECG", "", [reference_ranges(rows, "", caption)], [table])
        )
    diagnoses = [label for label in model.labels if label["kind"] == "binary"]
    if diagnoses:
        sections.append(_risks(diagnoses, row, hearts, truth))
    return sections


def _predicted(label: dict[str, str], row: pd.Series[Any], reference: Reference | None) -> Predicted:
    name = label["name"]
    interval = tuple(float(row.get(f"{name}_{end}", np.nan)) for end in ("lo", "hi"))
    around = None if reference is None else (reference.low, reference.high)
    return Predicted(name, label.get("unit", ""), float(row[name]), (interval[0], interval[1]), around)


def _who(found: dict[str, Reference], origin: str) -> str:
    groups = sorted({(one.who, one.n) for one in found.values()})
    return "; ".join(f"{n} {who} of {origin}" for who, n in groups)


def _cells(one: Predicted, reference: Reference | None, truth: dict[str, float]) -> Sequence[str]:
    lo, hi = one.interval
    interval = f"{short(lo)} to {short(hi)}" if np.isfinite([lo, hi]).all() else "none"
    around = "too few" if reference is None else f"{short(reference.low)} to {short(reference.high)}"
    if one.outside:
        around += " (outside)"
    known = short(truth[one.name]) if one.name in truth else "unknown"
    return (one.name, one.unit, short(one.value), interval, around, known)


def _risks(diagnoses: list[dict[str, str]], row: pd.Series[Any], hearts: Hearts, truth: dict[str, float]) -> Section:
    columns = ["diagnosis", "predicted probability", "share in the cohort"]
    cells = []
    for label in diagnoses:
        name = label["name"]
        values = (
            hearts.cohort.labels[name].to_numpy(dtype=float) if name in hearts.cohort.labels else np.array([np.nan])
        )
        seen = values[np.isfinite(values)]
        share = f"{seen.mean():.0%}" if len(seen) else "unknown"
        known = {1.0: "yes", 0.0: "no"}.get(truth.get(name, np.nan), "unknown")
        cells.append((name, f"{float(row[name]):.0%}", share, known))
    table = Table([*columns, "truth"] if truth else columns, [c if truth else c[:-1] for c in cells])
    text = "Probabilities of a diagnosis today, beside how common it is in the cohort that the app compares with."
    return Section("Diagnoses, from the ECG", text, tables=[table])
