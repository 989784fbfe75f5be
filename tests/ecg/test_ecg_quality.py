"""Quality flags: planted defects raise them, gain, offset and order do not, and nothing raises an exception."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ecgcmr.ecg.leads import LEADS, to_canonical
from ecgcmr.ecg.quality import CODES, HARD_FLAGS, QualityLimits, check_ecg, electrodes
from ecgcmr.ecg.quality.kernels import baseline_range, longest_still, median_windows
from ecgcmr.ecg.quality.measures import measure
from ecgcmr.ecg.readers import open_ecg
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.simulation import defects
from ecgcmr.simulation.defects import DEFECTS
from ecgcmr.simulation.design import Design
from ecgcmr.simulation.subject import simulate_subject

# Flags that judge voltage; all others must not change with the gain.
VOLTAGE = {"amplitude_large", "amplitude_small", "artefact", "lead_off"}

# Share of simulated recordings in which each planted defect must be told; 1 where it is not named.
FOUND = {
    "a tenth of the voltage": 0.7,
    "ten times the voltage": 0.95,
    "a jump of 10 mV": 0.9,
    "RA and LA exchanged": 0.8,
    "RA and LL exchanged": 0.8,
    "RA and LA exchanged, any limb flag": 0.8,
    "RA and LL exchanged, any limb flag": 0.85,
    "LA and LL exchanged": 0.15,
    "V1 and V2 exchanged": 0.35,
    "V2 and V3 exchanged": 0.5,
    "V3 and V4 exchanged": 0.9,
    "V4 and V5 exchanged": 0.8,
    "V5 and V6 exchanged": 0.5,
    "V1 to V6 reversed": 0.8,
    "gains of the leads off by 20 %": 0.9,
}


def _simulate(n: int, seed: int, **acquisition: float) -> list[EcgRecording]:
    design = Design()
    design = replace(design, acquisition=replace(design.acquisition, **acquisition))
    return [simulate_subject(design, seed, subject, "none").ecg for subject in range(n)]


@pytest.fixture(scope="module")
def clean() -> list[EcgRecording]:
    """Forty recordings without lost or swapped electrodes."""
    return _simulate(40, 3, lead_off_rate=0.0, arm_swap_rate=0.0)


@pytest.fixture(scope="module")
def spotless(clean: list[EcgRecording]) -> list[EcgRecording]:
    """Those of them without any flag."""
    return [recording for recording in clean if not check_ecg(recording)]


def _codes(recording: EcgRecording) -> set[str]:
    return {flag.code for flag in check_ecg(recording)}


def test_check_ecg__clean_recordings_have_hardly_a_flag(clean: list[EcgRecording]) -> None:
    flagged = [_codes(recording) for recording in clean]
    assert sum(map(bool, flagged)) <= 3
    assert not any(codes & HARD_FLAGS for codes in flagged)


@pytest.mark.parametrize("name", DEFECTS)
def test_check_ecg__tells_a_planted_defect(name: str, spotless: list[EcgRecording]) -> None:
    rng = np.random.default_rng(1)
    found = [bool(_codes(DEFECTS[name].plant(recording, rng)) & set(DEFECTS[name].codes)) for recording in spotless]
    assert np.mean(found) >= FOUND.get(name, 1.0)


def test_check_ecg__tells_what_the_simulator_did() -> None:
    lost = _simulate(25, 4, lead_off_rate=1.0, arm_swap_rate=0.0)
    assert np.mean(["lead_off" in _codes(recording) for recording in lost]) >= 0.9
    swapped = _simulate(40, 5, lead_off_rate=0.0, arm_swap_rate=1.0)
    assert np.mean(["swapped_arms" in _codes(recording) for recording in swapped]) >= 0.75


def test_check_ecg__names_the_lead_and_the_number(spotless: list[EcgRecording]) -> None:
    samples = spotless[0].samples.copy()
    samples[7] = 0.0
    samples[3, 100:200] = np.nan
    flags = {flag.code: flag.detail for flag in check_ecg(replace(spotless[0], samples=samples))}
    assert flags["flat_lead"] == "no variation in V2"
    assert flags["missing_samples"] == f"{100 / 60000:.2%} of the samples are missing"
    samples[9] = np.nan
    flags = {flag.code: flag.detail for flag in check_ecg(replace(spotless[0], samples=samples))}
    assert flags["missing_lead"] == "100% or more of V4 is missing"


@settings(deadline=None, max_examples=20, derandomize=True)
@given(st.floats(0.6, 1.8), st.integers(0, 30))
def test_check_ecg__gain_changes_only_the_flags_about_voltage(
    spotless: list[EcgRecording], gain: float, which: int
) -> None:
    recording = spotless[which % len(spotless)]
    for plant in (lambda r: r, lambda r: defects.exchange_electrodes(r, "RA", "LL"), defects.reverse_chest):
        planted = plant(recording)
        assert _codes(defects.scale(planted, gain)) - VOLTAGE == _codes(planted) - VOLTAGE


@settings(deadline=None, max_examples=20, derandomize=True)
@given(st.integers(0, 30), st.permutations(range(12)), st.lists(st.floats(-3, 3), min_size=12, max_size=12))
def test_check_ecg__order_of_rows_and_offsets_change_nothing(
    spotless: list[EcgRecording], which: int, order: list[int], offsets: list[float]
) -> None:
    recording = spotless[which % len(spotless)]
    planted = defects.add_noise(recording, np.random.default_rng(which), 0.1)
    samples = (planted.samples + np.array(offsets, np.float32)[:, None])[order]
    other = replace(planted, samples=samples, leads=tuple(LEADS[i] for i in order))
    assert _codes(other) == _codes(planted)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.floats(0.1, 0.5), st.integers(0, 30))
def test_check_ecg__more_noise_is_never_less_of_a_finding(
    spotless: list[EcgRecording], share: float, which: int
) -> None:
    rng = np.random.default_rng(which)
    assert "noise" in _codes(defects.add_noise(spotless[which % len(spotless)], rng, share))


def test_measure__gives_back_the_noise_and_the_mains_that_were_added(spotless: list[EcgRecording]) -> None:
    quiet = replace(spotless[0], samples=np.zeros((12, 5000), np.float32))
    time = np.arange(5000) / 500.0
    noise = np.random.default_rng(0).normal(0, 0.05, (12, 5000))
    samples = (noise + 0.2 * np.sin(2 * np.pi * 50.0 * time + 1.0)).astype(np.float32)
    found = measure(replace(quiet, samples=samples))
    np.testing.assert_allclose(found.mains[..., 0], 0.2, rtol=0.1)
    assert found.mains[..., 1].max() < 0.02
    np.testing.assert_allclose(np.median(found.noise, axis=1), 0.05, rtol=0.15)
    samples = (noise + 0.1 * np.sin(2 * np.pi * 60.0 * time)).astype(np.float32)
    np.testing.assert_allclose(measure(replace(quiet, samples=samples)).mains[..., 1], 0.1, rtol=0.15)


def test_check_ecg__leaves_out_what_it_cannot_know(spotless: list[EcgRecording]) -> None:
    few = replace(spotless[0], samples=spotless[0].samples[:2], leads=("II", "V5"))
    assert _codes(few) == set()
    unknown = replace(spotless[0], leads=tuple(f"X{i}" for i in range(12)))
    assert _codes(unknown) == set()
    sd = spotless[0].samples.std(axis=1, keepdims=True)
    standardised = replace(spotless[0], samples=spotless[0].samples / sd, unit="z")
    assert _codes(standardised) == set()
    arms = defects.exchange_electrodes(spotless[0], "RA", "LA")
    standardised = replace(arms, samples=arms.samples / arms.samples.std(axis=1, keepdims=True), unit="z")
    assert _codes(standardised) <= {"swapped_arms"}


def test_check_ecg__limits_are_the_callers(spotless: list[EcgRecording]) -> None:
    assert _codes(spotless[0]) == set()
    strict = QualityLimits(rate_bpm=(300.0, 400.0), min_s=20.0)
    assert [flag.code for flag in check_ecg(spotless[0], strict)] == ["too_short", "odd_rate"]


def test_check_ecg__a_failing_check_is_a_flag(
    spotless: list[EcgRecording], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> tuple[str, float, float]:
        raise ZeroDivisionError("of subject 17")

    monkeypatch.setattr(electrodes.swaps, "limb_exchange", broken)
    noisy = defects.add_noise(spotless[0], np.random.default_rng(0), 0.1)
    flags = check_ecg(noisy)
    assert {"noise", "check_failed"} <= {flag.code for flag in flags}
    assert flags[-1].detail == "exchanged_limbs: ZeroDivisionError"
    assert "subject 17" not in caplog.text


def test_codes__are_unique_and_hard_ones_among_them() -> None:
    assert len(set(CODES)) == len(CODES)
    assert set(CODES) > HARD_FLAGS
    assert {code for defect in DEFECTS.values() for code in defect.codes} <= set(CODES)


@st.composite
def _recordings(draw: st.DrawFn) -> EcgRecording:
    """Anything that fits into the type."""
    n_leads = draw(st.integers(0, 14))
    rate = draw(st.sampled_from([1e-3, 1.0, 20.0, 49.9, 50.0, 100.0, 128.0, 257.0, 500.0, 1000.0, 1e6]))
    n = draw(st.sampled_from([0, 1, 2, 7, 99, 100, 101, 512, 1000, 3001]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    samples = rng.normal(0, draw(st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e4, 1e30, 1e38])), (n_leads, n))
    kind = draw(st.sampled_from(["as is", "beats", "round", "holes", "infinite", "blank", "step", "same"]))
    if kind == "beats" and n:
        samples[:, :: max(1, n // 10)] += 5.0
    elif kind == "round":
        samples = np.round(samples)
    elif kind == "holes":
        samples[rng.random(samples.shape) < 0.5] = np.nan
    elif kind == "infinite":
        samples[rng.random(samples.shape) < 0.1] = rng.choice([np.inf, -np.inf])
    elif kind == "blank":
        samples[:] = np.nan
    elif kind == "step":
        samples[:, n // 2 :] += 1e6
    elif kind == "same" and n_leads:
        samples[:] = samples[0]
    names = draw(st.permutations([*LEADS, "VX", "lead \u00b5", "avr"]))
    with np.errstate(over="ignore"):
        samples = samples.astype(draw(st.sampled_from([np.float32, np.float64])))
    if draw(st.booleans()):
        samples = np.asfortranarray(samples)
    samples.flags.writeable = draw(st.booleans())
    return EcgRecording(samples, rate, tuple(names[:n_leads]), draw(st.sampled_from(["mV", "z"])))


@settings(deadline=None, max_examples=150)
@given(_recordings())
@example(EcgRecording(np.zeros((12, 0), np.float32), 500.0, LEADS))
@example(EcgRecording(np.full((12, 5000), np.nan, np.float32), 500.0, LEADS))
@example(EcgRecording(np.full((12, 5000), np.inf, np.float32), 500.0, LEADS))
def test_check_ecg__never_raises_and_never_fails(recording: EcgRecording) -> None:
    before = recording.samples.copy()
    flags = check_ecg(recording)
    codes = [flag.code for flag in flags]
    assert codes == sorted(codes, key=CODES.index)
    # a rate of some samples a second can only be refused; everything else has an answer of its own
    assert "check_failed" not in codes or recording.rate_hz < 50.0
    np.testing.assert_array_equal(recording.samples, before)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(0, 30), st.integers(0, 2**32 - 1), st.integers(1, 200))
def test_check_ecg__survives_mutated_files(spotless: list[EcgRecording], which: int, seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    recording = spotless[which % len(spotless)]
    raw = bytearray(recording.samples.tobytes())
    for place in rng.integers(len(raw), size=count):
        raw[place] = rng.integers(256)
    mutated = replace(recording, samples=np.frombuffer(bytes(raw), np.float32).reshape(recording.samples.shape))
    assert "check_failed" not in _codes(mutated)


def test_longest_still__equals_the_definition() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        values = rng.integers(0, 4, (1, 40)).astype(np.float32)
        begin, end = longest_still(values, values, np.float32(1.0))[0]
        expected = max((j - i) for i in range(40) for j in range(i + 1, 41) if np.ptp(values[0, i:j]) <= 1.0)
        assert np.ptp(values[0, begin:end]) <= 1.0
        assert end - begin >= min(expected, 2)  # greedy: at least the run that starts where the last one broke
    held = rng.normal(size=(2, 100)).astype(np.float32)
    held[0, 20:70] = 0.5
    np.testing.assert_array_equal(longest_still(held, held, np.float32(1e-3))[0], [20, 70])


def test_median_windows__equals_numpy() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, 200)).astype(np.float32)
    for centers in ([50, 90, 120], [60, 61, 62, 150]):
        windows = np.stack([rows[:, c - 10 : c + 20] for c in centers])
        found = median_windows(rows, np.array(centers), 10, 20)
        np.testing.assert_allclose(found, np.median(windows, axis=0), rtol=1e-6)


def test_baseline_range__of_a_slow_wave_is_its_range_and_of_spikes_nothing() -> None:
    time = np.arange(1000) * 0.01
    wave = np.sin(2 * np.pi * 0.2 * time).astype(np.float32)[None]
    assert baseline_range(wave, 10, 5)[0] == pytest.approx(2.0, rel=0.1)
    spikes = np.zeros((1, 1000), np.float32)
    spikes[0, ::80] = 3.0
    assert baseline_range(spikes, 10, 5)[0] < 0.05


@pytest.mark.shared
def test_check_ecg__real_recordings(shared_data: Path) -> None:
    records = shared_data / "cinc2021" / "records"
    flags = {path.stem: _codes(to_canonical(open_ecg(path))) for path in sorted(records.glob("*.hea"))}
    assert flags["JS20004"] == {"flat_lead"}  # V2, V4 and V6 hold nothing
    assert sum(bool(codes - {"swapped_left"}) for codes in flags.values()) <= 3
    ludb = shared_data / "ludb" / "data"
    flags = {p.stem: _codes(open_ecg(p, gain_uv_per_unit=1.0)) for p in sorted(ludb.glob("*.hea"))}
    assert flags["15"] == {"artefact", "baseline_wander"}  # the electrode of V4 moved, by sight
    assert sum(map(bool, flags.values())) == 1
    with np.load(shared_data / "ptbxl_raw_100hz" / "ecg.npz") as arrays:
        ptbxl = [_codes(EcgRecording(x.astype(np.float32) * 1e-3, 100.0, LEADS)) for x in arrays["ecg"]]
    assert not any(codes & HARD_FLAGS for codes in ptbxl)
    assert sum(map(bool, ptbxl)) <= 4


@pytest.mark.shared
def test_check_ecg__ludb_gains_break_einthovens_law(shared_data: Path) -> None:
    """With the gains of the headers the leads contradict each other."""
    path = shared_data / "ludb" / "data" / "1.hea"
    physical = open_ecg(path, gain_uv_per_unit=1.0)
    assert "einthoven" not in _codes(physical)
    import wfdb

    header = wfdb.rdheader(str(path.with_suffix("")))
    per_lead = np.array(header.adc_gain, np.float32)[:, None]
    assert "einthoven" in _codes(replace(physical, samples=physical.samples * 1e3 / per_lead))
