"""Electrode potentials over the whole recording, from the double layer of the ventricular wall and the atrial dipoles.

    p_i(t) = A_i n_i g_i [ AP(t - t_endo,i; APD_endo,i) - AP(t - t_epi,i; APD_epi,i) ]

The double layer of each wall point is driven by the difference of its two faces (Miller & Geselowitz 1978; uniform
double layer). Because AP is a sum of shifted steps (`action_potential.py`), all beats of all points become three trains
of weighted impulses on the sampling grid; one convolution each gives the potentials: some milliseconds for 10 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.sparse import csr_matrix

from ecgcmr.simulation.action_potential import action_potential, step_kernels

LONGEST_BEAT_S = 0.9  # from the onset of activation until the last point is at rest


@dataclass(frozen=True)
class DoubleLayer:
    """Both faces of the wall points, in time.

    Attributes:
        endo_ms: Activation of the inner face (n,) [ms] after the onset of the beat.
        epi_ms: Activation of the outer face (n,) [ms].
        apd_endo_ms: Action-potential duration of the inner face at 60 beats per minute (n,) [ms].
        apd_epi_ms: The same of the outer face (n,) [ms].
        plateau_loss: Share of the plateau that the inner face lost to ischemia (n,).
    """

    endo_ms: NDArray[np.float64]
    epi_ms: NDArray[np.float64]
    apd_endo_ms: NDArray[np.float64]
    apd_epi_ms: NDArray[np.float64]
    plateau_loss: NDArray[np.float64]

    def drive(self, time_ms: NDArray[np.float64], apd_scale: float = 1.0) -> NDArray[np.float64]:
        """Difference of the faces (n, T) at times (T,) [ms]: the formula as it stands, slow, for tests and figures."""
        t = time_ms[None, :]
        inner = action_potential(
            t - self.endo_ms[:, None], self.apd_endo_ms[:, None] * apd_scale, self.plateau_loss[:, None]
        )
        return inner - action_potential(t - self.epi_ms[:, None], self.apd_epi_ms[:, None] * apd_scale)


def _impulses(
    at_s: NDArray[np.float64], weight: NDArray[np.float64], n_samples: int, rate_hz: float
) -> NDArray[np.float64]:
    """Add weighted impulses to the grid, each shared by its two neighboring samples: (k,), (k, E) -> (E, n)."""
    place = np.clip(at_s * rate_hz, 0.0, n_samples - 1.001)
    low = place.astype(np.int32)
    share = place - low
    index = np.stack([low, low + 1], axis=1).ravel()
    value = np.stack([1.0 - share, share], axis=1).ravel()
    scatter = csr_matrix((value, index, np.arange(0, 2 * len(at_s) + 1, 2)), shape=(len(at_s), n_samples))
    return np.ascontiguousarray((scatter.T @ weight).T)


@dataclass(frozen=True)
class VentricularPotentials:
    """Potentials (E, T) by origin; their sum is the ventricular ECG, and the parts give truthful intervals."""

    depolarization: NDArray[np.float64]
    repolarization: NDArray[np.float64]

    @property
    def total(self) -> NDArray[np.float64]:
        """QRS, ST and T together (E, T)."""
        return self.depolarization + self.repolarization


def ventricular_potentials(
    layer: DoubleLayer,
    transfer: NDArray[np.float64],
    onset_s: NDArray[np.float64],
    apd_scale: NDArray[np.float64],
    *,
    n_samples: int,
    rate_hz: float,
    split: bool = True,
) -> VentricularPotentials:
    """Potentials of all beats.

    Args:
        layer: Times of the two faces.
        transfer: Potential of each unit dipole at each electrode (b, E, n) or (E, n), per beat or for all beats.
        onset_s: Onset of each beat (b,) [s].
        apd_scale: Factor of the action-potential durations (b,).
        n_samples: Samples of the recording, which starts at time 0.
        rate_hz: Sampling rate [Hz].
        split: Keep depolarization and repolarization apart; otherwise their sum stands in the former (cheaper).

    Returns:
        Potentials (E, n_samples), in the unit of `transfer`.
    """
    kernels = step_kernels(rate_hz)
    # an older beat is over: its steps cancel
    recent = onset_s > -LONGEST_BEAT_S
    onset_s, apd_scale = onset_s[recent], apd_scale[recent]
    beats, n = len(onset_s), len(layer.endo_ms)
    lead_in = round(LONGEST_BEAT_S * rate_hz) + kernels.before
    length = lead_in + n_samples + kernels.before + 2
    transfer = transfer[recent] if transfer.ndim == 3 else np.broadcast_to(transfer, (beats, *transfer.shape))
    weight = transfer.transpose(0, 2, 1)
    both = np.concatenate([weight, -weight], axis=1).reshape(beats * 2 * n, -1)
    faces_ms = np.concatenate([layer.endo_ms, layer.epi_ms])
    apd_ms = np.concatenate([layer.apd_endo_ms, layer.apd_epi_ms])
    start = (onset_s + lead_in / rate_hz)[:, None]
    up_s = (start + faces_ms * 1e-3).ravel()
    down_s = (start + (faces_ms + apd_ms * apd_scale[:, None]) * 1e-3).ravel()
    kept = np.tile(np.concatenate([1.0 - layer.plateau_loss, np.ones(n)]), beats)
    size = next_fast_len(length + len(kernels.up), real=True)

    def spread(at_s: NDArray[np.float64], weights: NDArray[np.float64], kernel: NDArray[np.float64]) -> NDArray[Any]:
        return rfft(_impulses(at_s, weights, length, rate_hz), size) * rfft(kernel, size)

    up, down = spread(up_s, both, kernels.up), -spread(down_s, both * kept[:, None], kernels.down)
    ischemic = np.flatnonzero(layer.plateau_loss > 0.0)
    if len(ischemic):
        lost = (weight[:, ischemic] * layer.plateau_loss[ischemic, None]).reshape(beats * len(ischemic), -1)
        down -= spread((start + layer.endo_ms[ischemic] * 1e-3).ravel(), lost, kernels.settle)

    def steps(spectrum: NDArray[Any]) -> NDArray[np.float64]:
        increments = irfft(spectrum, size)[:, : kernels.before + lead_in + n_samples]
        return np.cumsum(increments, axis=1)[:, kernels.before + lead_in :]

    if not split:
        whole = steps(up + down)
        return VentricularPotentials(whole, np.zeros_like(whole))
    return VentricularPotentials(steps(up), steps(down))


@dataclass(frozen=True)
class AtrialDipoles:
    """The P wave as two dipoles, the right atrium first, the left later (each a raised cosine in time).

    Attributes:
        position_mm: Middle of the atria (2, 3), torso frame [mm].
        moment: Peak moments (2, 3), in the unit of the ventricular area vectors.
        onset_ms: Start of each (2,) [ms] after the onset of the P wave.
        duration_ms: Duration of each (2,) [ms].
        pr_ms: From the onset of the P wave to the onset of ventricular activation [ms].
    """

    position_mm: NDArray[np.float64]
    moment: NDArray[np.float64]
    onset_ms: NDArray[np.float64]
    duration_ms: NDArray[np.float64]
    pr_ms: float

    @property
    def p_duration_ms(self) -> float:
        """Duration of the P wave [ms]."""
        return float((self.onset_ms + self.duration_ms).max())

    def drive(self, onset_s: NDArray[np.float64], n_samples: int, rate_hz: float) -> NDArray[np.float64]:
        """Course of both dipoles (2, T) for ventricular onsets (b,) [s]."""
        course = np.zeros((2, n_samples))
        for atrium in range(2):
            span = round(self.duration_ms[atrium] * 1e-3 * rate_hz) + 2
            first_s = onset_s - (self.pr_ms - self.onset_ms[atrium]) * 1e-3
            first = np.floor(first_s * rate_hz).astype(int)
            sample = first[:, None] + np.arange(span)
            phase = (sample / rate_hz - first_s[:, None]) / (self.duration_ms[atrium] * 1e-3)
            value = np.where((phase > 0) & (phase < 1), 0.5 - 0.5 * np.cos(2.0 * np.pi * phase), 0.0)
            inside = (sample >= 0) & (sample < n_samples)
            np.add.at(course[atrium], sample[inside], value[inside])
        return course


def fibrillatory_drive(n_samples: int, rate_hz: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Course (2, 3, T) of the atrial dipoles in fibrillation: waxing waves of 4-9 Hz in wandering directions, RMS 1.

    Frequencies as in Holm et al., IEEE TBME 1998;45:198 (doi:10.1109/10.660266).
    """
    time = np.arange(n_samples) / rate_hz
    main_hz = rng.uniform(4.5, 8.0)
    course = np.zeros((2, 3, n_samples))
    for _ in range(5):
        wave_hz = main_hz * rng.normal(1.0, 0.09)
        swell = 1.0 + 0.5 * np.sin(2.0 * np.pi * rng.uniform(0.1, 0.5) * time + rng.uniform(0.0, 6.28))
        phase = rng.uniform(0.0, 6.28) + rng.normal(0.0, 0.6) * np.sin(2.0 * np.pi * rng.uniform(0.2, 0.8) * time)
        angle = 2.0 * np.pi * wave_hz * time + phase
        # the second harmonic makes the saw tooth of coarse fibrillation
        wave = swell * (np.sin(angle) + 0.35 * np.sin(2.0 * angle + 0.7))
        course += rng.standard_normal((2, 3, 1)) * wave
    return course / np.sqrt((course**2).mean(axis=2, keepdims=True))
