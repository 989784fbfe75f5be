"""Healthy hearts: targets drawn from published reference values, and the geometry that realises them.

Reference values: Petersen et al., JCMR 2017;19:18 (10.1186/s12968-017-0327-9), UK Biobank, adults of 45 to 74 years.
Within a sex the logarithms of volumes and mass are normal, driven by height, BMI, age and blood pressure, and
correlated with each other; the ejection fractions are normal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ecgcmr.simulation import geometry
from ecgcmr.simulation.heart import Heart

Array = NDArray[np.float64]

# (mean, SD) for women and men.
REFERENCE: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "LVEDV": ((124.0, 21.0), (166.0, 32.0)),
    "LVM": ((70.0, 13.0), (103.0, 21.0)),
    "LVEF": ((61.0, 5.0), (58.0, 5.0)),
    "RVEDV": ((130.0, 24.0), (182.0, 36.0)),
    "RVEF": ((58.0, 6.0), (54.0, 6.0)),
    "LAV": ((62.0, 16.0), (71.0, 19.0)),
    "RAV": ((69.0, 17.0), (93.0, 26.0)),
}
# Standardized weight of height, BMI, age and blood pressure; the rest is a residual.
DRIVERS: dict[str, tuple[float, float, float, float]] = {
    "LVEDV": (0.36, 0.28, -0.22, 0.04),
    "LVM": (0.30, 0.38, -0.06, 0.24),
    "LVEF": (0.0, 0.0, 0.0, 0.05),
    "RVEDV": (0.36, 0.24, -0.26, 0.02),
    "RVEF": (0.0, -0.05, 0.08, 0.0),
    "LAV": (0.20, 0.24, 0.14, 0.16),
    "RAV": (0.24, 0.20, 0.10, 0.04),
}
# Correlation of the residuals, in the order of DRIVERS.
RESIDUALS = np.array(
    [
        [1.00, 0.55, -0.05, 0.82, -0.15, 0.35, 0.40],
        [0.55, 1.00, -0.05, 0.45, -0.05, 0.25, 0.25],
        [-0.05, -0.05, 1.00, -0.05, 0.45, 0.05, 0.00],
        [0.82, 0.45, -0.05, 1.00, -0.25, 0.30, 0.45],
        [-0.15, -0.05, 0.45, -0.25, 1.00, 0.00, -0.05],
        [0.35, 0.25, 0.05, 0.30, 0.00, 1.00, 0.55],
        [0.40, 0.25, 0.00, 0.45, -0.05, 0.55, 1.00],
    ]
)
# Relative wall thickness and relative shortening of the 17 segments in health.
WALL_PATTERN = np.array(
    [1.00, 1.07, 1.07, 1.0, 0.97, 0.97, 0.97, 1.04, 1.04, 0.98, 0.94, 0.94, 0.9, 0.94, 0.9, 0.88, 0.7]
)
MOTION_PATTERN = np.array(
    [1.0, 0.92, 0.92, 1.0, 1.03, 1.03, 1.02, 0.97, 0.97, 1.02, 1.04, 1.04, 1.1, 1.08, 1.1, 1.1, 1.1]
)
DENSITY = 1.05


def draw_targets(rng: np.random.Generator, sex: int, drivers: Array, spread: float = 1.0) -> dict[str, float]:
    """Volumes [ml], mass [g] and ejection fractions [%] of a healthy heart.

    Args:
        rng: Random stream.
        sex: 0 female, 1 male.
        drivers: (4,) standard scores of height, BMI, age and blood pressure within the sex.
        spread: Scales the residual.
    """
    names = list(REFERENCE)
    weights = np.array([DRIVERS[name] for name in names])
    residual = np.linalg.cholesky(RESIDUALS) @ rng.standard_normal(len(names))
    score = weights @ drivers + spread * np.sqrt(1 - (weights**2).sum(axis=1)) * residual
    score = np.clip(score, -2.8, 2.8)
    targets: dict[str, float] = {}
    for name, z in zip(names, score, strict=True):
        mean, sd = REFERENCE[name][sex]
        if name.endswith("EF"):
            targets[name] = float(mean + sd * z)
        else:
            width = np.sqrt(np.log1p((sd / mean) ** 2))
            targets[name] = float(mean * np.exp(width * z - width**2 / 2))
    return targets


N_ANGLES = 48


@dataclass(frozen=True)
class _Grid:
    """Quadrature over a depth from 0 to 1 (n,) and evenly spaced angles (P,).

    Attributes:
        x: (n,) nodes.
        w: (n,) weights, times 1/2 and the angle that each node covers: the sum over nodes and angles of w r^2 is the
            volume of a body of length 1 and radius r.
        angles: (P,) angles [radian].
        ring: (P, 4, 17) weights of the segments of each level.
    """

    x: Array
    w: Array
    angles: Array
    ring: Array


@lru_cache(maxsize=1)
def _grid() -> _Grid:
    nodes, weights = np.polynomial.legendre.leggauss(16)
    angles = 2 * np.pi * np.arange(N_ANGLES) / N_ANGLES
    return _Grid((nodes + 1) / 2, weights / 2 * np.pi / N_ANGLES, angles, geometry.angular_weights(angles))


def _spread(s: Array, values: Array) -> Array:
    """Values of the segments (17,) at the depths `s` (over endocardial length) and all angles: (n, P)."""
    spread: Array = geometry.level_weights(s) @ (_grid().ring @ values).T
    return spread


def size_ventricle(heart: Heart, edv_ml: float, elongation: float) -> Heart:
    """Sets length and radius for an end-diastolic volume [ml] and a ratio of length over diameter."""
    share = 1 - geometry.EQUATOR_FRACTION
    shape = np.pi * (1 - (share + geometry.EQUATOR_FRACTION**3 / share**2) / 3)
    radius = float(np.cbrt(edv_ml * 1000.0 / (shape * 2 * elongation)))
    return replace(heart, lv_radius_mm=radius, lv_length_mm=2 * elongation * radius)


def size_wall(heart: Heart, mass_g: float, pattern: Array) -> Heart:
    """Scales the wall pattern (17,) until the LV mass [g] is reached (secant on a nearly quadratic function)."""
    goal = mass_g / DENSITY * 1000.0
    length, radius = heart.lv_length_mm, heart.lv_radius_mm
    equator = geometry.EQUATOR_FRACTION * length
    grid = _grid()
    endo = radius * geometry.profile(grid.x * length, equator, length - equator)
    inner = float((endo**2 * grid.w).sum() * N_ANGLES * length)
    ring = (grid.ring @ pattern).T

    def volume(scale: float) -> float:
        tip = length + scale * pattern[16]
        wall = scale * (geometry.level_weights(grid.x * tip / length) @ ring)
        outer = (radius + wall) * geometry.profile(grid.x * tip, equator, tip - equator)[:, None]
        return float(((outer**2).sum(axis=1) @ grid.w) * tip) - inner

    low, high = 5.0, 8.0
    f_low, f_high = volume(low) - goal, volume(high) - goal
    for _ in range(4):
        if abs(f_high - f_low) < 1e-9:
            break
        low, high, f_low = high, high - f_high * (high - low) / (f_high - f_low), f_high
        f_high = volume(high) - goal
    return replace(heart, wall_mm=high * pattern)


def set_function(heart: Heart, ef: float, longitudinal: float, pattern: Array) -> Heart:
    """Scales the shortening pattern (17,) so that simultaneous contraction gives the ejection fraction `ef`."""
    length = heart.lv_length_mm
    equator = geometry.EQUATOR_FRACTION * length
    grid = _grid()
    area = (geometry.profile(grid.x * length, equator, length - equator) ** 2 * grid.w)[:, None]
    pull = _spread(grid.x, pattern)
    # Volume over shrink is zeroth - 2 e first + e^2 second; the smaller root is the physical one.
    zeroth, first, second = float(area.sum() * N_ANGLES), float((area * pull).sum()), float((area * pull**2).sum())
    rest = zeroth * (1 - (1 - ef) / (1 - longitudinal))
    root = float(np.sqrt(max(first**2 - second * rest, 0.0)))
    return replace(heart, longitudinal_shortening=longitudinal, radial_shortening=(first - root) / second * pattern)


def size_right_ventricle(heart: Heart, edv_ml: float, ef: float) -> Heart:
    """Sets RV width and shortening for an end-diastolic volume [ml] and an ejection fraction, given the LV."""
    tip, length = geometry.epicardial_length(heart), heart.lv_length_mm
    reach = heart.rv_length_fraction * tip
    equator = geometry.EQUATOR_FRACTION * length
    grid = _grid()
    depth = grid.x * reach
    weight = (grid.w * reach)[:, None]
    unit = geometry.rv_bulge(replace(heart, rv_width_mm=1.0), depth[:, None], grid.angles[None, :])
    endo = heart.lv_radius_mm * geometry.profile(depth, equator, length - equator)[:, None]
    wall = _spread(depth / length, heart.wall_mm)
    epi = (heart.lv_radius_mm + wall) * geometry.profile(depth, equator, tip - equator)[:, None]
    pull = _spread(depth / length, heart.radial_shortening)
    shrink = 1 - heart.longitudinal_shortening
    late = np.sqrt((endo * (1 - pull)) ** 2 + (epi**2 - endo**2) / shrink)

    def width(volume_ml: float, septum: Array) -> float:
        """Positive root of the quadratic volume(width)."""
        b, a = 2 * float((weight * septum * unit).sum()), float((weight * unit**2).sum())
        return (-b + float(np.sqrt(b**2 + 4 * a * volume_ml * 1000.0))) / (2 * a)

    wide = width(edv_ml, epi)
    narrow = width(edv_ml * (1 - ef) / shrink, late)
    return replace(heart, rv_width_mm=wide, rv_shortening=float(np.clip(1 - narrow / wide, 0.02, 0.7)))
