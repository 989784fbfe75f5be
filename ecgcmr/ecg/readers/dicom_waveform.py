"""DICOM waveforms: 12-lead, general and ambulatory ECG storage (DICOM PS3.3 A.34, C.10.9)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.leads import canonical_lead, tidy_lead
from ecgcmr.ecg.measurements import FACTORS, measured
from ecgcmr.ecg.readers.clock import time_of
from ecgcmr.ecg.readers.limits import MAX_LEADS, MAX_SIGNAL_BYTES, bounded_bytes, checked
from ecgcmr.ecg.recording import EcgRecording, MedianBeats
from ecgcmr.ecg.units import millivolts_per_unit

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_TYPES = {("SB", 8): "i1", ("UB", 8): "u1", ("SS", 16): "i2", ("US", 16): "u2", ("SL", 32): "i4", ("UL", 32): "u4"}

# Lead codes share their last number between SCP-ECG (5.6.3-9-N) and IEEE 11073 (2:N).
_LEAD_NUMBERS = {1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF", **{i + 2: f"V{i}" for i in range(1, 7)}}

_MEASURED = {
    "2:16016": "heart_rate_bpm",
    "2:16020": "atrial_rate_bpm",
    "2:15872": "pr_ms",
    "2:16156": "qrs_ms",
    "2:16160": "qt_ms",
    "2:15876": "qtc_ms",
    "2:16128": "p_axis_deg",
    "2:16132": "qrs_axis_deg",
    "2:16136": "t_axis_deg",
    "5.10.2.1-3": "rr_ms",
    "5.10.2.1-5": "pp_ms",
    "5.13.5-7": "pr_ms",
    "5.13.5-9": "qrs_ms",
    "5.13.5-11": "qt_ms",
    "5.10.2.5-5": "qtc_ms",
    "5.10.3-11": "p_axis_deg",
    "5.10.3-13": "qrs_axis_deg",
    "5.10.3-15": "t_axis_deg",
}


@dataclass(frozen=True)
class _Group:
    """One multiplex group: samples (L, T) in mV, rate [Hz], leads, and whether it was derived (a median beat)."""

    samples: NDArray[np.float32]
    rate_hz: float
    leads: tuple[str, ...]
    derived: bool
    notes: tuple[str, ...]


def read_dicom_waveform(path: str | Path, unit: str | None = None) -> EcgRecording:
    """Read an ECG from a DICOM file.

    Args:
        path: The file.
        unit: Unit of the channel sensitivity where the file states none; without a sensitivity, of the samples.

    Returns:
        The original group with the most leads, then the longest, in mV, leads in file order, with measurements,
        median beats (a derived group) and time of acquisition; the notes tell of other groups.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Not DICOM, no waveforms, cut off, a sample type that is not read, a unit that is missing or no
            voltage, or an amplitude that contradicts it.
    """
    path = Path(path)
    dataset = _parse(path, bounded_bytes(path))
    groups: list[_Group] = []
    failed: list[str] = []
    try:
        items = list(dataset.get("WaveformSequence") or ())
        for index, item in enumerate(items[:64]):
            try:
                groups.append(_group(item, unit))
            except ValueError as error:
                failed.append(f"group {index + 1}: {error}")
        facts = measured(_measurements(dataset))
        recorded_at = _time(dataset)
    except (FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # pydicom converts values when they are asked for and raises many types then
        raise ValueError(f"{path}: a DICOM element cannot be read ({type(error).__name__}: {error})") from error
    originals = [group for group in groups if not group.derived]
    if not originals:
        why = "; ".join(failed) or f"it is {_kind(dataset)}"
        raise ValueError(f"{path} holds no ECG waveform ({why})")
    best = max(originals, key=lambda one: (len(one.leads), one.samples.shape[1]))
    median = next((group for group in groups if group.derived and set(group.leads) & set(best.leads)), None)
    notes = list(best.notes)
    if len(originals) > 1:
        notes.append(f"left out {len(originals) - 1} further waveform groups")
    notes += [f"left out {reason}" for reason in failed]
    recording = EcgRecording(
        best.samples,
        best.rate_hz,
        best.leads,
        source="dicom_waveform",
        notes=tuple(notes),
        measurements=facts,
        median_beats=None if median is None else MedianBeats(median.samples, median.rate_hz, median.leads),
        recorded_at=recorded_at,
    )
    return checked(path, recording, declared=None)


def _parse(path: Path, data: bytes) -> Any:
    """The dataset of a file that is not deflated (which could expand without bound).

    From memory, because reading a file makes room for the length that an element claims before it is read.
    """
    import pydicom  # imported here: other formats do not need it

    try:
        if _DEFLATED in data:  # wherever it stands: only the transfer syntax names it
            raise ValueError("deflated files are not read")
        return pydicom.dcmread(BytesIO(data))
    except (FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # pydicom raises many types on damaged files; each means that it is unreadable
        raise ValueError(f"{path} is no readable DICOM file ({type(error).__name__}: {error})") from error


def _kind(dataset: Any) -> str:
    uid = getattr(dataset, "SOPClassUID", None)
    return f"a file of kind {uid.name!r}" if uid is not None and hasattr(uid, "name") else "of no stated kind"


def _group(item: Any, unit: str | None) -> _Group:
    n_channels, n_samples = int(item.NumberOfWaveformChannels), int(item.NumberOfWaveformSamples)
    interpretation, bits = str(item.WaveformSampleInterpretation), int(item.WaveformBitsAllocated)
    dtype = _TYPES.get((interpretation, bits))
    if dtype is None:
        raise ValueError(f"samples of {bits} bits as {interpretation!r}; expected one of {', '.join(map(str, _TYPES))}")
    if not (0 < n_channels <= MAX_LEADS and 0 < n_samples <= MAX_SIGNAL_BYTES):
        raise ValueError(f"{n_channels} channels of {n_samples} samples cannot be")
    data = bytes(item.WaveformData)
    wanted = n_channels * n_samples * bits // 8
    if len(data) < wanted:
        raise ValueError(
            f"truncated: {n_channels} channels of {n_samples} samples need {wanted} bytes, it has {len(data)}"
        )
    big = getattr(item, "original_encoding", (None, True))[1] is False
    digital = np.frombuffer(data[:wanted], f"{'>' if big else '<'}{dtype}").reshape(n_samples, n_channels).T
    channels = list(item.ChannelDefinitionSequence)
    if len(channels) != n_channels:
        raise ValueError(f"{n_channels} channels but {len(channels)} channel definitions")
    samples = np.empty((n_channels, n_samples), np.float32)
    leads: list[str] = []
    skewed: list[str] = []
    for row, channel in enumerate(channels):
        lead = _lead(channel)
        if lead in leads:
            raise ValueError(f"lead {lead} occurs twice")
        leads.append(lead)
        samples[row] = _physical(channel, digital[row], lead, unit)
        if float(channel.get("ChannelTimeSkew") or 0) or float(channel.get("ChannelSampleSkew") or 0):
            skewed.append(lead)
    padding = item.get("WaveformPaddingValue")
    if padding is not None:
        if isinstance(padding, bytes):
            padding = int(
                np.frombuffer(padding[: bits // 8].ljust(bits // 8, b"\0"), f"{'>' if big else '<'}{dtype}")[0]
            )
        samples[digital == int(padding)] = np.nan
    label = str(item.get("MultiplexGroupLabel") or "").lower()
    derived = str(item.get("WaveformOriginality") or "ORIGINAL") == "DERIVED" and "rhythm" not in label
    notes = (f"skew between channels is not corrected: {', '.join(skewed)}",) if skewed else ()
    return _Group(samples, float(item.SamplingFrequency), tuple(leads), derived, notes)


def _lead(channel: Any) -> str:
    """Lead name from the code of the channel's source, or else from its text."""
    source = (channel.get("ChannelSourceSequence") or [None])[0]
    if source is None:
        label = str(channel.get("ChannelLabel") or "").strip()
        if not label:
            raise ValueError("a channel names no source; it names no leads")
        return tidy_lead(label)
    code = str(source.get("CodeValue") or "")
    if code.startswith(("2:", "5.6.3-9-")):
        last = code.replace(":", "-").rpartition("-")[2]
        if last.isdigit() and int(last) in _LEAD_NUMBERS:
            return _LEAD_NUMBERS[int(last)]
    meaning = str(source.get("CodeMeaning") or "")
    for text in (code, meaning, meaning.split(",")[0], meaning.split("(")[0]):
        try:
            return canonical_lead(text)
        except ValueError:
            continue
    return tidy_lead(meaning or code) or "unnamed"


