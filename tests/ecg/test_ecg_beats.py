"""The beat detector against the simulator's truth, neurokit2 and the annotations of LUDB."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import neurokit2 as nk
import numpy as np
import pytest
import wfdb

from ecgcmr.ecg.beats import find_beats
from ecgcmr.ecg.bins import bin_edges, hold_gaps
from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.readers import open_ecg
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.simulation.design import Design
from ecgcmr.simulation.subject import SimulatedSubject, simulate_subject

MARGIN = 75  # a complex at the very edge of a recording may be seen or not [samples]


@pytest.fixture(scope="module")
def subjects() -> list[SimulatedSubject]:
    return [simulate_subject(Design(), 5, subject, "none") for subject in range(60)]


def _errors(found: np.ndarray, true: np.ndarray, tolerance: int) -> tuple[int, int]:
    """Missed beats, and found ones that are none."""
    missed = sum(not len(found) or np.abs(found - beat).min() > tolerance for beat in true)
    extra = sum(not len(true) or np.abs(true - beat).min() > tolerance for beat in found)
    return missed, extra


def _inside(samples: np.ndarray, n: int) -> np.ndarray:
    samples = np.asarray(samples)
    return samples[(samples > MARGIN) & (samples < n - MARGIN)]


def test_find_beats__finds_the_simulated_beats_and_few_others(subjects: list[SimulatedSubject]) -> None:
    ours, theirs, total = np.zeros(2, int), np.zeros(2, int), 0
    for subject in subjects:
        ecg = subject.ecg
        true = _inside(subject.truth["ecg_r_peaks"], ecg.n_samples)
        total += len(true)
        found = find_beats(ecg)
        everything = np.asarray(subject.truth["ecg_r_peaks"])
        ours += (_errors(found, true, 60)[0], _errors(_inside(found, ecg.n_samples), everything, 60)[1])
        _, info = nk.ecg_peaks(nk.ecg_clean(ecg.samples[1], sampling_rate=500), sampling_rate=500)
        peaks = np.asarray(info["ECG_R_Peaks"])
        theirs += (_errors(peaks, true, 60)[0], _errors(_inside(peaks, ecg.n_samples), everything, 60)[1])
    assert ours[0] <= 0.002 * total
    assert ours[1] <= 0.005 * total
    assert ours.sum() <= theirs.sum()


@pytest.mark.parametrize("rate", [100.0, 250.0, 257.0, 360.0, 1000.0])
def test_find_beats__finds_the_same_beats_at_any_sampling_rate(subjects: list[SimulatedSubject], rate: float) -> None:
    ecg = subjects[0].ecg
    time = np.arange(int(ecg.duration_s * rate)) / rate
    samples = np.stack([np.interp(time, np.arange(ecg.n_samples) / 500.0, row) for row in ecg.samples])
    other = replace(ecg, samples=samples.astype(np.float32), rate_hz=rate)
    np.testing.assert_allclose(find_beats(other) / rate, find_beats(ecg) / 500.0, atol=0.031)


@pytest.mark.parametrize("bpm", [25, 60, 120, 200])
def test_find_beats__counts_a_known_rate(bpm: int) -> None:
    time = np.arange(5000) / 500.0
    period = 60.0 / bpm
    phase = (time - 0.2 + period / 2) % period - period / 2
    wave = np.exp(-0.5 * (phase / 0.012) ** 2) + 0.2 * np.exp(-0.5 * ((phase - min(0.25, period / 2)) / 0.03) ** 2)
    rng = np.random.default_rng(0)
    samples = (wave * rng.normal(0, 1, (12, 1)) + rng.normal(0, 0.01, (12, 5000))).astype(np.float32)
    found = find_beats(EcgRecording(samples, 500.0, LEADS)) / 500.0
    expected = np.arange(0.2, 9.98, period)
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, atol=0.025)


def test_find_beats__one_loud_lead_does_not_hide_the_others(subjects: list[SimulatedSubject]) -> None:
    ecg = subjects[1].ecg
    samples = ecg.samples.copy()
    samples[8] = np.random.default_rng(0).normal(0, 20, ecg.n_samples)
    np.testing.assert_allclose(find_beats(replace(ecg, samples=samples)), find_beats(ecg), atol=10)


def test_find_beats__gaps_and_short_recordings(subjects: list[SimulatedSubject]) -> None:
    ecg = subjects[2].ecg
    samples = ecg.samples.copy()
    samples[:, 1000:1100] = np.nan
    before = samples.copy()
    found = find_beats(replace(ecg, samples=samples))
    np.testing.assert_array_equal(samples, before)
    true = find_beats(ecg)
    away = true[(true < 900) | (true > 1300)]
    assert _errors(found, away, 15)[0] == 0
    for n in (0, 1, 3, 20):
        assert len(find_beats(replace(ecg, samples=ecg.samples[:, :n]))) == 0
    assert len(find_beats(replace(ecg, samples=np.zeros((12, 5000), np.float32)))) == 0


@pytest.mark.parametrize(("rate", "n"), [(500.0, 5000), (257.0, 2570), (100.0, 1000), (60.0, 600), (999.9, 9999)])
def test_bin_edges__cover_time_evenly(rate: float, n: int) -> None:
    edges = bin_edges(n, rate)
    assert edges[0] == 0
    assert edges[-1] <= n
    assert (np.diff(edges) >= 1).all()
    assert n - edges[-1] <= max(1.0, rate * 0.01) + 1
    np.testing.assert_allclose(edges, np.arange(len(edges)) * max(1.0, rate * 0.01), atol=0.51)


def test_hold_gaps__holds_the_last_value_and_counts() -> None:
    rows = np.array([[1, np.nan, np.inf, 2], [np.nan, 3, 4, np.nan], [5, 6, 7, 8], [np.nan] * 4], np.float32)
    before = rows.copy()
    out, missing = hold_gaps(rows)
    np.testing.assert_array_equal(out, [[1, 1, 1, 2], [3, 3, 4, 4], [5, 6, 7, 8], [0, 0, 0, 0]])
    np.testing.assert_array_equal(missing, [2, 2, 0, 4])
    np.testing.assert_array_equal(rows, before)


@pytest.mark.shared
def test_find_beats__agrees_with_the_annotations_of_ludb(shared_data: Path) -> None:
    missed = extra = total = 0
    for path in sorted((shared_data / "ludb" / "data").glob("*.hea")):
        found = find_beats(open_ecg(path, gain_uv_per_unit=1.0))
        annotation = wfdb.rdann(str(path.with_suffix("")), "ii")
        true = annotation.sample[np.array(annotation.symbol) == "N"]
        within = found[(found > true[0] - 100) & (found < true[-1] + 100)]  # the ends are not annotated
        errors = _errors(within, true, 75)
        missed, extra, total = missed + errors[0], extra + errors[1], total + len(true)
    assert total > 140
    assert missed == 0
    assert extra <= 2  # spikes of an atrial pacemaker in one record
