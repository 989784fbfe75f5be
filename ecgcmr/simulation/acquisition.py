"""From clean electrode potentials to what a 12-lead recorder stores.

Noise enters at the electrodes, not at the leads, so that it obeys Einthoven's law as real noise does. The device
records I, II and V1 to V6, limits the band to 0.05-150 Hz (Kligfield et al., Circulation 2007;115:1306), quantizes to
1 uV, and derives the other limb leads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft
from scipy.signal import butter, sosfilt

from ecgcmr.ecg.leads import LEADS
from ecgcmr.simulation.lead_field import ELECTRODES, to_leads
from ecgcmr.simulation.rhythm import Rhythm

Array = NDArray[np.float64]
RESOLUTION_MV = 1e-3
_RECORDED = [LEADS.index(lead) for lead in ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")]


@dataclass(frozen=True)
class AcquisitionDesign:
    """Noise and errors of the recordings of a population (medians of log-normal amplitudes unless said otherwise).

    Attributes:
        wander_mv: Baseline wander, RMS [mV].
        motion_mv: Jumps of an electrode on moving skin [mV].
        motion_rate: Mean number of jumps of each electrode in a recording.
        muscle_mv: Muscle noise, RMS [mV].
        mains_mv: Pick-up of the mains, amplitude [mV].
        spread: SD of the logarithm of these amplitudes between recordings.
        gain_sd: SD of the gain error of the device (relative), common to all channels.
        channel_gain_sd: SD of the gain error of single channels (relative).
        low_hz: Lower edge of the band [Hz].
        high_hz: Upper edge of the band [Hz].
        lead_off_rate: Share of the recordings with an electrode that lost contact.
        arm_swap_rate: Share of the recordings with swapped arm electrodes.
    """

    wander_mv: float = 0.05
    motion_mv: float = 0.06
    motion_rate: float = 0.25
    muscle_mv: float = 0.008
    mains_mv: float = 0.003
    spread: float = 0.6
    gain_sd: float = 0.02
    channel_gain_sd: float = 0.005
    low_hz: float = 0.05
    high_hz: float = 150.0
    lead_off_rate: float = 0.005
    arm_swap_rate: float = 0.005


@dataclass(frozen=True)
class Recording:
    """What the device stored.

    Attributes:
        microvolts: Leads (12, T), int16 [uV].
        truth: What went wrong and how noisy it was, by name.
        notes: Flags of what went wrong, for people.
    """

    microvolts: NDArray[np.int16]
    truth: dict[str, float]
    notes: tuple[str, ...]

    @property
    def millivolts(self) -> NDArray[np.float32]:
        """Leads (12, T) [mV]."""
        return (self.microvolts * np.float32(RESOLUTION_MV)).astype(np.float32)


def _amplitude(median: float, spread: float, rng: np.random.Generator) -> float:
    return float(median * np.exp(spread * rng.standard_normal()))


@lru_cache(maxsize=8)
def _device_filter(rate_hz: float, low_hz: float, high_hz: float) -> Array:
    high_pass = butter(1, low_hz, btype="highpass", fs=rate_hz, output="sos")
    low_pass = butter(2, high_hz, btype="lowpass", fs=rate_hz, output="sos")
    return np.concatenate([high_pass, low_pass])


@lru_cache(maxsize=8)
def _muscle_band(n: int, rate_hz: float) -> NDArray[np.float32]:
    """Amplitude of muscle noise over the frequencies of `rfft`: a band of about 20 to 110 Hz with soft edges."""
    frequency = np.fft.rfftfreq(n, 1.0 / rate_hz)
    return (frequency / np.hypot(frequency, 20.0) * 110.0 / np.hypot(frequency, 110.0)).astype(np.float32)


def muscle_noise(shape: tuple[int, int], rate_hz: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Band-limited noise (E, T) of RMS 1 whose strength swells slowly, each electrode over its own muscle."""
    rows, n = shape
    band = _muscle_band(n, rate_hz)
    parts = rng.standard_normal((rows, 2 * len(band)), dtype=np.float32).view(np.complex64)
    noise = irfft(parts * band, n)
    knots = np.exp(0.35 * rng.standard_normal((rows, 6)))
    swell = np.stack([np.interp(np.linspace(0, 5, n), np.arange(6), row) for row in knots])
    noise *= swell.astype(np.float32)
    return np.asarray(noise / np.sqrt((noise**2).mean(axis=1, keepdims=True)))


def baseline_wander(n: int, rate_hz: float, rhythm: Rhythm, rng: np.random.Generator) -> Array:
    """Slow potentials (9, n) of RMS about 1: breathing, and drifts below 0.5 Hz."""
    time = np.arange(n) / rate_hz
    waves_hz = np.array([0.06, 0.13, 0.21, 0.37]) * np.exp(0.2 * rng.standard_normal(4))
    basis = np.concatenate(
        [
            np.sin(2.0 * np.pi * waves_hz[:, None] * time + rng.uniform(0.0, 6.28, (4, 1))),
            np.sin(2.0 * np.pi * rhythm.respiration_hz * time + rhythm.respiration_phase + np.array([[0.0], [1.57]])),
        ]
    )
    weight = rng.standard_normal((len(ELECTRODES), 6)) * [0.7, 0.6, 0.45, 0.3, 0.7, 0.4]
    return weight @ basis


