"""One subject end to end: deterministic, complete, and the same story in both modalities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ecgcmr.ecg.leads import LEADS
from ecgcmr.simulation import Design, Heart, simulate_subject
from ecgcmr.simulation.phenotypes import PHENOTYPES
from ecgcmr.simulation.subject import simulate_heart


def test_simulate_subject__is_complete() -> None:
    made = simulate_subject(Design(), 3, 1, cine="mid3")
    assert made.ecg.leads == LEADS
    assert (made.ecg.rate_hz, made.ecg.unit, made.ecg.samples.shape) == (500.0, "mV", (12, 5000))
    assert made.sax is not None
    assert made.sax.pixels.shape[:2] == (1, 3)
    assert made.four_chamber is None
    assert {spec.name for spec in PHENOTYPES} <= set(made.phenotypes)
    assert set(made.diagnoses.values()) <= {0, 1}
    assert {"sex", "age_years", "age_band", "bmi_band", "scanner", "site", "group"} <= set(made.groups)
    assert len(made.truth["activation_ms"]) == 17
    peaks = np.array(made.truth["ecg_r_peaks"])
    assert len(peaks) == pytest.approx(made.truth["ecg_heart_rate_bpm"] / 6.0, abs=1.5)


def test_simulate_subject__same_seed_and_subject_give_the_same_bytes() -> None:
    first, again = (simulate_subject(Design(), 3, 5, cine="none") for _ in range(2))
    np.testing.assert_array_equal(first.ecg.samples, again.ecg.samples)
    assert first.phenotypes == again.phenotypes
    assert str(first.truth) == str(again.truth)
    assert not np.array_equal(first.ecg.samples, simulate_subject(Design(), 3, 6, cine="none").ecg.samples)
    assert not np.array_equal(first.ecg.samples, simulate_subject(Design(), 4, 5, cine="none").ecg.samples)


def test_simulate_subject__samples_are_whole_microvolts() -> None:
    samples = simulate_subject(Design(), 3, 2, cine="none").ecg.samples.astype(np.float64) * 1000.0
    np.testing.assert_allclose(samples, np.round(samples), atol=2e-3)
    assert np.abs(samples).max() < 32_767


def test_simulate_subject__the_choice_of_cine_changes_nothing_else() -> None:
    small, none = (simulate_subject(Design(), 3, 4, cine=cine) for cine in ("mid3", "none"))  # type: ignore[arg-type]
    np.testing.assert_array_equal(small.ecg.samples, none.ecg.samples)
    assert small.phenotypes == none.phenotypes
    assert str(small.outcomes) == str(none.outcomes)


def test_simulate_subject__refuses_an_unknown_cine() -> None:
    with pytest.raises(ValueError, match="full"):
        simulate_subject(Design(), 0, 0, cine="half")  # type: ignore[arg-type]


def test_simulate_heart__activation_delays_contraction() -> None:
    heart = Heart(lbbb=True)
    late, _ = simulate_heart(heart)
    normal, _ = simulate_heart(replace(heart, lbbb=False))
    assert late.delay_ms.min() == pytest.approx(0.0)
    lateral, septal = [4, 5, 10, 11], [1, 2, 7, 8]
    assert late.delay_ms[lateral].mean() > late.delay_ms[septal].mean() + 40.0
    assert np.ptp(late.delay_ms) > 1.5 * np.ptp(normal.delay_ms)
