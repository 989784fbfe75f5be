"""Diseases, each a change of the latent heart; nothing is ever drawn onto a signal or an image.

Sizes of the changes follow the usual clinical pictures: hypertrophic cardiomyopathy has a wall of 15 mm or more (ESC
2014, 10.1093/eurheartj/ehu284), dilated cardiomyopathy an LVEF below 45 % in a dilated ventricle (Pinto et al. 2016,
10.1093/eurheartj/ehv727), first-degree AV block a PR interval above 200 ms. The delays of
contraction in bundle branch block come from the electrical activation, not from here.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ecgcmr.simulation.heart import TERRITORIES, Heart

SEPTAL = (1, 2, 7, 8)
NEXT_TO_SEPTUM = (0, 3, 6, 9, 13)
APICAL = (12, 13, 14, 15)


def draw_territory(rng: np.random.Generator) -> str:
    """Coronary artery of an infarction: LAD in 45 %, RCA in 33 %, LCX in 22 %."""
    return str(rng.choice(["LAD", "RCA", "LCX"], p=[0.45, 0.33, 0.22]))


def infarct(heart: Heart, rng: np.random.Generator) -> Heart:
    """Old infarction of one territory: scar, thin wall, little shortening; larger ones remodel the ventricle."""
    territory = draw_territory(rng)
    members = np.array(TERRITORIES[territory])
    depth = rng.uniform(0.35, 1.0)
    # The artery is closed somewhere along its course: distal segments always infarct, basal ones only sometimes.
    distal = members >= (0 if rng.uniform() < 0.5 else 6)
    scar = heart.scar.copy()
    scar[members] = np.where(distal, np.clip(depth * rng.uniform(0.8, 1.1, len(members)), 0.25, 1.0), 0.15 * depth)
    load = float(scar[:16].mean())
    size = 1.0 + rng.uniform(0.2, 0.7) * load * (depth > 0.5)
    return replace(
        heart,
        old_mi=True,
        cad=True,
        territory=territory,
        scar=scar,
        wall_mm=heart.wall_mm * (1 - 0.45 * scar),
        radial_shortening=heart.radial_shortening * (1 - 0.9 * scar) * (1 - 0.25 * load),
        longitudinal_shortening=heart.longitudinal_shortening * (1 - 0.8 * load),
        lv_radius_mm=heart.lv_radius_mm * size,
        lv_length_mm=heart.lv_length_mm * (1 + 0.3 * (size - 1)),
        la_volume_ml=heart.la_volume_ml * (1 + 0.6 * load),
    )


def narrow_coronaries(heart: Heart, rng: np.random.Generator) -> Heart:
    """Coronary disease without infarction: subendocardial ischemia and slightly less motion in one territory."""
    members = list(TERRITORIES[draw_territory(rng)])
    ischemia = heart.ischemia.copy()
    ischemia[members] = rng.uniform(0.3, 1.0)
    return replace(
        heart, cad=True, ischemia=ischemia, radial_shortening=heart.radial_shortening * (1 - 0.25 * ischemia)
    )


def dilate(heart: Heart, rng: np.random.Generator, lbbb: bool) -> Heart:
    """Dilated cardiomyopathy: a large, round, weak ventricle; the left atrium and the RV follow."""
    severity = rng.uniform(0.0, 1.0)
    # The disease, not the strength the heart had before, sets most of the weakness that is left.
    weak = (0.68 - 0.36 * severity) * (0.30 / float(heart.radial_shortening[:16].mean())) ** 0.8
    return replace(
        heart,
        dcm=True,
        lbbb=heart.lbbb or lbbb,
        lv_radius_mm=heart.lv_radius_mm * (1.12 + 0.22 * severity + rng.normal(0, 0.03)),
        lv_length_mm=heart.lv_length_mm * (1.03 + 0.07 * severity),
        wall_mm=heart.wall_mm * (1.03 - 0.06 * severity),
        radial_shortening=heart.radial_shortening * weak * rng.uniform(0.92, 1.08, 17),
        longitudinal_shortening=heart.longitudinal_shortening * (weak + 0.05),
        rv_shortening=heart.rv_shortening * (0.95 - 0.3 * severity),
        twist_deg=heart.twist_deg * 0.4,
        la_volume_ml=heart.la_volume_ml * (1.2 + 0.4 * severity),
        la_ef=heart.la_ef * (0.9 - 0.3 * severity),
    )


def hypertrophy(heart: Heart, rng: np.random.Generator) -> Heart:
    """Hypertrophic cardiomyopathy: septal (60 %), apical (20 %) or concentric (20 %); a small, vigorous cavity."""
    kind = str(rng.choice(["septal", "apical", "concentric"], p=[0.6, 0.2, 0.2]))
    extra = np.full(17, 0.8)
    least = 15.5 - float(heart.wall_mm[:12].mean())  # so that the thickest segment reaches about 15 mm
    if kind == "septal":
        peak = max(rng.uniform(9.0, 15.0), least)
        extra[list(SEPTAL)] = peak * rng.uniform(0.85, 1.1, 4)
        extra[list(NEXT_TO_SEPTUM)] = 0.4 * peak
    elif kind == "apical":
        peak = max(rng.uniform(9.0, 13.0), least)
        extra[list(APICAL)] = peak * rng.uniform(0.85, 1.1, 4)
        extra[6:12], extra[16] = 0.25 * peak, 0.6 * peak
    else:
        peak = max(rng.uniform(8.5, 11.5), least)
        extra[:16] = peak * rng.uniform(0.9, 1.1, 16)
    stiff = 1 - 0.35 * extra / peak
    return replace(
        heart,
        hcm=True,
        hcm_type=kind,
        wall_mm=heart.wall_mm + extra,
        lv_radius_mm=heart.lv_radius_mm * 0.94,
        radial_shortening=np.minimum(heart.radial_shortening * stiff * 1.28, 0.55),
        longitudinal_shortening=heart.longitudinal_shortening * 0.8,
        la_volume_ml=heart.la_volume_ml * rng.uniform(1.1, 1.5),
        la_ef=heart.la_ef * 0.88,
    )


def load_pressure(heart: Heart, rng: np.random.Generator) -> Heart:
    """Hypertensive heart disease: concentric hypertrophy under a raised pressure, with a larger left atrium."""
    extra = rng.uniform(2.4, 5.2)
    return replace(
        heart,
        hypertension=True,
        hhd=True,
        sbp_mmhg=max(heart.sbp_mmhg, 140.0) + rng.uniform(2.0, 20.0),
        wall_mm=heart.wall_mm + extra * rng.uniform(0.9, 1.1, 17),
        longitudinal_shortening=heart.longitudinal_shortening * 0.85,
        kick_fraction=min(heart.kick_fraction + 0.06, 0.42),
        la_volume_ml=heart.la_volume_ml * rng.uniform(1.05, 1.35),
    )


def fibrillate(heart: Heart, rng: np.random.Generator) -> Heart:
    """Atrial fibrillation: no atrial kick, large and still atria, a faster ventricle."""
    return replace(
        heart,
        af=True,
        kick_fraction=0.0,
        heart_rate_bpm=float(np.clip(heart.heart_rate_bpm * rng.uniform(1.1, 1.5), 55, 125)),
        la_volume_ml=heart.la_volume_ml * rng.uniform(1.2, 1.6),
        ra_volume_ml=heart.ra_volume_ml * rng.uniform(1.1, 1.4),
        la_ef=heart.la_ef * rng.uniform(0.3, 0.5),
        ra_ef=heart.ra_ef * rng.uniform(0.3, 0.5),
    )


def slow_node(heart: Heart, rng: np.random.Generator) -> Heart:
    """First-degree AV block: PR interval of 215 to 300 ms."""
    return replace(heart, avb1=True, pr_ms=float(rng.uniform(215.0, 300.0)))
