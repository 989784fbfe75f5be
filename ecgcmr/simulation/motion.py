"""Motion of the heart through one cycle: volume curve, segment timing, moving base, incompressible wall.

Every material plane stays perpendicular to the long axis and sinks with the base; the endocardium of each segment moves
inwards by its own shortening at its own time; the epicardium follows from the conservation of wall volume in each wedge
of each plane, so LV mass is constant to rounding. Time is the phase u of the cycle, 0 at the R wave.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray

from ecgcmr.simulation import geometry
from ecgcmr.simulation.heart import Heart

Array = NDArray[np.float64]

N_ANGLES = 96  # angles of a ring; linear interpolation between them errs by less than 0.02 mm
RAPID_FILLING = 0.18  # length of rapid filling as a share of the cycle
SLOW_FILLING = 0.033  # share of the stroke volume that fills in diastasis
ATRIUM_WIDEST = 0.35  # where an atrium is widest, from its valve (0) to its roof (1)
_ATRIUM_SHAPE = 1 - ((1 - ATRIUM_WIDEST) + ATRIUM_WIDEST**3 / (1 - ATRIUM_WIDEST) ** 2) / 3


def kick_phase(heart: Heart) -> float:
    """Phase at which atrial contraction starts to fill the ventricle (fixed lead of the P wave; latest 0.92)."""
    earliest = heart.es_fraction + RAPID_FILLING + 0.04
    return float(np.clip(1.0 - (heart.pr_ms - 20.0) / heart.rr_ms, earliest, 0.92))


def ejected(heart: Heart, u: Array, delay: Array | float = 0.0) -> Array:
    """Share of the stroke volume that has left the ventricle at phase `u`: 0 at end-diastole, 1 at end-systole.

    Cosine ejection, cosine rapid filling, linear diastasis, cosine atrial kick. A delay shifts ejection and rapid
    filling, but not the kick, which is passive. Without a kick diastasis ends at full volume.

    Args:
        heart: Gives end of ejection, kick share and PR interval.
        u: Phases in [0, 1); broadcasts with `delay`.
        delay: Delay of contraction as a share of the cycle.
    """
    es, kick, start = heart.es_fraction, heart.kick_fraction, kick_phase(heart)
    # At a high rate a late segment would run into the kick; rapid filling keeps at least an eighth of the cycle.
    delay = np.clip(delay, 0.0, start - es - 0.14)
    end = es + delay
    filled = np.minimum(end + RAPID_FILLING, start - 0.02)
    rest = kick + SLOW_FILLING
    eject = 0.5 * (1 - np.cos(np.pi * np.clip((u - delay) / es, 0.0, 1.0)))
    rapid = 1 - (1 - rest) * 0.5 * (1 - np.cos(np.pi * np.clip((u - end) / (filled - end), 0.0, 1.0)))
    slow = rest - SLOW_FILLING * np.clip((u - filled) / (start - filled), 0.0, 1.0)
    late = kick * 0.5 * (1 + np.cos(np.pi * np.clip((u - start) / (1 - start), 0.0, 1.0)))
    return np.where(u >= start, late, np.where(u >= filled, slow, np.where(u >= end, rapid, eject)))


def contraction(share: Array, ef: float) -> Array:
    """Contraction in [0, 1] of lengths whose cubes follow the ejected share of a stroke with ejection fraction `ef`."""
    return (1 - np.cbrt(1 - ef * share)) / (1 - np.cbrt(1 - ef))


@lru_cache(maxsize=8)
def _angle_weights(angles: tuple[float, ...]) -> Array:
    return geometry.angular_weights(np.array(angles))


RING_ANGLES = tuple(2 * np.pi * k / N_ANGLES for k in range(N_ANGLES))


@dataclass(frozen=True)
class Motion:
    """A heart at F phases along P angles.

    Attributes:
        heart: The heart.
        phases: (F,) phases of the cycle, 0 at the R wave.
        angles: (P,) angles [radian].
        base_mm: (F,) descent of the base plane [mm].
        shrink: (F,) length of the LV over its end-diastolic length.
        wall_mm: (4, P) end-diastolic wall of the levels basal, mid, apical, apex cap [mm].
        inward: (F, 4, P) inward motion of the endocardium over its radius.
        crescent_mm: (P,) width of the RV at the base at end-diastole [mm].
        rv_scale: (F,) width of the RV over its end-diastolic width.
        activity: (F,) mean contraction in [0, 1].
        left_atrium: (F, 2) radius and length of the left atrium [mm].
        right_atrium: (F, 2) radius and length of the right atrium [mm].
    """

    heart: Heart
    phases: Array
    angles: Array
    base_mm: Array
    shrink: Array
    wall_mm: Array
    inward: Array
    crescent_mm: Array
    rv_scale: Array
    activity: Array
    left_atrium: Array
    right_atrium: Array

    def sections(self, depth_mm: Array, frame: NDArray[np.int64]) -> tuple[Array, Array]:
        """Radii and slopes of N material sections.

        Args:
            depth_mm: (N,) end-diastolic distance of each material plane from the base plane [mm].
            frame: (N,) index of the phase of each section.

        Returns:
            Radii (N, P, 4) [mm]: LV endocardium, LV epicardium, RV endocardium, RV epicardium; where there is no RV
            the last two equal the LV epicardium. Slopes (N, 2): change of LV endocardial and epicardial radius with
            distance along the long axis, without sign.
        """
        heart = self.heart
        length, tip = heart.lv_length_mm, geometry.epicardial_length(heart)
        equator = geometry.EQUATOR_FRACTION * length
        levels = geometry.level_weights(depth_mm / length)
        inner = geometry.profile(depth_mm, equator, length - equator)
        outer = geometry.profile(depth_mm, equator, tip - equator)
        taper = np.maximum(1 - (depth_mm / (heart.rv_length_fraction * tip)) ** 2, 0.0) ** geometry.RV_TAPER
        shape = np.stack([heart.lv_radius_mm * inner, outer, taper * self.rv_scale[frame], taper], axis=1)
        constants = np.array([heart.lv_radius_mm, heart.rv_wall_mm])
        radii = _sections(shape, levels, frame, self.shrink, self.wall_mm, self.inward, self.crescent_mm, constants)
        run = (depth_mm - equator) / self.shrink[frame]
        slope_in = heart.lv_radius_mm * run / ((length - equator) ** 2 * np.maximum(inner, 0.05))
        slope_out = (heart.lv_radius_mm + 6.0) * run / ((tip - equator) ** 2 * np.maximum(outer, 0.05))
        return radii, np.abs(np.stack([slope_in, slope_out], axis=1))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _sections(shape, levels, frame, shrink, wall, inward, crescent, constants):  # type: ignore[no-untyped-def]  # pragma: no cover
    n, n_angles = shape.shape[0], wall.shape[1]
    radius, rv_wall = constants[0], constants[1]
    out = np.empty((n, n_angles, 4))
    for i in range(n):
        f = frame[i]
        w0, w1, w2, w3 = levels[i, 0], levels[i, 1], levels[i, 2], levels[i, 3]
        for p in range(n_angles):
            thick = w0 * wall[0, p] + w1 * wall[1, p] + w2 * wall[2, p] + w3 * wall[3, p]
            pull = w0 * inward[f, 0, p] + w1 * inward[f, 1, p] + w2 * inward[f, 2, p] + w3 * inward[f, 3, p]
            endo_ed = shape[i, 0]
            epi_ed = (radius + thick) * shape[i, 1]
            endo = endo_ed * (1.0 - pull)
            epi = np.sqrt(endo * endo + (epi_ed * epi_ed - endo_ed * endo_ed) / shrink[f])
            rv_in, rv_out = epi, epi
            width_ed = crescent[p] * shape[i, 3]
            if width_ed > 0.0:
                rv_in = epi + crescent[p] * shape[i, 2]
                rv_ed = epi_ed + width_ed
                # The free wall grows out of the insertion line, so it starts there with thickness zero.
                outer_ed = rv_ed + rv_wall * min(1.0, width_ed / (2.0 * rv_wall))
                rv_out = np.sqrt(rv_in * rv_in + (outer_ed * outer_ed - rv_ed * rv_ed) / shrink[f])
            out[i, p, 0], out[i, p, 1], out[i, p, 2], out[i, p, 3] = endo, epi, rv_in, rv_out
    return out


def _atrium(volume_ml: Array, base_mm: Array) -> Array:
    """Radius and length (F, 2) [mm] of an atrium whose roof rests and whose floor is the moving base plane."""
    least = float(volume_ml[0]) * 1000.0
    length = 1.02 * np.cbrt(6 * least / np.pi) + base_mm
    return np.stack([np.sqrt(volume_ml * 1000.0 / (_ATRIUM_SHAPE * np.pi * length)), length], axis=1)


def nominal_ef(heart: Heart) -> float:
    """Ejection fraction of the mean shortening; only sets the shape of the contraction curve."""
    mean = float(np.mean(heart.radial_shortening[:16]))
    return float(np.clip(1 - (1 - mean) ** 2 * (1 - heart.longitudinal_shortening), 0.05, 0.85))


def move(heart: Heart, phases: Array, angles: tuple[float, ...] = RING_ANGLES) -> Motion:
    """The heart at `phases` (F,) along `angles` (P,) [radian]."""
    ef = nominal_ef(heart)
    # Columns: 17 segments, the RV free wall, the undelayed atrioventricular clock.
    delays = np.concatenate([heart.delay_ms, [heart.rv_delay_ms, 0.0]]) / heart.rr_ms
    share = ejected(heart, np.asarray(phases)[:, None], delays[None, :])
    active = contraction(share, ef)
    activity = active[:, :16].mean(axis=1)
    tip = geometry.epicardial_length(heart)
    base = heart.longitudinal_shortening * tip * activity
    angular = _angle_weights(angles)
    pull = active[:, :17] * heart.radial_shortening
    reservoir = share[:, -1]
    left = heart.la_volume_ml * (1 - heart.la_ef * (1 - reservoir))
    right = heart.ra_volume_ml * (1 - heart.ra_ef * (1 - reservoir))
    return Motion(
        heart=heart,
        phases=np.asarray(phases, dtype=np.float64),
        angles=np.array(angles),
        base_mm=base,
        shrink=1 - base / tip,
        wall_mm=np.ascontiguousarray((angular @ heart.wall_mm).T),
        inward=np.ascontiguousarray(np.einsum("plk,fk->flp", angular, pull)),
        crescent_mm=geometry.rv_bulge(heart, np.zeros(1), np.array(angles)),
        rv_scale=1 - heart.rv_shortening * active[:, 17],
        activity=activity,
        left_atrium=_atrium(left, base),
        right_atrium=_atrium(right, base),
    )
