"""What the checks are given: the thresholds, the recording, and what was measured of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.leads import LEADS, canonical_lead
from ecgcmr.ecg.quality.measures import Measures
from ecgcmr.ecg.recording import EcgRecording

Findings = Iterator[tuple[str, str]]
"""Codes and details of what a check found."""


@dataclass(frozen=True)
class QualityLimits:
    """From where on something is a finding. "Size" is the QRS complex, peak to peak, median over beats and leads.

    Attributes:
        min_s: Shortest recording [s].
        missing_lead: Share of missing samples from which a lead counts as missing.
        still_s: Longest time without any change in a lead in which the heart beats [s].
        off_share: Share of the beats that a lead does not show.
        locked: Slope at a beat over the typical slope around it, below which the lead does not show the beat.
        off_mains_mv: Mains in the leads of one electrode, at most half as much in the others [mV].
        clipped: Samples at a rail, summed over the leads.
        artefact: Range of a lead over the larger of its own QRS complex and the size.
        artefact_mv: Range of a lead beyond the same [mV].
        size_mv: Smallest and largest size [mV].
        noise: Noise RMS between the beats over the size, in two or more windows of 2 s.
        mains: Amplitude of 50 or 60 Hz over the size, in half of the windows.
        wander: Range of the baseline over the size.
        einthoven: SD of what is left of Einthoven's and Goldberger's laws, over the SD of the largest of I, II, III.
        swap_gain: How much better an exchange of limb electrodes agrees with the forecast (arms, right arm and leg).
        swap_left_gain: The same for left arm and leg, which change little.
        swap_agreement: Smallest correlation with the forecast after an exchange is undone.
        swap_z: Correlation of lead I with its forecast below which arms are swapped, for recordings without voltage.
        leg_ratio: Smallest over largest of I, II, III, below which the right leg's electrode stands in for another.
        precordial_gain: Share by which an exchange of two precordial leads shortens the path through them.
        reversed_like: Correlation of I with V6 minus that with V1, for precordial leads in reversed order.
        reversed_rise: Rise of the balance of R and S from V1 to V6, for the same.
        contrast: How far beats must stand out.
        rate_bpm: Slowest and fastest rate [beats per minute].
    """

    min_s: float = 5.0
    missing_lead: float = 0.5
    still_s: float = 1.0
    off_share: float = 0.3
    locked: float = 4.0
    off_mains_mv: float = 0.03
    clipped: int = 10
    artefact: float = 4.0
    artefact_mv: float = 6.0
    size_mv: tuple[float, float] = (0.2, 5.5)
    noise: float = 0.06
    mains: float = 0.04
    wander: float = 1.2
    einthoven: float = 0.1
    swap_gain: float = 0.2
    swap_left_gain: float = 0.5
    swap_agreement: float = 0.4
    swap_z: float = -0.4
    leg_ratio: float = 0.12
    precordial_gain: float = 0.1
    reversed_like: float = -0.2
    reversed_rise: float = -0.3
    contrast: float = 2.5
    rate_bpm: tuple[float, float] = (30.0, 220.0)


LIMITS = QualityLimits()


@dataclass(frozen=True)
class Case:
    """A recording, what was measured of it, and which rows are which leads."""

    recording: EcgRecording
    m: Measures
    limits: QualityLimits
    row: dict[str, int]

    @cached_property
    def moving(self) -> NDArray[np.bool_]:
        """Which leads (L,) are there and vary."""
        return (self.m.high > self.m.low) & (self.m.missing < self.limits.missing_lead)

    def names(self, chosen: Iterable[int]) -> str:
        """Lead names of rows, for a message."""
        return ", ".join(self.recording.leads[i] for i in chosen)

    @cached_property
    def twelve(self) -> NDArray[np.float32] | None:
        """The median beat in canonical order, when all twelve leads are there and vary."""
        rows = [self.row.get(lead, -1) for lead in LEADS]
        if self.m.beat is None or min(rows) < 0 or not self.moving[rows].all():
            return None
        return self.m.beat[rows]


@lru_cache(maxsize=256)
def lead_rows(leads: tuple[str, ...]) -> dict[str, int]:
    """Row of each of the twelve leads that is there, the first where a name occurs twice."""
    rows: dict[str, int] = {}
    for i, name in enumerate(leads):
        try:
            rows.setdefault(canonical_lead(name), i)
        except ValueError:  # a lead outside the twelve
            continue
    return rows
