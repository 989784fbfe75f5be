"""Sections of the page: what an output rests on, whether such maps can be believed, and the hearts that are nearest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ecgcmr.cmr.cine import Cine
from ecgcmr.cohort.store import Cohort
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.evaluation.explain.checks import RandomisationCheck
from ecgcmr.evaluation.explain.planted import PlantedCheck
from ecgcmr.evaluation.explain.result import Explanation
from ecgcmr.evaluation.neighbours.build import cohort_key
from ecgcmr.evaluation.neighbours.query import NeighbourReport
from ecgcmr.report.explained import explained_frames, explained_paper, wave_bars
from ecgcmr.report.page import Figure, Section, Table
from ecgcmr.report.playing_cines import playing_gallery, playing_heart

FRAME_NAMES = ("end-diastole", "mid-systole", "end-systole")
SHOWN_LABELS = ("LVEDV", "LVEF", "LVM")
_CAUTION = (
    "An explanation says what the model used, not what causes the disease; two methods may disagree. See the sanity "
    "checks before a map is believed."
)


def explanation_section(
    source: EcgRecording | Cine,
    explanations: Sequence[Explanation],
    title: str = "What the output rests on",
    text: str = _CAUTION,
    waves: Sequence[Explanation] = (),
) -> Section:
    """Explanations of one recording or cine, drawn on it, with the sums by lead.

    Args:
        source: What was explained.
        explanations: Of it; those over pairs of parts can not be drawn and are refused.
        title: Heading.
        text: Paragraphs.
        waves: Occlusion by wave, of this or of several recordings, for bars with intervals over recordings.

    Raises:
        ValueError: An explanation is not of this kind of source.
    """
    figures: list[Figure] = []
    for one in explanations:
        if isinstance(source, EcgRecording):
            figures.append(explained_paper(source, one))
        else:
            names = FRAME_NAMES if one.frames is not None and len(one.frames) == 3 else ()
            figures.append(explained_frames(one, names))
    if waves:
        figures.append(wave_bars([one.effects() for one in waves], waves[0].unit, f"{waves[0].target}: waves by lead"))
    tables = []
    ecg = [one for one in explanations if one.modality == "ecg"]
    if ecg:
        columns = ["Lead", *(f"{one.method} of {one.target} [{one.unit}]" for one in ecg)]
        sums = [one.by_lead() for one in ecg]
        rows = [[lead, *(_number(column[lead]) for column in sums)] for lead in ecg[0].leads]
        tables.append(Table(columns, rows, "Sum over time, or effect of the lead, by lead", fold=True))
    return Section(title, text, figures, tables)


def check_section(
    randomised: Sequence[RandomisationCheck] = (),
    planted: Sequence[PlantedCheck] = (),
    title: str = "Can the maps be believed?",
) -> Section:
    """Tables of the sanity checks: what randomising the weights does, and whether maps point to planted scars."""
    tables = []
    for check in randomised:
        rows = [
            [str(row["random"]), _interval(row, "signed"), _interval(row, "sizes")]
            for row in check.table().to_dict("records")
        ]
        words = "passes" if check.passed else "signs change, sizes stay" if check.signed_fall else "does not pass"
        caption = f"{check.method}, {check.target}: rank correlation with the map of the trained weights ({words})"
        tables.append(Table(["Random", "Attributions", "Sizes without sign"], rows, caption))
    if planted:
        columns = ["Method", "Statistic", "Own scar", "Others' scars", "Shuffled places", "p own", "p place", "n", ""]
        rows = [
            [
                one.method,
                one.statistic,
                f"{one.value:.2f} [{one.lo:.2f}, {one.hi:.2f}]",
                f"{one.other_scars:.2f}",
                f"{one.shuffled:.2f}",
                f"{one.p_own:.3f}",
                f"{one.p_place:.3f}",
                str(len(one.subjects)),
                one.verdict,
            ]
            for one in planted
        ]
        tables.append(Table(columns, [[_minus(cell) for cell in row] for row in rows], "Planted scars"))
    text = (
        "Random weights: a map that stays when the network forgets what it learned shows the input (arXiv 1810.03292). "
        "Planted scars: on simulated hearts it is known where the scar is; own scars are compared with those of other "
        "subjects and with shuffled places, by two-sided permutation tests."
    )
    return Section(title, text, tables=tables)


def neighbour_section(
    report: NeighbourReport,
    cohort: Cohort | None = None,
    recording: EcgRecording | None = None,
    query: int = 0,
    n: int = 5,
    labels: Sequence[str] | None = None,
    title: str = "Most similar hearts",
) -> Section:
    """The nearest hearts as playing cines, what they say of the query, and the table of neighbours.

    Args:
        report: From `find_neighbours`.
        cohort: Cohort of the gallery, for its cines; without it there are tables alone.
        recording: The query, drawn above the hearts.
        query: Which query of the report.
        n: Hearts that are drawn.
        labels: Labels in the notes and the tables; volumes, ejection fraction and mass by default, where they are.
        title: Heading.

    Raises:
        ValueError: The cohort is not that of the gallery, or there is no such query.
    """
    gallery = report.gallery
    near = report.neighbours[report.neighbours["query"] == query]
    if near.empty:
        raise ValueError(f"the report has no query {query}; it has {report.neighbours['query'].nunique()}")
    known = [name for name in (labels or SHOWN_LABELS) if name in gallery.labels]
    chosen = known or list(gallery.labels[:3])
    figures = []
    if cohort is not None and gallery.about.modality == "cmr":
        if cohort_key(cohort) != gallery.about.cohort_key:
            raise ValueError(
                f"{cohort.path} is not the cohort {gallery.about.cohort!r} that the gallery was made of: its rows are "
                "other hearts"
            )
        hearts = [
            playing_heart(cohort.cine(int(row["row"]), masks=False), _notes(row, chosen, gallery.about.units))
            for row in near.head(n).to_dict("records")
        ]
        lead = None if recording is None or "II" not in recording.leads else recording.leads.index("II")
        trace = None if recording is None or lead is None else recording.samples[lead]
        rate = 500.0 if recording is None else recording.rate_hz
        figures.append(playing_gallery(hearts, trace, rate, gallery=len(gallery)))
    estimates = report.estimates[report.estimates["query"] == query]
    estimates = estimates[estimates["label"].isin([*chosen, *_diagnoses(gallery.about.kinds)])]
    told = [
        [str(r["label"]), _value(r), str(r["unit"]), str(r["n_neighbours"]), _measured(r)]
        for r in estimates.to_dict("records")
    ]
    how = f"mean of the {gallery.about.k} nearest, weighted by {gallery.about.weighting}"
    where = gallery.about.measured_on or "nothing"
    tables = [
        Table(["Label", "Estimate", "Unit", "Neighbours", "Measured against truth"], told, f"What they say: {how}"),
        Table(
            ["Place", "Subject", "Cosine", *(_titled(name, gallery.about.units) for name in chosen)],
            [
                [str(r["place"]), str(r["subject"]), f"{r['cosine']:.3f}", *(_number(r[name]) for name in chosen)]
                for r in near.to_dict("records")
            ],
            "The neighbours",
            fold=True,
        ),
    ]
    kind = "studies" if gallery.about.modality == "cmr" else "recordings"
    text = (
        f"Gallery: {len(gallery):,} {kind} of the cohort {gallery.about.cohort} ({gallery.about.part}, "
        f"{gallery.about.provenance}). Intervals are meant to hold {gallery.about.level:.0%} of subjects; their size "
        f"follows the spread of the neighbours. Measured on {where}."
    )
    return Section(title, text, figures, tables)


def _notes(row: Mapping[Any, Any], labels: Sequence[str], units: Mapping[str, str]) -> list[str]:
    return [f"{name} {_number(row[name])} {units[name]}".strip() for name in labels]


def _diagnoses(kinds: Mapping[str, str]) -> list[str]:
    return [name for name, kind in kinds.items() if kind == "binary"]


def _titled(name: str, units: Mapping[str, str]) -> str:
    return f"{name} [{units[name]}]" if units[name] else name


def _value(row: Mapping[Any, Any]) -> str:
    value, lo, hi = (float(str(row[key])) for key in ("value", "lo", "hi"))
    interval = f" [{_number(lo)}, {_number(hi)}]" if np.isfinite(lo) else ""
    return f"{_number(value)}{interval}"


def _measured(row: Mapping[Any, Any]) -> str:
    value, lo, hi = (float(str(row[key])) for key in ("measured", "measured_lo", "measured_hi"))
    if not np.isfinite(value):
        return "not measured"
    interval = f" [{lo:.2f}, {hi:.2f}]" if np.isfinite(lo) else ""
    name = {"r2": "R²", "auroc": "AUROC"}.get(str(row["metric"]), str(row["metric"]))
    return _minus(f"{name} {value:.2f}{interval}")


def _interval(row: Mapping[Any, Any], name: str) -> str:
    value, lo, hi = (float(str(row[key])) for key in (name, f"{name}_lo", f"{name}_hi"))
    return _minus(f"{value:.2f} [{lo:.2f}, {hi:.2f}]")


def _number(value: object) -> str:
    number = float("nan") if value is None or value is pd.NA else float(str(value))
    return "–" if not np.isfinite(number) else _minus(f"{number:.3g}")


def _minus(text: str) -> str:
    """A true minus sign before numbers."""
    return re.sub(r"(?<![\w.])-(?=\d)", "−", text)
