"""Fewer than twelve leads: limb leads follow from any two of them, the others stay absent, nothing is made up."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.preprocessing import EcgPipeline, Step, named_pipeline
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.ecg.reduced import NoLeadError, available_leads, canonical_leads, leads_present, prepare_available

LIMB = LEADS[:6]


@pytest.fixture(scope="module")
def twelve() -> EcgRecording:
    """Twelve leads [mV] that obey Einthoven and Goldberger exactly."""
    rng = np.random.default_rng(5)
    one, two, *chest = rng.normal(0, 0.3, (8, 3000)).cumsum(axis=1) / 20
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return EcgRecording(np.stack([*limb, *chest]).astype(np.float32), 500.0, LEADS)


def pick(recording: EcgRecording, leads: tuple[str, ...]) -> EcgRecording:
    return replace(recording, samples=recording.samples[[LEADS.index(lead) for lead in leads]], leads=leads)


@pytest.mark.parametrize("pair", list(combinations(LIMB, 2)), ids="-".join)
def test_available_leads__any_two_limb_leads_give_all_six(twelve: EcgRecording, pair: tuple[str, str]) -> None:
    found = available_leads(pick(twelve, (*pair[::-1], "V1")))
    assert leads_present(found.samples) == (*LIMB, "V1")
    assert np.allclose(found.samples[:7], twelve.samples[:7], atol=1e-5)
    assert np.isnan(found.samples[7:]).all()
    assert any("derived" in note for note in found.notes)


def test_available_leads__one_limb_lead_or_lost_voltage_derives_nothing(twelve: EcgRecording) -> None:
    assert leads_present(available_leads(pick(twelve, ("II", "V5"))).samples) == ("II", "V5")
    lost = replace(pick(twelve, ("I", "II")), unit="z")
    assert leads_present(available_leads(lost).samples) == ("I", "II")


def test_available_leads__a_lead_without_a_sample_is_absent_and_derived_where_it_can_be(twelve: EcgRecording) -> None:
    samples = twelve.samples.copy()
    samples[[2, 8]] = np.nan
    found = available_leads(replace(twelve, samples=samples))
    assert leads_present(found.samples) == tuple(lead for lead in LEADS if lead != "V3")
    assert np.allclose(found.samples[2], twelve.samples[2], atol=1e-5)


def test_available_leads__nothing_follows_from_a_lead_that_is_left_out(twelve: EcgRecording) -> None:
    samples = twelve.samples.copy()
    samples[0] = 1e3  # a broken electrode
    samples[2] = np.nan
    found = available_leads(replace(twelve, samples=samples), only=("II", "III", "aVF", "V1"))
    assert leads_present(found.samples) == ("II", "III", "aVF", "V1")
    assert np.allclose(found.samples[2], twelve.samples[2], atol=1e-5)  # from II and aVF, not from I
    alone = available_leads(replace(twelve, samples=samples), only=("II", "III", "V1"))
    assert leads_present(alone.samples) == ("II", "V1")


def test_available_leads__none_left(twelve: EcgRecording) -> None:
    with pytest.raises(NoLeadError, match=r"no usable lead among V2; the recording has I, II"):
        available_leads(pick(twelve, ("I", "II")), only=("V2",))
    with pytest.raises(NoLeadError, match="no usable lead"):
        available_leads(replace(twelve, samples=np.full_like(twelve.samples, np.nan)))


@pytest.mark.parametrize("name", ["reference", "highpass_z"])
def test_prepare_available__twelve_leads_are_what_the_pipeline_gives(twelve: EcgRecording, name: str) -> None:
    pipeline = named_pipeline(name)
    assert np.array_equal(prepare_available(pipeline, available_leads(twelve)), pipeline(twelve))


def test_prepare_available__leads_are_treated_one_by_one(twelve: EcgRecording) -> None:
    pipeline = named_pipeline("highpass")
    found = prepare_available(pipeline, available_leads(pick(twelve, ("I", "V6", "V2"))))
    rows = [0, 7, 11]
    assert np.array_equal(found[rows], pipeline(twelve)[rows])
    assert np.isnan(np.delete(found, rows, axis=0)).all()


def test_prepare_available__group_statistics_are_of_the_leads_that_are_there(twelve: EcgRecording) -> None:
    steps = (Step("to_rate", {"hz": 500.0}), Step("group_zscore"), Step("fit_duration", {"seconds": 6.0}))
    found = prepare_available(EcgPipeline("groups", steps), available_leads(pick(twelve, ("aVF", "V1", "V5"))))
    chest = twelve.samples[[6, 10]].astype(np.float64)
    assert np.allclose(found[[6, 10]], (chest - chest.mean()) / chest.std(), atol=1e-5)
    foot = twelve.samples[5].astype(np.float64)
    assert np.allclose(found[5], (foot - foot.mean()) / foot.std(), atol=1e-5)


def test_prepare_available__needs_voltages_as_the_pipeline_does(twelve: EcgRecording) -> None:
    with pytest.raises(ValueError, match="needs voltages"):
        prepare_available(named_pipeline("highpass"), available_leads(replace(pick(twelve, ("I",)), unit="z")))


def test_canonical_leads__names_in_any_order() -> None:
    assert canonical_leads(["v1", "MDC_ECG_LEAD_II", "DI"]) == ("I", "II", "V1")
    with pytest.raises(ValueError, match="unknown lead"):
        canonical_leads(["I", "X"])
    with pytest.raises(ValueError, match="a list of leads"):
        canonical_leads("II")
