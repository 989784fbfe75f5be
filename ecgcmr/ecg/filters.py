"""Zero-phase filters and rational resampling over the last axis, compiled to run all leads of a recording at once.

Both give what scipy's `sosfiltfilt` and `resample_poly` give, in float64, at several times their speed: a recursive
filter is bound by the latency of its own feedback, so twelve leads side by side cost hardly more than one.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.signal import butter, firwin, iirnotch, tf2sos
from scipy.signal import resample as scipy_resample

LANES = 12
# Unsigned indices spare the compiler the test for negative ones, without which it does not vectorise over lanes.
_U = np.uint64
_ROW, _OUT = _U(2 * LANES), _U(LANES)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _section(work, total, section, level):  # type: ignore[no-untyped-def]
    """Run one second-order section for all lanes from the input half to the output half of each row of `work`.

    Rows 2 .. total + 1 hold the signal; rows 0 and 1 are set to the steady state that a constant input of height
    `level` (the first input sample times the gain of the sections before) has reached.
    """
    b0, b1, b2, a1, a2 = section[0], section[1], section[2], section[4], section[5]
    gain = (b0 + b1 + b2) / (1.0 + a1 + a2)
    for row in range(2):
        for lane in range(LANES):
            work[row * 2 * LANES + lane] = level[lane]
            work[row * 2 * LANES + LANES + lane] = gain * level[lane]
    for lane in range(LANES):
        level[lane] *= gain
    for t in range(total):
        i = _U(t + 2) * _ROW
        j = i - _ROW
        h = j - _ROW
        for lane in range(LANES):
            k = _U(lane)
            x = b0 * work[i + k] + b1 * work[j + k] + b2 * work[h + k]
            work[i + _OUT + k] = x - a1 * work[j + _OUT + k] - a2 * work[h + _OUT + k]
    for t in range(total):  # the output is the next section's input
        i = _U(t + 2) * _ROW
        for lane in range(LANES):
            k = _U(lane)
            work[i + k] = work[i + _OUT + k]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _reverse(work, total):  # type: ignore[no-untyped-def]
    """Turn the input half of the signal rows around in time."""
    for t in range(total // 2):
        i = _U(t + 2) * _ROW
        j = _U(total + 1 - t) * _ROW
        for lane in range(LANES):
            k = _U(lane)
            swap = work[i + k]
            work[i + k] = work[j + k]
            work[j + k] = swap


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _sosfiltfilt(rows, sos, pad):  # type: ignore[no-untyped-def]
    """Forward and backward cascade of rows (R, T) with odd extension by `pad` samples at both ends."""
    n_rows, n = rows.shape
    total = n + 2 * pad
    out = np.empty((n_rows, n))
    work = np.zeros((total + 2) * 2 * LANES)
    level = np.empty(LANES)
    for first in range(0, n_rows, LANES):
        for lane in range(LANES):
            x = rows[min(first + lane, n_rows - 1)]
            for t in range(n):
                work[(2 + pad + t) * 2 * LANES + lane] = x[t]
            for t in range(pad):
                work[(2 + t) * 2 * LANES + lane] = 2.0 * x[0] - x[pad - t]
                work[(2 + pad + n + t) * 2 * LANES + lane] = 2.0 * x[n - 1] - x[n - 2 - t]
        for _ in range(2):  # forward, then backward: two reversals restore the order
            level[:] = work[4 * LANES : 5 * LANES]
            for s in range(sos.shape[0]):
                _section(work, total, sos[s], level)
            _reverse(work, total)
        for lane in range(min(LANES, n_rows - first)):
            for t in range(n):
                out[first + lane, t] = work[(2 + pad + t) * 2 * LANES + lane]
    return out


@njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def _polyphase(rows, phases, up, down, half, n_out):  # type: ignore[no-untyped-def]
    """Resample rows (R, T): output n is phase (half + n * down) % up against the samples that end at its position.

    `phases` (up, taps) holds each phase of the filter reversed, so that both factors run forward in memory.
    """
    n_rows, n = rows.shape
    taps = phases.shape[1]
    reach = (half + (n_out - 1) * down) // up - (n - 1)
    tail = max(reach, 0)
    padded = np.empty(taps + n + tail)
    out = np.empty((n_rows, n_out))
    for r in range(n_rows):
        x = rows[r]
        padded[:taps] = x[0]
        padded[taps : taps + n] = x
        padded[taps + n :] = x[n - 1]
        for i in range(n_out):
            position = half + i * down
            h = phases[position % up]
            begin = position // up + 1
            segment = padded[begin : begin + taps]
            acc = 0.0
            for k in range(taps):
                acc += h[k] * segment[k]
            out[r, i] = acc
    return out


@lru_cache(maxsize=64)
def butterworth(kind: str, order: int, low_hz: float, high_hz: float, rate_hz: float) -> NDArray[np.float64]:
    """Return the second-order sections of a Butterworth filter.

    Args:
        kind: `highpass` (uses low_hz), `lowpass` (uses high_hz) or `bandpass` (both).
        order: Order of the one-way filter; run forward and backward the slope doubles.
        low_hz: Lower edge [Hz].
        high_hz: Upper edge [Hz].
        rate_hz: Sampling rate [Hz].

    Raises:
        ValueError: An edge does not lie between 0 and half the sampling rate.
    """
    edges = {"highpass": [low_hz], "lowpass": [high_hz], "bandpass": [low_hz, high_hz]}
    if kind not in edges:
        raise ValueError(f"filter kind must be one of {', '.join(edges)}, got {kind!r}")
    used = edges[kind]
    if min(used) <= 0 or max(used) >= rate_hz / 2 or used != sorted(set(used)):
        raise ValueError(f"{kind} edges {used} Hz must rise and lie between 0 and {rate_hz / 2:g} Hz (half the rate)")
    return np.ascontiguousarray(butter(order, used if len(used) > 1 else used[0], kind, fs=rate_hz, output="sos"))


@lru_cache(maxsize=64)
def notch(frequency_hz: float, quality: float, rate_hz: float) -> NDArray[np.float64]:
    """Return the second-order section (1, 6) of a notch against the mains frequency.

    Raises:
        ValueError: The frequency does not lie between 0 and half the sampling rate.
    """
    if not 0 < frequency_hz < rate_hz / 2:
        raise ValueError(f"the notch at {frequency_hz:g} Hz must lie below {rate_hz / 2:g} Hz (half the rate)")
    return np.ascontiguousarray(tf2sos(*iirnotch(frequency_hz, quality, fs=rate_hz)))


def sosfiltfilt(samples: NDArray[np.floating], sos: NDArray[np.float64], pad: int) -> NDArray[np.float64]:
    """Filter forward and backward along the last axis: zero phase, squared magnitude.

    The ends are continued by odd reflection over `pad` samples and the state starts at the steady state of the first
    sample, as in scipy's `sosfiltfilt(padtype="odd", padlen=pad)`.

    Args:
        samples: Signal (..., T), finite.
        sos: Second-order sections (sections, 6).
        pad: Samples of the reflection; at most T - 1 are used.
    """
    x = np.asarray(samples)
    if x.shape[-1] < 2:
        raise ValueError(f"filtering needs at least 2 samples a lead, got shape {x.shape}")
    rows = np.ascontiguousarray(x.reshape(-1, x.shape[-1]), dtype=np.float64)
    return _sosfiltfilt(rows, sos, min(pad, rows.shape[1] - 1)).reshape(x.shape)


def rational_ratio(rate_hz: float, target_hz: float) -> Fraction:
    """Return target / rate as a fraction with a denominator of at most 1000.

    Raises:
        ValueError: No such fraction lies within 1e-5 of the ratio (0.1 ms in 10 s).
    """
    if not (rate_hz > 0 and target_hz > 0):
        raise ValueError(f"sampling rates must be positive, got {rate_hz} and {target_hz} Hz")
    ratio = Fraction(target_hz / rate_hz).limit_denominator(1000)
    if ratio == 0 or abs(float(ratio) * rate_hz / target_hz - 1) > 1e-5:
        raise ValueError(f"cannot resample {rate_hz:g} Hz to {target_hz:g} Hz by a ratio of whole numbers up to 1000")
    return ratio


def resample(samples: NDArray[np.floating], rate_hz: float, target_hz: float) -> NDArray[np.float64]:
    """Resample along the last axis by a polyphase filter without delay.

    T samples become ceil(T * target / rate), the first at the time of the first input sample. The anti-alias filter
    is scipy's default for `resample_poly` (Kaiser 5.0, 10 periods of the slower rate to each side); beyond the ends
    the signal is held at its first and last value, so that an offset leaves no edge.

    Args:
        samples: Signal (..., T), finite.
        rate_hz: Sampling rate of the samples [Hz].
        target_hz: Wanted rate [Hz].

    Returns:
        Signal (..., ceil(T * target / rate)), float64.
    """
    ratio = rational_ratio(rate_hz, target_hz)
    x = np.asarray(samples)
    rows = np.ascontiguousarray(x.reshape(-1, x.shape[-1]), dtype=np.float64)
    up, down = ratio.numerator, ratio.denominator
    if up == down:
        return rows.reshape(x.shape)
    phases, half = _phases(up, down)
    n_out = -(-rows.shape[1] * up // down)
    return _polyphase(rows, phases, up, down, half, n_out).reshape(*x.shape[:-1], n_out)


def resample_fourier(samples: NDArray[np.floating], rate_hz: float, target_hz: float) -> NDArray[np.float64]:
    """Resample along the last axis by cutting the spectrum, or continuing it by zeros, as scipy's `resample` does.

    Exact for a periodic signal; an ECG whose ends do not meet rings at them. For models that were trained with it.

    Args:
        samples: Signal (..., T), finite.
        rate_hz: Sampling rate of the samples [Hz].
        target_hz: Wanted rate [Hz].

    Returns:
        Signal (..., round(T * target / rate)), float64.
    """
    if not (rate_hz > 0 and target_hz > 0):
        raise ValueError(f"sampling rates must be positive, got {rate_hz} and {target_hz} Hz")
    x = np.asarray(samples, dtype=np.float64)
    n_out = round(x.shape[-1] * target_hz / rate_hz)
    if n_out < 1:
        raise ValueError(f"{x.shape[-1]} samples at {rate_hz:g} Hz leave none at {target_hz:g} Hz")
    return x if n_out == x.shape[-1] else np.asarray(scipy_resample(x, n_out, axis=-1), dtype=np.float64)


@lru_cache(maxsize=64)
def _phases(up: int, down: int) -> tuple[NDArray[np.float64], int]:
    """Anti-alias filter as reversed polyphase rows (up, taps), and its half length at the raised rate."""
    slower = max(up, down)
    half = 10 * slower
    filter_ = firwin(2 * half + 1, 1.0 / slower, window=("kaiser", 5.0)) * up
    taps = -(-filter_.size // up)
    padded = np.zeros(taps * up)
    padded[: filter_.size] = filter_
    return np.ascontiguousarray(padded.reshape(taps, up).T[:, ::-1]), half
