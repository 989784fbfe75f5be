"""What every reader owes its caller: bounded input, and a recording that was checked before it is returned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.ecg.units import check_amplitude

MAX_FILE_BYTES = 512 << 20
"""Larger files are refused before they are read: a day of twelve leads at 1 kHz has 2 GB, a resting ECG 0.2 MB."""

MAX_SIGNAL_BYTES = 1 << 30
"""Samples that a header may announce, in the type they are stored in; more is taken for damage or an attack."""

MAX_LEADS = 256
LARGEST_SAMPLE = {"mV": 5_000.0, "z": 10_000.0}
"""No amplifier of body-surface potentials reaches this, electrode offsets included; more is damage [mV, SD]."""

RATES_HZ = (10.0, 100_000.0)
"""Sampling rates that an ECG can have [Hz]."""


def bounded_bytes(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """Return the content of a file that is not larger than the limit.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is larger, or empty.
    """
    check_size(path, limit)
    return path.read_bytes()


def check_size(path: Path, limit: int = MAX_FILE_BYTES) -> int:
    """Return the size of a file in bytes; raises as `bounded_bytes` does, without reading it."""
    if not path.is_file():
        raise FileNotFoundError(f"no ECG file {path}")
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"{path} is empty (0 bytes); fetch it again")
    if size > limit:
        raise ValueError(f"{path} has {size:,} bytes; the reader takes up to {limit:,}: split it into recordings")
    return size


def checked(path: Path, recording: EcgRecording, where: str = "", declared: str | None = "mV") -> EcgRecording:
    """Return the recording if it can be an ECG; the last step of every reader.

    The amplitude is checked for voltages only: standardised samples (`unit="z"`) have lost it.

    Args:
        path: The file, for messages.
        recording: What was read.
        where: Part of the file, such as `, recording 17`.
        declared: Unit that the numbers were stated to be in, for the message; None for a scale without a unit.

    Raises:
        ValueError: Rate outside `RATES_HZ`, no sample, infinite samples or such beyond `LARGEST_SAMPLE`, or an
            amplitude that contradicts the unit.
    """
    if not RATES_HZ[0] <= recording.rate_hz <= RATES_HZ[1]:
        raise ValueError(
            f"{path}{where}: sampling rate {recording.rate_hz:g} Hz; expected {RATES_HZ[0]:g} to {RATES_HZ[1]:g} Hz"
        )
    if recording.n_samples == 0 or not recording.leads:
        raise ValueError(f"{path}{where} holds no sample")
    infinite = np.isinf(recording.samples).any(axis=1)
    if infinite.any():
        named = ", ".join(recording.leads[row] for row in np.flatnonzero(infinite))
        raise ValueError(
            f"{path}{where}: lead {named} holds infinite samples; where a sample is missing, NaN is expected"
        )
    try:
        check_amplitude(recording, declared)
    except ValueError as error:
        raise ValueError(f"{path}{where}: {error}") from error
    size = np.maximum(np.fmax.reduce(recording.samples, axis=1), -np.fmin.reduce(recording.samples, axis=1))
    if (size > LARGEST_SAMPLE[recording.unit]).any():
        named = ", ".join(recording.leads[row] for row in np.flatnonzero(size > LARGEST_SAMPLE[recording.unit]))
        raise ValueError(
            f"{path}{where}: lead {named} has an amplitude of up to {np.nanmax(size):.3g} {recording.unit}, more than "
            f"{LARGEST_SAMPLE[recording.unit]:g}: single samples are damaged"
        )
    return recording


def noted(recording: EcgRecording, *notes: str) -> EcgRecording:
    """Return the recording with further notes."""
    return replace(recording, notes=(*recording.notes, *notes)) if notes else recording
