import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ecgcmr.simulation import conditions
from ecgcmr.simulation.design import Design
from ecgcmr.simulation.healthy import REFERENCE
from ecgcmr.simulation.heart import TERRITORIES, Heart
from ecgcmr.simulation.phenotypes import measure
from ecgcmr.simulation.population import draw_heart

N_HEALTHY = 500
# Petersen et al. 2017, mean and SD of what follows from the drawn targets (women, men).
DERIVED = {"LVESV": ((49.0, 11.0), (69.0, 16.0))}


@pytest.fixture(scope="module")
def healthy() -> pd.DataFrame:
    hearts = [draw_heart(Design.healthy(), 11, k) for k in range(N_HEALTHY)]
    table = pd.DataFrame([measure(heart) for heart in hearts])
    for name in ("sex", "age_years", "bmi", "sbp_mmhg", "bsa_m2", "fat_mm", "torso_a_mm", "height_cm"):
        table[name] = [getattr(heart, name) for heart in hearts]
    table["dip"] = [-heart.rotation[2, 2] for heart in hearts]
    return table


@pytest.fixture(scope="module")
def mixed() -> list[Heart]:
    return [draw_heart(Design(), 12, k) for k in range(400)]


@pytest.mark.parametrize("sex", [0, 1])
@pytest.mark.parametrize("name", ["LVEDV", "LVESV", "LVEF", "LVM", "RVEDV", "RVEF"])
def test_draw_heart__healthy_marginals_match_the_reference(healthy: pd.DataFrame, name: str, sex: int) -> None:
    mean, sd = (REFERENCE | DERIVED)[name][sex]
    values = healthy.loc[healthy.sex == sex, name]
    assert values.mean() == pytest.approx(mean, rel=0.05)
    assert values.std() == pytest.approx(sd, rel=0.20)


def test_draw_heart__body_age_and_pressure_move_the_heart(healthy: pd.DataFrame) -> None:
    for _, group in healthy.groupby("sex"):
        rank = group.corr(method="spearman")
        assert rank.loc["LVEDV", "bsa_m2"] > 0.25
        assert rank.loc["LVM", "bsa_m2"] > 0.3
        assert rank.loc["LVM", "sbp_mmhg"] > 0.15
        assert rank.loc["LVM", "bmi"] > 0.2
        assert rank.loc["LVEDV", "age_years"] < -0.08
        assert rank.loc["fat_mm", "bmi"] > 0.6
        assert rank.loc["torso_a_mm", "bmi"] > 0.5
        assert rank.loc["dip", "bmi"] < -0.15  # a broad body lays the heart down


def test_draw_heart__is_deterministic_and_knows_no_other_subject() -> None:
    first = draw_heart(Design(), 3, 7)
    for k in (2, 9, 1):
        draw_heart(Design(), 3, k)
    assert first.to_dict() == draw_heart(Design(), 3, 7).to_dict()
    assert first.to_dict() != draw_heart(Design(), 3, 8).to_dict()
    assert first.to_dict() != draw_heart(Design(), 4, 7).to_dict()


def test_draw_heart__prevalence_follows_the_design(mixed: list[Heart]) -> None:
    share = {name: np.mean([getattr(h, name) for h in mixed]) for name in ("old_mi", "dcm", "hcm", "hhd", "cad")}
    for name, wanted in (("old_mi", 0.12), ("dcm", 0.08), ("hcm", 0.07), ("hhd", 0.09), ("cad", 0.16)):
        assert abs(share[name] - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / len(mixed))
    assert not any(h.old_mi + h.dcm + h.hcm + h.hhd > 1 for h in mixed)
    assert not any(h.lbbb and h.rbbb for h in mixed)
    assert all(h.cad for h in mixed if h.old_mi)
    lbbb = np.mean([h.lbbb for h in mixed if h.dcm])
    assert 0.1 < lbbb < 0.6


def test_draw_heart__diseases_look_like_themselves(mixed: list[Heart]) -> None:
    for heart in mixed:
        if heart.dcm:
            assert measure(heart)["LVEF"] < 50
        if heart.hcm:
            assert max(measure(heart)[f"WT_AHA_{k + 1}"] for k in range(16)) > 13.0
        if heart.af:
            assert heart.kick_fraction == 0.0
        if heart.avb1:
            assert heart.pr_ms > 200
        assert heart.avb1 or heart.af or heart.pr_ms < 200
        if heart.old_mi:
            outside = set(range(17)) - set(TERRITORIES[heart.territory])
            assert heart.scar[list(outside)].max() == 0.0
            assert heart.scar.max() >= 0.25
        else:
            assert heart.scar.max() == 0.0


def test_conditions__infarction_lowers_ejection_and_thins_the_wall() -> None:
    before = measure(Heart())
    for k in range(10):
        heart = conditions.infarct(Heart(), np.random.default_rng(k))
        after = measure(heart)
        assert after["LVEF"] < before["LVEF"]
        assert heart.wall_mm[heart.scar > 0.3].max() < 6.5


def test_conditions__hypertrophy_raises_mass_and_pressure_loads() -> None:
    rng = np.random.default_rng(0)
    base = measure(Heart())
    loaded = conditions.load_pressure(Heart(), rng)
    assert measure(loaded)["LVM"] > 1.25 * base["LVM"]
    assert loaded.sbp_mmhg >= 140
    kinds = {conditions.hypertrophy(Heart(), rng).hcm_type for _ in range(60)}
    assert kinds == {"septal", "apical", "concentric"}


def test_draw_heart__minority_gets_its_fat_shift() -> None:
    design = replace(Design(), minority_share=0.5)
    fat = [draw_heart(replace(design, minority_fat_shift_mm=shift), 1, 4).fat_mm for shift in (0.0, 6.0)]
    group = draw_heart(design, 1, 4).group
    assert fat[1] - fat[0] == pytest.approx(6.0 * group)
    groups = [draw_heart(design, 1, k).group for k in range(120)]
    assert 0.3 < np.mean(groups) < 0.7


def test_design__survives_json_and_refuses_nonsense() -> None:
    design = replace(Design(), prevalence_mi=0.3, scanners={"alpha": 0.5, "gamma": 0.5})
    assert Design.from_dict(json.loads(json.dumps(design.to_dict()))) == design
    with pytest.raises(ValueError, match="prevalance_mi"):
        Design.from_dict({"prevalance_mi": 0.1})
    with pytest.raises(ValueError, match="placment_mm"):
        Design.from_dict({"electrics": {"placment_mm": 3.0}})
    with pytest.raises(ValueError, match="prevalence_mi"):
        Design(prevalence_mi=1.2)
    with pytest.raises(ValueError, match="lower them"):
        Design(prevalence_mi=0.5, prevalence_dcm=0.6)
    with pytest.raises(ValueError, match="unknown presets"):
        Design(scanners={"delta": 1.0})
    with pytest.raises(ValueError, match="sum to 1"):
        Design(scanners={"alpha": 0.5})
