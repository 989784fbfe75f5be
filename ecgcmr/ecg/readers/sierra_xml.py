"""Philips Sierra ECG XML (`<restingecgdata>`), document versions 1.03, 1.04 and 1.04.01.

The strip is base64 text of XLI-compressed leads. Recorders end it with a calibration pulse of 1 mV on every lead,
which is no ECG: those samples become NaN. Schema and compression: the public description of
https://github.com/sixlettervariables/sierra-ecg-tools/wiki. Names, numbers and dates of birth are never read.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.measurements import measured
from ecgcmr.ecg.readers.clock import time_of
from ecgcmr.ecg.readers.limits import MAX_SIGNAL_BYTES, checked
from ecgcmr.ecg.readers.sierra_xli import decode_xli, restore_limb_leads
from ecgcmr.ecg.readers.xml_tools import (
    add_lead,
    base64_bytes,
    base64_samples,
    parse_xml,
    required,
    same_length,
    text_of,
    to_count,
    to_number,
)
from ecgcmr.ecg.recording import EcgRecording, MedianBeats

ROOT = "restingecgdata"
VERSIONS = ("1.03", "1.04", "1.04.01")
TYPES = ("SierraECG", "PhilipsECG")
_MAX_LEADS = 32
_MISSING = (32767, -32768)

_MEASURED = {
    "heartrate": "heart_rate_bpm",
    "meanventrate": "heart_rate_bpm",
    "atrialrate": "atrial_rate_bpm",
    "rrint": "rr_ms",
    "pdur": "p_duration_ms",
    "print": "pr_ms",
    "meanprint": "pr_ms",
    "qrsdur": "qrs_ms",
    "meanqrsdur": "qrs_ms",
    "qtint": "qt_ms",
    "meanqtint": "qt_ms",
    "meanqtc": "qtc_ms",
    "qtcb": "qtc_bazett_ms",
    "qtcf": "qtc_fridericia_ms",
    "pfrontaxis": "p_axis_deg",
    "qrsfrontaxis": "qrs_axis_deg",
    "tfrontaxis": "t_axis_deg",
}


def read_sierra_xml(path: str | Path) -> EcgRecording:
    """Read the strip of a Philips Sierra ECG file.

    Args:
        path: The file.

    Returns:
        The strip in mV, leads in file order, with measurements, representative beats and time of recording. The
        calibration pulse at its end is NaN, and a note says so.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Not such a file, a document type or version that is not read, a missing or odd field, damaged
            compression, or an amplitude that contradicts the resolution.
    """
    path = Path(path)
    root = parse_xml(path, ROOT)
    _check_document(path, root)
    wave = required(path, root, "waveforms/parsedwaveforms")
    signal = root.find("dataacquisition/signalcharacteristics")
    rate = _field(path, "samplespersecond", wave, signal, "samplingrate")
    step_uv = _field(path, "resolution", wave, signal, "resolution", "signalresolution")
    if not (0 < rate <= 1e6 and 0 < step_uv <= 1e4):
        raise ValueError(f"{path}: <parsedwaveforms> at {rate:g} Hz and {step_uv:g} uV a step; expected 500 Hz, 5 uV")
    leads = _leads(path, wave, signal)
    digital = _digital(path, wave, len(leads), rate)
    pulse = _calibration_pulse(digital)
    samples = (digital * (step_uv * 1e-3)).astype(np.float32)
    notes: list[str] = []
    if pulse < digital.shape[1]:
        samples[:, pulse:] = np.nan
        seconds = (digital.shape[1] - pulse) / rate
        notes.append(f"the last {seconds:.2f} s hold a calibration pulse and no ECG: they are missing")
    median, why = _beats(path, root)
    notes += [f"median beats left out: {why}"] if why else []
    recording = EcgRecording(
        samples,
        rate,
        leads,
        source="sierra_xml",
        notes=tuple(notes),
        measurements=measured(_measurements(root, wave)),
        median_beats=median,
        recorded_at=_time(root),
    )
    return checked(path, recording, declared="uV")


def _check_document(path: Path, root: ET.Element) -> None:
    kind, version = (text_of(root, f"documentinfo/document{what}") for what in ("type", "version"))
    if kind not in TYPES:
        raise ValueError(f"{path}: <documenttype> is {kind[:40]!r}; only {' and '.join(TYPES)} are read")
    if version not in VERSIONS:
        raise ValueError(f"{path}: <documentversion> is {version[:40]!r}; only {', '.join(VERSIONS)} are read")


def _field(path: Path, name: str, wave: ET.Element, signal: ET.Element | None, *tags: str) -> float:
    """A number from an attribute of the waveform (1.04), or from the characteristics of the signal (1.03)."""
    written = wave.get(name) or next(
        (text for tag in tags if signal is not None and (text := text_of(signal, tag))), ""
    )
    return to_number(path, f"<parsedwaveforms {name}>", written)


def _leads(path: Path, wave: ET.Element, signal: ET.Element | None) -> tuple[str, ...]:
    """Lead names in stored order: of `leadlabels`, or of the standard set."""
    labels = tuple((wave.get("leadlabels") or "").split())
    written = wave.get("numberofleads") or ("" if signal is None else text_of(signal, "numberchannelsvalid")) or "12"
    count = to_count(path, "<parsedwaveforms numberofleads>", written, _MAX_LEADS)
    if not labels and count == len(LEADS):
        labels = LEADS
    if len(labels) < count:
        raise ValueError(f"{path}: <parsedwaveforms> announces {count} leads and names no leads beyond {len(labels)}")
    rows: dict[str, NDArray[np.float64]] = {}
    for label in labels[:count]:
        add_lead(path, rows, label, np.empty(0))
    if tuple(rows)[:6] != LEADS[:6]:
        raise ValueError(f"{path}: leads {' '.join(labels[:6])}; limb leads are restored only in the order of I to aVF")
    return tuple(rows)


def _digital(path: Path, wave: ET.Element, n_leads: int, rate: float) -> NDArray[np.float64]:
    """Digital values (L, T) with the limb leads restored."""
    packed = wave.get("compression") or (wave.get("compressmethod") if wave.get("compressflag") == "True" else "none")
    if wave.get("dataencoding", "Base64") != "Base64" or packed != "XLI":
        raise ValueError(
            f"{path}: <parsedwaveforms> is {wave.get('dataencoding')} with compression {packed!r}; only Base64 with "
            "XLI is read"
        )
    duration = to_number(path, "<parsedwaveforms durationperchannel>", wave.get("durationperchannel"))
    n_samples = round(duration * rate / 1000)
    data = base64_bytes(path, "<parsedwaveforms>", wave.text)
    # one 10-bit code gives at most 768 bytes, so that a short text cannot become endless samples
    if not 2 < n_samples <= min(MAX_SIGNAL_BYTES // (8 * n_leads), 1024 * len(data)):
        raise ValueError(f"{path}: <parsedwaveforms durationperchannel> is {duration:g} ms, which the data cannot hold")
    try:
        return restore_limb_leads(decode_xli(data, n_leads, n_samples))
    except ValueError as error:
        raise ValueError(f"{path}: <parsedwaveforms>: {error}") from error


def _calibration_pulse(digital_LT: NDArray[np.float64]) -> int:
    """Where the calibration at the end begins, or T: there all leads are the same, and not zero throughout."""
    same = (digital_LT == digital_LT[0]).all(axis=0)
    different = np.flatnonzero(~same)
    start = int(different[-1]) + 1 if different.size else 0
    return start if digital_LT[0, start:].any() and different.size else digital_LT.shape[1]


def _beats(path: Path, root: ET.Element) -> tuple[MedianBeats | None, str]:
    """Representative beats in mV, or why there are none."""
    block = root.find("waveforms/repbeats")
    if block is None:
        return None, ""
    try:
        rate = to_number(path, "<repbeats samplespersec>", block.get("samplespersec"))
        step_uv = to_number(path, "<repbeats resolution>", block.get("resolution"))
        rows: dict[str, NDArray[np.float64]] = {}
        for beat in block.iterfind("repbeat"):
            name = beat.get("leadname")
            text = beat.findtext("waveform") or beat.text
            digital = base64_samples(path, f"<repbeat leadname={name!r}>", text)
            add_lead(path, rows, name, np.where(np.isin(digital, _MISSING), np.nan, digital * (step_uv * 1e-3)))
        if not rows:
            return None, ""
        same_length(path, rows, None)
        samples = np.stack(list(rows.values())).astype(np.float32)
        there = np.flatnonzero(np.isfinite(samples).any(axis=0))
        samples = samples[:, : int(there[-1]) + 1 if there.size else 0]
        return MedianBeats(samples, rate, tuple(rows)), ""
    except ValueError as error:  # the strip is what was asked for
        return None, str(error).removeprefix(f"{path}: ")


def _measurements(root: ET.Element, wave: ET.Element) -> Iterator[tuple[str, object]]:
    for block in root.iter("globalmeasurements"):
        for tag, name in _MEASURED.items():
            yield name, text_of(block, tag)
    signal = "dataacquisition/signalcharacteristics"
    band = text_of(root, f"{signal}/signalbandwidth").split("-")
    yield "highpass_hz", wave.get("hipass") or band[0]
    yield "lowpass_hz", wave.get("lowpass") or band[-1]
    if (wave.get("notchfiltered") or "").lower() == "true":
        yield "notch_hz", text_of(root, f"{signal}/acsetting")


def _time(root: ET.Element) -> datetime | None:
    for tag in ("dataacquisition", "reportinfo"):
        found = root.find(tag)
        if found is not None and found.get("date"):
            day, clock = found.get("date", ""), found.get("time", "")
            return time_of(("%Y-%m-%d %H:%M:%S", f"{day} {clock}"), ("%Y-%m-%d", day))
    return None
