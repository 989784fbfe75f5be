"""Diagnoses at baseline and incident outcomes during follow-up.

Incident myocardial infarction, heart failure and atrial fibrillation follow proportional hazards (Cox 1972) with a
Weibull baseline on latents and measured phenotypes. Censoring is administrative (staggered entry) or random. A subject
in whom the disease is prevalent is not at risk: time and event of that outcome are NaN.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ecgcmr.simulation.design import Design
from ecgcmr.simulation.heart import Heart, Purpose

OUTCOMES = ("mi", "hf", "af")
DIAGNOSES = (
    "mi", "cad", "dcm", "hcm", "hhd", "hypertension", "cardiomyopathy", "hf", "lbbb", "rbbb", "avb1", "af",
)  # fmt: skip
WEIBULL_SHAPE = 1.2
# Baseline rate [1/year] at covariates of zero.
BASE_RATE = {"mi": 0.006, "hf": 0.005, "af": 0.009}
# Log hazard ratio per unit of each covariate of `covariates`.
LOG_HAZARDS: dict[str, dict[str, float]] = {
    "mi": {"liability": 0.65, "cad": 0.7, "age": 0.25, "male": 0.3, "pressure": 0.15},
    "hf": {"low_ef": 0.9, "mass": 0.45, "scar": 3.0, "age": 0.35, "atrium": 0.25},
    "af": {"atrium": 0.5, "age": 0.55, "mass": 0.25, "low_ef": 0.25, "male": 0.2},
}


def covariates(heart: Heart, phenotypes: Mapping[str, float]) -> dict[str, float]:
    """What the hazards depend on, centered on the healthy population and scaled to about its SD.

    Args:
        heart: The latent heart.
        phenotypes: Result of `measure`.
    """
    mass = phenotypes["LVM"] / heart.bsa_m2
    return {
        "liability": heart.cad_liability,
        "cad": float(heart.cad),
        "age": (heart.age_years - 63.0) / 7.6,
        "male": float(heart.sex) - 0.5,
        "pressure": (heart.sbp_mmhg - 132.0) / 14.0,
        "low_ef": float(np.clip((58.0 - phenotypes["LVEF"]) / 10.0, -0.5, 3.0)),
        "mass": float(np.clip((mass - 46.0) / 12.0, -1.5, 4.0)),
        "scar": float(heart.scar[:16].mean()),
        "atrium": float(np.clip((phenotypes["LAV_max"] / heart.bsa_m2 - 35.0) / 9.0, -1.5, 4.0)),
    }


def log_hazard(outcome: str, values: Mapping[str, float]) -> float:
    """Log hazard of an outcome relative to covariates of zero."""
    return sum(weight * values[name] for name, weight in LOG_HAZARDS[outcome].items())


def diagnose(heart: Heart, phenotypes: Mapping[str, float]) -> dict[str, int]:
    """Prevalent diagnoses at baseline, 0 or 1, named by `DIAGNOSES`.

    Heart failure is a clinical diagnosis: it is more likely the lower the ejection fraction, and rare above 50 %.
    """
    chance = 1 / (1 + np.exp((phenotypes["LVEF"] - 33.0) / 4.0))
    failing = bool(heart.stream(Purpose.OUTCOMES).uniform() < chance)
    found = {"mi": heart.old_mi, "cad": heart.cad, "dcm": heart.dcm, "hcm": heart.hcm, "hhd": heart.hhd}
    found |= {"hypertension": heart.hypertension, "cardiomyopathy": heart.dcm or heart.hcm, "hf": failing}
    found |= {"lbbb": heart.lbbb, "rbbb": heart.rbbb, "avb1": heart.avb1, "af": heart.af}
    return {name: int(found[name]) for name in DIAGNOSES}


def draw_outcomes(heart: Heart, phenotypes: Mapping[str, float], design: Design) -> dict[str, float]:
    """Incident outcomes: `<name>_time_years` and `<name>_event` (1 event, 0 censored, NaN not at risk)."""
    prevalent = diagnose(heart, phenotypes)
    rng = heart.stream(Purpose.OUTCOMES)
    rng.uniform()  # belongs to `diagnose`
    end = design.follow_up_years * float(rng.uniform(0.6, 1.0))
    lost = float(rng.exponential(1.0 / design.dropout_per_year)) if design.dropout_per_year > 0 else np.inf
    censored = min(end, lost)
    values = covariates(heart, phenotypes)
    found: dict[str, float] = {}
    for name in OUTCOMES:
        # Inverse transform of S(t) = exp(-(rate t)^shape exp(log hazard)).
        draw = float(rng.exponential())
        time = (draw / np.exp(log_hazard(name, values))) ** (1 / WEIBULL_SHAPE) / BASE_RATE[name]
        at_risk = not prevalent[name]
        found[f"{name}_time_years"] = min(time, censored) if at_risk else np.nan
        found[f"{name}_event"] = float(time <= censored) if at_risk else np.nan
    return found
