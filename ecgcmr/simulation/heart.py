"""Heart: the one latent heart from which both the ECG and the cine are computed.

Frames of reference
    Heart frame [mm]: origin at the centre of the LV base plane at end-diastole; x lateral (away from the septum), y
    anterior, z from the base towards the apex (x, y, z are right-handed). The angle of a wall point is
    phi = atan2(y, x): lateral 0, anterior 90, septum 180, inferior 270 degrees.
    Torso frame [mm]: x left, y posterior, z superior (LPS), origin at the centre of the torso at heart level.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import IntEnum
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Centre angle [degree] of the 17 AHA segments (Cerqueira et al. 2002, 10.1161/hc0402.102975); the apex cap has none.
AHA_ANGLES_DEG = np.array([90, 150, 210, 270, 330, 30] * 2 + [90, 180, 270, 0, 0], dtype=np.float64)
AHA_NAMES = (
    "basal anterior", "basal anteroseptal", "basal inferoseptal",
    "basal inferior", "basal inferolateral", "basal anterolateral",
    "mid anterior", "mid anteroseptal", "mid inferoseptal", "mid inferior", "mid inferolateral", "mid anterolateral",
    "apical anterior", "apical septal", "apical inferior", "apical lateral", "apex",
)  # fmt: skip
# Segments (0-based) fed by each coronary artery (same source).
TERRITORIES: dict[str, tuple[int, ...]] = {
    "LAD": (0, 1, 6, 7, 12, 13, 16),
    "RCA": (2, 3, 8, 9, 14),
    "LCX": (4, 5, 10, 11, 15),
}
# Apex direction of a typical adult in the torso frame; the scale of one is restored in `orientation`.
APEX_DIRECTION = (0.70, -0.55, -0.45)


class Purpose(IntEnum):
    """Random streams of a heart: what is drawn for one purpose never moves what is drawn for another."""

    BODY = 1
    TARGETS = 2
    SHAPE = 3
    PLACEMENT = 4
    CONDITIONS = 5
    OUTCOMES = 6
    IMAGE = 7
    TISSUE = 8
    RATES = 9
    ELECTRICS = 100


def orientation(apex: Array | tuple[float, float, float] = APEX_DIRECTION, roll_deg: float = 0.0) -> Array:
    """Rotation (3, 3) from the heart frame to the torso frame.

    The anterior axis is the superior direction made perpendicular to the long axis, then rolled about it.

    Args:
        apex: (3,) direction from base to apex in the torso frame; any length but zero, not parallel to superior.
        roll_deg: Roll about the long axis [degree]; positive turns anterior towards the septum.
    """
    z = np.asarray(apex, dtype=np.float64)
    z = z / np.linalg.norm(z)
    y = np.array([0.0, 0.0, 1.0]) - z[2] * z
    y /= np.linalg.norm(y)
    x = np.cross(y, z)
    roll = np.deg2rad(roll_deg)
    return np.stack([np.cos(roll) * x + np.sin(roll) * y, np.cos(roll) * y - np.sin(roll) * x, z], axis=1)


@dataclass(frozen=True, eq=False)
class Heart:
    """A latent heart in its torso. `Heart()` is a healthy man of average size.

    Attributes:
        seed: Seed of the cohort.
        subject: Index in the cohort; every random stream of this heart derives from (seed, subject, purpose).
        sex: 0 female, 1 male.
        age_years: Age [years].
        height_cm: Height [cm].
        bmi: Body-mass index [kg/m^2].
        sbp_mmhg: Systolic blood pressure [mmHg].
        torso_a_mm: Left-right semi-axis of the elliptic torso [mm].
        torso_b_mm: Front-back semi-axis of the elliptic torso [mm].
        fat_mm: Thickness of the subcutaneous fat of the chest wall [mm].
        lv_length_mm: Endocardial length from base plane to apex at end-diastole [mm].
        lv_radius_mm: Endocardial radius at the equator at end-diastole [mm].
        wall_mm: (17,) end-diastolic wall thickness of the AHA segments [mm].
        rv_width_mm: Largest distance of the RV free wall from the septum at the base, end-diastole [mm].
        rv_length_fraction: Length of the RV over the epicardial length of the LV.
        rv_wall_mm: Thickness of the RV free wall [mm].
        rv_insertion_deg: Angles (anterior, inferior) of the lines where the RV meets the septum [degree].
        la_volume_ml: Largest volume of the left atrium [ml].
        ra_volume_ml: Largest volume of the right atrium [ml].
        la_ef: Emptying fraction of the left atrium.
        ra_ef: Emptying fraction of the right atrium.
        rotation: (3, 3) rotation from the heart frame to the torso frame.
        position_mm: (3,) centre of the LV base plane in the torso frame [mm].
        radial_shortening: (17,) fraction by which the endocardial radius of each segment shortens.
        longitudinal_shortening: Fraction of the epicardial length by which the base descends.
        rv_shortening: Fraction by which the width of the RV shortens.
        twist_deg: Systolic rotation of the apex against the base [degree].
        delay_ms: (17,) delay of contraction of each segment, from its electrical activation [ms].
        rv_delay_ms: Delay of contraction of the RV free wall [ms].
        es_fraction: End of ejection as a fraction of the cycle.
        kick_fraction: Share of the stroke volume that atrial contraction fills; 0 in atrial fibrillation.
        heart_rate_bpm: Heart rate [1/min].
        pr_ms: Interval from atrial to ventricular activation [ms].
        scar: (17,) scar fraction (transmurality) of each segment.
        ischemia: (17,) severity of subendocardial ischemia of each segment, 0 to 1.
        territory: Coronary artery of the old infarction: LAD, RCA, LCX or empty.
        cad_liability: Latent coronary liability; standard normal in the population.
        cad: Coronary artery disease (with or without infarction).
        old_mi: Old myocardial infarction.
        dcm: Dilated cardiomyopathy.
        hcm: Hypertrophic cardiomyopathy.
        hcm_type: septal, apical, concentric or empty.
        hypertension: Systemic hypertension.
        hhd: Hypertensive heart disease (left ventricular hypertrophy).
        lbbb: Left bundle branch block.
        rbbb: Right bundle branch block.
        avb1: First-degree atrioventricular block.
        af: Atrial fibrillation during the recording.
        group: Abstract group: 1 is the minority.
        site: Recruiting site.
        scanner: Name of the scanner preset.
    """

    seed: int = 0
    subject: int = 0
    sex: int = 1
    age_years: float = 62.0
    height_cm: float = 176.0
    bmi: float = 27.0
    sbp_mmhg: float = 135.0
    torso_a_mm: float = 168.0
    torso_b_mm: float = 118.0
    fat_mm: float = 14.0
    lv_length_mm: float = 92.0
    lv_radius_mm: float = 28.0
    wall_mm: Array = field(default_factory=partial(np.full, 17, 6.5))
    rv_width_mm: float = 36.0
    rv_length_fraction: float = 0.9
    rv_wall_mm: float = 3.5
    rv_insertion_deg: tuple[float, float] = (112.0, 250.0)
    la_volume_ml: float = 71.0
    ra_volume_ml: float = 92.0
    la_ef: float = 0.60
    ra_ef: float = 0.42
    rotation: Array = field(default_factory=orientation)
    position_mm: Array = field(default_factory=lambda: np.array([18.0, -12.0, 22.0]))
    radial_shortening: Array = field(default_factory=partial(np.full, 17, 0.30))
    longitudinal_shortening: float = 0.15
    rv_shortening: float = 0.25
    twist_deg: float = 12.0
    delay_ms: Array = field(default_factory=partial(np.full, 17, 0.0))
    rv_delay_ms: float = 0.0
    es_fraction: float = 0.35
    kick_fraction: float = 0.22
    heart_rate_bpm: float = 65.0
    pr_ms: float = 160.0
    scar: Array = field(default_factory=partial(np.full, 17, 0.0))
    ischemia: Array = field(default_factory=partial(np.full, 17, 0.0))
    territory: str = ""
    cad_liability: float = 0.0
    cad: bool = False
    old_mi: bool = False
    dcm: bool = False
    hcm: bool = False
    hcm_type: str = ""
    hypertension: bool = False
    hhd: bool = False
    lbbb: bool = False
    rbbb: bool = False
    avb1: bool = False
    af: bool = False
    group: int = 0
    site: int = 0
    scanner: str = "alpha"

    @property
    def weight_kg(self) -> float:
        """Body weight [kg]."""
        return self.bmi * (self.height_cm / 100.0) ** 2

    @property
    def bsa_m2(self) -> float:
        """Body surface area [m^2] (Mosteller, NEJM 1987, 10.1056/NEJM198710223171717)."""
        return float(np.sqrt(self.height_cm * self.weight_kg / 3600.0))

    @property
    def rr_ms(self) -> float:
        """Mean cycle length [ms]."""
        return 60_000.0 / self.heart_rate_bpm

    @property
    def apex_wall_mm(self) -> float:
        """Thickness of the apex cap along the long axis [mm]."""
        return float(self.wall_mm[16])

    def stream(self, purpose: int) -> np.random.Generator:
        """Random stream of this heart for one purpose, independent of every other purpose."""
        return np.random.default_rng(np.random.SeedSequence([self.seed, self.subject, purpose]))

    def to_dict(self) -> dict[str, Any]:
        """All latents as plain Python values (arrays as lists)."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}
