"""Units of voltage and the guard against numbers that contradict them."""

from __future__ import annotations

import numpy as np
import pytest

from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.ecg.units import check_amplitude, millivolts_per_unit, peak_to_peak


def _recording(scale: float, unit: str = "mV") -> EcgRecording:
    x = np.zeros((12, 5000), np.float32)
    for beat in range(10):  # a triangle of 100 ms and height 1 mV each second
        x[:, beat * 500 + 200 : beat * 500 + 250] = 1.0 - np.abs(np.linspace(-1, 1, 50))
    return EcgRecording(scale * x, 500.0, tuple("abcdefghijkl"), unit)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "factor"),
    [("mV", 1), ("mv", 1), ("MV", 1), ("uV", 1e-3), ("\u00b5V", 1e-3), ("\u03bcV", 1e-3), ("V", 1e3)],
)
def test_millivolts_per_unit__spellings(name: str, factor: float) -> None:
    assert millivolts_per_unit(name) == factor


@pytest.mark.parametrize("name", [None, "", "  "])
def test_millivolts_per_unit__a_missing_unit_is_no_guess(name: str | None) -> None:
    with pytest.raises(ValueError, match="missing"):
        millivolts_per_unit(name)


@pytest.mark.parametrize("name", ["mmHg", "NU", "adu", "z"])
def test_millivolts_per_unit__unknown(name: str) -> None:
    with pytest.raises(ValueError, match="unknown unit"):
        millivolts_per_unit(name)


@pytest.mark.parametrize("scale", [0.05, 1.0, 10.0])
def test_check_amplitude__accepts_what_a_heart_can_be(scale: float) -> None:
    check_amplitude(_recording(scale))


@pytest.mark.parametrize(("scale", "unit"), [(1000.0, "uV"), (0.001, "V")])
def test_check_amplitude__refuses_another_unit_and_names_it(scale: float, unit: str) -> None:
    with pytest.raises(ValueError, match=f"unit='{unit}'"):
        check_amplitude(_recording(scale))


def test_check_amplitude__standardised_flat_and_missing_leads_say_nothing() -> None:
    check_amplitude(_recording(1000.0, "z"))
    check_amplitude(_recording(0.0))
    missing = _recording(1.0)
    missing.samples[3:] = np.nan
    check_amplitude(missing)


def test_check_amplitude__a_few_artefacts_do_not_condemn_a_recording() -> None:
    spikes = _recording(1.0)
    spikes.samples[:, 100:105] = 5000.0
    spikes.samples[:2] *= 500.0
    check_amplitude(spikes)


def test_peak_to_peak__is_the_quantile_range_and_ignores_missing_samples() -> None:
    x = np.stack([np.arange(1001.0), np.full(1001, np.nan)])
    x = np.concatenate([x, np.full((2, 500), np.nan)], axis=1)
    got = peak_to_peak(x)
    assert got[0] == pytest.approx(990.0)
    assert np.isnan(got[1])
