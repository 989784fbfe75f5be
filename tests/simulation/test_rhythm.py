"""Beats of sinus rhythm and of atrial fibrillation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcmr.simulation.rhythm import MIN_RR_S, draw_rhythm, pink_noise


@given(rate=st.floats(40.0, 130.0), seed=st.integers(0, 10_000), fibrillation=st.booleans())
@settings(max_examples=60, deadline=None)
def test_draw_rhythm__covers_the_recording_in_order(rate: float, seed: int, fibrillation: bool) -> None:
    rhythm = draw_rhythm(rate, np.random.default_rng(seed), fibrillation=fibrillation)
    assert np.diff(rhythm.onset_s).min() >= MIN_RR_S - 1e-9
    assert rhythm.onset_s[0] < -1.0
    assert rhythm.onset_s[-1] > 10.0 - 2.6 * 60.0 / rate
    assert len(rhythm.onset_s) == len(rhythm.apd_scale) == len(rhythm.breath)


@pytest.mark.parametrize("rate", [50.0, 70.0, 95.0])
def test_draw_rhythm__keeps_the_mean_rate(rate: float) -> None:
    def mean_rr(seed: int, fibrillation: bool) -> float:
        onset = draw_rhythm(rate, np.random.default_rng(seed), fibrillation=fibrillation).onset_s
        return float(np.diff(onset).mean())

    for fibrillation in (False, True):
        found = 60.0 / np.mean([mean_rr(seed, fibrillation) for seed in range(60)])
        assert found == pytest.approx(rate, rel=0.03)


def test_draw_rhythm__fibrillation_is_irregular_and_sinus_rhythm_is_not() -> None:
    def variation(seed: int, fibrillation: bool) -> float:
        rr = np.diff(draw_rhythm(75.0, np.random.default_rng(seed), fibrillation=fibrillation).onset_s)
        return float(rr.std() / rr.mean())

    assert np.median([variation(seed, True) for seed in range(40)]) > 0.12
    assert np.median([variation(seed, False) for seed in range(40)]) < 0.05


def test_draw_rhythm__action_potentials_shorten_with_rate_like_fridericia() -> None:
    scale = [draw_rhythm(rate, np.random.default_rng(1)).apd_scale.mean() for rate in (60.0, 90.0)]
    assert scale[0] == pytest.approx(1.0, abs=0.02)
    assert scale[1] / scale[0] == pytest.approx((60.0 / 90.0) ** (1 / 3), abs=0.02)


def test_pink_noise__power_falls_as_one_over_frequency() -> None:
    rng = np.random.default_rng(0)
    power = np.mean([np.abs(np.fft.rfft(pink_noise(512, rng) * np.hanning(512))) ** 2 for _ in range(300)], axis=0)
    bins = np.arange(6, 120)
    slope = np.polyfit(np.log(bins), np.log(power[bins]), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.2)
