"""Population: from a design and a subject number to a latent heart, independent of every other subject."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ecgcmr.simulation import conditions
from ecgcmr.simulation.design import Design
from ecgcmr.simulation.healthy import (
    MOTION_PATTERN,
    WALL_PATTERN,
    draw_targets,
    set_function,
    size_right_ventricle,
    size_ventricle,
    size_wall,
)
from ecgcmr.simulation.heart import APEX_DIRECTION, Heart, Purpose, orientation

__all__ = ["Design", "draw_heart"]

Array = NDArray[np.float64]

HEIGHT_CM = ((163.0, 6.2), (176.5, 6.6))
BMI = ((26.3, 0.155), (27.0, 0.135))  # median, SD of the logarithm
AGE_YEARS = (63.0, 7.6, 45.0, 82.0)  # mean, SD, range
SBP_MMHG = ((129.0, 14.0), (133.0, 13.0))
HEART_RATE = ((67.0, 9.5), (64.0, 9.5))
LIABILITY = {"sex": 0.3, "age": 0.35, "sbp": 0.25, "bmi": 0.2}  # standardized drivers of coronary disease


@dataclass(frozen=True)
class _Scores:
    """Standard scores of a subject within the sex: height, BMI, age and blood pressure (its own part and in all)."""

    height: float
    bmi: float
    age: float
    sbp_own: float
    sbp: float


def draw_heart(design: Design, seed: int, subject: int) -> Heart:
    """The latent heart of one subject.

    Deterministic in (design, seed, subject); no other subject, process or order of calls matters.

    Args:
        design: Population.
        seed: Seed of the cohort, not negative.
        subject: Index in the cohort, not negative.
    """
    heart, scores = _draw_body(Heart(seed=seed, subject=subject), design)
    heart = _draw_anatomy(heart, scores, design)
    heart = _draw_rates(heart, scores)
    heart = _apply_conditions(heart, scores, design)
    return _place(heart, scores, design)


def _truncated(rng: np.random.Generator, limit: float = 2.6) -> float:
    return float(np.clip(rng.standard_normal(), -limit, limit))


def _draw_body(heart: Heart, design: Design) -> tuple[Heart, _Scores]:
    rng = heart.stream(Purpose.BODY)
    sex = int(rng.uniform() < design.male_share)
    mean, sd, youngest, oldest = AGE_YEARS
    age = float(np.clip(rng.normal(mean, sd), youngest, oldest))
    z_age = (age - mean) / sd
    z_height, z_bmi, z_own = _truncated(rng), _truncated(rng), _truncated(rng)
    z_sbp = 0.30 * z_age + 0.25 * z_bmi + float(np.sqrt(1 - 0.30**2 - 0.25**2)) * z_own
    height = HEIGHT_CM[sex][0] + HEIGHT_CM[sex][1] * z_height
    bmi = BMI[sex][0] * float(np.exp(BMI[sex][1] * z_bmi))
    group = int(rng.uniform() < design.minority_share)
    names = list(design.scanners)
    # Site 0 is the large center; the others share the rest. Site and scanner are independent.
    site = 0 if design.n_sites == 1 or rng.uniform() < 0.5 else int(rng.integers(1, design.n_sites))
    place = int(np.searchsorted(np.cumsum(list(design.scanners.values())), rng.uniform()))
    scanner = names[min(place, len(names) - 1)]
    wide = 1 + design.torso_sd * rng.standard_normal(2)
    fat = (15.0 if sex == 0 else 11.0) * (bmi / 26.5) ** 1.7 * max(1 + design.fat_sd * _truncated(rng), 0.4)
    body = replace(
        heart,
        sex=sex,
        age_years=age,
        height_cm=height,
        bmi=bmi,
        sbp_mmhg=SBP_MMHG[sex][0] + SBP_MMHG[sex][1] * z_sbp,
        torso_a_mm=(168.0 if sex else 152.0)
        * (bmi / 27) ** 0.42
        * (height / HEIGHT_CM[sex][0]) ** 0.4
        * float(wide[0]),
        torso_b_mm=(118.0 if sex else 106.0)
        * (bmi / 27) ** 0.55
        * (height / HEIGHT_CM[sex][0]) ** 0.3
        * float(wide[1]),
        fat_mm=fat + design.minority_fat_shift_mm * group,
        group=group,
        site=site,
        scanner=scanner,
    )
    return body, _Scores(z_height, z_bmi, z_age, z_own, z_sbp)


def _draw_anatomy(heart: Heart, scores: _Scores, design: Design) -> Heart:
    """Healthy anatomy and function, solved for targets of the reference population."""
    drivers = np.array([scores.height, scores.bmi, scores.age, scores.sbp_own])
    targets = draw_targets(heart.stream(Purpose.TARGETS), heart.sex, drivers, design.spread_scale)
    rng = heart.stream(Purpose.SHAPE)
    elongation = 1.62 * (1 + design.sphericity_sd * _truncated(rng))
    wall = WALL_PATTERN * (1 + 0.03 * rng.standard_normal(17))
    pattern = MOTION_PATTERN * (1 + 0.04 * rng.standard_normal(17))
    # The segments never contract at once: the normal spread of activation costs this much ejection.
    ef = (targets["LVEF"] + 0.7) / 100.0
    longitudinal = float(np.clip(0.155 + 0.20 * (ef - 0.59) + 0.012 * rng.standard_normal(), 0.09, 0.21))
    heart = replace(
        heart,
        rv_length_fraction=float(0.9 + 0.02 * _truncated(rng)),
        rv_wall_mm=float(3.4 + 0.2 * _truncated(rng)),
        rv_insertion_deg=(112.0 + 4.0 * _truncated(rng), 250.0 + 4.0 * _truncated(rng)),
        twist_deg=float(12.0 + 2.5 * _truncated(rng)),
        la_volume_ml=targets["LAV"],
        ra_volume_ml=targets["RAV"],
        la_ef=float(np.clip(0.60 - 0.015 * scores.age + 0.05 * rng.standard_normal(), 0.35, 0.75)),
        ra_ef=float(np.clip(0.43 + 0.06 * rng.standard_normal(), 0.2, 0.65)),
    )
    heart = size_ventricle(heart, targets["LVEDV"], elongation)
    heart = size_wall(heart, targets["LVM"], wall)
    heart = set_function(heart, ef, longitudinal, pattern)
    return size_right_ventricle(heart, targets["RVEDV"], (targets["RVEF"] + 0.2) / 100.0)


def _draw_rates(heart: Heart, scores: _Scores) -> Heart:
    rng = heart.stream(Purpose.RATES)
    mean, sd = HEART_RATE[heart.sex]
    return replace(
        heart,
        heart_rate_bpm=float(np.clip(mean + sd * (0.15 * scores.bmi + 0.99 * rng.standard_normal()), 45, 105)),
        pr_ms=float(np.clip(158 + 6 * scores.age + 16 * rng.standard_normal(), 122, 198)),
        kick_fraction=float(np.clip(0.23 + 0.045 * scores.age + 0.03 * rng.standard_normal(), 0.10, 0.40)),
    )


def _systole(heart: Heart, wobble: float) -> float:
    """End of ejection as a share of the cycle; systole shortens with heart rate (Weissler et al. 1968)."""
    length_ms = 430.0 - 1.7 * heart.heart_rate_bpm + (5.0 if heart.sex == 0 else 0.0)
    return float(np.clip(length_ms / heart.rr_ms + 0.008 * wobble, 0.28, 0.43))


def _upper_tail(share: float, value: float) -> bool:
    """Whether a standard-normal value lies in the upper tail that holds `share` of the population."""
    return share > 0 and value > NormalDist().inv_cdf(min(max(1 - share, 1e-9), 1 - 1e-9))


def _apply_conditions(heart: Heart, scores: _Scores, design: Design) -> Heart:
    rng = heart.stream(Purpose.CONDITIONS)
    own, luck, u, u_block, u_node, z_af, z_htn = rng.standard_normal(7)
    primary, block, node = (NormalDist().cdf(float(x)) for x in (u, u_block, u_node))
    known = [LIABILITY["sex"] * (2 * heart.sex - 1), LIABILITY["age"] * scores.age]
    known += [LIABILITY["sbp"] * scores.sbp_own, LIABILITY["bmi"] * scores.bmi]
    liability = float(sum(known) + np.sqrt(1 - sum(v**2 for v in LIABILITY.values())) * own)
    heart = replace(heart, cad_liability=liability)
    pressure = 0.45 * scores.age + 0.35 * scores.bmi + float(np.sqrt(1 - 0.45**2 - 0.35**2)) * float(z_htn)
    if _upper_tail(design.prevalence_hypertension, pressure):
        heart = replace(heart, hypertension=True, sbp_mmhg=heart.sbp_mmhg + 12.0)
    # Infarction and coronary disease without it are two heights of one scale: liability and some luck.
    event = 0.85 * liability + float(np.sqrt(1 - 0.85**2)) * float(luck)
    if _upper_tail(design.prevalence_mi, event):
        heart = conditions.infarct(heart, rng)
    else:
        if _upper_tail(design.prevalence_cad, event):
            heart = conditions.narrow_coronaries(heart, rng)
        heart = _apply_cardiomyopathy(heart, primary * (1 - design.prevalence_mi), rng, design)
    return _apply_conduction(heart, scores, (block, node, float(z_af)), rng, design)


def _apply_cardiomyopathy(heart: Heart, place: float, rng: np.random.Generator, design: Design) -> Heart:
    """At most one of DCM, HCM and HHD; `place` is uniform on the share of the population without infarction."""
    edges = np.cumsum([design.prevalence_dcm, design.prevalence_hcm, design.prevalence_hhd])
    if place < edges[0]:
        return conditions.dilate(heart, rng, bool(rng.uniform() < design.lbbb_in_dcm))
    if place < edges[1]:
        return conditions.hypertrophy(heart, rng)
    return conditions.load_pressure(heart, rng) if place < edges[2] else heart


def _apply_conduction(
    heart: Heart, scores: _Scores, places: tuple[float, float, float], rng: np.random.Generator, design: Design
) -> Heart:
    block, node, z_af = places
    if not heart.lbbb:
        left = block < design.prevalence_lbbb
        right = not left and block < design.prevalence_lbbb + design.prevalence_rbbb
        heart = replace(heart, lbbb=left, rbbb=right)
    atrial = 0.4 * scores.age + 0.3 * float(np.clip((heart.la_volume_ml / 66.0 - 1) / 0.3, -2, 3))
    if _upper_tail(design.prevalence_af, (atrial + z_af) / float(np.sqrt(1 + 0.4**2 + 0.36**2))):
        heart = conditions.fibrillate(heart, rng)
    elif node < design.prevalence_avb1:
        heart = conditions.slow_node(heart, rng)
    return replace(heart, es_fraction=_systole(heart, float(rng.standard_normal())))


def _place(heart: Heart, scores: _Scores, design: Design) -> Heart:
    """Orientation and place in the chest: a broad chest and age lay the heart down, a tall one lets it hang."""
    rng = heart.stream(Purpose.PLACEMENT)
    flat = 3.5 * scores.bmi + 1.5 * scores.age - 2.0 * scores.height
    turn, lift, roll = rng.standard_normal(3)
    x, y, z = APEX_DIRECTION
    azimuth = np.arctan2(-y, x) + np.deg2rad(design.orientation_sd_deg * turn)
    dip = np.arctan2(-z, np.hypot(x, y)) + np.deg2rad(design.orientation_sd_deg * lift - flat)
    dip = float(np.clip(dip, np.deg2rad(3), np.deg2rad(60)))
    apex = np.array([np.cos(dip) * np.cos(azimuth), -np.cos(dip) * np.sin(azimuth), -np.sin(dip)])
    scale = np.array([heart.torso_a_mm / 168.0, heart.torso_b_mm / 118.0, 1.0])
    # The middle of the ventricle keeps its place in the chest, so a long heart has a higher base and a lower apex.
    middle = np.array([46.0, -36.0, 4.0]) * scale + design.position_sd_mm * rng.standard_normal(3)
    middle[2] += 0.25 * flat
    position = middle - 0.45 * (heart.lv_length_mm + heart.apex_wall_mm) * apex
    return replace(heart, rotation=orientation(apex, design.roll_sd_deg * float(roll)), position_mm=position)
