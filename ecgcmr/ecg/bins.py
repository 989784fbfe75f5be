"""Signals in bins of 10 ms, whatever their sampling rate; gaps are held. The ground of beats and quality checks."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

BIN_S = 0.01


def bin_edges(n_samples: int, rate_hz: float) -> NDArray[np.int64]:
    """Edges (K + 1,) [samples] of bins of 10 ms, or of one sample where the rate is lower than 100 Hz."""
    n_bins = min(n_samples, int(n_samples / (rate_hz * BIN_S) + 1e-6))
    return np.minimum(np.round(np.arange(n_bins + 1) * max(1.0, rate_hz * BIN_S)), n_samples).astype(np.int64)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc"})
def has_gap(row):  # type: ignore[no-untyped-def]
    """Whether a row (T,) holds a value that is not finite: 0 * x is 0 for finite x only, and sums up in vectors."""
    total = np.float32(0.0)
    for t in range(len(row)):
        total += row[t] * np.float32(0.0)
    return total != np.float32(0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def hold_gaps(samples):  # type: ignore[no-untyped-def]
    """Hold the last finite value through gaps of rows (L, T).

    Returns:
        Rows without gaps, which are the input where it has none; and the number of missing samples of each row (L,).
    """
    n_rows, n = samples.shape
    missing = np.zeros(n_rows, np.int64)
    out = samples
    for r in range(n_rows):
        if not has_gap(samples[r]):
            continue
        if missing.sum() == 0:
            out = samples.copy()
        first = 0
        while first < n and not np.isfinite(samples[r, first]):
            first += 1
        last = samples[r, first] if first < n else np.float32(0.0)
        for t in range(n):
            value = samples[r, t]
            if np.isfinite(value):
                last = value
            else:
                missing[r] += 1
            out[r, t] = last
    return out, missing


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def bin_samples(samples, edges):  # type: ignore[no-untyped-def]
    """Mean, lowest and highest sample (L, K) of each bin; bin k holds samples edges[k] ... edges[k + 1] - 1."""
    n_rows, n_bins = samples.shape[0], len(edges) - 1
    mean = np.empty((n_rows, n_bins), np.float32)
    low = np.empty((n_rows, n_bins), np.float32)
    high = np.empty((n_rows, n_bins), np.float32)
    for r in range(n_rows):
        row = samples[r]
        for k in range(n_bins):
            begin, end = edges[k], edges[k + 1]
            total = smallest = largest = row[begin]
            for t in range(begin + 1, end):
                value = row[t]
                total += value
                smallest = min(smallest, value)
                largest = max(largest, value)
            mean[r, k] = total / np.float32(end - begin)
            low[r, k] = smallest
            high[r, k] = largest
    return mean, low, high
