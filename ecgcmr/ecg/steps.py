"""The steps that an ECG pipeline is made of.

A step is a function `(samples_LT float64, rate_hz, **parameters) -> (samples_LT, rate_hz)`, registered under the
name that stands in preprocess.json. It never changes its input. Changing what a registered step computes means
raising `ecgcmr.ecg.preprocessing.PIPELINE_VERSION`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.baseline import als_detrended
from ecgcmr.ecg.beats import beat_bins
from ecgcmr.ecg.bins import bin_edges, bin_samples
from ecgcmr.ecg.filters import butterworth, notch, resample, resample_fourier, sosfiltfilt
from ecgcmr.ecg.leads import LEAD_GROUPS, LEADS

Signal = NDArray[np.float64]
VARIANCE_EPS = 1e-12


STEPS: dict[str, Callable[..., tuple[Signal, float]]] = {}


def _register(function: Callable[..., tuple[Signal, float]]) -> Callable[..., tuple[Signal, float]]:
    STEPS[function.__name__] = function
    return function


@_register
def nan_to_zero(
    samples: Signal, rate_hz: float, *, partial: str = "zero", whole_lead: str = "refuse"
) -> tuple[Signal, float]:
    """Replace missing samples; infinite values count as missing.

    Args:
        samples: (12, T).
        rate_hz: Passed on.
        partial: What a gap in a lead becomes: `zero`, or `interpolate` (straight line between its neighbours, held
            at the ends of the recording).
        whole_lead: What a lead without a finite sample is: `refuse` (ValueError naming the lead) or `zero`.
    """
    finite = np.isfinite(samples)
    if finite.all():
        return samples, rate_hz
    empty = ~finite.any(axis=1)
    if whole_lead == "refuse" and empty.any():
        names = [LEADS[i] for i in np.flatnonzero(empty)]
        raise ValueError(f"lead{'s' if len(names) > 1 else ''} {', '.join(names)} ha{'ve' if len(names) > 1 else 's'} "
                         "no finite sample")  # fmt: skip
    out = np.where(finite, samples, 0.0)
    if partial == "interpolate":
        t = np.arange(samples.shape[1])
        for i in np.flatnonzero(~empty & ~finite.all(axis=1)):
            out[i, ~finite[i]] = np.interp(t[~finite[i]], t[finite[i]], samples[i, finite[i]])
    return out, rate_hz


@_register
def cut_duration(samples: Signal, rate_hz: float, *, seconds: float, where: str = "start") -> tuple[Signal, float]:
    """Keep at most ceil(seconds * rate) samples: the first ones, or those where="center" or where="end" says."""
    n = int(np.ceil(seconds * rate_hz - 1e-6))
    surplus = samples.shape[1] - n
    if where not in ("start", "center", "end"):
        raise ValueError(f"cut_duration: where is {where!r}, expected start, center or end")
    if surplus <= 0:
        return samples, rate_hz
    begin = {"start": 0, "center": surplus // 2, "end": surplus}[where]
    return samples[:, begin : begin + n], rate_hz


@_register
def fit_duration(samples: Signal, rate_hz: float, *, seconds: float, min_seconds: float = 5.0) -> tuple[Signal, float]:
    """Make exactly round(seconds * rate) samples: cut at the end, or zeros at the end.

    Raises:
        ValueError: The recording is shorter than min_seconds, so that mostly zeros would be returned.
    """
    n = round(seconds * rate_hz)
    have = samples.shape[1]
    if have < min_seconds * rate_hz - 1:
        raise ValueError(f"the recording lasts {have / rate_hz:.3g} s; at least {min_seconds:g} s are needed")
    if have >= n:
        return samples[:, :n], rate_hz
    return np.pad(samples, ((0, 0), (0, n - have))), rate_hz


@_register
def to_rate(samples: Signal, rate_hz: float, *, hz: float, method: str = "polyphase") -> tuple[Signal, float]:
    """Resample to `hz` [Hz].

    Args:
        samples: (12, T).
        rate_hz: Their rate [Hz].
        hz: Wanted rate [Hz].
        method: `polyphase` (anti-alias filter; T becomes ceil(T * hz / rate)) or `fourier` (the spectrum is cut or
            continued by zeros; T becomes round(T * hz / rate), and the signal is taken as periodic).
    """
    if method not in ("polyphase", "fourier"):
        raise ValueError(f"to_rate: method is {method!r}, expected polyphase or fourier")
    function = resample if method == "polyphase" else resample_fourier
    return function(samples, rate_hz, hz), float(hz)


@_register
def clip_sd(samples: Signal, rate_hz: float, *, factor: float = 4.0) -> tuple[Signal, float]:
    """Clip to +-factor * s about zero, s the population standard deviation of the whole sample (all leads)."""
    bound = factor * float(np.sqrt(_variance(samples - samples.mean())))
    return np.clip(samples, -bound, bound), rate_hz


@_register
def als_detrend(
    samples: Signal, rate_hz: float, *, lam: float = 1e7, p: float = 0.3, n_iter: int = 5
) -> tuple[Signal, float]:
    """Subtract the asymmetric-least-squares baseline of each lead (Eilers and Boelens 2005)."""
    return als_detrended(samples, lam, p, n_iter), rate_hz


@_register
def group_zscore(samples: Signal, rate_hz: float) -> tuple[Signal, float]:
    """Standardise each of the groups I-III, aVR-aVF, V1-V6 by one mean and one population variance."""
    out = np.empty_like(samples)
    start = 0
    for stop in LEAD_GROUPS:
        group = np.subtract(samples[start:stop], samples[start:stop].mean(), out=out[start:stop])
        group /= np.sqrt(_variance(group) + VARIANCE_EPS)
        start = stop
    return out, rate_hz


@_register
def lead_zscore(samples: Signal, rate_hz: float) -> tuple[Signal, float]:
    """Standardise each lead by its own mean and population variance; a flat lead becomes zero."""
    out = samples - samples.mean(axis=1, keepdims=True)
    for lead in out:
        lead /= np.sqrt(_variance(lead) + VARIANCE_EPS)
    return out, rate_hz


@_register
def sample_zscore(samples: Signal, rate_hz: float) -> tuple[Signal, float]:
    """Standardise by one mean and one population variance of all leads together; a flat recording becomes zero."""
    out = samples - samples.mean()
    out /= np.sqrt(_variance(out) + VARIANCE_EPS)
    return out, rate_hz


@_register
def lead_minmax(samples: Signal, rate_hz: float) -> tuple[Signal, float]:
    """Scale each lead linearly so that its least sample is -1 and its largest 1; a flat lead becomes zero."""
    low, high = samples.min(axis=1, keepdims=True), samples.max(axis=1, keepdims=True)
    span = high - low
    return np.divide(2 * (samples - low), span, out=np.ones_like(samples), where=span > 0) - 1, rate_hz


@_register
def beat_trend(samples: Signal, rate_hz: float) -> tuple[Signal, float]:
    """Subtract a centred moving average over one beat, the median distance of the QRS complexes of all leads.

    Over an even number of samples the two at the ends of the window count half, as in the decomposition of seasonal
    series. At the ends of the recording the window is cut. A recording with fewer than three beats is taken to have
    one a second.
    """
    edges = bin_edges(samples.shape[1], rate_hz)
    peaks = beat_bins(bin_samples(np.ascontiguousarray(samples, np.float32), edges)[0])[0] if len(edges) > 3 else ()
    beat = float(np.median(np.diff(edges[peaks]))) if len(peaks) > 2 else rate_hz
    period = max(2, min(round(beat), samples.shape[1]))
    window = np.ones(period + 1 - period % 2)
    if period % 2 == 0:
        window[[0, -1]] = 0.5
    count = np.convolve(np.ones(samples.shape[1]), window)
    half = len(window) // 2
    inside = slice(half, half + samples.shape[1])
    trend = np.stack([np.convolve(lead, window)[inside] for lead in samples]) / count[inside]
    return samples - trend, rate_hz


def _variance(centered: Signal) -> float:
    """Return the population variance of values whose mean is 0; a dot product takes a quarter of numpy.std's time."""
    flat = centered.reshape(-1)
    return float(np.dot(flat, flat)) / flat.size