def _physical(channel: Any, digital_T: NDArray[Any], lead: str, unit: str | None) -> NDArray[np.float64]:
    """Samples (T,) in mV: digital x sensitivity x correction + baseline, by PS3.3 C.10.9.1.4."""
    stated = (channel.get("ChannelSensitivityUnitsSequence") or [None])[0]
    name = unit if stated is None else str(stated.get("CodeValue") or "")
    try:
        factor = millivolts_per_unit(name)
    except ValueError as error:
        raise ValueError(f"lead {lead}: {error}") from error
    sensitivity = channel.get("ChannelSensitivity")
    if sensitivity is None and unit is None:
        raise ValueError(f"lead {lead} has no ChannelSensitivity and states no unit; declare it with unit='uV'")
    correction = channel.get("ChannelSensitivityCorrectionFactor")
    scale = float(sensitivity if sensitivity is not None else 1.0) * float(
        correction if correction is not None else 1.0
    )
    if not (np.isfinite(scale) and scale != 0):
        raise ValueError(f"lead {lead}: ChannelSensitivity {sensitivity} x {correction} is no scale")
    return (digital_T.astype(np.float64) * scale + float(channel.get("ChannelBaseline") or 0.0)) * factor


def _measurements(dataset: Any) -> Iterator[tuple[str, object]]:
    for note in _items(dataset.get("WaveformAnnotationSequence")):
        concept = (note.get("ConceptNameCodeSequence") or [None])[0]
        name = None if concept is None else _MEASURED.get(str(concept.get("CodeValue") or ""))
        value = note.get("NumericValue")
        if name is not None and value is not None:
            units = (note.get("MeasurementUnitsCodeSequence") or [None])[0]
            unit = "" if units is None else str(units.get("CodeValue") or "")
            yield name, float(value) * FACTORS.get(unit, 1.0)
    for group in _items(dataset.get("WaveformSequence")):
        for channel in _items(group.get("ChannelDefinitionSequence")):
            yield "highpass_hz", channel.get("FilterLowFrequency")  # what passes lies above the low corner
            yield "lowpass_hz", channel.get("FilterHighFrequency")
            yield "notch_hz", channel.get("NotchFilterFrequency")


def _items(sequence: Any) -> Iterable[Any]:
    return list(sequence or ())[:1024]


def _time(dataset: Any) -> datetime | None:
    stamp = str(dataset.get("AcquisitionDateTime") or "")
    day = str(dataset.get("AcquisitionDate") or dataset.get("ContentDate") or dataset.get("StudyDate") or "")
    clock = str(dataset.get("AcquisitionTime") or dataset.get("ContentTime") or dataset.get("StudyTime") or "")
    joined = day + clock.split(".")[0]
    return time_of(("%Y%m%d%H%M%S", stamp[:14]), ("%Y%m%d%H%M%S", joined), ("%Y%m%d", stamp[:8]), ("%Y%m%d", day))
