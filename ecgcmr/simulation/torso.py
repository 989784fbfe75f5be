"""The torso as an elliptic cylinder, the nine electrodes on it, and how a technician misplaces them.

Frame (LPS) [mm]: x to the left, y to the back, z up; origin in the middle of the torso at the level of the heart.
Limb electrodes sit where the limbs leave the torso: a limb carries no current, so its potential is that of its root.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecgcmr.simulation.heart import Heart

# Angle on the ellipse (0 left side, -90 degrees front, as the eccentric angle) and height for a torso of 160 mm
# half width. V1 and V2 in the 4th intercostal space at the sternum, V4 in the 5th at the midclavicular line, V6 at the
# midaxillary line, V3 and V5 between (Kligfield et al., Circulation 2007;115:1306).
_PRECORDIAL = {
    "V1": (-98.5, 16.0),
    "V2": (-81.5, 16.0),
    "V3": (-72.0, 0.0),
    "V4": (-50.0, -24.0),
    "V5": (-31.0, -26.0),
    "V6": (-8.0, -26.0),
}
# Where the limb leads look from, as shares of the half width (x), of the half depth (y) and in mm (z). No current
# leaves the trunk through the skin, so a shoulder or a hip has the potential of a nearer point of the infinite medium:
# these points lie at about 0.6 of the way to the roots of the limbs, which restores the usual ratio of the limb leads
# to the chest leads.
_LIMBS = {"RA": (-0.58, 0.0, 95.0), "LA": (0.58, 0.0, 95.0), "LL": (0.25, -0.1, -130.0)}
USUAL_FAT_MM = 13.0


def skin_axes(heart: Heart) -> tuple[float, float]:
    """Half width and half depth of the skin [mm]: the torso of the heart, plus the fat beyond the usual layer."""
    extra = heart.fat_mm - USUAL_FAT_MM
    return heart.torso_a_mm + extra, heart.torso_b_mm + extra


def on_torso(
    angle_rad: NDArray[np.float64] | float, height_mm: NDArray[np.float64] | float, half_axes_mm: tuple[float, float]
) -> NDArray[np.float64]:
    """Points (..., 3) [mm] of the elliptic cylinder at an eccentric angle [rad] and a height [mm]."""
    a, b = half_axes_mm
    x, y, z = np.broadcast_arrays(a * np.cos(angle_rad), b * np.sin(angle_rad), height_mm)
    return np.stack([x, y, z], axis=-1).astype(np.float64)


def place_electrodes(
    half_axes_mm: tuple[float, float],
    height_scale: float = 1.0,
    placement_mm: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Positions of `ELECTRODES` on the skin.

    Args:
        half_axes_mm: Half width and half depth of the torso, skin included [mm].
        height_scale: Length of the trunk relative to a person of 1.72 m.
        placement_mm: Errors (6, 2) of V1..V6 along the girth and upwards [mm]; None for perfect placement.

    Returns:
        Positions (9, 3) [mm], torso frame.
    """
    a, b = half_axes_mm
    limbs = np.array([(x * a, y * b, z * height_scale) for x, y, z in _LIMBS.values()])
    angle = np.deg2rad([spot[0] for spot in _PRECORDIAL.values()])
    height = np.array([spot[1] for spot in _PRECORDIAL.values()]) * height_scale
    if placement_mm is not None:
        # arc length per eccentric angle: one rad is between b (side) and a (front) millimeters
        angle = angle + placement_mm[:, 0] / np.hypot(a * np.sin(angle), b * np.cos(angle))
        height = height + placement_mm[:, 1]
    return np.concatenate([limbs, on_torso(angle, height, half_axes_mm)])


def draw_placement(scale_mm: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Placement errors (6, 2) [mm] of V1..V6: the whole row is shifted together, and each electrode by itself.

    Vertical error is larger than horizontal (Wenger & Kligfield, J Electrocardiol 1996;29:179): V1 and V2 are
    usually too high.
    """
    row = rng.normal(0.0, [0.5, 0.9]) * scale_mm
    return row + rng.normal(0.0, [0.5, 0.5], size=(6, 2)) * scale_mm
