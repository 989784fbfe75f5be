"""Electrics: the electrical latents of one heart, drawn from its anatomy and its diagnoses.

Early sites, speeds, action-potential durations, atria and electrodes; the waves follow from them in `electrics.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecgcmr.simulation.activation import TRANSMURAL_M_S, Conduction
from ecgcmr.simulation.geometry import epicardial_length, segment_weights
from ecgcmr.simulation.heart import Heart
from ecgcmr.simulation.potentials import AtrialDipoles
from ecgcmr.simulation.torso import draw_placement, place_electrodes, skin_axes
from ecgcmr.simulation.wall import endocardial_sites, septal_sites

Array = NDArray[np.float64]

# Early sites as (angle [degree], depth over epicardial length, delay [ms]), after Durrer et al. 1970: left mid-septum
# and both paraseptal walls first; the right ventricle some milliseconds later near the anterior papillary muscle.
_LEFT_SITES = np.array([[196.0, 0.68, 0.0], [106.0, 0.76, 2.0], [290.0, 0.75, 3.0]])
_RIGHT_SITES = np.array([[150.0, 0.62, 14.0], [215.0, 0.66, 19.0]])
_RIGHT_SEPTUM_SITES = np.array([[170.0, 0.62, 9.0]])
USUAL_WALL_MM = 7.0
EPICARDIAL_LEAD_MS = 10.0
SCARRED_SITE_MS = 22.0  # delay of an early site in full scar


@dataclass(frozen=True)
class ElectricsDesign:
    """Spread of the electrical latents and of the electrodes between subjects.

    Attributes:
        speed_sd: SD of the logarithm of the endocardial speeds.
        transmural_sd: SD of the logarithm of the speed across the wall.
        apd_sd_ms: SD of the action-potential duration [ms].
        gradient_sd_ms: SD of the transmural and of the apex-base gradient of its duration [ms].
        tissue_sd: SD of the logarithm of the strength of the double layer.
        placement_mm: Scale of the misplacement of V1..V6 [mm].
        trunk_sd: SD of the relative length of the trunk, beside body height.
        breath_mm: Up-and-down movement of the heart with breathing (half range) [mm].
        breath_deg: Its rotation (half range) [degree].
    """

    speed_sd: float = 0.115
    transmural_sd: float = 0.14
    apd_sd_ms: float = 12.0
    gradient_sd_ms: float = 3.0
    tissue_sd: float = 0.25
    placement_mm: float = 20.0
    trunk_sd: float = 0.04
    breath_mm: float = 4.0
    breath_deg: float = 2.5


@dataclass(frozen=True)
class Electrics:
    """Electrical latents of one heart.

    Attributes:
        conduction: Early sites and speeds.
        apd_ms: Mean endocardial action-potential duration (90 %) at 60 beats per minute [ms].
        transmural_ms: By how much the epicardium is shorter [ms].
        apex_base_ms: By how much the apex is longer than the base [ms].
        coupling: Shortening of the action potential per delay of activation [ms/ms].
        tissue: Factor of the strength of the double layer.
        atria: The P wave.
        fibrillation_moment: RMS moment of the fibrillating atria; 0 in sinus rhythm.
        electrodes_mm: Electrode positions (9, 3), torso frame [mm].
        placement_mm: Misplacement (6, 2) of V1..V6 [mm].
        breath_mm: Movement of the heart with breathing, half range [mm].
        breath_deg: Rotation with breathing, half range [degree].
    """

    conduction: Conduction
    apd_ms: float
    transmural_ms: float
    apex_base_ms: float
    coupling: float
    tissue: float
    atria: AtrialDipoles
    fibrillation_moment: float
    electrodes_mm: Array
    placement_mm: Array
    breath_mm: float
    breath_deg: float


def _draw_conduction(heart: Heart, rng: np.random.Generator, design: ElectricsDesign) -> Conduction:
    """Early sites and speeds: normal, or without the left or the right bundle branch."""
    spread = np.exp(rng.normal(0.0, design.speed_sd, size=2))
    jitter = rng.normal(0.0, 1.0, size=(len(_LEFT_SITES) + len(_RIGHT_SITES) + 1, 3)) * [7.0, 0.03, 1.2]
    left = _LEFT_SITES + jitter[: len(_LEFT_SITES)]
    right = _RIGHT_SITES + jitter[len(_LEFT_SITES) : -1]
    septal = _RIGHT_SEPTUM_SITES + jitter[-1:]
    muscle = 0.78 * spread[0]  # endocardium without its Purkinje network, m/s
    fibrosis = 0.95 if heart.dcm else 1.0
    speeds = np.array([1.08 * spread[0], 1.30 * spread[1]]) * fibrosis
    if heart.lbbb:
        left, speeds[0] = left[:0], muscle * fibrosis
        right[:, 2] -= 8.0
        septal[:, 2] -= 8.0
    if heart.rbbb:
        right, septal, speeds[1] = right[:0], septal[:0], 0.76 * spread[1]
    left[:, 2] += SCARRED_SITE_MS * _scar_at(heart, left)
    right_mm = np.concatenate([endocardial_sites(heart, right, right=True), septal_sites(heart, septal)])
    return Conduction(
        left_m_s=float(speeds[0]),
        right_m_s=float(speeds[1]),
        left_sites_mm=endocardial_sites(heart, left),
        left_delays_ms=np.maximum(left[:, 2], 0.0),
        right_sites_mm=right_mm,
        right_delays_ms=np.maximum(np.concatenate([right[:, 2], septal[:, 2]]), 0.0),
        transmural_m_s=float(TRANSMURAL_M_S * np.exp(rng.normal(0.0, design.transmural_sd))),
    )


def _scar_at(heart: Heart, sites: Array) -> Array:
    """Scar fraction (k,) of the wall at sites (k, 3): a Purkinje network that lies in scar conducts late."""
    depth = sites[:, 1] * epicardial_length(heart) / heart.lv_length_mm
    return np.asarray(segment_weights(depth, np.deg2rad(sites[:, 0])) @ heart.scar)


def _draw_atria(heart: Heart, rng: np.random.Generator) -> AtrialDipoles:
    """Right atrium, then left atrium; larger atria are stronger and slower."""
    right, left = np.cbrt(heart.ra_volume_ml / 90.0), np.cbrt(heart.la_volume_ml / 70.0)
    # behind and to the right of the valve plane, in the torso frame; they follow the position of the heart
    place = heart.position_mm + np.array([[-42.0, -2.0, 8.0], [-14.0, 34.0, 22.0]])
    direction = np.array([[0.42, -0.42, -0.80], [0.80, 0.42, -0.42]]) + rng.normal(0.0, 0.12, size=(2, 3))
    strength = np.array([right**2, left**2]) * np.exp(rng.normal(0.0, 0.15, size=2)) * np.array([82.0, 70.0])
    duration = np.array([72.0 * right, 74.0 * left]) * np.exp(rng.normal(0.0, 0.06, size=2))
    onset = np.array([0.0, 0.42 * duration[0]])
    return AtrialDipoles(place, direction * strength[:, None], onset, duration, heart.pr_ms)


def draw_electrics(heart: Heart, rng: np.random.Generator, design: ElectricsDesign | None = None) -> Electrics:
    """Draw the electrical latents of a heart.

    Args:
        heart: The latent heart; its diagnoses change early sites and speeds.
        rng: Generator.
        design: Spread of the latents between subjects.
    """
    design = design or ElectricsDesign()
    conduction = _draw_conduction(heart, rng, design)
    atria = _draw_atria(heart, rng)
    # repolarization runs back from the epicardium: its lead is what the gradient leaves of the time across the wall
    crossing = USUAL_WALL_MM / conduction.transmural_m_s
    transmural = crossing + EPICARDIAL_LEAD_MS + rng.normal(0.0, design.gradient_sd_ms)
    placement = draw_placement(design.placement_mm, rng)
    trunk = heart.height_cm / 172.0 * (1.0 + rng.normal(0.0, design.trunk_sd))
    return Electrics(
        conduction=conduction,
        apd_ms=float(356.0 + (0.0 if heart.sex else 9.0) + rng.normal(0.0, design.apd_sd_ms)),
        transmural_ms=float(transmural),
        apex_base_ms=float(6.0 + rng.normal(0.0, design.gradient_sd_ms)),
        coupling=float(np.clip(rng.normal(0.35, 0.08), 0.05, 0.7)),
        tissue=float(np.exp(rng.normal(0.0, design.tissue_sd))),
        atria=atria,
        fibrillation_moment=float(rng.uniform(12.0, 45.0)) if heart.af else 0.0,
        electrodes_mm=place_electrodes(skin_axes(heart), trunk, placement),
        placement_mm=placement,
        breath_mm=design.breath_mm * float(rng.uniform(0.4, 1.4)),
        breath_deg=design.breath_deg * float(rng.uniform(0.4, 1.4)),
    )
