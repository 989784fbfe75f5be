"""Where the heart beats: a detector that takes all leads together and runs in a tenth of a millisecond.

The slope of each lead over 20 ms (as in Pan and Tompkins, doi 10.1109/TBME.1985.325532) is scaled by its own largest
slopes, so that no lead and no artefact outvotes the others; the leads' mean is smoothed over the width of a QRS and
its peaks are compared with the level of the seconds around them.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ecgcmr.ecg.bins import bin_edges, bin_samples, hold_gaps
from ecgcmr.ecg.recording import EcgRecording

SMOOTH_BINS = 3  # to each side: 70 ms
REFRACTORY_BINS = 22
T_WAVE_BINS = 38
LEVEL_BINS = 120  # to each side of a candidate


@njit(cache=True, nogil=True, error_model="numpy")
def slopes(mean):  # type: ignore[no-untyped-def]
    """Absolute central difference (L, K) of bin means over 20 ms; 0 at the ends."""
    n_rows, n = mean.shape
    out = np.zeros((n_rows, n), np.float32)
    for r in range(n_rows):
        for k in range(1, n - 1):
            out[r, k] = abs(mean[r, k + 1] - mean[r, k - 1])
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def envelope(slope, floor, top):  # type: ignore[no-untyped-def]
    """Mean over leads of the slopes between their floor (0) and top (1), capped at 1.5, smoothed; (K,)."""
    n_rows, n = slope.shape
    raw = np.zeros(n, np.float32)
    used = 0
    for r in range(n_rows):
        span = top[r] - floor[r]
        if span <= 0.0:
            continue
        used += 1
        for k in range(n):
            raw[k] += min(max((slope[r, k] - floor[r]) / span, np.float32(0.0)), np.float32(1.5))
    out = np.zeros(n, np.float32)
    if used == 0:
        return out
    width = 2 * SMOOTH_BINS + 1
    total = np.float32(0.0)
    for k in range(n + SMOOTH_BINS):
        if k < n:
            total += raw[k]
        if k >= width:
            total -= raw[k - width]
        if k >= SMOOTH_BINS:
            out[k - SMOOTH_BINS] = total / np.float32(width * used)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def pick_peaks(curve, share):  # type: ignore[no-untyped-def]
    """Bins of the peaks above `share` of the level around them, at least a refractory time apart."""
    n = len(curve)
    # the highest value of each stretch, then for each bin the median of the stretches around it
    stretch = LEVEL_BINS
    n_stretch = max(1, n // stretch)
    tops = np.zeros(n_stretch, np.float32)
    for s in range(n_stretch):
        end = n if s == n_stretch - 1 else (s + 1) * stretch
        for k in range(s * stretch, end):
            tops[s] = max(tops[s], curve[k])
    level = np.float32(np.median(tops))
    peaks = np.empty(n // REFRACTORY_BINS + 2, np.int64)
    count = 0
    for k in range(n):
        here = curve[k]
        if here <= share * level or here <= 0.0:
            continue
        s = min(k // stretch, n_stretch - 1)
        near = max(tops[s], tops[max(s - 1, 0)], tops[min(s + 1, n_stretch - 1)])
        if here < np.float32(0.5) * share * near:
            continue
        begin, end = max(0, k - REFRACTORY_BINS // 2), min(n, k + REFRACTORY_BINS // 2 + 1)
        largest = True
        for i in range(begin, end):
            if curve[i] > here or (curve[i] == here and i < k):
                largest = False
                break
        if not largest:
            continue
        if count and k - peaks[count - 1] < REFRACTORY_BINS:
            if here > curve[peaks[count - 1]]:
                peaks[count - 1] = k
            continue
        if count and k - peaks[count - 1] < T_WAVE_BINS and here < np.float32(0.6) * curve[peaks[count - 1]]:
            continue
        peaks[count] = k
        count += 1
    return peaks[:count]


def beat_bins(
    mean_LK: NDArray[np.float32], slope_LK: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the beats in bin means.

    Args:
        mean_LK: Mean of each lead in bins of 10 ms (L, K), finite.
        slope_LK: What `slopes` gives for it, when the caller has that already.

    Returns:
        Bin of each QRS complex, rising; and the smoothed slope of all leads (K,) in which they are peaks of about 1.
    """
    slope = slopes(mean_LK) if slope_LK is None else slope_LK
    n = slope.shape[1]
    order = np.sort(slope, axis=1)
    curve = envelope(slope, order[:, n // 2], order[:, int(0.98 * (n - 1))])
    return pick_peaks(curve, np.float32(0.35)), curve


def find_beats(recording: EcgRecording) -> NDArray[np.int64]:
    """Return the sample of each QRS complex, to about 20 ms; empty for a recording without any slope.

    Args:
        recording: Any number of leads (L, T), any unit; gaps are held.
    """
    samples, _ = hold_gaps(np.require(recording.samples, np.float32, ("C", "W")))
    edges = bin_edges(recording.n_samples, recording.rate_hz)
    if len(edges) < 4:
        return np.empty(0, np.int64)
    bins, _ = beat_bins(bin_samples(samples, edges)[0])
    return (edges[bins] + edges[bins + 1]) // 2
