"""Where in the cardiac cycle each ECG token lies: R peaks are found in the model's own input, cycles cut into bins.

Phase 0 is the R peak, which is where a gated cine begins (end-diastole); phase 1 is the next one. So the ECG of any
heart rate and the cine of its mean beat share one axis.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgcmr.ecg.beats import beat_bins
from ecgcmr.ecg.bins import bin_edges, bin_samples, hold_gaps

BeatRule = Literal["mean", "first", "window"]


def beats_of(ecg_LT: NDArray[np.float32], rate_hz: float) -> NDArray[np.int64]:
    """Samples of the QRS complexes, rising; empty for a signal too short or too flat to have any.

    Args:
        ecg_LT: Prepared ECG (L, T), in any unit.
        rate_hz: Its sampling rate [Hz].
    """
    samples, _ = hold_gaps(np.require(ecg_LT, np.float32, ("C", "W")))
    edges = bin_edges(samples.shape[1], rate_hz)
    if len(edges) < 4:
        return np.empty(0, np.int64)
    bins, _ = beat_bins(bin_samples(samples, edges)[0])
    return (edges[bins] + edges[bins + 1]) // 2


def bin_of_sample(beats: NDArray[np.int64], n_samples: int, bins: int, rule: BeatRule) -> NDArray[np.int64]:
    """Bin of the cycle in which each sample lies (T,), -1 for those in none.

    Args:
        beats: Samples of the R peaks, rising.
        n_samples: Length T.
        bins: Number of bins of a cycle.
        rule: `mean` takes all whole cycles of the signal, `first` only the first one, `window` takes the signal as if
            it were one cycle, whatever beats there are.
    """
    if rule == "window":
        return np.arange(n_samples) * bins // n_samples
    result = np.full(n_samples, -1, dtype=np.int64)
    cycles = list(pairwise(beats))
    for start, end in cycles[:1] if rule == "first" else cycles:
        result[start:end] = np.arange(end - start) * bins // (end - start)
    return result


@torch.no_grad()
def phase_weights(ecg_BLT: Tensor, rate_hz: float, patch: int, bins: int, rule: BeatRule) -> Tensor:
    """How many samples of each window of `patch` samples lie in each bin of the cycle.

    A window that spans two bins belongs to both in part, and windows of several beats to the same bin: since beats do
    not keep step with the windows, the mean over beats resolves the cycle more finely than one window does.

    Args:
        ecg_BLT: Model input (B, L, T); beats are looked for on the CPU.
        rate_hz: Its sampling rate [Hz].
        patch: Length of a window [samples].
        bins: Number K of bins of a cycle.
        rule: See `bin_of_sample`.

    Returns:
        (B, K, T / patch) in the type of the input; all 0 for a signal without a whole cycle.
    """
    n_samples = ecg_BLT.shape[-1]
    counts = np.zeros((ecg_BLT.shape[0], bins, n_samples // patch), np.float32)
    signals = ecg_BLT.detach().float().cpu().numpy() if rule != "window" else None
    window = np.arange(n_samples) // patch
    for row in range(len(counts)):
        beats = np.empty(0, np.int64) if signals is None else beats_of(signals[row], rate_hz)
        where = bin_of_sample(beats, n_samples, bins, rule)
        used = where >= 0
        np.add.at(counts[row], (where[used], window[used]), 1.0)
    return torch.from_numpy(counts).to(ecg_BLT.device, ecg_BLT.dtype)
