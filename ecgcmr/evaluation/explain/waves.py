"""Where the waves of an ECG are: P, QRS, ST and T of every beat, delineated by neurokit2 on one lead.

Nothing is guessed: a wave whose onset or offset was not found is left out, and a recording without beats is refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.evaluation.explain.optional import need

WAVES = ("P", "QRS", "ST", "T")
Spans = list[tuple[float, float]]
_LEAST_BEATS = 2
_QRS_MS = 140  # search for the ends of QRS; the default of 100 ms cuts off a third of a bundle branch block
_LONGEST_S = {"P": 0.2, "QRS": 0.25, "ST": 0.3, "T": 0.45}  # what is longer is a mistake of the delineation


def delineate(recording: EcgRecording, lead: str = "II") -> dict[str, Spans]:
    """Find the waves of a recording.

    By peak prominence (Emrich et al. 2024, "Physiology-informed ECG delineation based on peak prominence", EUSIPCO) as
    neurokit2 has it, for the wavelet method joins P and QRS. On simulated hearts QRS comes out 40 ms too long in the
    median, in left bundle branch block 10 ms too short: it holds the whole complex, and ST begins a little late. The ST
    segment goes from the end of QRS to the onset of T. In atrial fibrillation P marks what lies before QRS.

    Args:
        recording: In mV or z; gaps are bridged.
        lead: Lead that is delineated; the times hold for all leads.

    Returns:
        For each of `WAVES` the (start, stop) [s] of every beat where both were found.

    Raises:
        ValueError: neurokit2 is not installed, the lead is not there, or fewer than two beats are found.
    """
    neurokit = need("neurokit2", "finding P, QRS, ST and T")
    if lead not in recording.leads:
        raise ValueError(f"lead {lead} is to be delineated, the recording has {', '.join(recording.leads)}")
    signal = _bridged(recording.samples[recording.leads.index(lead)].astype(np.float64))
    rate = round(recording.rate_hz)
    if signal is None or np.ptp(signal) == 0:
        raise ValueError(f"no beats found in lead {lead}: it is flat or missing; name another lead")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            clean = neurokit.ecg_clean(signal, sampling_rate=rate)
            peaks = neurokit.ecg_peaks(clean, sampling_rate=rate)[1]["ECG_R_Peaks"]
            peaks = np.asarray(peaks, dtype=np.int64)
            if len(peaks) < _LEAST_BEATS:
                raise ValueError(f"{len(peaks)} R peaks")
            marks = neurokit.ecg_delineate(
                clean, peaks, sampling_rate=rate, method="prominence", max_r_basepoint_interval=_QRS_MS
            )[1]
    except Exception as error:  # neurokit2 fails in many ways on signals that are no ECG
        raise ValueError(
            f"no beats found in lead {lead} by neurokit2 ({error}); look at the recording, name another lead, or "
            "explain by lead or time window, which need no beats"
        ) from error
    found = _spans(marks, recording.rate_hz)
    if len(found["QRS"]) < _LEAST_BEATS:
        raise ValueError(
            f"no beats found in lead {lead}: {len(peaks)} R peaks, but the borders of only {len(found['QRS'])} QRS "
            "complexes; name another lead, or explain by lead or time window"
        )
    return found


def wave_masks(
    spans: Mapping[str, Spans], start_s: float, n_samples: int, rate_hz: float
) -> dict[str, list[tuple[int, int]]]:
    """Samples [first, last) of the waves within a window that begins at `start_s`; cut at its borders."""
    masks: dict[str, list[tuple[int, int]]] = {}
    for wave, pairs in spans.items():
        inside = []
        for start, stop in pairs:
            first = max(0, int(np.floor((start - start_s) * rate_hz)))
            last = min(n_samples, int(np.ceil((stop - start_s) * rate_hz)))
            if last - first >= 1:
                inside.append((first, last))
        masks[wave] = inside
    return masks


def _spans(marks: Mapping[str, Any], rate_hz: float) -> dict[str, Spans]:
    borders = {
        "P": ("ECG_P_Onsets", "ECG_P_Offsets"),
        "QRS": ("ECG_R_Onsets", "ECG_R_Offsets"),
        "ST": ("ECG_R_Offsets", "ECG_T_Onsets"),
        "T": ("ECG_T_Onsets", "ECG_T_Offsets"),
    }
    found: dict[str, Spans] = {}
    for wave, (begin, end) in borders.items():
        pairs = zip(np.asarray(marks[begin], float), np.asarray(marks[end], float), strict=True)
        times = [(a / rate_hz, b / rate_hz) for a, b in pairs if np.isfinite(a) and np.isfinite(b)]
        found[wave] = [(a, b) for a, b in times if 0 < b - a <= _LONGEST_S[wave]]
    return found


def _bridged(signal: NDArray[np.float64]) -> NDArray[np.float64] | None:
    good = np.isfinite(signal)
    if good.sum() < 2:
        return None
    at = np.arange(len(signal))
    return np.interp(at, at[good], signal[good])
