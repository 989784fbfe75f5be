"""One page about one recording: what an output rests on, or the hearts that are nearest."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgcmr.cmr.cine import Cine
from ecgcmr.cohort.store import Cohort
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.evaluation.explain.front import explain
from ecgcmr.evaluation.explain.prepare import prepare
from ecgcmr.evaluation.explain.result import Explanation
from ecgcmr.evaluation.neighbours.query import NeighbourReport
from ecgcmr.hub.inputs import Declared
from ecgcmr.report.explain_sections import explanation_section, neighbour_section
from ecgcmr.report.page import Section, build_report

if TYPE_CHECKING:
    from ecgcmr.hub.model import LoadedModel


@dataclass(frozen=True)
class Question:
    """What shall be explained.

    Attributes:
        target: Name of an output of the head; None for the similarity with the cine, or for rollout.
        method: As in `ecgcmr.explain`.
        cine: A study, for similarity and localisation.
        side: Which of the two is explained: `ecg` or `cmr`.
        options: Of the method.
    """

    target: str | None = None
    method: str = "ig"
    cine: Cine | None = None
    side: str = "ecg"
    options: dict[str, Any] = field(default_factory=dict)

    def ask(self, model: LoadedModel, recording: EcgRecording) -> Explanation:
        """Explain.

        Raises:
            ValueError: The question does not hold together, or as `explain`.
        """
        if self.side not in ("ecg", "cmr"):
            raise ValueError(f"side is {self.side!r}, expected 'ecg' or 'cmr'")
        if self.cine is None and (self.side == "cmr" or self.method in ("gradcam", "localisation")):
            raise ValueError(f"method {self.method!r} on {self.side} needs a study: give the cine")
        if self.method == "localisation":
            options = {"which": self.side, **self.options}
            return explain(model, recording, self.cine, "localisation", **options)
        if self.side == "cmr" or self.method == "gradcam":
            if self.target is not None:
                raise ValueError(
                    f"the target {self.target!r} is an output for ECGs; a cine is explained by its similarity with the "
                    "recording: leave the target out"
                )
            return explain(model, self.cine, recording, self.method, **self.options)
        target: Any = self.cine if self.target is None and self.method != "rollout" else self.target
        return explain(model, recording, target, self.method, **self.options)


def explanation_page(
    model: LoadedModel,
    item: Any,
    question: Question,
    out: str | os.PathLike[str],
    declared: Declared | None = None,
) -> tuple[Path, Explanation]:
    """Explain one ECG and write a page: the map, and for an ECG what leads and waves do when they are taken away.

    Args:
        model: The model.
        item: A recording or ECG file.
        question: What shall be explained.
        out: The page, .html.
        declared: What an ECG file does not say itself.

    Raises:
        FileNotFoundError, ValueError: As `explain`.
    """
    recording = prepare(model, item, declared).source
    assert isinstance(recording, EcgRecording), "the item is an ECG"
    found = question.ask(model, recording)
    if found.modality == "both":
        raise ValueError("a map over pairs of parts has four axes and can not be drawn; use ecgcmr.explain from Python")
    if found.modality == "cmr":
        assert question.cine is not None, "an image was explained"
        sections = [explanation_section(question.cine, [found])]
    else:
        sections = [explanation_section(recording, [found]), *_companions(model, recording, question)]
    intro = (
        f"{found.target} by {found.method}, model {found.model}. "
        "The map shows what this model used in this recording, by this method."
    )
    facts = {
        "model": f"{found.model} ({found.sha256[:12]})",
        "target": f"{found.target} [{found.unit}]",
        "method": found.method,
        **{key.replace("_", " "): _plain(value) for key, value in found.settings.items()},
        "provenance of the weights": str(model.config["provenance"]),
    }
    return build_report(out, f"Explanation: {found.target}", intro, sections, facts), found


def _companions(model: LoadedModel, recording: EcgRecording, question: Question) -> list[Section]:
    """Occlusion by lead and by wave of the same output, where there is an output."""
    if question.method in ("rollout", "localisation"):
        return []
    target: Any = question.cine if question.target is None else question.target
    references = question.options.get("references", ())
    leads = explain(model, recording, target, "occlusion", by="lead", references=references)
    how = f"exchanged with that of {len(references)} healthy subjects" if references else "set to a flat line"
    text = f"Each lead ({how}) or wave (flattened in all beats) is taken away, one at a time."
    waves: list[Explanation] = []
    try:
        waves = [explain(model, recording, target, "occlusion", by="wave")]
    except ValueError as error:
        text += f"\n\nNot by wave: {error}."
    return [explanation_section(recording, [leads], "Without a lead, without a wave", text, waves)]


def neighbour_page(
    report: NeighbourReport,
    out: str | os.PathLike[str],
    cohort: Cohort | None = None,
    recording: EcgRecording | None = None,
) -> Path:
    """Write a page with the nearest hearts of one ECG; see `neighbour_section`."""
    about = report.gallery.about
    intro = f"The {about.modality.upper()} vectors nearest to one ECG, in the space of {about.model}."
    facts = {
        "model": f"{about.model} ({about.sha256[:12]})",
        "gallery": f"{len(report.gallery):,} vectors of {about.cohort}, {about.part}",
        "neighbours": about.k,
        "weighting": about.weighting,
    }
    section = neighbour_section(report, cohort, recording)
    return build_report(out, "Most similar hearts", intro, [section], facts)


def _plain(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
