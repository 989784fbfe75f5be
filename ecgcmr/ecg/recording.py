"""EcgRecording: the one type that every ECG reader returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Unit = Literal["mV", "z"]


@dataclass(frozen=True)
class EcgRecording:
    """One ECG recording in physical units.

    Attributes:
        samples: Signal (L, T), float32, in `unit`. Missing samples are NaN.
        rate_hz: Sampling rate [Hz].
        leads: Lead names of the rows, canonical spelling (`I`, `aVR`, `V1`, ...), in file order.
        unit: `mV`, or `z` for a source that was standardised before we saw it (its voltage is lost).
        source: What the file was (`wfdb`, `array`, `simulated`, ...); never a path or an identifier.
    """

    samples: NDArray[np.float32]
    rate_hz: float
    leads: tuple[str, ...]
    unit: Unit = "mV"
    source: str = "array"
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.samples.ndim != 2:
            raise ValueError(f"samples must have shape (leads, time), got {self.samples.shape}")
        if self.samples.shape[0] != len(self.leads):
            raise ValueError(f"{self.samples.shape[0]} signal rows but {len(self.leads)} lead names: {self.leads}")
        if not self.rate_hz > 0:
            raise ValueError(f"rate_hz must be positive, got {self.rate_hz}")
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
