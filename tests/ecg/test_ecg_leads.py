"""Lead names, reordering by name, and the limb leads that follow from I and II."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgcmr.ecg.leads import LEADS, canonical_lead, einthoven_residual, to_canonical
from ecgcmr.ecg.recording import EcgRecording


def _twelve(seed: int = 0, n: int = 50) -> np.ndarray:
    """Twelve leads that obey Einthoven and Goldberger."""
    rng = np.random.default_rng(seed)
    one, two = rng.normal(size=(2, n))
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return np.stack([*limb, *rng.normal(size=(6, n))]).astype(np.float32)


@pytest.mark.parametrize(
    ("written", "lead"),
    [
        ("AVR", "aVR"),
        ("avl", "aVL"),
        ("aVF ", "aVF"),
        ("Lead I", "I"),
        ("lead_iii", "III"),
        ("MDC_ECG_LEAD_V1", "V1"),
        ("MDC_ECG_LEAD_AVR", "aVR"),
        ("MDC_ECG_LEAD_II", "II"),
        ("MLII", "II"),
        ("mliii", "III"),
        ("DI", "I"),
        ("D3", "III"),
        ("C4", "V4"),
        ("v6", "V6"),
        ("ECG V2", "V2"),
    ],
)
def test_canonical_lead__usual_spellings(written: str, lead: str) -> None:
    assert canonical_lead(written) == lead


@pytest.mark.parametrize("written", ["V7", "-aVR", "", "IV", "vx", "V", "C0", "lead", "EEG Fpz"])
def test_canonical_lead__refuses_what_is_none_of_the_twelve(written: str) -> None:
    with pytest.raises(ValueError, match="unknown lead"):
        canonical_lead(written)


@given(st.permutations(range(12)), st.lists(st.sampled_from([str.upper, str.lower, str]), min_size=12, max_size=12))
def test_to_canonical__any_permutation_and_case_gives_the_same(order: list[int], cases: list) -> None:
    x = _twelve()
    names = tuple(case(LEADS[i]) for i, case in zip(order, cases, strict=True))
    got = to_canonical(EcgRecording(x[order], 500.0, names))
    assert got.leads == LEADS
    np.testing.assert_array_equal(got.samples, x)


@given(st.sets(st.sampled_from(["III", "aVR", "aVL", "aVF"])), st.randoms(use_true_random=False))
def test_to_canonical__derives_missing_limb_leads(removed: set[str], random) -> None:
    x = _twelve()
    kept = [i for i, lead in enumerate(LEADS) if lead not in removed]
    random.shuffle(kept)
    got = to_canonical(EcgRecording(x[kept], 500.0, tuple(LEADS[i] for i in kept)))
    np.testing.assert_allclose(got.samples, x, atol=1e-6)
    assert all(any(lead in note for note in got.notes) for lead in removed)


def test_to_canonical__names_every_missing_lead() -> None:
    keep = [0, 2, 3, 4, 5, 6, 7, 8, 10]  # without II, V4 and V6: nothing can be derived
    with pytest.raises(ValueError, match="missing leads II, V4, V6"):
        to_canonical(EcgRecording(_twelve()[keep], 500.0, tuple(LEADS[i] for i in keep)))


def test_to_canonical__refuses_a_lead_that_occurs_twice() -> None:
    x = np.concatenate([_twelve(), _twelve()[:1]])
    with pytest.raises(ValueError, match="lead V1 occurs twice: 'V1' and 'MDC_ECG_LEAD_V1'"):
        to_canonical(EcgRecording(x, 500.0, (*LEADS, "MDC_ECG_LEAD_V1")))


def test_to_canonical__does_not_derive_from_standardised_samples() -> None:
    with pytest.raises(ValueError, match="only in mV"):
        to_canonical(EcgRecording(_twelve()[[0, 1, *range(6, 12)]], 250.0, ("I", "II", *LEADS[6:]), "z"))


def test_to_canonical__says_which_leads_it_left_out() -> None:
    x = np.concatenate([_twelve(), np.ones((1, 50), np.float32)])
    got = to_canonical(EcgRecording(x, 500.0, (*LEADS, "vx")))
    assert got.samples.shape == (12, 50)
    assert got.notes == ("left out vx",)


def test_einthoven_residual__zero_when_the_law_holds_at_any_gain_and_large_when_gains_differ() -> None:
    x = _twelve(n=2000)[:3].astype(np.float64)
    assert einthoven_residual(7.0 * x + np.array([[1.0], [2.0], [-5.0]])) < 1e-6
    assert einthoven_residual(x * np.array([[1.0], [1.5], [0.7]])) > 0.3
    assert np.isnan(einthoven_residual(np.zeros((3, 10))))
