"""CardioSoft XML (`<CardiologyXML>`), as UK Biobank gives out its resting ECGs (field 20205).

`StripData` holds the whole strip, one list of numbers for each lead, `RestingECGMeasurements` the measurements and the
median beat. Schema: GE Healthcare, CASE/CardioSoft XML Data Export Reference Manual (version 7.0, 2021), and
the published parsers of the field's users. Names, numbers and dates of birth (`PatientInfo`) are never read.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.measurements import FACTORS, measured
from ecgcmr.ecg.readers.clock import time_of
from ecgcmr.ecg.readers.limits import MAX_SIGNAL_BYTES, checked
from ecgcmr.ecg.readers.xml_tools import (
    add_lead,
    number_list,
    parse_xml,
    positive,
    required,
    same_length,
    text_of,
    to_count,
)
from ecgcmr.ecg.recording import EcgRecording, MedianBeats
from ecgcmr.ecg.units import canonical_unit, millivolts_per_unit

ROOT = "CardiologyXML"

_MEASURED = {
    "VentricularRate": "heart_rate_bpm",
    "RRInterval": "rr_ms",
    "PPInterval": "pp_ms",
    "PDuration": "p_duration_ms",
    "PQInterval": "pr_ms",
    "QRSDuration": "qrs_ms",
    "QTInterval": "qt_ms",
    "QTCInterval": "qtc_ms",
    "PAxis": "p_axis_deg",
    "RAxis": "qrs_axis_deg",
    "TAxis": "t_axis_deg",
    "SokolovLVHIndex": "sokolov_lyon_mv",
}


def read_ukb_xml(path: str | Path, unit: str | None = None) -> EcgRecording:
    """Read the resting ECG of a CardioSoft XML file.

    Args:
        path: The file.
        unit: Unit of one step where `Resolution` states none (`uV`).

    Returns:
        The strip in mV, leads in file order, with measurements, median beats and time of recording.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Not such a file, no strip (an exercise test), a missing or odd field, or an amplitude that
            contradicts the resolution.
    """
    path = Path(path)
    root = parse_xml(path, ROOT)
    strip = next((found for tag in ("StripData", "Strip/StripData") if (found := root.find(tag)) is not None), None)
    if strip is None:
        if root.find("FullDisclosure") is not None:
            raise ValueError(
                f"{path} holds a FullDisclosure and no StripData: an exercise test (UK Biobank field 6025), whose "
                "order of samples differs; only resting ECGs (field 20205) are read"
            )
        raise ValueError(f"{path}: <{ROOT}> has no <StripData>; it holds no recording")
    samples, rate_hz, leads = _waveforms(path, strip, unit)
    notes: list[str] = []
    median = None
    beats = root.find("RestingECGMeasurements/MedianSamples")
    if beats is not None and beats.find("WaveformData") is not None:
        try:
            median = MedianBeats(*_waveforms(path, beats, unit))
        except ValueError as error:  # the strip is what was asked for
            notes.append(f"median beats left out: {str(error).removeprefix(f'{path}: ').removeprefix(str(path))}")
    recording = EcgRecording(
        samples,
        rate_hz,
        leads,
        source="ukb_xml",
        notes=tuple(notes),
        measurements=measured(_measurements(root)),
        median_beats=median,
        recorded_at=_time(root),
    )
    return checked(path, recording, declared=canonical_unit(_step_unit(strip) or unit))


def _waveforms(path: Path, block: ET.Element, unit: str | None) -> tuple[NDArray[np.float32], float, tuple[str, ...]]:
    """Samples (L, T) in mV, rate and leads of a block of `WaveformData`."""
    rate = positive(path, block, "SampleRate")
    rate_unit = (required(path, block, "SampleRate").get("units") or "Hz").strip()
    if rate_unit.lower() not in ("hz", "khz"):
        raise ValueError(f"{path}: <{block.tag}/SampleRate> is in {rate_unit!r}, expected Hz")
    factor = positive(path, block, "Resolution") * _step_mv(path, block, unit)
    announced = None
    if text_of(block, "ChannelSampleCountTotal"):
        written = block.findtext("ChannelSampleCountTotal")
        announced = to_count(path, f"<{block.tag}/ChannelSampleCountTotal>", written, MAX_SIGNAL_BYTES)
    rows: dict[str, NDArray[np.float64]] = {}
    for wave in block.iterfind("WaveformData"):
        name = wave.get("lead")
        add_lead(path, rows, name, number_list(path, f"<{block.tag}/WaveformData lead={name!r}>", wave.text, ","))
    if not rows:
        raise ValueError(f"{path}: <{block.tag}> has no <WaveformData>")
    if text_of(block, "NumberOfLeads"):
        count = to_count(path, f"<{block.tag}/NumberOfLeads>", block.findtext("NumberOfLeads"), MAX_SIGNAL_BYTES)
        if count != len(rows):
            raise ValueError(f"{path} is truncated: <{block.tag}> announces {count} leads and holds {len(rows)}")
    same_length(path, rows, announced)
    samples = (np.stack(list(rows.values())) * factor).astype(np.float32)
    return samples, rate * (1e3 if rate_unit.lower() == "khz" else 1.0), tuple(rows)


def _step_mv(path: Path, block: ET.Element, unit: str | None) -> float:
    """Millivolts of one unit of `Resolution`, from its `units` (`uVperLsb`)."""
    required(path, block, "Resolution")
    try:
        return millivolts_per_unit(_step_unit(block) or unit)
    except ValueError as error:
        raise ValueError(f"{path}: <{block.tag}/Resolution>: {error}") from error


def _step_unit(block: ET.Element) -> str:
    """Unit of `Resolution`: what stands before `perLsb`, or nothing."""
    found = block.find("Resolution")
    stated = "" if found is None else (found.get("units") or "").strip().lower()
    return stated.removesuffix("lsb").removesuffix("bit").rstrip("/").removesuffix("per")


def _measurements(root: ET.Element) -> Iterator[tuple[str, object]]:
    for tag, name in _MEASURED.items():
        found = root.find(f"RestingECGMeasurements/{tag}")
        if found is not None and found.text:
            yield name, _converted(found.text, found.get("units"))
    for tag, name in (("HighPass", "highpass_hz"), ("LowPass", "lowpass_hz")):
        yield name, root.findtext(f"FilterSetting/{tag}")
    for hertz in (50, 60):
        if (root.findtext(f"FilterSetting/Filter{hertz}Hz") or "").strip().lower() == "yes":
            yield "notch_hz", hertz


def _converted(text: str, units: str | None) -> float | str:
    """A measurement in ms, degrees, bpm or mV; text that is no number stays as it is and is dropped later."""
    try:
        return float(text) * FACTORS.get((units or "").strip(), 1.0)
    except ValueError:
        return text


def _time(root: ET.Element) -> datetime | None:
    at = root.find("ObservationDateTime")
    if at is None:
        return None
    day = "-".join(text_of(at, part) for part in ("Year", "Month", "Day"))
    clock = ":".join(text_of(at, part) or "0" for part in ("Hour", "Minute", "Second"))
    return time_of(("%Y-%m-%d %H:%M:%S", f"{day} {clock}"), ("%Y-%m-%d", day))
