"""Further vendor formats through ecgdatakit (Apache-2.0), an optional extra: ISHNE, SCP-ECG, EDF, MFER, Mortara, ...

Only formats that have no reader here go this way. ecgdatakit reads names and numbers of persons too; they are dropped
with its record. https://ecgdatakit.ummisco.fr
"""

from __future__ import annotations

import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ecgcmr.ecg.leads import tidy_lead
from ecgcmr.ecg.measurements import measured
from ecgcmr.ecg.readers.limits import MAX_LEADS, MAX_SIGNAL_BYTES, check_size, checked
from ecgcmr.ecg.recording import EcgRecording, MedianBeats
from ecgcmr.ecg.units import millivolts_per_unit

MAX_VENDOR_BYTES = 256 << 20
EXTRA = "pip install 'ecgcmr[formats]'"

_MEASURED = {
    "heart_rate": "heart_rate_bpm",
    "rr_interval": "rr_ms",
    "pr_interval": "pr_ms",
    "qrs_duration": "qrs_ms",
    "qt_interval": "qt_ms",
    "qtc_bazett": "qtc_bazett_ms",
    "qtc_fridericia": "qtc_fridericia_ms",
    "p_axis": "p_axis_deg",
    "qrs_axis": "qrs_axis_deg",
    "t_axis": "t_axis_deg",
}


def read_vendor(path: str | Path) -> EcgRecording:
    """Read a file of a format that ecgdatakit knows.

    Args:
        path: The file.

    Returns:
        The leads of the highest common sampling rate in mV, in file order, with measurements and median beats.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: ecgdatakit is not installed, the format is unknown to it, the file is damaged, or a lead states no
            unit of voltage.
    """
    path = Path(path)
    check_size(path, MAX_VENDOR_BYTES)
    try:
        from ecgdatakit.parsing.parser import FileParser
    except ImportError as error:
        raise ValueError(f"{path}: no reader for this format without the extra `formats`: {EXTRA}") from error
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            record: Any = FileParser.parse(path, units="mV")
    except (FileNotFoundError, MemoryError):
        raise
    except Exception as error:  # it raises its own types, which are no ValueError
        raise ValueError(f"{path} cannot be read by ecgdatakit ({type(error).__name__}: {error})") from error
    usable = [lead for lead in record.leads if len(lead.samples)]
    if not usable or len(usable) > MAX_LEADS:
        raise ValueError(f"{path} holds {len(usable)} leads with samples, expected 1 to {MAX_LEADS}")
    samples, rate, leads, notes = _stack(path, usable)
    median = None
    beats = [beat for beat in record.median_beats if len(beat.samples)]
    if beats:
        try:
            median = MedianBeats(*_stack(path, beats)[:3])
        except ValueError as error:  # the strip is what was asked for
            notes.append(f"median beats left out: {str(error).removeprefix(f'{path}: ')}")
    notes += [f"ecgdatakit: {warning.category.__name__}" for warning in told[:5]]
    facts = [(name, getattr(record.measurements, field, None)) for field, name in _MEASURED.items()]
    recorded_at = getattr(record.recording, "date", None)
    recording = EcgRecording(
        samples,
        rate,
        leads,
        source="vendor",
        notes=tuple(notes),
        measurements=measured((name, value) for name, value in facts if value is not None),
        median_beats=median,
        recorded_at=recorded_at.replace(tzinfo=None) if isinstance(recorded_at, datetime) else None,
    )
    return checked(path, recording, declared=None)


def _stack(path: Path, found: list[Any]) -> tuple[np.ndarray, float, tuple[str, ...], list[str]]:
    """Samples (L, T) in mV, rate, leads and notes of the leads that share the highest rate and length."""
    shape = max((float(lead.sampling_rate), len(lead.samples)) for lead in found)
    same = [lead for lead in found if (float(lead.sampling_rate), len(lead.samples)) == shape]
    if shape[1] * len(same) * 8 > MAX_SIGNAL_BYTES:
        raise ValueError(f"{path}: {len(same)} leads of {shape[1]} samples are more than a recording can have")
    rows, names, others = [], [], []
    for lead in same:
        name = tidy_lead(str(lead.label)) or "unnamed"
        try:
            factor = millivolts_per_unit(None if lead.is_raw else lead.units)
        except ValueError as error:
            others.append(f"{name}: {error}")
            continue
        if name in names:
            raise ValueError(f"{path}: lead {name} occurs twice")
        names.append(name)
        rows.append(np.asarray(lead.samples, np.float64) * factor)
    if not rows:
        raise ValueError(f"{path}: no lead in a unit of voltage ({'; '.join(others)})")
    left = [str(lead.label) for lead in found if lead not in same] if len(found) > len(same) else []
    notes = [f"left out leads of another rate or length: {', '.join(left)}"] if left else []
    notes += [f"left out {other}" for other in others]
    return np.stack(rows).astype(np.float32), shape[0], tuple(names), notes