@_register
def highpass(
    samples: Signal, rate_hz: float, *, low_hz: float, order: int = 2, pad_s: float = 1.5
) -> tuple[Signal, float]:
    """Zero-phase Butterworth high-pass at `low_hz` [Hz], `order` each way, ends continued by odd reflection."""
    return sosfiltfilt(samples, butterworth("highpass", order, low_hz, 0.0, rate_hz), round(pad_s * rate_hz)), rate_hz


@_register
def lowpass(
    samples: Signal, rate_hz: float, *, high_hz: float, order: int = 2, pad_s: float = 1.5
) -> tuple[Signal, float]:
    """Zero-phase Butterworth low-pass at `high_hz` [Hz], `order` each way, ends continued by odd reflection."""
    return sosfiltfilt(samples, butterworth("lowpass", order, 0.0, high_hz, rate_hz), round(pad_s * rate_hz)), rate_hz


@_register
def bandpass(
    samples: Signal, rate_hz: float, *, low_hz: float, high_hz: float, order: int = 2, pad_s: float = 1.5
) -> tuple[Signal, float]:
    """Zero-phase Butterworth band-pass [Hz], `order` each way, ends continued by odd reflection over `pad_s` [s]."""
    sos = butterworth("bandpass", order, low_hz, high_hz, rate_hz)
    return sosfiltfilt(samples, sos, round(pad_s * rate_hz)), rate_hz


@_register
def mains_notch(samples: Signal, rate_hz: float, *, mains_hz: float, quality: float = 30.0) -> tuple[Signal, float]:
    """Zero-phase notch at the mains frequency [Hz]."""
    return sosfiltfilt(samples, notch(mains_hz, quality, rate_hz), round(rate_hz)), rate_hz


@_register
def scale_mv(samples: Signal, rate_hz: float, *, unit_mv: float) -> tuple[Signal, float]:
    """Divide by `unit_mv` [mV]: a fixed scale, the same for every recording, so that voltage is kept."""
    return samples * (1.0 / unit_mv), rate_hz