def _electrode_motion(n: int, rate_hz: float, design: AcquisitionDesign, rng: np.random.Generator) -> Array:
    """Sudden shifts (9, n) [mV] of single electrodes that recover over a second."""
    shift = np.zeros((len(ELECTRODES), n))
    for electrode, count in enumerate(rng.poisson(design.motion_rate, len(ELECTRODES))):
        for _ in range(count):
            start = int(rng.integers(n))
            time = np.arange(n - start) / rate_hz
            size = _amplitude(design.motion_mv, design.spread, rng) * rng.choice([-1.0, 1.0])
            rise, fall = rng.uniform(0.04, 0.15), rng.uniform(0.3, 1.5)
            shift[electrode, start:] += size * (1.0 - np.exp(-time / rise)) * np.exp(-time / fall)
    return shift


def _lead_off(potentials: Array, rate_hz: float, mains_hz: float, rng: np.random.Generator) -> tuple[Array, int]:
    """An electrode that loses contact floats: drift and mains instead of the heart, from some moment on."""
    electrode = int(rng.integers(len(ELECTRODES)))
    n = potentials.shape[1]
    start = int(rng.uniform(0.0, 0.7) * n) if rng.uniform() < 0.5 else 0
    time = np.arange(n - start) / rate_hz
    drift = np.cumsum(rng.standard_normal(n - start)) * 0.004
    floating = potentials.copy()
    floating[electrode, start:] = drift + 0.05 * np.sin(2.0 * np.pi * mains_hz * time)
    return floating, electrode


def record(
    potentials: Array,
    rate_hz: float,
    rhythm: Rhythm,
    rng: np.random.Generator,
    design: AcquisitionDesign | None = None,
) -> Recording:
    """Record clean electrode potentials.

    Args:
        potentials: Clean potentials (9, T) of `ELECTRODES` [mV].
        rate_hz: Sampling rate [Hz].
        rhythm: The beats; breathing moves the baseline.
        rng: Generator.
        design: Noise and errors.
    """
    design = design or AcquisitionDesign()
    electrodes, n = potentials.shape
    wander, muscle, mains = (
        _amplitude(median, design.spread, rng) for median in (design.wander_mv, design.muscle_mv, design.mains_mv)
    )
    mains_hz = float(rng.choice([50.0, 60.0], p=[0.7, 0.3]))
    hum = np.sin(2.0 * np.pi * mains_hz * np.arange(n) / rate_hz + rng.uniform(0.0, 6.28))
    signal = potentials + wander * baseline_wander(n, rate_hz, rhythm, rng)
    signal += muscle * np.exp(0.4 * rng.standard_normal((electrodes, 1))) * muscle_noise((electrodes, n), rate_hz, rng)
    signal += mains * rng.standard_normal((electrodes, 1)) * hum
    signal += _electrode_motion(n, rate_hz, design, rng)
    notes: list[str] = []
    off, swapped = rng.uniform() < design.lead_off_rate, rng.uniform() < design.arm_swap_rate
    if off:
        signal, lost = _lead_off(signal, rate_hz, mains_hz, rng)
        notes.append(f"electrode off: {ELECTRODES[lost]}")
    if swapped:
        signal = signal[[1, 0, *range(2, electrodes)]]
        notes.append("arm electrodes swapped")
    gain = 1.0 + rng.normal(0.0, design.gain_sd)
    truth = {
        "wander_mv": wander,
        "muscle_mv": muscle,
        "mains_mv": mains,
        "mains_hz": mains_hz,
        "device_gain": gain,
        "lead_off": float(off),
        "arm_swap": float(swapped),
    }
    channels = gain * (1.0 + rng.normal(0.0, design.channel_gain_sd, (len(_RECORDED), 1))) * to_leads(signal)[_RECORDED]
    return Recording(_store(channels, rate_hz, design), truth, tuple(notes))


def _store(channels: Array, rate_hz: float, design: AcquisitionDesign) -> NDArray[np.int16]:
    """Filter I, II, V1..V6 (8, T) [mV], quantize them, derive III, aVR, aVL, aVF: (12, T) int16 [uV]."""
    # electrodes have an offset that the high-pass has long forgotten when the recording starts
    channels = channels - channels[:, : round(rate_hz)].mean(axis=1, keepdims=True)
    filtered = sosfilt(_device_filter(rate_hz, design.low_hz, design.high_hz), channels, axis=1)
    limit = np.iinfo(np.int16).max
    stored = np.clip(np.round(filtered / RESOLUTION_MV), -limit, limit)
    leads = np.empty((len(LEADS), channels.shape[1]))
    leads[_RECORDED] = stored
    one, two = stored[0], stored[1]
    derived = {"III": two - one, "aVR": -(one + two) / 2.0, "aVL": one - two / 2.0, "aVF": two - one / 2.0}
    for lead, row in derived.items():
        leads[LEADS.index(lead)] = np.clip(np.round(row), -limit, limit)
    return leads.astype(np.int16)
