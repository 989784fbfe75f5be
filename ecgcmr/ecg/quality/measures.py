"""The numbers that the quality checks judge: measured once, with every lead treated alike."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.beats import beat_bins, slopes
from ecgcmr.ecg.bins import bin_edges, bin_samples, hold_gaps
from ecgcmr.ecg.quality import kernels
from ecgcmr.ecg.recording import EcgRecording

Array = NDArray[np.float32]
BEFORE, AFTER = 25, 40  # bins of the average beat before and after its QRS complex
QRS_BINS = 6  # to each side
STRETCH_BINS = 100
WANDER_BINS, WANDER_BLOCKS = 10, 5  # medians of 1.1 s, in which neither QRS complex nor T wave is left
WINDOW_BLOCKS = 20  # 2 s
MOST_BEATS = 30
MIN_SECONDS = 1.0
STILL = 0.003  # what counts as no change [mV, or SD of a lead]: less than the step of a coarse recorder
RUN_INTO_RAIL = 0.03  # share of a lead's QRS complex
SHORT_RAIL_S, LONG_RAIL_S = 0.008, 0.2


@dataclass(frozen=True)
class Measures:
    """What was measured of a recording with L leads; voltages are in its unit.

    Attributes:
        missing: Share of missing samples (L,).
        low: Lowest value (L,).
        high: Highest value (L,).
        still: Begin and end of the longest run without change (L, 2) [bins of 10 ms].
        rails: Samples and runs at the lowest or highest value that the heart does not explain (L, 2).
        noise: RMS of what is faster than about 25 Hz, between the beats, without the mains (L, W), each 2 s.
        mains: Amplitude of 50 and of 60 Hz (L, W, 2); NaN where the sampling rate is too low to tell.
        wander: Range of the baseline (L,).
        mean: Mean in bins of 10 ms (L, K).
        beats: Bin of each beat (N,).
        contrast: How far the beats stand out of what lies between them, all leads together; 0 without beats.
        size: Peak to peak of the QRS complex, median over beats (L,); NaN without beats.
        locked: Largest slope at each beat over the typical slope of that second (L, N).
        beat: Median beat (L, BEFORE + AFTER), its own median taken off; None with fewer than three beats.
    """

    missing: Array
    low: Array
    high: Array
    still: NDArray[np.int64]
    rails: NDArray[np.int64]
    noise: Array
    mains: Array
    wander: Array
    mean: Array
    beats: NDArray[np.int64]
    contrast: float
    size: Array
    locked: Array
    beat: Array | None

    @cached_property
    def typical_size(self) -> float:
        """Median over the leads that vary of the size of the QRS complex; 0 when there is none."""
        sizes = np.sort(self.size[(self.high > self.low) & np.isfinite(self.size)])
        return float(sizes[len(sizes) // 2] + sizes[(len(sizes) - 1) // 2]) / 2.0 if len(sizes) else 0.0


def measure(recording: EcgRecording) -> Measures:
    """Measure a recording.

    Raises:
        ValueError: It lasts less than a second, or its sampling rate is below 50 Hz.
    """
    rate, n = recording.rate_hz, recording.n_samples
    if recording.duration_s < MIN_SECONDS or rate < 50.0:
        raise ValueError(f"{recording.duration_s:.3g} s at {rate:g} Hz are too few samples to measure")
    raw = np.require(recording.samples, np.float32, ("C", "W"))  # a read-only type would be compiled anew
    edges = bin_edges(n, rate)
    samples, gaps = hold_gaps(raw)
    mean, bin_low, bin_high = bin_samples(samples, edges)
    low, high = bin_low.min(axis=1), bin_high.max(axis=1)
    slope = slopes(mean)
    beats, curve = beat_bins(mean, slope)
    size, locked = kernels.around_beats(bin_low, bin_high, slope, _typical(slope), STRETCH_BINS, beats, QRS_BINS)
    step = (RUN_INTO_RAIL * np.where(np.isfinite(size), size, high - low)).astype(np.float32)
    n_short, n_long = max(2, round(SHORT_RAIL_S * rate)), max(3, round(LONG_RAIL_S * rate))
    noise, mains = _fast(samples, rate)
    return Measures(
        missing=(gaps / n).astype(np.float32),
        low=low,
        high=high,
        still=kernels.longest_still(bin_low, bin_high, np.float32(STILL)),
        rails=kernels.at_rails(samples, low, high, step, n_short, n_long),
        noise=noise,
        mains=mains,
        wander=kernels.baseline_range(mean, WANDER_BINS, WANDER_BLOCKS),
        mean=mean,
        beats=beats,
        contrast=_contrast(curve, beats),
        size=size,
        locked=locked,
        beat=_beat(mean, beats),
    )


def _typical(slope: Array) -> Array:
    """Median slope of each lead in each second (L, S)."""
    n = max(1, slope.shape[1] // STRETCH_BINS)
    width = min(STRETCH_BINS, slope.shape[1])
    return np.ascontiguousarray(np.sort(slope[:, : n * width].reshape(len(slope), n, width), axis=2)[:, :, width // 2])


def _fast(samples: Array, rate: float) -> tuple[Array, Array]:
    """Noise RMS (L, W) and amplitude of 50 and 60 Hz (L, W, 2)."""
    half, block = max(1, round(0.01 * rate)), round(kernels.BLOCK_S * rate)
    width = 2 * half + 1
    gains, turns = np.zeros(2, np.float32), np.zeros(2, np.complex64)
    for i, hz in enumerate(kernels.MAINS_HZ):
        if rate > 2.1 * hz:
            gains[i] = 1.0 - np.sin(np.pi * hz * width / rate) / (width * np.sin(np.pi * hz / rate))
            turns[i] = np.exp(-2j * np.pi * hz * block / rate)
    power, tone = kernels.fast_part(samples, half, block, kernels.mains_waves(rate, block))
    return kernels.noise_and_mains(power, tone, turns, gains, min(WINDOW_BLOCKS, power.shape[1]))


def _contrast(curve: Array, beats: NDArray[np.int64]) -> float:
    if not len(beats):
        return 0.0
    return float(np.median(curve[beats]) / max(float(curve.mean()), 1e-6))


def _beat(mean: Array, beats: NDArray[np.int64]) -> Array | None:
    inside = beats[(beats >= BEFORE) & (beats <= mean.shape[1] - AFTER)]
    if len(inside) < 3:
        return None
    inside = inside[:: -(-len(inside) // MOST_BEATS)]  # enough for a median, however long the recording
    beat = kernels.median_windows(mean, inside, BEFORE, AFTER)
    return beat - np.sort(beat, axis=1)[:, beat.shape[1] // 2, None]
