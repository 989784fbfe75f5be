"""The end-diastolic shape of the ventricles: profiles, smooth segments, and surface points for the forward ECG.

LV endocardium and epicardium are ellipsoids of revolution cut above their common equator (a truncated prolate shape);
the wall varies with the AHA segment. The RV free wall is a crescent that leaves the LV epicardium at the two insertion
lines. All lengths are in the heart frame [mm] (see `ecgcmr.simulation.heart`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from ecgcmr.simulation.heart import Heart

Array = NDArray[np.float64]

EQUATOR_FRACTION = 0.2  # distance of the equator from the base plane over the endocardial length
LEVEL_EDGES = (0.34, 0.67, 0.93)  # borders basal | mid | apical | apex cap, over the endocardial length
LEVEL_BLEND = 0.11  # half-width of the smooth passage between levels, over the endocardial length
RV_ROUNDNESS = 0.8  # exponent of the crescent across the angle: 0.5 is an ellipse, 1 a parabola
RV_TAPER = 0.75  # exponent of the RV width towards its apex


@dataclass(frozen=True)
class SurfacePoints:
    """Samples of a wall; the sum of the lengths of `area_vector` is the area of its mid-wall surface.

    Attributes:
        position: (n, 3) mid-wall position [mm].
        endo: (n, 3) endocardial position [mm].
        epi: (n, 3) epicardial position [mm].
        area_vector: (n, 3) outward area vector of the mid-wall surface [mm^2].
        thickness_mm: (n,) wall thickness along the normal [mm].
        segment: (n,) AHA segment, 0 to 16; -1 on the RV.
        weights: (n, 17) smooth membership of the AHA segments, rows sum to 1; zeros for the RV.
    """

    position: Array
    endo: Array
    epi: Array
    area_vector: Array
    thickness_mm: Array
    segment: NDArray[np.int64]
    weights: Array


@numba.njit(cache=True, nogil=True, inline="always")
def _smoothstep(x):  # type: ignore[no-untyped-def]
    x = min(max(x, 0.0), 1.0)
    return x * x * (3.0 - 2.0 * x)


@numba.njit(cache=True, nogil=True)
def _levels(s, edges, blend, out):  # type: ignore[no-untyped-def]
    """Writes the level weights (n, 4) of the depths (n,)."""
    for i in range(s.size):
        first = _smoothstep((s[i] - edges[0] + blend) / (2.0 * blend))
        second = _smoothstep((s[i] - edges[1] + blend) / (2.0 * blend))
        third = _smoothstep((s[i] - edges[2] + blend) / (2.0 * blend))
        out[i, 0], out[i, 1], out[i, 2], out[i, 3] = 1.0 - first, first - second, second - third, third


@numba.njit(cache=True, nogil=True)
def _sectors(phi, count, first, out):  # type: ignore[no-untyped-def]
    """Writes the weights (n, count) of equal sectors, sector k centered at first + 2 pi k / count.

    The passage takes the middle 60 % between two centers, so that the center of each segment keeps its own value.
    """
    turn = 2.0 * np.pi
    for i in range(phi.size):
        place = ((phi[i] - first) % turn) / turn * count
        low = np.floor(place)
        up = _smoothstep((place - low - 0.2) / 0.6)
        k = int(low) % count
        out[i, k] = 1.0 - up
        out[i, (k + 1) % count] = up


def level_weights(s: Array) -> Array:
    """Smooth membership (..., 4) of basal, mid, apical and apex cap at `s` = depth over endocardial length."""
    s = np.asarray(s, dtype=np.float64)
    out = np.empty((s.size, 4))
    _levels(s.ravel(), LEVEL_EDGES, LEVEL_BLEND, out)
    return out.reshape(*s.shape, 4)


def angular_weights(phi: Array) -> Array:
    """Smooth membership (..., 4, 17) of the segments of each level at the angle `phi` [radian]."""
    phi = np.asarray(phi, dtype=np.float64)
    flat, out = phi.ravel(), np.zeros((phi.size, 4, 17))
    _sectors(flat, 6, np.pi / 2, out[:, 0, 0:6])
    _sectors(flat, 6, np.pi / 2, out[:, 1, 6:12])
    _sectors(flat, 4, np.pi / 2, out[:, 2, 12:16])
    out[:, 3, 16] = 1.0
    return out.reshape(*phi.shape, 4, 17)


def segment_weights(s: Array, phi: Array) -> Array:
    """Smooth membership (..., 17) of the AHA segments at depth `s` (over endocardial length) and angle `phi`."""
    depth, angle = np.broadcast_arrays(np.asarray(s, dtype=np.float64), np.asarray(phi, dtype=np.float64))
    weights = (level_weights(depth)[..., None, :] @ angular_weights(angle))[..., 0, :]
    return np.asarray(weights)


def epicardial_length(heart: Heart) -> float:
    """Length from the base plane to the epicardial apex [mm]."""
    return heart.lv_length_mm + heart.apex_wall_mm


def profile(depth: Array, equator: float, semi_axis: float) -> Array:
    """Radius over the equatorial radius of an ellipsoid at `depth` [mm]; 0 beyond its apex."""
    return np.sqrt(np.maximum(1.0 - ((depth - equator) / semi_axis) ** 2, 0.0))


def lv_radii(heart: Heart, depth_mm: Array, phi: Array) -> tuple[Array, Array]:
    """Endocardial and epicardial radius [mm] in the short-axis plane at end-diastole.

    Args:
        heart: The heart.
        depth_mm: Distance from the base plane, 0 to the epicardial length [mm]; broadcasts with `phi`.
        phi: Angle [radian].
    """
    depth, angle = np.broadcast_arrays(np.asarray(depth_mm, dtype=np.float64), np.asarray(phi, dtype=np.float64))
    equator = EQUATOR_FRACTION * heart.lv_length_mm
    wall = segment_weights(depth / heart.lv_length_mm, angle) @ heart.wall_mm
    endo = heart.lv_radius_mm * profile(depth, equator, heart.lv_length_mm - equator)
    epi = (heart.lv_radius_mm + wall) * profile(depth, equator, epicardial_length(heart) - equator)
    return endo, epi


def rv_bulge(heart: Heart, depth_mm: Array, phi: Array) -> Array:
    """Distance [mm] of the RV endocardial free wall from the LV epicardium at end-diastole; 0 outside the crescent."""
    start, stop = np.deg2rad(heart.rv_insertion_deg)
    length = heart.rv_length_fraction * epicardial_length(heart)
    across = (np.mod(phi, 2 * np.pi) - (start + stop) / 2) / ((stop - start) / 2)
    along = np.asarray(depth_mm) / length
    crescent = np.maximum(1.0 - across**2, 0.0) ** RV_ROUNDNESS
    return heart.rv_width_mm * crescent * np.maximum(1.0 - along**2, 0.0) ** RV_TAPER


def rv_radii(heart: Heart, depth_mm: Array, phi: Array) -> tuple[Array, Array]:
    """Inner and outer radius [mm] of the RV free wall about the LV axis at end-diastole (short-axis plane)."""
    _, epi = lv_radii(heart, depth_mm, phi)
    inner = epi + rv_bulge(heart, depth_mm, phi)
    return inner, inner + heart.rv_wall_mm


def _cylinder(radius: Array, phi: Array, depth: Array) -> Array:
    return np.stack([radius * np.cos(phi), radius * np.sin(phi), depth], axis=-1)


def _area_vectors(surface: Callable[[Array, Array], Array], u: Array, phi: Array, cell: Array) -> Array:
    """Outward area vectors (n, 3): central differences of the surface along u and phi times the cell sizes."""
    step = 1e-4
    along = (surface(u + step, phi) - surface(u - step, phi)) / (2 * step)
    around = (surface(u, phi + step) - surface(u, phi - step)) / (2 * step)
    return np.cross(around, along) * cell[:, None]


def _rings(counts: NDArray[np.int64], start: float, stop: float) -> tuple[Array, Array]:
    """Angles (n,) of points set evenly on rings of `counts` points between two angles, and the angle each covers."""
    phi = [start + (np.arange(count) + 0.5) * (stop - start) / count for count in counts]
    return np.concatenate(phi), np.concatenate([np.full(count, (stop - start) / count) for count in counts])


def _ring_counts(perimeters: Array, n: int, least: int) -> NDArray[np.int64]:
    return np.maximum(np.round(n * perimeters / perimeters.sum()).astype(np.int64), least)


def lv_points(heart: Heart, n: int = 500) -> SurfacePoints:
    """About `n` points of the LV wall at end-diastole, evenly spread; the number depends on the shape alone."""
    length, tip = heart.lv_length_mm, epicardial_length(heart)
    equator = EQUATOR_FRACTION * length
    middle = (length + tip) / 2 - equator  # semi-axis of the mid-wall surface, from its equator to its apex

    def at(theta: Array, phi: Array, share: float) -> Array:
        """Point between endocardium (share 0) and epicardium (1) along the eccentric angle theta."""
        semi = (length - equator) * (1 - share) + (tip - equator) * share
        top = np.arcsin(min(equator / middle, 1.0))
        # The base plane cuts all layers at depth 0: above the equator the angle is stretched to end there.
        own_top = np.arcsin(min(equator / semi, 1.0))
        angle = np.where(theta < 0, theta * own_top / top, theta)
        depth = equator + semi * np.sin(angle)
        wall = segment_weights(depth / length, phi) @ heart.wall_mm
        return _cylinder((heart.lv_radius_mm + share * wall) * np.cos(angle), phi, depth)

    low = -np.arcsin(equator / middle)
    n_rings = max(round(float(np.sqrt(n / 2.0))), 4)
    theta_ring = low + (np.arange(n_rings) + 0.5) * (np.pi / 2 - low) / n_rings
    counts = _ring_counts(np.cos(theta_ring), n, 4)
    phi, d_phi = _rings(counts, 0.0, 2 * np.pi)
    theta = np.repeat(theta_ring, counts)
    # Cells of the eccentric angle shrink with cos(theta) at the apex: the mean over the cell is exact there.
    d_theta = (np.pi / 2 - low) / n_rings
    exact = (np.sin(theta + d_theta / 2) - np.sin(theta - d_theta / 2)) / np.cos(theta)
    area = _area_vectors(lambda u, v: at(u, v, 0.5), theta, phi, d_phi * exact)
    position, endo, epi = at(theta, phi, 0.5), at(theta, phi, 0.0), at(theta, phi, 1.0)
    normal = area / np.linalg.norm(area, axis=1, keepdims=True)
    weights = segment_weights(position[:, 2] / length, phi)
    thickness = np.abs(((epi - endo) * normal).sum(axis=1))
    return SurfacePoints(position, endo, epi, area, thickness, weights.argmax(axis=1), weights)


def rv_points(heart: Heart, n: int = 110) -> SurfacePoints:
    """About `n` points of the RV free wall at end-diastole."""
    start, stop = np.deg2rad(heart.rv_insertion_deg)
    length = heart.rv_length_fraction * epicardial_length(heart)

    def at(u: Array, v: Array, share: float) -> Array:
        # u and v are eccentric angles: they spread the points where the free wall turns towards the septum.
        depth, phi = length * np.sin(u), (start + stop) / 2 + (stop - start) / 2 * np.sin(v)
        inner, outer = rv_radii(heart, depth, phi)
        return _cylinder(inner * (1 - share) + outer * share, phi, depth)

    n_rings = max(round(float(np.sqrt(n / 1.3))), 4)
    d_u = np.pi / 2 / n_rings
    u_ring = (np.arange(n_rings) + 0.5) * d_u
    counts = _ring_counts(np.cos(u_ring) + 0.25, n, 4)
    v, d_v = _rings(counts, -np.pi / 2, np.pi / 2)
    u = np.repeat(u_ring, counts)
    area = _area_vectors(lambda a, b: at(a, b, 0.5), u, v, d_v * d_u)
    position, endo, epi = at(u, v, 0.5), at(u, v, 0.0), at(u, v, 1.0)
    thickness = np.full(len(u), heart.rv_wall_mm)
    return SurfacePoints(position, endo, epi, area, thickness, np.full(len(u), -1), np.zeros((len(u), 17)))
