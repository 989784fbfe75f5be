from dataclasses import replace

import numpy as np
import pytest

from ecgcmr.simulation.design import Design
from ecgcmr.simulation.heart import Heart
from ecgcmr.simulation.outcomes import DIAGNOSES, OUTCOMES, covariates, diagnose, draw_outcomes, log_hazard
from ecgcmr.simulation.phenotypes import measure


@pytest.fixture(scope="module")
def normal() -> dict[str, float]:
    return measure(Heart())


def _rate(heart: Heart, phenotypes: dict[str, float], outcome: str, n: int = 800) -> float:
    """Events per year of n subjects with the same heart and own luck."""
    found = [draw_outcomes(replace(heart, subject=k), phenotypes, Design()) for k in range(n)]
    events = np.nansum([row[f"{outcome}_event"] for row in found])
    return float(events / np.nansum([row[f"{outcome}_time_years"] for row in found]))


def test_draw_outcomes__prevalent_disease_is_not_at_risk(normal: dict[str, float]) -> None:
    for flag, name in (("old_mi", "mi"), ("af", "af")):
        found = draw_outcomes(replace(Heart(), **{flag: True}), normal, Design())
        assert np.isnan(found[f"{name}_event"])
        assert np.isnan(found[f"{name}_time_years"])
        others = set(OUTCOMES) - {name}
        assert all(np.isfinite(found[f"{other}_event"]) for other in others)
    weak = normal | {"LVEF": 15.0}
    assert diagnose(Heart(), weak)["hf"] == 1
    assert np.isnan(draw_outcomes(Heart(), weak, Design())["hf_event"])


@pytest.mark.parametrize(
    ("outcome", "changes", "phenotypes"),
    [
        ("mi", {"cad_liability": 2.5}, {}),
        ("af", {"age_years": 80.0}, {}),
        ("hf", {}, {"LVEF": 45.0}),
        ("af", {}, {"LAV_max": 130.0}),
        ("hf", {}, {"LVM": 190.0}),
    ],
)
def test_draw_outcomes__planted_risk_shows(
    normal: dict[str, float], outcome: str, changes: dict[str, float], phenotypes: dict[str, float]
) -> None:
    base, raised = Heart(), replace(Heart(), **changes)
    values = normal | phenotypes
    planted = log_hazard(outcome, covariates(raised, values)) - log_hazard(outcome, covariates(base, normal))
    assert planted > 0.3
    ratio = _rate(raised, values, outcome) / _rate(base, normal, outcome)
    assert 1.0 < ratio < 3 * np.exp(planted) ** 1.2


def test_draw_outcomes__times_respect_censoring(normal: dict[str, float]) -> None:
    design = replace(Design(), follow_up_years=5.0)
    for k in range(300):
        found = draw_outcomes(Heart(subject=k), normal, design)
        for name in OUTCOMES:
            if np.isfinite(found[f"{name}_event"]):
                assert 0 < found[f"{name}_time_years"] <= 5.0
                assert found[f"{name}_event"] in (0.0, 1.0)
    endless = replace(Design(), follow_up_years=1e6, dropout_per_year=0.0)
    assert draw_outcomes(Heart(), normal, endless)["af_event"] == 1.0


def test_draw_outcomes__longer_follow_up_keeps_earlier_events(normal: dict[str, float]) -> None:
    for k in range(200):
        short = draw_outcomes(Heart(subject=k), normal, replace(Design(), follow_up_years=5.0))
        long = draw_outcomes(Heart(subject=k), normal, replace(Design(), follow_up_years=20.0))
        for name in OUTCOMES:
            if short[f"{name}_event"] == 1.0:
                assert long[f"{name}_time_years"] == short[f"{name}_time_years"]


def test_diagnose__names_and_flags(normal: dict[str, float]) -> None:
    found = diagnose(replace(Heart(), hcm=True, rbbb=True), normal)
    assert tuple(found) == DIAGNOSES
    assert {name for name, value in found.items() if value} == {"hcm", "cardiomyopathy", "rbbb"}
