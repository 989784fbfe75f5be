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
from numba import njit
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

from ecgcmr.simulation.action_potential import action_potential, step_kernels

Array = NDArray[np.float64]
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

    endo_ms: Array
    epi_ms: Array
    apd_endo_ms: Array
    apd_epi_ms: Array
    plateau_loss: Array

    def drive(self, time_ms: Array, apd_scale: float = 1.0) -> Array:
        """Difference of the faces (n, T) at times (T,) [ms]: the formula as it stands, slow, for tests and figures."""
        t = time_ms[None, :]
        inner = action_potential(
            t - self.endo_ms[:, None], self.apd_endo_ms[:, None] * apd_scale, self.plateau_loss[:, None]
        )
        return inner - action_potential(t - self.epi_ms[:, None], self.apd_epi_ms[:, None] * apd_scale)


@njit(cache=True)
def _deposit(out_TE, start, faces, weight, share):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Add impulses of all beats to the grid, each shared by its two neighboring samples.

    Args:
        out_TE: Grid (T, E), changed in place.
        start: Onset of each beat (b,) [samples].
        faces: Time after the onset of both faces (b, 2, n) [samples].
        weight: Transfer of each beat (b, n, E).
        share: Factor of the impulse of both faces (2, n); the outer face has the opposite sign.
    """
    last = out_TE.shape[0] - 2
    for b in range(start.shape[0]):
        for face in range(2):
            for i in range(faces.shape[2]):
                place = min(max(start[b] + faces[b, face, i], 0.0), last + 0.999)
                low = int(place)
                high_share = (place - low) * share[face, i]
                low_share = share[face, i] - high_share
                for e in range(out_TE.shape[1]):
                    out_TE[low, e] += low_share * weight[b, i, e]
                    out_TE[low + 1, e] += high_share * weight[b, i, e]


@dataclass(frozen=True)
class VentricularPotentials:
    """Potentials (E, T) by origin; their sum is the ventricular ECG, and the parts give truthful intervals."""

    depolarization: Array
    repolarization: Array

    @property
    def total(self) -> Array:
        """QRS, ST and T together (E, T)."""
        return self.depolarization + self.repolarization


def ventricular_potentials(
    layer: DoubleLayer,
    transfer: Array,
    onset_s: Array,
    apd_scale: Array,
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
    scale = apd_scale[recent, None, None]
    earliest_s = min(0.0, float(onset_s[recent].min(initial=0.0)))
    lead_in = int(np.ceil(-earliest_s * rate_hz)) + kernels.before
    length = lead_in + n_samples + kernels.before + 2
    transfer = transfer[recent] if transfer.ndim == 3 else np.broadcast_to(transfer, (len(scale), *transfer.shape))
    weight = np.ascontiguousarray(transfer.transpose(0, 2, 1))
    start = onset_s[recent] * rate_hz + lead_in
    faces_ms = np.broadcast_to(np.stack([layer.endo_ms, layer.epi_ms]), (len(scale), 2, len(layer.endo_ms)))
    apd_ms = np.stack([layer.apd_endo_ms, layer.apd_epi_ms])
    size = next_fast_len(length + len(kernels.up), real=True)

    def spread(times_ms: Array, share: Array, kernel: Array) -> NDArray[Any]:
        grid = np.zeros((length, weight.shape[2]))
        _deposit(grid, start, times_ms * (rate_hz / 1000.0), weight, share)
        return rfft(np.ascontiguousarray(grid.T), size) * rfft(kernel, size)

    one = np.ones_like(layer.endo_ms)
    up = spread(faces_ms, np.stack([one, -one]), kernels.up)
    down = -spread(faces_ms + apd_ms * scale, np.stack([one - layer.plateau_loss, -one]), kernels.down)
    if np.any(layer.plateau_loss > 0.0):
        down -= spread(faces_ms, np.stack([layer.plateau_loss, 0.0 * one]), kernels.settle)

    def steps(spectrum: NDArray[Any]) -> Array:
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

    position_mm: Array
    moment: Array
    onset_ms: Array
    duration_ms: Array
    pr_ms: float

    @property
    def p_duration_ms(self) -> float:
        """Duration of the P wave [ms]."""
        return float((self.onset_ms + self.duration_ms).max())

    def drive(self, onset_s: Array, n_samples: int, rate_hz: float) -> Array:
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


def fibrillatory_drive(n_samples: int, rate_hz: float, rng: np.random.Generator) -> Array:
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
