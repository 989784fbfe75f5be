"""The passes over the samples that the quality checks need, compiled, in float32."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

# A block of 0.1 s holds whole periods of both mains frequencies (5 of 50 Hz, 6 of 60 Hz).
BLOCK_S = 0.1
MAINS_HZ = (50.0, 60.0)


@njit(cache=True, nogil=True, error_model="numpy")
def longest_still(low, high, tolerance):  # type: ignore[no-untyped-def]
    """Begin and end (L, 2) [bins] of the longest run of bins (L, K) whose samples differ by at most `tolerance`."""
    n_rows, n = low.shape
    out = np.zeros((n_rows, 2), np.int64)
    for r in range(n_rows):
        begin = 0
        smallest, largest = low[r, 0], high[r, 0]
        for k in range(n):
            smallest = min(smallest, low[r, k])
            largest = max(largest, high[r, k])
            if largest - smallest > tolerance:
                begin = k if high[r, k] - low[r, k] <= tolerance else k + 1
                smallest, largest = (low[r, k], high[r, k]) if begin == k else (np.float32(1e30), np.float32(-1e30))
            elif k + 1 - begin > out[r, 1] - out[r, 0]:
                out[r, 0], out[r, 1] = begin, k + 1
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def at_rails(samples, low, high, step, n_short, n_long):  # type: ignore[no-untyped-def]
    """Samples and runs (L, 2) at the lowest or highest value of their row that the heart does not explain.

    A run counts when no wave of the heart stands still so long (`n_long` samples), or when the signal ran into it at
    speed: `n_short` samples, entered or left by more than `step` of its row.
    """
    n_rows, n = samples.shape
    out = np.zeros((n_rows, 2), np.int64)
    for r in range(n_rows):
        row = samples[r]
        if high[r] <= low[r]:
            continue
        for side in range(2):
            rail = high[r] if side else low[r]
            count = 0
            for t in range(n):
                count += row[t] == rail
            if count < n_short:
                continue
            t = 0
            while t < n:
                if row[t] != rail:
                    t += 1
                    continue
                begin = t
                while t < n and row[t] == rail:
                    t += 1
                into = abs(row[begin - 1] - rail) if begin > 0 else np.float32(0.0)
                away = abs(row[t] - rail) if t < n else np.float32(0.0)
                if t - begin >= n_long or (t - begin >= n_short and max(into, away) > step[r]):
                    out[r, 0] += t - begin
                    out[r, 1] += 1
    return out


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def fast_part(samples, half, block, waves):  # type: ignore[no-untyped-def]
    """What is faster than a moving mean of 2 * half + 1 samples, in blocks.

    Args:
        samples: (L, T).
        half: Half width of the moving mean [samples].
        block: Length of a block [samples].
        waves: Cosine and sine of each mains frequency over one block (4, block).

    Returns:
        Mean square of each block (L, B), and its products with the four waves (L, B, 4), as amplitudes.
    """
    n_rows, n = samples.shape
    n_blocks = (n - 2 * half) // block
    power = np.zeros((n_rows, n_blocks), np.float32)
    tone = np.zeros((n_rows, n_blocks, 4), np.float32)
    used = n_blocks * block
    rest = np.empty(used, np.float32)
    share = np.float32(1.0 / (2 * half + 1))
    scale = np.float32(2.0 / block)
    for r in range(n_rows):
        row = samples[r]
        rest[:] = 0.0
        for shift in range(2 * half + 1):
            part = row[shift : shift + used]
            for t in range(used):
                rest[t] += part[t]
        here = row[half : half + used]
        for t in range(used):
            rest[t] = here[t] - rest[t] * share
        for b in range(n_blocks):
            part = rest[b * block : (b + 1) * block]
            total = np.float32(0.0)
            for t in range(block):
                total += part[t] * part[t]
            power[r, b] = total / np.float32(block)
            for w in range(4):
                wave = waves[w]
                total = np.float32(0.0)
                for t in range(block):
                    total += part[t] * wave[t]
                tone[r, b, w] = total * scale
    return power, tone


@njit(cache=True, nogil=True, error_model="numpy")
def noise_and_mains(power, tone, turns, gains, window):  # type: ignore[no-untyped-def]
    """Noise RMS (L, W) and amplitude of the mains (L, W, 2) in windows of `window` blocks, between the beats.

    Only the quieter half of the blocks is used, in which there is no QRS complex. A tone turns by the same angle from
    block to block (`turns`, unit complex numbers) and adds up; muscle noise and the heart do not.
    """
    n_rows, n_blocks = power.shape
    n_windows = n_blocks // window
    noise = np.zeros((n_rows, n_windows), np.float32)
    mains = np.zeros((n_rows, n_windows, 2), np.float32)
    for r in range(n_rows):
        for w in range(n_windows):
            begin = w * window
            end = n_blocks if w == n_windows - 1 else begin + window
            ordered = np.sort(power[r, begin:end])
            limit = ordered[len(ordered) // 2]
            rest = ordered[len(ordered) // 4]
            for f in range(2):
                if gains[f] == 0.0:
                    mains[r, w, f] = np.nan
                    continue
                total, count = np.float32(0.0), 0
                re, im = turns[f].real, turns[f].imag
                for b in range(begin + 1, end):
                    if power[r, b] > limit or power[r, b - 1] > limit:
                        continue
                    a0, b0 = tone[r, b - 1, 2 * f], -tone[r, b - 1, 2 * f + 1]
                    a1, b1 = tone[r, b, 2 * f], -tone[r, b, 2 * f + 1]
                    total += re * (a1 * a0 + b1 * b0) + im * (b1 * a0 - a1 * b0)
                    count += 1
                amplitude = np.sqrt(max(total / max(count, 1), np.float32(0.0)))
                mains[r, w, f] = amplitude / gains[f]
                rest -= amplitude * amplitude / np.float32(2.0)
            noise[r, w] = np.sqrt(max(rest, np.float32(0.0)))
    return noise, mains


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def sort_columns(block):  # type: ignore[no-untyped-def]
    """Sort each column of (N, W) in place by exchanges of neighbouring rows: whole rows, no branch."""
    n, width = block.shape
    for turn in range(n):
        for i in range(turn % 2, n - 1, 2):
            above, below = block[i], block[i + 1]
            for w in range(width):
                a, b = above[w], below[w]
                above[w] = min(a, b)
                below[w] = max(a, b)


@njit(cache=True, nogil=True, error_model="numpy")
def baseline_range(mean, block, half):  # type: ignore[no-untyped-def]
    """Range (L,) of medians over 2 * half + 1 neighbouring means of `block` bins; rows (L, K)."""
    n_rows = mean.shape[0]
    n = mean.shape[1] // block
    width = min(2 * half + 1, n)
    out = np.zeros(n_rows, np.float32)
    coarse = np.empty(n, np.float32)
    windows = np.empty((width, n - width + 1), np.float32)
    for r in range(n_rows):
        for i in range(n):
            total = np.float32(0.0)
            for k in range(i * block, (i + 1) * block):
                total += mean[r, k]
            coarse[i] = total / np.float32(block)
        for i in range(width):
            windows[i] = coarse[i : i + n - width + 1]
        sort_columns(windows)
        middle = windows[width // 2]
        out[r] = middle.max() - middle.min()
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def median_windows(rows, centers, before, after):  # type: ignore[no-untyped-def]
    """Median over windows (L, before + after) about each center, for rows (L, K); windows must lie inside."""
    n_rows, width, count = rows.shape[0], before + after, len(centers)
    out = np.empty((n_rows, width), np.float32)
    windows = np.empty((count, width), np.float32)
    middle = count // 2
    for r in range(n_rows):
        for i in range(count):
            windows[i] = rows[r, centers[i] - before : centers[i] + after]
        sort_columns(windows)
        out[r] = windows[middle]
        if count % 2 == 0:
            out[r] = np.float32(0.5) * (windows[middle - 1] + windows[middle])
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def around_beats(low, high, slope, typical, stretch, beats, reach):  # type: ignore[no-untyped-def]
    """Peak to peak (L,), median over beats, and largest slope over the typical one around it (L, N)."""
    n_rows, n = low.shape
    count = len(beats)
    size = np.full(n_rows, np.nan, np.float32)
    locked = np.empty((n_rows, count), np.float32)
    heights = np.empty(count, np.float32)
    for r in range(n_rows):
        for i in range(count):
            begin, end = max(0, beats[i] - reach), min(n, beats[i] + reach + 1)
            smallest, largest, steepest = low[r, begin], high[r, begin], slope[r, begin]
            for k in range(begin + 1, end):
                smallest = min(smallest, low[r, k])
                largest = max(largest, high[r, k])
                steepest = max(steepest, slope[r, k])
            heights[i] = largest - smallest
            s = min(beats[i] // stretch, typical.shape[1] - 1)
            locked[r, i] = steepest / max(typical[r, s], np.float32(1e-9))
        if count:
            size[r] = np.median(heights)
    return size, locked


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def law_residuals(rows, one, two, weights):  # type: ignore[no-untyped-def]
    """SD of each weighted sum (E,) of rows (L, K), over the larger SD of the rows `one` and `two`; weights (E, L)."""
    n_rows, n = rows.shape
    out = np.empty(len(weights), np.float32)
    largest = max(np.std(rows[one]), np.std(rows[two]))
    line = np.empty(n, np.float32)
    for e in range(len(weights)):
        line[:] = 0.0
        for r in range(n_rows):
            if weights[e, r] != 0.0:
                for k in range(n):
                    line[k] += weights[e, r] * rows[r, k]
        out[e] = np.std(line) / max(largest, 1e-9)
    return out


@lru_cache(maxsize=32)
def mains_waves(rate_hz: float, block: int) -> NDArray[np.float32]:
    """Cosine and sine of 50 and of 60 Hz over one block (4, block)."""
    time = np.arange(block) / rate_hz
    rows = [wave(2.0 * np.pi * hz * time) for hz in MAINS_HZ for wave in (np.cos, np.sin)]
    return np.ascontiguousarray(rows, np.float32)
