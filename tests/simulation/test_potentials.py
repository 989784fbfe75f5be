"""The fast sum over shifted steps against the formula evaluated as it stands."""

from __future__ import annotations

import numpy as np
import pytest

from ecgcmr.simulation.potentials import AtrialDipoles, DoubleLayer, fibrillatory_drive, ventricular_potentials


@pytest.fixture
def layer() -> DoubleLayer:
    rng = np.random.default_rng(2)
    endo = rng.uniform(0.0, 70.0, 60)
    epi = endo + rng.uniform(6.0, 25.0, 60)
    loss = np.where(rng.uniform(size=60) < 0.3, 0.15, 0.0)
    return DoubleLayer(endo, epi, rng.uniform(290.0, 340.0, 60), rng.uniform(260.0, 300.0, 60), loss)


@pytest.mark.parametrize(("rate", "tolerance"), [(500.0, 0.02), (1000.0, 0.006)])
def test_ventricular_potentials__equal_the_double_layer_formula(
    layer: DoubleLayer, rate: float, tolerance: float
) -> None:
    rng = np.random.default_rng(4)
    transfer = rng.standard_normal((9, 60))
    n = int(1.4 * rate)
    onset, scale = np.array([-0.35, 0.25]), np.array([1.04, 0.95])
    fast = ventricular_potentials(layer, transfer, onset, scale, n_samples=n, rate_hz=rate)
    time_ms = np.arange(n) * 1000.0 / rate
    slow = sum(transfer @ layer.drive(time_ms - 1000.0 * t, s) for t, s in zip(onset, scale, strict=True))
    error = np.abs(fast.total - slow).max() / np.abs(slow).max()
    assert error < tolerance
    whole = ventricular_potentials(layer, transfer, onset, scale, n_samples=n, rate_hz=rate, split=False)
    np.testing.assert_allclose(whole.total, fast.total, atol=1e-9)


def test_ventricular_potentials__beats_that_are_over_leave_nothing(layer: DoubleLayer) -> None:
    transfer = np.random.default_rng(0).standard_normal((9, 60))
    one = ventricular_potentials(layer, transfer, np.array([0.4]), np.ones(1), n_samples=600, rate_hz=500.0)
    onsets = np.array([-3.0, -1.0, 0.4])
    more = ventricular_potentials(layer, transfer, onsets, np.ones(3), n_samples=600, rate_hz=500.0)
    np.testing.assert_allclose(more.total, one.total, atol=1e-9)
    # depolarization and repolarization both return to the baseline after the beat
    assert np.abs(one.depolarization[:, -1]).max() < 1e-6 * np.abs(one.depolarization).max()
    assert np.abs(one.total[:, 5]).max() < 1e-3 * np.abs(one.total).max()


def test_ventricular_potentials__transfer_of_each_beat_is_its_own(layer: DoubleLayer) -> None:
    rng = np.random.default_rng(1)
    fields = rng.standard_normal((2, 9, 60))
    onset, scale = np.array([0.1, 1.1]), np.ones(2)
    both = ventricular_potentials(layer, fields, onset, scale, n_samples=1100, rate_hz=500.0).total
    parts = [
        ventricular_potentials(layer, fields[k], onset[k : k + 1], scale[:1], n_samples=1100, rate_hz=500.0).total
        for k in range(2)
    ]
    np.testing.assert_allclose(both, parts[0] + parts[1], atol=1e-9)


def test_atrial_drive__starts_before_the_ventricles_by_the_pr_interval() -> None:
    atria = AtrialDipoles(np.zeros((2, 3)), np.ones((2, 3)), np.array([0.0, 30.0]), np.array([70.0, 80.0]), 160.0)
    course = atria.drive(np.array([1.0]), 1000, 500.0)
    active = np.flatnonzero(course.sum(axis=0) > 0)
    assert active[0] / 500.0 == pytest.approx(0.84, abs=0.003)
    assert (active[-1] - active[0]) / 500.0 == pytest.approx(atria.p_duration_ms / 1000.0, abs=0.005)


def test_fibrillatory_drive__lies_between_4_and_20_hz() -> None:
    course = fibrillatory_drive(5000, 500.0, np.random.default_rng(0))
    power = np.abs(np.fft.rfft(course, axis=2)) ** 2
    frequency = np.fft.rfftfreq(5000, 1 / 500.0)
    band = (frequency > 3.0) & (frequency < 20.0)
    assert power[..., band].sum() > 0.97 * power.sum()
    np.testing.assert_allclose((course**2).mean(axis=2), 1.0)
