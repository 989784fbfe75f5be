"""The ECG of latent hearts: invariances, healthy intervals, and what each disease does to the waves."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from ecgcmr.ecg.leads import LEADS
from ecgcmr.simulation.acquisition import AcquisitionDesign
from ecgcmr.simulation.design import Design
from ecgcmr.simulation.electrical_latents import ElectricsDesign, draw_electrics
from ecgcmr.simulation.electrics import EcgSimulation, activate, simulate_ecg, transfer
from ecgcmr.simulation.heart import TERRITORIES, Heart, Purpose
from ecgcmr.simulation.lead_field import to_leads
from ecgcmr.simulation.phenotypes import measure
from ecgcmr.simulation.population import draw_heart

QUIET = ElectricsDesign(*([0.0] * 9))
CLEAN = AcquisitionDesign(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, lead_off_rate=0.0, arm_swap_rate=0.0)


def ecg_of(heart: Heart, design: ElectricsDesign = QUIET, seed: int = 0) -> EcgSimulation:
    return simulate_ecg(heart, np.random.default_rng(seed), design=design, acquisition=CLEAN)


@dataclass
class Waves:
    """Sizes [mV] of R, S and T in each lead of the clean beat, and the QRS itself (12, T) at 1 kHz."""

    r: dict[str, float]
    s: dict[str, float]
    t: dict[str, float]
    qrs: dict[str, np.ndarray]


def waves_of(ecg: EcgSimulation) -> Waves:
    beat = ecg.beat
    start, stop = (beat.onset_index + int(x) for x in beat.qrs_ms)
    qrs, late = beat.leads[:, start - 2 : stop + 3], beat.leads[:, stop + 40 : beat.onset_index + int(beat.t_end_ms)]
    t = late[np.arange(12), np.abs(late).argmax(axis=1)]
    names = list(LEADS)
    return Waves(
        dict(zip(names, qrs.max(axis=1), strict=True)),
        dict(zip(names, -qrs.min(axis=1), strict=True)),
        dict(zip(names, t, strict=True)),
        dict(zip(names, qrs, strict=True)),
    )


def q_wave(qrs: np.ndarray, share: float = 0.25) -> bool:
    """A first deflection below the baseline of at least 30 ms or `share` of R."""
    size = np.abs(qrs).max()
    first = int(np.flatnonzero(np.abs(qrs) > 0.05 * size)[0])
    if qrs[first] > 0:
        return False
    back = np.flatnonzero(qrs[first:] > 0)
    width = int(back[0]) if len(back) else len(qrs) - first
    return width >= 30 or -qrs[first : first + width].min() > share * max(qrs.max(), 1e-9)


def scarred(territory: str, depth: float = 0.85) -> Heart:
    scar = np.zeros(17)
    scar[list(TERRITORIES[territory])] = depth
    heart = Heart()
    return replace(heart, scar=scar, old_mi=True, territory=territory, wall_mm=heart.wall_mm * (1 - 0.4 * scar))


def test_simulate_ecg__shape_units_and_determinism() -> None:
    heart = draw_heart(Design(), 5, 3)
    first, again, other = (simulate_ecg(heart, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.clean.shape == (12, 5000)
    np.testing.assert_array_equal(first.recording.microvolts, again.recording.microvolts)
    assert first.truth == pytest.approx(again.truth, nan_ok=True)
    assert np.abs(first.recording.microvolts.astype(int) - other.recording.microvolts).max() > 50
    assert 0.2 < np.abs(first.clean).max() < 12.0


def test_simulate_ecg__clean_leads_obey_einthoven_and_goldberger() -> None:
    leads = dict(zip(LEADS, ecg_of(Heart()).clean, strict=True))
    np.testing.assert_allclose(leads["I"] + leads["III"], leads["II"], atol=1e-9)
    np.testing.assert_allclose(leads["aVR"] + leads["aVL"] + leads["aVF"], 0.0, atol=1e-9)


def test_transfer__rotating_heart_and_electrodes_together_changes_nothing() -> None:
    heart = Heart()
    electrics = replace(draw_electrics(heart, np.random.default_rng(0), QUIET), breath_mm=0.0, breath_deg=0.0)
    angle = np.deg2rad(37.0)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
    turned = replace(heart, rotation=turn @ heart.rotation, position_mm=turn @ heart.position_mm)
    moved = replace(electrics, electrodes_mm=electrics.electrodes_mm @ turn.T)
    points = activate(heart, electrics).wall
    before, after = transfer(heart, electrics, points)[0], transfer(turned, moved, points)[0]
    np.testing.assert_allclose(after, before, atol=1e-9 * np.abs(before).max())


def test_simulate_ecg__lbbb_is_wide_without_q_laterally_and_negative_in_v1() -> None:
    block = ecg_of(Heart(lbbb=True))
    waves = waves_of(block)
    assert block.beat.qrs_duration_ms >= 120.0
    assert waves.s["V1"] > 3.0 * waves.r["V1"]
    for lead in ("I", "V6"):
        assert waves.r[lead] > 3.0 * waves.s[lead]
        assert not q_wave(waves.qrs[lead], share=0.1)


def test_simulate_ecg__rbbb_is_wide_with_late_r_in_v1_and_s_in_lead_one() -> None:
    block = ecg_of(Heart(rbbb=True))
    waves, normal = waves_of(block), waves_of(ecg_of(Heart()))
    assert block.beat.qrs_duration_ms >= 120.0
    half = len(waves.qrs["V1"]) // 2
    late = waves.qrs["V1"][half:].max()
    assert late > 0.25
    assert late > 2.0 * max(normal.qrs["V1"][len(normal.qrs["V1"]) // 2 :].max(), 0.0)
    for lead, depth in (("I", 0.02), ("V6", 0.08)):
        assert -waves.qrs[lead][half:].min() > depth
        assert (waves.qrs[lead][half:] < 0).sum() >= 25


def test_simulate_ecg__anterior_infarction_takes_the_r_of_v2_to_v4() -> None:
    normal, infarct = waves_of(ecg_of(Heart())), waves_of(ecg_of(scarred("LAD")))
    for lead in ("V2", "V3", "V4"):
        assert infarct.r[lead] < 0.4 * normal.r[lead] or q_wave(infarct.qrs[lead])
    assert sum(q_wave(infarct.qrs[lead]) for lead in ("V2", "V3", "V4")) >= 1


def test_simulate_ecg__inferior_infarction_writes_q_in_the_inferior_leads() -> None:
    infarct = waves_of(ecg_of(scarred("RCA")))
    assert all(q_wave(infarct.qrs[lead], share=0.2) for lead in ("III", "aVF"))
    early = infarct.qrs["II"][: len(infarct.qrs["II"]) // 2]
    assert -early.min() > 0.02 or infarct.r["II"] < 0.6 * waves_of(ecg_of(Heart())).r["II"]


def test_simulate_ecg__ischemia_lowers_st_and_t_over_its_wall() -> None:
    ischemia = np.zeros(17)
    ischemia[[4, 5, 10, 11, 15]] = 1.0
    normal, sick = waves_of(ecg_of(Heart())), waves_of(ecg_of(replace(Heart(), ischemia=ischemia)))
    for lead in ("I", "V6"):
        assert sick.t[lead] < 0.8 * normal.t[lead]


def test_simulate_ecg__atrial_fibrillation_has_no_p_and_irregular_beats() -> None:
    heart = Heart(af=True, kick_fraction=0.0, heart_rate_bpm=85.0)
    fibrillating, sinus = ecg_of(heart, seed=3), ecg_of(replace(heart, af=False), seed=3)
    variation = [np.diff(made.r_peaks).std() / np.diff(made.r_peaks).mean() for made in (fibrillating, sinus)]
    assert variation[0] > 0.08 > variation[1]
    assert np.isnan(fibrillating.truth["pr_ms"])

    def p_wave(made: EcgSimulation) -> float:
        """Size of the mean of the 120 ms before the QRS complexes of lead II, in units of its spread."""
        cut = np.stack([made.clean[1, p - 120 : p - 40] for p in made.r_peaks if p >= 120])
        return float(np.ptp(cut.mean(axis=0)) / np.ptp(cut, axis=1).mean())

    assert p_wave(sinus) > 0.85
    assert p_wave(fibrillating) < 0.75


def test_simulate_ecg__voltage_rises_with_mass_and_falls_with_fat() -> None:
    def sokolow(heart: Heart) -> float:
        waves = waves_of(ecg_of(heart))
        return waves.s["V1"] + max(waves.r["V5"], waves.r["V6"])

    heart = Heart()
    by_wall = [sokolow(replace(heart, wall_mm=heart.wall_mm * k)) for k in (0.8, 1.0, 1.3, 1.6)]
    by_fat = [sokolow(replace(heart, fat_mm=fat)) for fat in (6.0, 14.0, 22.0, 30.0)]
    assert np.all(np.diff(by_wall) > 0)
    assert np.all(np.diff(by_fat) < 0)


@pytest.mark.parametrize("block", ["lbbb", "rbbb"])
def test_simulate_ecg__blocks_are_wide_in_most_hearts(block: str) -> None:
    design = Design.healthy()
    hearts = [replace(draw_heart(design, 5, subject), **{block: True}) for subject in range(20)]
    widths = [
        simulate_ecg(heart, heart.stream(Purpose.ELECTRICS), design=design.electrics).beat.qrs_duration_ms
        for heart in hearts
    ]
    assert np.mean(np.array(widths) >= 120.0) >= 0.85
    assert np.median(widths) < 175.0


@pytest.fixture(scope="module")
def healthy() -> list[tuple[Heart, EcgSimulation]]:
    return population(120)


def population(n: int) -> list[tuple[Heart, EcgSimulation]]:
    design = Design.healthy()
    hearts = [draw_heart(design, 101, subject) for subject in range(n)]
    return [
        (
            heart,
            simulate_ecg(
                heart, heart.stream(Purpose.ELECTRICS), design=design.electrics, acquisition=design.acquisition
            ),
        )
        for heart in hearts
    ]


def check_intervals(made: list[tuple[Heart, EcgSimulation]]) -> None:
    def share(name: str, low: float, high: float) -> float:
        return float(np.mean([low <= ecg.truth[name] <= high for _, ecg in made]))

    assert share("pr_ms", 120.0, 200.0) >= 0.95
    assert share("qrs_ms", 70.0, 110.0) >= 0.90
    assert share("qtc_ms", 360.0, 450.0) >= 0.90
    assert share("axis_deg", -30.0, 90.0) >= 0.90


def check_waves(made: list[tuple[Heart, EcgSimulation]]) -> None:
    waves = [waves_of(ecg) for _, ecg in made]
    r = np.array([[w.r[f"V{k}"] for k in range(1, 7)] for w in waves])
    assert np.all(np.diff(np.median(r, axis=0)[:4]) > 0)
    assert np.mean(r[:, 3:5].max(axis=1) > r[:, 0]) >= 0.97
    assert np.mean((np.diff(r[:, :3], axis=1) > 0).all(axis=1)) >= 0.8
    assert np.mean([w.r["V1"] > 0.02 and w.s["V1"] > w.r["V1"] for w in waves]) >= 0.75
    for lead in ("I", "II", "V4", "V5", "V6"):
        assert np.mean([w.t[lead] > 0 for w in waves]) >= 0.9, lead
    assert 0.5 <= np.median([w.r["II"] for w in waves]) <= 1.8
    men = [w.r["II"] for w, (heart, _) in zip(waves, made, strict=True) if heart.sex == 1]
    assert np.median(men) == pytest.approx(1.0, abs=0.15)


def test_healthy__intervals_and_axis(healthy: list[tuple[Heart, EcgSimulation]]) -> None:
    check_intervals(healthy)


def test_healthy__waves(healthy: list[tuple[Heart, EcgSimulation]]) -> None:
    check_waves(healthy)


@pytest.mark.slow
def test_healthy__intervals_and_waves_of_five_hundred() -> None:
    made = population(500)
    check_intervals(made)
    check_waves(made)


def delineated(made: list[tuple[Heart, EcgSimulation]]) -> tuple[float, float]:
    """Share of recordings whose rate neurokit2 finds in lead II within 2 /min, and of R peaks found within 20 ms."""
    neurokit = pytest.importorskip("neurokit2")
    rate_ok, peak_ok = [], []
    for _, ecg in made:
        lead = neurokit.ecg_clean(ecg.recording.millivolts[1], sampling_rate=500)
        found = neurokit.ecg_peaks(lead, sampling_rate=500)[1]["ECG_R_Peaks"]
        rate = 60.0 * 500.0 / np.diff(found).mean()
        rate_ok.append(abs(rate - ecg.truth["heart_rate_bpm"]) <= 2.0)
        inner = [p for p in ecg.r_peaks if 250 <= p <= 4750]
        peak_ok += [np.abs(found - p).min() <= 10 for p in inner]
    return float(np.mean(rate_ok)), float(np.mean(peak_ok))


def test_healthy__neurokit_finds_the_beats(healthy: list[tuple[Heart, EcgSimulation]]) -> None:
    rate, peaks = delineated([pair for pair in healthy[:50] if pair[1].truth["lead_off"] == 0])
    assert rate >= 0.96
    assert peaks >= 0.97


@pytest.mark.slow
def test_healthy__neurokit_agrees_in_98_percent_of_five_hundred() -> None:
    rate, peaks = delineated(population(500))
    assert rate >= 0.98
    assert peaks >= 0.98


@pytest.mark.slow
def test_population__sokolow_follows_mass_and_fat() -> None:
    design = replace(Design.healthy(), prevalence_hhd=0.2, minority_share=0.5, minority_fat_shift_mm=10.0)
    hearts = [draw_heart(design, 9, subject) for subject in range(300)]
    voltage = []
    for heart in hearts:
        waves = waves_of(simulate_ecg(heart, heart.stream(Purpose.ELECTRICS), design=design.electrics))
        voltage.append(waves.s["V1"] + max(waves.r["V5"], waves.r["V6"]))
    wall = np.array([heart.wall_mm.mean() for heart in hearts])
    size = np.array([[heart.bsa_m2, heart.fat_mm, heart.sex, heart.torso_b_mm, 1.0] for heart in hearts])

    def residual(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.asarray(y - x @ np.linalg.lstsq(x, y, rcond=None)[0])

    mass = np.array([measure(heart)["LVM"] for heart in hearts])
    for muscle in (wall, mass):
        assert spearmanr(residual(np.array(voltage), size), residual(muscle, size)).statistic >= 0.3
    rest = np.column_stack([size[:, [0, 2, 3, 4]], wall])
    assert spearmanr(residual(np.array(voltage), rest), residual(size[:, 1], rest)).statistic <= -0.15


def test_to_leads__of_uniform_potential_on_the_real_electrodes_is_zero() -> None:
    np.testing.assert_allclose(to_leads(np.full((9, 4), 3.7)), 0.0, atol=1e-12)
