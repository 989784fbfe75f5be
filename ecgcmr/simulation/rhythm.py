"""When the heart beats: sinus rhythm with respiratory and 1/f variability, or atrial fibrillation.

Heart-rate variability: respiratory sinus arrhythmia plus a 1/f part (Task Force, Circulation 1996;93:1043,
doi:10.1161/01.CIR.93.5.1043). Fibrillation: RR without memory, bounded below by the refractory time of the AV node.
QT follows RR like Fridericia's cube root, with the memory of a few beats that makes QT steady while RR jumps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAD_IN_S = 2.5  # beats begin this long before the recording, so that its first T wave exists
MIN_RR_S = 0.30
QT_EXPONENT = 1.0 / 3.0
QT_MEMORY = 0.75  # weight of the past in the RR that sets the action-potential duration


@dataclass(frozen=True)
class Rhythm:
    """The beats around one recording.

    Attributes:
        onset_s: (b,) start of ventricular activation of each beat, from the start of the recording [s]; sorted.
        apd_scale: (b,) factor of the action-potential duration at 60 beats per minute.
        breath: (b,) chest expansion at the beat, -1 (expiration) to 1 (inspiration).
        respiration_hz: Breathing rate [Hz].
        respiration_phase: Breathing phase at time 0 [rad].
        fibrillation: True in atrial fibrillation.
    """

    onset_s: NDArray[np.float64]
    apd_scale: NDArray[np.float64]
    breath: NDArray[np.float64]
    respiration_hz: float
    respiration_phase: float
    fibrillation: bool


def pink_noise(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise (n,) of zero mean and unit SD whose power falls as 1/f."""
    m = max(8, 2 * n)
    spectrum = rng.standard_normal(m // 2 + 1) + 1j * rng.standard_normal(m // 2 + 1)
    spectrum[0] = 0.0
    spectrum[1:] /= np.sqrt(np.arange(1, m // 2 + 1))
    series = np.fft.irfft(spectrum, m)
    return (series / series.std())[:n]


def draw_rhythm(
    rate_bpm: float,
    rng: np.random.Generator,
    *,
    duration_s: float = 10.0,
    fibrillation: bool = False,
    variability: float = 0.02,
) -> Rhythm:
    """Draw the beats of one recording.

    Args:
        rate_bpm: Mean heart rate [1/min].
        rng: Generator.
        duration_s: Length of the recording [s].
        fibrillation: Atrial fibrillation instead of sinus rhythm.
        variability: SD of the 1/f part of RR, as a share of RR (sinus rhythm only).

    Returns:
        The beats from `LEAD_IN_S` before the recording until after its end.
    """
    mean_rr = 60.0 / rate_bpm
    n = int(np.ceil((duration_s + LEAD_IN_S + 1.0) / min(mean_rr, 1.5) * 1.5)) + 6
    respiration_hz = rng.uniform(0.18, 0.32)
    phase = rng.uniform(0.0, 2.0 * np.pi)
    if fibrillation:
        spread = rng.uniform(0.22, 0.34)
        shape = 1.0 / spread**2
        # A gamma shifted by the refractory time keeps the mean and forbids beats that no AV node conducts.
        floor = min(0.42 * mean_rr, MIN_RR_S + 0.05)
        rr = floor + (mean_rr - floor) * rng.gamma(shape * 0.5, 2.0 / shape, size=n)
        arrhythmia = 0.0
    else:
        rr = mean_rr * (1.0 + variability * pink_noise(n, rng))
        arrhythmia = rng.uniform(0.3, 1.6) * variability
    start = -LEAD_IN_S - rng.uniform(0.0, mean_rr)
    onset = start + np.concatenate([[0.0], np.cumsum(rr[:-1])])
    pull_s = arrhythmia / (2.0 * np.pi * respiration_hz)
    onset = onset + pull_s * np.sin(2.0 * np.pi * respiration_hz * onset + phase)
    intervals = np.maximum(np.diff(onset, prepend=onset[0] - mean_rr), MIN_RR_S)
    onset = onset[0] + np.concatenate([[0.0], np.cumsum(intervals[1:])])
    effective = np.empty(n)
    memory = mean_rr
    for beat in range(n):
        memory = QT_MEMORY * memory + (1.0 - QT_MEMORY) * intervals[beat]
        effective[beat] = memory
    keep = onset < duration_s + 0.6
    breath = np.sin(2.0 * np.pi * respiration_hz * onset + phase)
    return Rhythm(onset[keep], effective[keep] ** QT_EXPONENT, breath[keep], respiration_hz, phase, fibrillation)
