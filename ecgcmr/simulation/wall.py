"""From the latent heart to wall points with electrical properties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecgcmr.simulation.activation import Wall
from ecgcmr.simulation.geometry import epicardial_length, lv_points, lv_radii, rv_bulge, rv_points, rv_radii
from ecgcmr.simulation.heart import Heart

LV_POINTS = 500
RV_POINTS = 200
SEPTUM_MIN_BULGE_MM = 3.0  # nearer to the insertion lines the right cavity is a slit: the wall counts as free wall


@dataclass(frozen=True)
class VentricularWall:
    """Wall points with what the segments of the heart give them.

    Attributes:
        wall: Geometry and scar, as `activation_times` takes them; left ventricle first.
        weights: Smooth membership (n, 17) of the AHA segments; zeros in the right ventricle.
        ischemia: Severity of subendocardial ischemia (n,).
        depth: Distance from the base over the epicardial length (n,).
    """

    wall: Wall
    weights: NDArray[np.float64]
    ischemia: NDArray[np.float64]
    depth: NDArray[np.float64]

    def segment_means(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Means (17,) of point values (n,) over the area of the AHA segments."""
        share = self.weights * np.linalg.norm(self.wall.area_vector, axis=1, keepdims=True)
        return (values @ share) / share.sum(axis=0)


def build_wall(heart: Heart, n_left: int = LV_POINTS, n_right: int = RV_POINTS) -> VentricularWall:
    """Sample both ventricles at end-diastole.

    Args:
        heart: The latent heart.
        n_left: Points of the left ventricle, about.
        n_right: Points of the right free wall, about.
    """
    left, right = lv_points(heart, n_left), rv_points(heart, n_right)
    position = np.concatenate([left.position, right.position])
    is_right = np.arange(len(position)) >= len(left.position)
    angle = np.arctan2(left.position[:, 1], left.position[:, 0])
    septum = np.zeros(len(position), dtype=bool)
    septum[~is_right] = rv_bulge(heart, left.position[:, 2], angle) > SEPTUM_MIN_BULGE_MM
    weights = np.concatenate([left.weights, right.weights])
    wall = Wall(
        position_mm=position,
        area_vector=np.concatenate([left.area_vector, right.area_vector]),
        thickness_mm=np.concatenate([left.thickness_mm, right.thickness_mm]),
        right=is_right,
        septum=septum,
        scar=np.clip(weights @ heart.scar, 0.0, 1.0),
    )
    return VentricularWall(wall, weights, weights @ heart.ischemia, position[:, 2] / epicardial_length(heart))


def endocardial_sites(heart: Heart, spots: NDArray[np.float64], right: bool = False) -> NDArray[np.float64]:
    """Positions (k, 3) [mm] on the endocardium of spots (k, 2) = angle [degree], depth over epicardial length."""
    phi = np.deg2rad(spots[:, 0])
    depth = spots[:, 1] * epicardial_length(heart)
    radius = rv_radii(heart, depth, phi)[0] if right else lv_radii(heart, depth, phi)[0]
    return np.stack([radius * np.cos(phi), radius * np.sin(phi), depth], axis=1)


def septal_sites(heart: Heart, spots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions (k, 3) [mm] on the right face of the septum of spots as in `endocardial_sites`."""
    phi = np.deg2rad(spots[:, 0])
    depth = spots[:, 1] * epicardial_length(heart)
    radius = lv_radii(heart, depth, phi)[1]
    return np.stack([radius * np.cos(phi), radius * np.sin(phi), depth], axis=1)
