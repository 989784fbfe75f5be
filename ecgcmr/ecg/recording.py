"""EcgRecording: the one type that every ECG reader returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Unit = Literal["mV", "z"]


def _check_signal(samples_LT: NDArray[np.float32], rate_hz: float, leads: tuple[str, ...]) -> None:
    if samples_LT.ndim != 2:
        raise ValueError(f"samples must have shape (leads, time), got {samples_LT.shape}")
    if samples_LT.shape[0] != len(leads):
        raise ValueError(f"{samples_LT.shape[0]} signal rows but {len(leads)} lead names: {leads}")
    if not (rate_hz > 0 and math.isfinite(rate_hz)):
        raise ValueError(f"rate_hz must be positive, got {rate_hz}")


@dataclass(frozen=True)
class MedianBeats:
    """The representative beat that a recorder computed, one row for each lead.

    Attributes:
        samples: Signal (L, T), float32 [mV].
        rate_hz: Sampling rate [Hz]; may differ from the recording's.
        leads: Lead names of the rows, canonical spelling.
    """

    samples: NDArray[np.float32]
    rate_hz: float
    leads: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_signal(self.samples, self.rate_hz, self.leads)


@dataclass(frozen=True)
class EcgRecording:
    """One ECG recording in physical units.

    Attributes:
        samples: Signal (L, T), float32, in `unit`. Missing samples are NaN.
        rate_hz: Sampling rate [Hz].
        leads: Lead names of the rows, canonical spelling (`I`, `aVR`, `V1`, ...), in file order.
        unit: `mV`, or `z` for a source that was standardised before we saw it (its voltage is lost).
        source: What the file was (`wfdb`, `array`, `simulated`, ...); never a path or an identifier.
        notes: What a user should know of this recording; never a date or an identifier.
        measurements: What the recorder measured, by the names of `ecgcmr.ecg.measurements.MEASUREMENTS`.
        median_beats: The recorder's representative beat, where the file holds one.
        recorded_at: Time of acquisition by the recorder's clock, without time zone. It is there to pair recordings
            with studies by visit and is never stored in a cohort: the ingest turns it into an offset in days.
    """

    samples: NDArray[np.float32]
    rate_hz: float
    leads: tuple[str, ...]
    unit: Unit = "mV"
    source: str = "array"
    notes: tuple[str, ...] = field(default=())
    measurements: Mapping[str, float] = field(default_factory=dict)
    median_beats: MedianBeats | None = None
    recorded_at: datetime | None = field(default=None, repr=False)  # dates do not belong into logs

    def __post_init__(self) -> None:
        _check_signal(self.samples, self.rate_hz, self.leads)
        if self.unit not in ("mV", "z"):
            raise ValueError(f"unit must be 'mV' or 'z', got {self.unit!r}; convert before building a recording")

    @property
    def n_samples(self) -> int:
        """Number of samples of each lead."""
        return int(self.samples.shape[1])

    @property
    def duration_s(self) -> float:
        """Length of the recording [s]."""
        return self.n_samples / self.rate_hz
