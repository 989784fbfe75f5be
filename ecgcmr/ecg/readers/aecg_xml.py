"""HL7 annotated ECG (`<AnnotatedECG>`): the rhythm series and the representative beat.

Each `sequenceSet` holds a time axis and one list of digits for each lead, with its own origin, scale and unit.
Standard: ANSI/HL7 V3 ECG R1-2004; Brown & Badilini, HL7 aECG Implementation Guide (2005). Names, numbers and dates of
birth of the trial's subject are never read.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.measurements import FACTORS, measured
from ecgcmr.ecg.readers.clock import time_of
from ecgcmr.ecg.readers.limits import checked
from ecgcmr.ecg.readers.xml_tools import add_lead, number_list, parse_xml, same_length, to_number
from ecgcmr.ecg.recording import EcgRecording, MedianBeats
from ecgcmr.ecg.units import canonical_unit, millivolts_per_unit

ROOT = "AnnotatedECG"
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"

_MEASURED = {
    "MDC_ECG_HEART_RATE": "heart_rate_bpm",
    "MDC_ECG_TIME_PD_RR": "rr_ms",
    "MDC_ECG_TIME_PD_PP": "pp_ms",
    "MDC_ECG_TIME_PD_P": "p_duration_ms",
    "MDC_ECG_TIME_PD_PR": "pr_ms",
    "MDC_ECG_TIME_PD_QRS": "qrs_ms",
    "MDC_ECG_TIME_PD_QT": "qt_ms",
    "MDC_ECG_TIME_PD_QTc": "qtc_ms",
    "MDC_ECG_ANGLE_P_FRONT": "p_axis_deg",
    "MDC_ECG_ANGLE_QRS_FRONT": "qrs_axis_deg",
    "MDC_ECG_ANGLE_T_FRONT": "t_axis_deg",
}
_FILTERS = {
    "MDC_ECG_CTL_VBL_ATTR_FILTER_HIGH_PASS": "highpass_hz",
    "MDC_ECG_CTL_VBL_ATTR_FILTER_LOW_PASS": "lowpass_hz",
    "MDC_ECG_CTL_VBL_ATTR_FILTER_NOTCH": "notch_hz",
}


@dataclass(frozen=True)
class _Sequences:
    """One `sequenceSet`: samples (L, T) in mV, rate [Hz], leads, the time that its axis starts with, the unit."""

    samples: NDArray[np.float32]
    rate_hz: float
    leads: tuple[str, ...]
    start: str
    unit: str


def read_aecg_xml(path: str | Path, unit: str | None = None) -> EcgRecording:
    """Read the rhythm waveforms of an HL7 aECG file.

    Args:
        path: The file.
        unit: Unit of the scale of sequences that state none.

    Returns:
        The sequence set with the most leads, then the longest, in mV, leads in file order, with measurements, median
        beats and time of recording; the notes tell of other sets.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Not such a file, no rhythm waveform, a missing or odd field, or an amplitude that contradicts the
            unit.
    """
    path = Path(path)
    root = parse_xml(path, ROOT)
    sets = [block for series in root.iterfind("component/series") for block in series.iterfind("component/sequenceSet")]
    found = [_sequences(path, block, unit) for block in sets]
    if not found:
        raise ValueError(f"{path}: <{ROOT}> has no component/series/component/sequenceSet; it holds no waveform")
    best = max(found, key=lambda one: (len(one.leads), one.samples.shape[1]))
    notes = [f"left out {len(found) - 1} further sequence sets"] if len(found) > 1 else []
    median = None
    derived = root.find("component/series/derivation/derivedSeries/component/sequenceSet")
    if derived is not None:
        try:
            beat = _sequences(path, derived, unit)
            median = MedianBeats(beat.samples, beat.rate_hz, beat.leads)
        except ValueError as error:  # the strip is what was asked for
            notes.append(f"median beats left out: {str(error).removeprefix(f'{path}: ')}")
    recording = EcgRecording(
        best.samples,
        best.rate_hz,
        best.leads,
        source="aecg_xml",
        notes=tuple(notes),
        measurements=measured(_measurements(root)),
        median_beats=median,
        recorded_at=_time(root, best.start),
    )
    return checked(path, recording, declared=best.unit)


def _sequences(path: Path, block: ET.Element, unit: str | None) -> _Sequences:
    rows: dict[str, NDArray[np.float64]] = {}
    rate, start, stated = None, "", ""
    for sequence in block.iterfind("component/sequence"):
        code = _attribute(sequence, "code", "code")
        value = sequence.find("value")
        if value is None:
            raise ValueError(f"{path}: <sequence> {code or '?'} has no <value>")
        if code.startswith("TIME_"):
            rate, start = _rate(path, value), _attribute(value, "head", "value")
            continue
        kind = value.get(_TYPE, "SLIST_PQ")
        if kind != "SLIST_PQ":
            raise ValueError(f"{path}: lead {code} is stored as {kind}; only SLIST_PQ has a unit and is read")
        add_lead(path, rows, code, _samples(path, value, code, unit))
        stated = stated or _attribute(value, "scale", "unit")
    if rate is None:
        raise ValueError(f"{path}: a <sequenceSet> has no TIME_ABSOLUTE or TIME_RELATIVE; it states no sampling rate")
    if not rows:
        raise ValueError(f"{path}: a <sequenceSet> has no lead")
    same_length(path, rows, None)
    return _Sequences(
        np.stack(list(rows.values())).astype(np.float32), rate, tuple(rows), start, canonical_unit(stated or unit)
    )


def _rate(path: Path, value: ET.Element) -> float:
    """Sampling rate [Hz] from the increment of a GLIST."""
    step = to_number(path, "<sequence/value/increment value>", _attribute(value, "increment", "value"))
    written = _attribute(value, "increment", "unit")
    if written not in _SECONDS:
        raise ValueError(f"{path}: the time axis is in {written!r}, expected one of {', '.join(_SECONDS)}")
    if not step > 0:
        raise ValueError(f"{path}: the time axis has an increment of {step:g} {written}, expected more than 0")
    return float(round(1.0 / (step * _SECONDS[written]), 6))  # 0.002 s is 500 Hz and not 499.99999999999994


def _samples(path: Path, value: ET.Element, code: str, unit: str | None) -> NDArray[np.float64]:
    """Samples (T,) in mV of an SLIST_PQ: origin + scale * digits."""
    field = f"lead {code}"
    scale = to_number(path, f"{field} <scale value>", _attribute(value, "scale", "value"))
    origin = to_number(path, f"{field} <origin value>", _attribute(value, "origin", "value") or "0")
    try:
        factor = millivolts_per_unit(_attribute(value, "scale", "unit") or unit)
        origin_factor = millivolts_per_unit(_attribute(value, "origin", "unit") or unit) if origin else 1.0
    except ValueError as error:
        raise ValueError(f"{path}: {field}: {error}") from error
    digits = number_list(path, f"{field} <digits>", value.findtext("digits"), " ")
    return digits * (scale * factor) + origin * origin_factor


def _attribute(parent: ET.Element, tag: str, name: str) -> str:
    found = parent.find(tag)
    return "" if found is None else (found.get(name) or "").strip()


def _measurements(root: ET.Element) -> Iterator[tuple[str, object]]:
    """Global measurements, annotated on the beat or the rhythm: those that are for one lead lie below a lead's ROI."""
    for note in root.iter("annotation"):
        name = _MEASURED.get(_attribute(note, "code", "code"))
        value = note.find("value")
        if name is None or value is None or note.find("support/supportingROI/component/boundary") is not None:
            continue
        try:
            yield name, float(value.get("value") or "") * FACTORS.get((value.get("unit") or "").strip(), 1.0)
        except ValueError:
            continue
    for control in root.iter("controlVariable"):
        name = _FILTERS.get(_attribute(control, "code", "code"))
        for inner in control.iterfind("component/controlVariable") if name else ():
            if _attribute(inner, "code", "code").endswith(("CUTOFF_FREQ", "NOTCH_FREQ")):
                yield str(name), _attribute(inner, "value", "value")


def _time(root: ET.Element, start: str) -> datetime | None:
    written = [start, _attribute(root, "effectiveTime/center", "value"), _attribute(root, "effectiveTime/low", "value")]
    texts = [text.split(".")[0].split("+")[0].split("-")[0] for text in written]
    return time_of(*((pattern, text) for text in texts for pattern in ("%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y%m%d")))
