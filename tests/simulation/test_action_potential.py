"""The steps of the action potential: limits, durations, and their sampled increments."""

from __future__ import annotations

import numpy as np
import pytest

from ecgcmr.simulation.action_potential import action_potential, repolarization, step_kernels, upstroke


def test_action_potential__rests_peaks_and_recovers() -> None:
    value = action_potential(np.array([-100.0, 100.0, 800.0]), 300.0)
    assert value[0] == pytest.approx(0.0, abs=3e-3)
    assert value[1] > 0.9
    assert value[2] == pytest.approx(0.0, abs=3e-3)


@pytest.mark.parametrize("apd", [220.0, 300.0, 380.0])
def test_action_potential__is_90_percent_repolarized_at_its_duration(apd: float) -> None:
    assert action_potential(np.array([apd]), apd)[0] == pytest.approx(0.1, abs=1e-3)


def test_action_potential__ischemia_lowers_the_plateau_only() -> None:
    time = np.array([0.0, 150.0, 700.0])
    healthy, ischemic = action_potential(time, 300.0), action_potential(time, 300.0, 0.2)
    np.testing.assert_allclose(healthy[[0, 2]], ischemic[[0, 2]], atol=3e-3)
    assert healthy[1] - ischemic[1] == pytest.approx(0.2 * healthy[1], rel=0.05)


def test_repolarization__ends_faster_than_it_begins() -> None:
    time = np.arange(-300.0, 150.0)
    speed = np.diff(repolarization(time))
    peak = int(speed.argmax())
    rise = peak - int(np.flatnonzero(speed > speed.max() / 10)[0])
    fall = int(np.flatnonzero(speed > speed.max() / 10)[-1]) - peak
    assert rise > 1.5 * fall


def test_step_kernels__running_sum_is_the_step() -> None:
    kernels = step_kernels(1000.0)
    time = np.arange(len(kernels.up)) - kernels.before
    for kernel, step in ((kernels.up, upstroke), (kernels.down, repolarization)):
        assert kernel.sum() == pytest.approx(1.0)
        np.testing.assert_allclose(np.cumsum(kernel), step(time.astype(float)), atol=4e-3)
