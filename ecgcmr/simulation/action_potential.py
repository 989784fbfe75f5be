"""Shape of the transmembrane potential, as three step responses that can be shifted and added.

Writing the action potential as a sum of steps, each moved to its own time, is what makes the ECG cheap: the potentials
of a thousand wall points become three trains of weighted impulses, convolved once with three fixed kernels
(`potentials.py`), instead of a thousand action potentials sampled one by one.

    AP(t; APD, a) = up(t) - a * settle(t) - (1 - a) * down(t - APD)

`a` is the loss of plateau of ischemic tissue. The resting potential is 0 and the healthy plateau 1; the 100 mV between
them belong to the global gain.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# The front takes some ms to cross a wall patch of 5 mm, so the upstroke of a patch is wider than that of a cell.
UPSTROKE_MS = 2.6
# Phase 3 begins slowly and ends faster: the T wave that follows has a slow upslope and a steeper downslope.
REPOLARIZATION_RISE_MS = 64.0
REPOLARIZATION_FALL_MS = 30.0
# An ischemic cell reaches its lower plateau after phase 1.
SETTLE_MS = 10.0
SETTLE_DELAY_MS = 45.0


def upstroke(time_ms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Depolarization from 0 to 1, centered on `time_ms` = 0 (logistic)."""
    return 0.5 * (1.0 + np.tanh(time_ms / (2.0 * UPSTROKE_MS)))


def settling(time_ms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fall to the lower plateau of ischemic tissue, 0 to 1, starting after the upstroke is over."""
    return 0.5 * (1.0 + np.tanh((time_ms - SETTLE_DELAY_MS) / (2.0 * SETTLE_MS)))


@lru_cache(maxsize=1)
def _repolarization_table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Time [ms] and repolarized share 0 to 1; the share is 0.9 at time 0, so that APD means APD90."""
    grid = np.arange(-600.0, 300.0, 0.25)
    speed = 1.0 / (np.exp(-grid / REPOLARIZATION_RISE_MS) + np.exp(grid / REPOLARIZATION_FALL_MS))
    share = np.concatenate([[0.0], np.cumsum(0.5 * (speed[1:] + speed[:-1]))])
    share /= share[-1]
    return grid - np.interp(0.9, share, grid), share


def repolarization(time_ms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Repolarized share, 0 to 1; 0.9 at `time_ms` = 0."""
    grid, share = _repolarization_table()
    return np.interp(time_ms, grid, share)


def action_potential(
    time_ms: NDArray[np.float64],
    apd_ms: NDArray[np.float64] | float,
    plateau_loss: NDArray[np.float64] | float = 0.0,
) -> NDArray[np.float64]:
    """Transmembrane potential after activation at time 0.

    Args:
        time_ms: Time since activation [ms], any shape.
        apd_ms: Duration to 90 % repolarization [ms], broadcast against `time_ms`.
        plateau_loss: Share of the plateau lost to ischemia, 0 to 1.

    Returns:
        Potential between 0 (rest) and 1 (healthy plateau).
    """
    return (
        upstroke(time_ms) - plateau_loss * settling(time_ms) - (1.0 - plateau_loss) * repolarization(time_ms - apd_ms)
    )


@dataclass(frozen=True)
class StepKernels:
    """The three steps sampled on a regular grid, as increments, so that a convolution needs no cumulative sum.

    Attributes:
        rate_hz: Sampling rate of the grid [Hz].
        before: Samples of the kernels that lie before time 0.
        up: Increments of `upstroke`, (K,).
        settle: Increments of `settling`, (K,).
        down: Increments of `repolarization`, (K,).
    """

    rate_hz: float
    before: int
    up: NDArray[np.float64]
    settle: NDArray[np.float64]
    down: NDArray[np.float64]


@lru_cache(maxsize=4)
def step_kernels(rate_hz: float) -> StepKernels:
    """Sampled increments of the three steps on [-500 ms, +250 ms], long enough for the slowest of them."""
    before = round(0.500 * rate_hz)
    after = round(0.250 * rate_hz)
    edges_ms = np.arange(-before - 1, after + 1, dtype=np.float64) * (1000.0 / rate_hz)
    increments = [np.diff(step(edges_ms)) for step in (upstroke, settling, repolarization)]
    return StepKernels(rate_hz, before, *(row / row.sum() for row in increments))
