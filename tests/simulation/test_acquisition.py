"""What the recorder stores: quantization, band, laws that survive, and flagged accidents."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ecgcmr.ecg.leads import LEADS
from ecgcmr.simulation.acquisition import AcquisitionDesign, Recording, muscle_noise, record
from ecgcmr.simulation.lead_field import ELECTRODES, to_leads
from ecgcmr.simulation.rhythm import draw_rhythm

SILENT = AcquisitionDesign(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, lead_off_rate=0.0, arm_swap_rate=0.0)
RATE = 500.0


def made(design: AcquisitionDesign, seed: int = 0, potentials: np.ndarray | None = None) -> Recording:
    rng = np.random.default_rng(seed)
    rhythm = draw_rhythm(70.0, rng)
    return record(np.zeros((9, 5000)) if potentials is None else potentials, RATE, rhythm, rng, design)


def waves(seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(5000) / RATE
    return rng.standard_normal((9, 3)) @ np.sin(2 * np.pi * np.array([[3.0], [9.0], [21.0]]) * time)


def test_record__is_int16_in_microvolts() -> None:
    recording = made(AcquisitionDesign(), potentials=waves())
    assert recording.microvolts.dtype == np.int16
    assert recording.microvolts.shape == (12, 5000)
    np.testing.assert_allclose(recording.millivolts * 1000.0, recording.microvolts, atol=1e-3)


def test_record__without_noise_gives_the_leads_within_the_band() -> None:
    potentials = waves()
    recording = made(SILENT, potentials=potentials)
    middle = slice(1000, 4500)
    clean = to_leads(potentials)[:, middle]
    # a causal low-pass delays by some milliseconds: compare at the best lag
    stored = recording.millivolts
    errors = [np.abs(stored[:, 1000 + lag : 4500 + lag] - clean).max() / np.abs(clean).max() for lag in range(4)]
    assert min(errors) < 0.09


def test_record__noise_and_gain_keep_einthoven_up_to_rounding() -> None:
    recording = made(AcquisitionDesign(lead_off_rate=1.0, arm_swap_rate=1.0), seed=4, potentials=waves())
    one, two, three = (recording.microvolts[LEADS.index(name)].astype(int) for name in ("I", "II", "III"))
    assert np.abs(one + three - two).max() == 0
    augmented = sum(recording.microvolts[LEADS.index(name)].astype(int) for name in ("aVR", "aVL", "aVF"))
    assert np.abs(augmented).max() <= 2


def test_record__swapped_arms_mirror_lead_one_and_are_flagged() -> None:
    potentials = waves()
    right = made(SILENT, seed=2, potentials=potentials)
    wrong = made(replace(SILENT, arm_swap_rate=1.0), seed=2, potentials=potentials)
    lead = {name: LEADS.index(name) for name in LEADS}
    np.testing.assert_allclose(wrong.microvolts[lead["I"]], -right.microvolts[lead["I"]].astype(int), atol=1)
    np.testing.assert_allclose(wrong.microvolts[lead["II"]], right.microvolts[lead["III"]], atol=2)
    np.testing.assert_allclose(wrong.microvolts[lead["V3"]], right.microvolts[lead["V3"]], atol=1)
    assert wrong.truth["arm_swap"] == 1.0
    assert right.truth["arm_swap"] == 0.0
    assert wrong.notes == ("arm electrodes swapped",)


def test_record__a_lost_electrode_is_flagged_and_spoils_its_lead() -> None:
    potentials = waves()
    for seed in range(12):
        lost = made(replace(SILENT, lead_off_rate=1.0), seed=seed, potentials=potentials)
        assert lost.truth["lead_off"] == 1.0
        name = lost.notes[0].removeprefix("electrode off: ")
        assert name in ELECTRODES
        if name.startswith("V"):
            good = made(SILENT, seed=seed, potentials=potentials)
            spoiled = np.abs(lost.microvolts.astype(int) - good.microvolts).max(axis=1) > 50
            assert {LEADS[k] for k in np.flatnonzero(spoiled)} == {name}


def test_record__accidents_come_at_their_rate() -> None:
    design = AcquisitionDesign(lead_off_rate=0.2, arm_swap_rate=0.1)
    truths = [made(design, seed=seed).truth for seed in range(90)]
    assert np.mean([t["lead_off"] for t in truths]) == pytest.approx(0.2, abs=0.13)
    assert np.mean([t["arm_swap"] for t in truths]) == pytest.approx(0.1, abs=0.1)


def test_record__noise_grows_with_its_design() -> None:
    quiet = np.median([np.std(made(AcquisitionDesign(), seed).millivolts) for seed in range(12)])
    loud = AcquisitionDesign(wander_mv=0.15, muscle_mv=0.024, mains_mv=0.009, motion_mv=0.18)
    noisy = np.median([np.std(made(loud, seed).millivolts) for seed in range(12)])
    assert noisy == pytest.approx(3.0 * quiet, rel=0.5)


def test_muscle_noise__has_unit_rms_and_little_power_below_5_hz() -> None:
    noise = muscle_noise((9, 5000), RATE, np.random.default_rng(0))
    np.testing.assert_allclose(np.sqrt((noise**2).mean(axis=1)), 1.0, rtol=1e-4)
    power = np.abs(np.fft.rfft(noise)) ** 2
    frequency = np.fft.rfftfreq(5000, 1 / RATE)
    assert power[:, frequency < 5].sum() < 0.01 * power.sum()
