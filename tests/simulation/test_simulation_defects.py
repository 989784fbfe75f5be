"""Planted defects are what they say: laws between the leads, sizes, and nothing else changed."""

from __future__ import annotations

import numpy as np
import pytest

from ecgcmr.ecg.leads import DERIVED_FROM_I_II, LEADS
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.simulation import defects
from ecgcmr.simulation.design import Design
from ecgcmr.simulation.lead_field import to_leads
from ecgcmr.simulation.subject import simulate_subject


@pytest.fixture(scope="module")
def ecg() -> EcgRecording:
    return simulate_subject(Design(), 8, 0, "none").ecg


def _lead(recording: EcgRecording, name: str) -> np.ndarray:
    return recording.samples[LEADS.index(name)]


def test_exchange_electrodes__gives_the_textbook_changes(ecg: EcgRecording) -> None:
    arms = defects.exchange_electrodes(ecg, "RA", "LA")
    for now, before, sign in (("I", "I", -1), ("II", "III", 1), ("III", "II", 1), ("aVR", "aVL", 1), ("aVF", "aVF", 1)):
        np.testing.assert_allclose(_lead(arms, now), sign * _lead(ecg, before), atol=2e-3)
    np.testing.assert_allclose(arms.samples[6:], ecg.samples[6:], atol=2e-3)
    right = defects.exchange_electrodes(ecg, "RA", "LL")
    for now, before, sign in (("I", "III", -1), ("II", "II", -1), ("III", "I", -1), ("aVR", "aVF", 1)):
        np.testing.assert_allclose(_lead(right, now), sign * _lead(ecg, before), atol=2e-3)
    left = defects.exchange_electrodes(ecg, "LA", "LL")
    for now, before, sign in (("I", "II", 1), ("III", "III", -1), ("aVL", "aVF", 1), ("aVR", "aVR", 1)):
        np.testing.assert_allclose(_lead(left, now), sign * _lead(ecg, before), atol=2e-3)
    chest = defects.exchange_electrodes(ecg, "V1", "V2")
    np.testing.assert_allclose(_lead(chest, "V1"), _lead(ecg, "V2"), atol=2e-3)


def test_exchange_electrodes__right_leg_leaves_one_lead_nearly_flat(ecg: EcgRecording) -> None:
    assert np.ptp(_lead(defects.exchange_electrodes(ecg, "RA", "RL"), "II")) < 0.1 * np.ptp(_lead(ecg, "II"))
    assert np.ptp(_lead(defects.exchange_electrodes(ecg, "LA", "RL"), "III")) < 0.1 * np.ptp(_lead(ecg, "II"))


@pytest.mark.parametrize("first", ["RA", "LA", "LL", "V1", "V4"])
@pytest.mark.parametrize("second", ["LA", "LL", "RL", "V6"])
def test_exchange_electrodes__twice_is_nothing_and_keeps_einthovens_law(
    ecg: EcgRecording, first: str, second: str
) -> None:
    once = defects.exchange_electrodes(ecg, first, second)
    for lead, (a, b) in DERIVED_FROM_I_II.items():
        np.testing.assert_allclose(_lead(once, lead), a * _lead(once, "I") + b * _lead(once, "II"), atol=1e-5)
    if second != "RL":
        again = defects.exchange_electrodes(once, first, second)
        np.testing.assert_allclose(again.samples, ecg.samples, atol=3e-3)


def test_exchange_electrodes__from_the_potentials_themselves() -> None:
    potentials = np.random.default_rng(0).normal(size=(9, 50))
    leads = EcgRecording(to_leads(potentials).astype(np.float32), 500.0, LEADS)
    swapped = potentials[[0, 5, 2, 3, 4, 1, 6, 7, 8]]  # LA and V3
    np.testing.assert_allclose(defects.exchange_electrodes(leads, "LA", "V3").samples, to_leads(swapped), atol=1e-5)


def test_exchange_electrodes__unknown_name(ecg: EcgRecording) -> None:
    with pytest.raises(ValueError, match="unknown electrode 'V7'"):
        defects.exchange_electrodes(ecg, "V7", "RA")


@pytest.mark.parametrize("name", defects.DEFECTS)
def test_defects__change_a_copy_and_depend_on_the_generator_alone(name: str, ecg: EcgRecording) -> None:
    before = ecg.samples.copy()
    plant = defects.DEFECTS[name].plant
    first, second = plant(ecg, np.random.default_rng(3)), plant(ecg, np.random.default_rng(3))
    np.testing.assert_array_equal(ecg.samples, before)
    np.testing.assert_array_equal(first.samples, second.samples)
    assert first.samples.dtype == np.float32
    assert first.samples.shape != before.shape or not np.array_equal(first.samples, before, equal_nan=True)


@pytest.mark.parametrize("plant", [defects.add_noise, defects.add_mains, defects.add_wander])
def test_defects_at_electrodes__keep_einthovens_law(plant: object, ecg: EcgRecording) -> None:
    noisy = plant(ecg, np.random.default_rng(0), 0.3)  # type: ignore[operator]
    np.testing.assert_allclose(_lead(noisy, "III"), _lead(noisy, "II") - _lead(noisy, "I"), atol=3e-3)
