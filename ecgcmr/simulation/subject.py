"""One simulated subject: from (design, seed, subject) to both modalities, labels and truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from ecgcmr.cmr.cine import Cine
from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.simulation.cine import N_SLICES, render_mid3, render_sax
from ecgcmr.simulation.design import Design
from ecgcmr.simulation.electrical_latents import draw_electrics
from ecgcmr.simulation.electrics import RATE_HZ, Activation, EcgSimulation, activate, simulate_ecg
from ecgcmr.simulation.four_chamber import render_4ch
from ecgcmr.simulation.heart import Heart, Purpose
from ecgcmr.simulation.outcomes import diagnose, draw_outcomes
from ecgcmr.simulation.phenotypes import measure
from ecgcmr.simulation.population import draw_heart

CineChoice = Literal["full", "mid", "mid3", "none"]
AGE_EDGES_YEARS = (55.0, 65.0, 75.0)
BMI_EDGES = (25.0, 30.0)


@dataclass(frozen=True)
class SimulatedSubject:
    """Everything about one simulated subject.

    Attributes:
        ecg: 12-lead ECG, 10 s at 500 Hz [mV].
        sax: Short-axis cine, or None.
        four_chamber: Four-chamber cine, or None.
        phenotypes: CMR phenotypes by name (units in `phenotypes.PHENOTYPES`).
        diagnoses: 0 or 1 by name.
        outcomes: Pairs of follow-up time [years] and event.
        groups: Sex, age, bands, scanner, site and the abstract group.
        truth: What only the simulator knows: ECG intervals, R peaks [samples], activation [ms], nuisance.
    """

    ecg: EcgRecording
    sax: Cine | None
    four_chamber: Cine | None
    phenotypes: dict[str, float]
    diagnoses: dict[str, int]
    outcomes: dict[str, float]
    groups: dict[str, str | int | float]
    truth: dict[str, Any]


def simulate_subject(design: Design, seed: int, subject: int, cine: CineChoice = "full") -> SimulatedSubject:
    """Simulate one subject; the result depends on (design, seed, subject) alone.

    Args:
        design: Population.
        seed: Seed of the cohort.
        subject: Index in the cohort.
        cine: "full": short-axis stack and four-chamber view; "mid": of the stack only the middle slice, all frames;
            "mid3": three frames of that slice and no other view; "none".

    Raises:
        ValueError: `cine` is none of these.
    """
    if cine not in get_args(CineChoice):
        raise ValueError(f"cine must be one of {get_args(CineChoice)}, got {cine!r}")
    heart, ecg = simulate_heart(draw_heart(design, seed, subject), design)
    phenotypes = measure(heart)
    sax, four_chamber = None, None
    if cine in ("full", "mid"):
        slices = None if cine == "full" else [N_SLICES // 2]
        sax, four_chamber = render_sax(heart, slices, imaging=design.imaging), render_4ch(heart, imaging=design.imaging)
    elif cine == "mid3":
        sax = render_mid3(heart, imaging=design.imaging)
    return SimulatedSubject(
        ecg=EcgRecording(ecg.recording.millivolts, RATE_HZ, LEADS, source="simulated", notes=ecg.recording.notes),
        sax=sax,
        four_chamber=four_chamber,
        phenotypes=phenotypes,
        diagnoses=diagnose(heart, phenotypes),
        outcomes=draw_outcomes(heart, phenotypes, design),
        groups=_groups(heart),
        truth=_truth(heart, ecg),
    )


def simulate_heart(heart: Heart, design: Design | None = None) -> tuple[Heart, EcgSimulation]:
    """The ECG of a heart, and the heart whose segments now contract when they are activated."""
    design = design or Design()
    rng = heart.stream(Purpose.ELECTRICS)
    electrics = draw_electrics(heart, rng, design.electrics)
    activation = activate(heart, electrics)
    ecg = simulate_ecg(heart, rng, acquisition=design.acquisition, electrics=electrics, activation=activation)
    return couple(heart, activation), ecg


def couple(heart: Heart, activation: Activation) -> Heart:
    """The heart with the delays of contraction that its activation gives; the earliest segment has delay 0."""
    first = float(activation.segment_ms.min())
    return replace(heart, delay_ms=activation.segment_ms - first, rv_delay_ms=max(activation.right_ms - first, 0.0))


def _band(value: float, edges: tuple[float, ...]) -> str:
    """Name of the band of a value: `<55`, `55-65`, ..., `>=75`."""
    place = int(np.searchsorted(edges, value, side="right"))
    if place == 0:
        return f"<{edges[0]:g}"
    if place == len(edges):
        return f">={edges[-1]:g}"
    return f"{edges[place - 1]:g}-{edges[place]:g}"


def _groups(heart: Heart) -> dict[str, str | int | float]:
    return {
        "sex": "male" if heart.sex else "female",
        "age_years": float(heart.age_years),
        "age_band": _band(heart.age_years, AGE_EDGES_YEARS),
        "height_cm": float(heart.height_cm),
        "bmi": float(heart.bmi),
        "bmi_band": _band(heart.bmi, BMI_EDGES),
        "bsa_m2": float(heart.bsa_m2),
        "sbp_mmhg": float(heart.sbp_mmhg),
        "scanner": heart.scanner,
        "site": int(heart.site),
        "group": int(heart.group),
    }


def _truth(heart: Heart, ecg: EcgSimulation) -> dict[str, Any]:
    """ECG truths (prefix `ecg_`), activation map, and the latents that are nuisance to a learner."""
    values: Mapping[str, float] = ecg.truth
    latents = ("torso_a_mm", "torso_b_mm", "fat_mm", "es_fraction", "kick_fraction", "cad_liability")
    return {
        **{f"ecg_{name}": value for name, value in values.items()},
        "ecg_r_peaks": ecg.r_peaks.tolist(),
        "activation_ms": ecg.activation.segment_ms.tolist(),
        "rv_activation_ms": ecg.activation.right_ms,
        "scar": heart.scar.tolist(),
        "ischemia": heart.ischemia.tolist(),
        "territory": heart.territory,
        "hcm_type": heart.hcm_type,
        "apex_direction": heart.rotation[:, 2].tolist(),
        "position_mm": heart.position_mm.tolist(),
        **{name: float(getattr(heart, name)) for name in latents},
    }
