"""Compiled filters and resampling against scipy and against physics."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy import signal

from ecgcmr.ecg.filters import LANES, butterworth, notch, rational_ratio, resample, sosfiltfilt


def _noise(rows: int, n: int) -> np.ndarray:
    return np.random.default_rng(0).normal(3.0, 1.0, (rows, n))


@pytest.mark.parametrize(("rate", "target"), [(500, 100), (250, 100), (1000, 500), (400, 500), (360, 100), (128, 500)])
@pytest.mark.parametrize("n", [37, 1001])
def test_resample__equals_scipy_with_held_ends(rate: int, target: int, n: int) -> None:
    x = _noise(3, n)
    ratio = Fraction(target, rate)
    expected = signal.resample_poly(x, ratio.numerator, ratio.denominator, axis=-1, padtype="edge")
    np.testing.assert_allclose(resample(x, rate, target), expected, atol=1e-12)


@pytest.mark.parametrize(("rate", "target"), [(500, 100), (250, 500), (1000, 100), (257, 100)])
def test_resample__of_a_sine_is_the_sine_at_the_new_times(rate: int, target: int) -> None:
    n = rate * 10
    got = resample(np.sin(2 * np.pi * 7.0 * np.arange(n) / rate), rate, target)
    assert got.shape == (target * 10,)
    t = np.arange(target * 10) / target
    inside = slice(target, -target)
    np.testing.assert_allclose(got[inside], np.sin(2 * np.pi * 7.0 * t)[inside], atol=2e-3)


def test_resample__removes_what_the_new_rate_cannot_hold() -> None:
    aliasing = np.sin(2 * np.pi * 90.0 * np.arange(5000) / 500)
    assert np.abs(resample(aliasing, 500, 100)[50:-50]).max() < 2e-3


def test_resample__keeps_an_offset_up_to_the_ends() -> None:
    np.testing.assert_allclose(resample(np.full((2, 777), 5.0), 500, 100), 5.0, atol=0.02)


def test_resample__same_rate_changes_nothing() -> None:
    x = _noise(2, 100)
    np.testing.assert_array_equal(resample(x, 250, 250.0), x)


def test_rational_ratio__refuses_what_whole_numbers_cannot_say() -> None:
    assert rational_ratio(499.9999, 100) == Fraction(1, 5)
    with pytest.raises(ValueError, match="cannot resample"):
        rational_ratio(500.0, 500.0 * np.sqrt(2) / 3000)
    with pytest.raises(ValueError, match="positive"):
        rational_ratio(0.0, 100)


@pytest.mark.parametrize("rows", [1, LANES, LANES + 3])
@pytest.mark.parametrize("rate", [100.0, 500.0])
def test_sosfiltfilt__equals_scipy(rows: int, rate: float) -> None:
    x = _noise(rows, 1200)
    for sos in (butterworth("bandpass", 2, 0.5, 40.0, rate), butterworth("lowpass", 3, 0.0, 40.0, rate)):
        expected = signal.sosfiltfilt(sos, x, axis=-1, padtype="odd", padlen=150)
        np.testing.assert_allclose(sosfiltfilt(x, sos, 150), expected, atol=1e-8)


def test_sosfiltfilt__has_no_phase() -> None:
    pulse = np.zeros(1001)
    pulse[500] = 1.0
    response = sosfiltfilt(pulse, butterworth("bandpass", 2, 0.5, 40.0, 500.0), 300)
    assert int(np.argmax(response)) == 500
    # an even response; the forward pass meets the end of the record before the backward one, hence the tolerance
    np.testing.assert_allclose(response[500:700], response[500:300:-1], atol=1e-4)


def test_sosfiltfilt__a_passed_sine_is_not_shifted_and_a_stopped_one_is_gone() -> None:
    t = np.arange(5000) / 500
    sos = butterworth("bandpass", 2, 0.5, 40.0, 500.0)
    middle = slice(1500, 3500)
    passed = np.sin(2 * np.pi * 6 * t)
    np.testing.assert_allclose(sosfiltfilt(passed, sos, 750)[middle], passed[middle], atol=5e-3)
    assert np.abs(sosfiltfilt(np.sin(2 * np.pi * 0.05 * t), sos, 750)[middle]).max() < 2e-3
    assert np.abs(sosfiltfilt(np.full(5000, 40.0), sos, 750)).max() < 1e-6


def test_notch__removes_the_mains_only() -> None:
    t = np.arange(5000) / 500
    middle = slice(1000, 4000)
    sos = notch(50.0, 30.0, 500.0)
    assert np.abs(sosfiltfilt(np.sin(2 * np.pi * 50 * t), sos, 500)[middle]).max() < 1e-2
    other = np.sin(2 * np.pi * 30 * t)
    np.testing.assert_allclose(sosfiltfilt(other, sos, 500)[middle], other[middle], atol=2e-2)


@pytest.mark.parametrize("edges", [(0.5, 60.0), (0.0, 40.0), (40.0, 0.5)])
def test_butterworth__refuses_edges_outside_the_rate(edges: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="edges"):
        butterworth("bandpass", 2, *edges, 100.0)


def test_notch__refuses_a_frequency_beyond_half_the_rate() -> None:
    with pytest.raises(ValueError, match="must lie below 50 Hz"):
        notch(50.0, 30.0, 100.0)
