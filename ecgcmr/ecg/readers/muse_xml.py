"""GE MUSE XML (`<RestingECG>`): base64 samples of eight leads, the rhythm strip and the median beat.

The other four limb leads follow from I and II (`ecgcmr.ecg.leads.to_canonical`). Schema: GE Healthcare, MUSE XML
Developer Guide (2018). Names, numbers and dates of birth (`PatientDemographics`) are never read.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.measurements import measured
from ecgcmr.ecg.readers.clock import time_of
from ecgcmr.ecg.readers.limits import MAX_SIGNAL_BYTES, checked
from ecgcmr.ecg.readers.xml_tools import (
    add_lead,
    base64_samples,
    number,
    parse_xml,
    positive,
    same_length,
    text_of,
    to_count,
    to_number,
)
from ecgcmr.ecg.recording import EcgRecording, MedianBeats
from ecgcmr.ecg.units import canonical_unit, millivolts_per_unit

ROOT = "RestingECG"
_MISSING = -32768

_MEASURED = {
    "VentricularRate": "heart_rate_bpm",
    "AtrialRate": "atrial_rate_bpm",
    "PRInterval": "pr_ms",
    "QRSDuration": "qrs_ms",
    "QTInterval": "qt_ms",
    "QTCorrected": "qtc_ms",
    "QTcFrederica": "qtc_fridericia_ms",
    "PAxis": "p_axis_deg",
    "RAxis": "qrs_axis_deg",
    "TAxis": "t_axis_deg",
}


def read_muse_xml(path: str | Path, unit: str | None = None) -> EcgRecording:
    """Read the rhythm strip of a MUSE XML file.

    Args:
        path: The file.
        unit: Unit of the amplitude step where the file states none (`uV`).

    Returns:
        The strip in mV, leads as stored (usually eight), with measurements, median beats and time of recording.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Not such a file, no rhythm waveform, a missing or odd field, a checksum or length that does not
            fit, or an amplitude that contradicts the unit.
    """
    path = Path(path)
    root = parse_xml(path, ROOT)
    blocks = {text_of(wave, "WaveformType").lower(): wave for wave in root.iterfind("Waveform")}
    if "rhythm" not in blocks:
        held = ", ".join(filter(None, blocks)) or "none"
        raise ValueError(f"{path}: no <Waveform> of type Rhythm (types: {held}); it holds no strip")
    samples, rate_hz, leads, notes = _waveforms(path, blocks["rhythm"], unit)
    median = None
    if "median" in blocks:
        try:
            median = MedianBeats(*_waveforms(path, blocks["median"], unit)[:3])
        except ValueError as error:  # the strip is what was asked for
            notes.append(f"median beats left out: {str(error).removeprefix(f'{path}: ').removeprefix(str(path))}")
    recording = EcgRecording(
        samples,
        rate_hz,
        leads,
        source="muse_xml",
        notes=tuple(notes),
        measurements=measured(_measurements(root, blocks["rhythm"])),
        median_beats=median,
        recorded_at=time_of(
            ("%m-%d-%Y %H:%M:%S", _when(root)),
            ("%Y-%m-%d %H:%M:%S", _when(root)),
            ("%m-%d-%Y", text_of(root, "TestDemographics/AcquisitionDate")),
            ("%Y-%m-%d", text_of(root, "TestDemographics/AcquisitionDate")),
        ),
    )
    stated = text_of(blocks["rhythm"], "LeadData/LeadAmplitudeUnits")
    return checked(path, recording, declared=canonical_unit(stated or unit))


def _when(root: ET.Element) -> str:
    return " ".join(text_of(root, f"TestDemographics/Acquisition{part}") for part in ("Date", "Time"))


def _waveforms(
    path: Path, block: ET.Element, unit: str | None
) -> tuple[NDArray[np.float32], float, tuple[str, ...], list[str]]:
    """Samples (L, T) in mV, rate, leads and notes of a `Waveform`."""
    what = text_of(block, "WaveformType")
    kind = text_of(block, "SampleType")
    if kind and kind != "CONTINUOUS_SAMPLES":
        raise ValueError(f"{path}: {what} <SampleType> is {kind!r}; only CONTINUOUS_SAMPLES are read")
    exponent = to_number(path, "<Waveform/SampleExponent>", text_of(block, "SampleExponent") or "0")
    if abs(exponent) > 9:
        raise ValueError(f"{path}: <Waveform/SampleExponent> is {exponent:g}, expected about 0")
    rate = positive(path, block, "SampleBase") * 10.0**exponent
    rows: dict[str, NDArray[np.float64]] = {}
    off: list[str] = []
    wrong: list[str] = []
    for lead in block.iterfind("LeadData"):
        name = text_of(lead, "LeadID")
        digital = _digital(path, lead, f"{what} lead {name or '?'}", wrong)
        step = number(path, lead, "LeadAmplitudeUnitsPerBit")
        if not 0 < step < 1e6:
            raise ValueError(f"{path}: {what} lead {name} <LeadAmplitudeUnitsPerBit> is {step:g}, expected about 4.88")
        try:
            factor = millivolts_per_unit(text_of(lead, "LeadAmplitudeUnits") or unit)
        except ValueError as error:
            raise ValueError(f"{path}: {what} lead {name} <LeadAmplitudeUnits>: {error}") from error
        values = digital.astype(np.float64) * (step * factor)
        values[digital == _MISSING] = np.nan
        add_lead(path, rows, name, values)
        if text_of(lead, "LeadOff").upper() == "TRUE":
            off.append(name)
    if not rows:
        raise ValueError(f"{path}: the {what} waveform has no <LeadData>")
    if text_of(block, "NumberofLeads"):
        count = to_count(path, "<Waveform/NumberofLeads>", text_of(block, "NumberofLeads"), MAX_SIGNAL_BYTES)
        if count != len(rows):
            raise ValueError(f"{path} is truncated: {what} announces {count} leads and holds {len(rows)}")
    same_length(path, rows, None)
    notes = [f"the recorder marked as detached: {', '.join(off)}"] if off else []
    notes += [f"checksum does not fit: {', '.join(wrong)}"] if wrong else []
    return np.stack(list(rows.values())).astype(np.float32), rate, tuple(rows), notes


def _digital(path: Path, lead: ET.Element, field: str, wrong: list[str]) -> NDArray[np.int16]:
    """Digital values (T,) of a `LeadData`, of the announced length; leads with a wrong checksum go to `wrong`."""
    size = text_of(lead, "LeadSampleSize")
    if size and size != "2":
        raise ValueError(f"{path}: {field} <LeadSampleSize> is {size!r}; only samples of 2 bytes are read")
    digital = base64_samples(path, f"{field} <WaveFormData>", lead.findtext("WaveFormData"))
    if text_of(lead, "LeadSampleCountTotal"):
        written = text_of(lead, "LeadSampleCountTotal")
        count = to_count(path, f"{field} <LeadSampleCountTotal>", written, MAX_SIGNAL_BYTES)
        if digital.size != count:
            raise ValueError(f"{path} is truncated: {field} announces {count} samples and holds {digital.size}")
    stated = text_of(lead, "LeadDataCRC32")
    if stated.isdigit() and int(stated) not in (0, zlib.crc32(digital.tobytes())):
        wrong.append(text_of(lead, "LeadID"))
    return digital


def _measurements(root: ET.Element, rhythm: ET.Element) -> Iterator[tuple[str, object]]:
    for block in ("RestingECGMeasurements", "OriginalRestingECGMeasurements"):  # edited by a reader, then the device's
        for tag, name in _MEASURED.items():
            yield name, text_of(root, f"{block}/{tag}")
    highpass = text_of(rhythm, "HighPassFilter")
    if highpass.isdigit():
        yield "highpass_hz", int(highpass) / 100  # written in hundredths: 56 is 0.56 Hz, 16 is 0.16 Hz
    yield "lowpass_hz", text_of(rhythm, "LowPassFilter")
    yield "notch_hz", text_of(rhythm, "ACFilter")
