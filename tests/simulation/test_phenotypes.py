from dataclasses import replace

import numpy as np
import pytest

from ecgcmr.simulation.heart import Heart
from ecgcmr.simulation.motion import move
from ecgcmr.simulation.phenotypes import N_FRAMES, PHENOTYPES, RING, es_frame, measure, volume_curves


@pytest.fixture(scope="module")
def normal() -> dict[str, float]:
    return measure(Heart())


def test_phenotypes__named_and_numbered_as_in_uk_biobank(normal: dict[str, float]) -> None:
    fields = {spec.name: spec.ukb_field for spec in PHENOTYPES}
    assert list(fields) == list(normal)[: len(fields)]
    known = {"LVEDV": 24100, "LVEF": 24103, "LVM": 24105, "RVEF": 24109, "LAV_max": 24110, "RAEF": 24117}
    known |= {"WT_AHA_1": 24124, "WT_global": 24140, "Ecc_AHA_1": 24141, "Err_AHA_16": 24173, "Ell_global": 24181}
    assert {name: fields[name] for name in known} == known
    assert len(set(fields.values())) == len(PHENOTYPES)


def test_measure__is_consistent(normal: dict[str, float]) -> None:
    assert normal["LVSV"] == pytest.approx(normal["LVEDV"] - normal["LVESV"])
    assert normal["LVEF"] == pytest.approx(100 * normal["LVSV"] / normal["LVEDV"])
    assert normal["LVCO"] == pytest.approx(normal["LVSV"] * Heart().heart_rate_bpm / 1000)
    assert normal["RVSV"] == pytest.approx(normal["RVEDV"] - normal["RVESV"])
    assert normal["LAV_max"] == pytest.approx(Heart().la_volume_ml, rel=0.02)
    assert normal["LAEF"] == pytest.approx(100 * Heart().la_ef, abs=1.5)
    assert normal["WT_global"] == pytest.approx(6.5, rel=0.05)
    assert all(np.isfinite(list(normal.values())))


def test_measure__volumes_agree_with_a_brute_force_integral(normal: dict[str, float]) -> None:
    heart = Heart(wall_mm=np.linspace(5, 14, 17), radial_shortening=np.linspace(0.1, 0.4, 17))
    values = measure(heart)
    motion = move(heart, np.array([0.0, heart.es_fraction]), tuple(np.linspace(0, 2 * np.pi, 360, endpoint=False)))
    depth = (np.arange(400) + 0.5) / 400 * heart.lv_length_mm
    for frame, name in ((0, "LVEDV"), (1, "LVESV")):
        radii, _ = motion.sections(depth, np.full(400, frame))
        volume = np.pi * (radii[..., 0] ** 2).mean(axis=1).sum() * heart.lv_length_mm / 400 * motion.shrink[frame]
        assert values[name] == pytest.approx(volume / 1000, rel=0.01)
    assert normal["LVM"] < values["LVM"]


def test_measure__frames_and_keyframes_are_in_order(normal: dict[str, float]) -> None:
    times = [normal[f"time_{name}_ms"] for name in ("ED", "MS", "ES", "PF", "MD")]
    assert times[0] == 0.0
    assert sorted(times) == times
    assert times[-1] < Heart().rr_ms
    lv, _ = volume_curves(move(Heart(), np.arange(N_FRAMES) / N_FRAMES, RING))
    assert lv.argmin() == normal["frame_ES"] == es_frame(Heart())
    assert lv.argmax() == normal["frame_ED"] == 0
    assert times[2] == pytest.approx(Heart().es_fraction * Heart().rr_ms, abs=25)


def test_measure__scarred_segment_thickens_and_shortens_less(normal: dict[str, float]) -> None:
    scar = np.zeros(17)
    scar[[6, 7, 12]] = 0.9
    values = measure(replace(Heart(), scar=scar, radial_shortening=0.30 * (1 - 0.9 * scar)))
    for segment in (7, 8, 13):
        assert values[f"Err_AHA_{segment}"] < 0.6 * normal[f"Err_AHA_{segment}"]
        assert values[f"Ecc_AHA_{segment}"] > 0.6 * normal[f"Ecc_AHA_{segment}"]
    assert values["Err_AHA_5"] == pytest.approx(normal["Err_AHA_5"], rel=0.02)
    assert values["LVEF"] < normal["LVEF"] - 2


def test_measure__dyssynchrony_lowers_ejection_and_moves_end_systole(normal: dict[str, float]) -> None:
    delay = np.zeros(17)
    delay[[3, 4, 5, 9, 10, 11, 15]] = 110.0
    values = measure(Heart(delay_ms=delay))
    assert values["LVEF"] < normal["LVEF"] - 1.5
    assert values["time_ES_ms"] > normal["time_ES_ms"]
    assert values["LVM"] == pytest.approx(normal["LVM"])
