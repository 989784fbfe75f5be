"""CMR phenotypes measured on the realised, deforming geometry (never read off the latent inputs).

Names, order and field numbers follow UK Biobank 24100-24181 where the quantity exists (Bai et al. 2020,
10.1038/s41591-020-1009-y). Volumes are surface integrals by Gauss-Legendre quadrature; circumferential and radial
strains are peaks over the cycle at the basal, mid and apical level; longitudinal strains are contour lengths in the
four-chamber plane.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ecgcmr.simulation import geometry
from ecgcmr.simulation.heart import AHA_ANGLES_DEG, AHA_NAMES, Heart
from ecgcmr.simulation.motion import ATRIUM_WIDEST, RAPID_FILLING, Motion, kick_phase, move

Array = NDArray[np.float64]

MYOCARDIAL_DENSITY = 1.05  # [g/ml]
N_FRAMES = 25  # frames of a cine; ED and ES frame are counted among them
N_ANGLES = 48  # angles of the rings that are integrated
RING = tuple(2 * np.pi * k / N_ANGLES for k in range(N_ANGLES))
N_PHASES = 50  # phases at which the curves are measured: every cine frame and the middle between two
LEVEL_DEPTHS = (0.10, 0.24, 0.40, 0.58, 0.73, 0.85)  # two depths for each of basal, mid and apical
FOUR_CHAMBER_ANGLE = np.deg2rad(8.0)  # lateral angle of the four-chamber plane


@dataclass(frozen=True)
class Phenotype:
    """What one measured number is.

    Attributes:
        name: Name in tables.
        ukb_field: UK Biobank field, or None where there is none.
        unit: Unit.
        description: Words for a report.
    """

    name: str
    ukb_field: int | None
    unit: str
    description: str


def _specs() -> tuple[Phenotype, ...]:
    lv = [("LVEDV", "ml", "LV end-diastolic volume"), ("LVESV", "ml", "LV end-systolic volume")]
    lv += [("LVSV", "ml", "LV stroke volume"), ("LVEF", "%", "LV ejection fraction")]
    lv += [("LVCO", "l/min", "LV cardiac output"), ("LVM", "g", "LV myocardial mass")]
    lv += [("RVEDV", "ml", "RV end-diastolic volume"), ("RVESV", "ml", "RV end-systolic volume")]
    lv += [("RVSV", "ml", "RV stroke volume"), ("RVEF", "%", "RV ejection fraction")]
    for atrium in ("LA", "RA"):
        lv += [
            (f"{atrium}V_max", "ml", f"{atrium} maximum volume"),
            (f"{atrium}V_min", "ml", f"{atrium} minimum volume"),
        ]
        lv += [(f"{atrium}SV", "ml", f"{atrium} stroke volume"), (f"{atrium}EF", "%", f"{atrium} emptying fraction")]
    specs = [Phenotype(name, 24100 + k, unit, words) for k, (name, unit, words) in enumerate(lv)]
    families = (("WT", "mm", "end-diastolic wall thickness", 24124), ("Ecc", "%", "peak circumferential strain", 24141))
    for family, unit, words, first in (*families, ("Err", "%", "peak radial strain", 24158)):
        for k in range(16):
            specs.append(Phenotype(f"{family}_AHA_{k + 1}", first + k, unit, f"{words}, {AHA_NAMES[k]}"))
        specs.append(Phenotype(f"{family}_global", first + 16, unit, f"{words}, global"))
    for k in range(6):
        specs.append(Phenotype(f"Ell_{k + 1}", 24175 + k, "%", f"peak longitudinal strain, segment {k + 1}"))
    specs.append(Phenotype("Ell_global", 24181, "%", "peak longitudinal strain, global"))
    return tuple(specs)


PHENOTYPES = _specs()


@lru_cache(maxsize=8)
def _nodes(n: int) -> tuple[Array, Array]:
    x, w = np.polynomial.legendre.leggauss(n)
    return (x + 1) / 2, w / 2


@lru_cache(maxsize=1)
def _sectors() -> Array:
    """Share (16, P) of each ring angle in the mean over its AHA sector; neighbors share the angle on their border."""
    angle = np.rad2deg(2 * np.pi * np.arange(N_ANGLES) / N_ANGLES)
    width = np.array([60.0] * 12 + [90.0] * 4)[:, None]
    away = np.abs((angle[None] - AHA_ANGLES_DEG[:16, None] + 180) % 360 - 180)
    share = (away < width / 2 - 1e-6) + 0.5 * (np.abs(away - width / 2) <= 1e-6)
    return share / share.sum(axis=1, keepdims=True)


def _grid(motion: Motion, depth: Array, frames: NDArray[np.int64]) -> Array:
    """Radii (F, D, P, 4) at all pairs of frames and depths."""
    pairs_depth, pairs_frame = np.tile(depth, len(frames)), np.repeat(frames, len(depth))
    return motion.sections(pairs_depth, pairs_frame)[0].reshape(len(frames), len(depth), -1, 4)


def volume_curves(motion: Motion) -> tuple[Array, Array]:
    """LV and RV cavity volume (F,), (F,) [ml] of a motion over a full ring of evenly spaced angles."""
    heart = motion.heart
    frames, n_angles = np.arange(len(motion.phases)), len(motion.angles)
    x, w = _nodes(12)
    ring = _grid(motion, x * heart.lv_length_mm, frames)
    lv = np.pi * np.einsum("fdp,d->f", ring[..., 0] ** 2, w) / n_angles * heart.lv_length_mm * motion.shrink
    rv_length = heart.rv_length_fraction * geometry.epicardial_length(heart)
    ring = _grid(motion, x * rv_length, frames)
    area = ring[..., 2] ** 2 - ring[..., 1] ** 2
    rv = np.pi * np.einsum("fdp,d->f", area, w) / n_angles * rv_length * motion.shrink
    return lv / 1000.0, rv / 1000.0


def myocardial_volume(motion: Motion, frame: int = 0) -> float:
    """Volume of the LV wall [ml] at one frame."""
    heart, tip = motion.heart, geometry.epicardial_length(motion.heart)
    n_angles = len(motion.angles)
    x, w = _nodes(24)
    total = 0.0
    for k, length in ((1, tip), (0, heart.lv_length_mm)):
        ring = _grid(motion, x * length, np.array([frame]))
        volume = np.pi * np.einsum("fdp,d->", ring[..., k] ** 2, w) / n_angles * length * motion.shrink[frame]
        total += volume if k == 1 else -volume
    return float(total) / 1000.0


def _atrial_volume(size: Array) -> Array:
    x, w = _nodes(16)
    profile = np.maximum(1 - ((x - ATRIUM_WIDEST) / (1 - ATRIUM_WIDEST)) ** 2, 0.0)
    return np.pi * size[:, 0] ** 2 * size[:, 1] * float(profile @ w) / 1000.0


def _wall_and_strain(motion: Motion) -> dict[str, float]:
    """Wall thickness at end-diastole, and peak circumferential and radial strain, by AHA segment and global."""
    heart, frames = motion.heart, np.arange(0, len(motion.phases), 2)
    ring = _grid(motion, np.array(LEVEL_DEPTHS) * heart.lv_length_mm, frames)
    endo, epi = ring[..., 0], ring[..., 1]
    thickness = epi - endo
    # The material middle of the wall keeps half of the wall area inside it.
    middle = np.sqrt((endo**2 + epi**2) / 2)
    values: dict[str, float] = {}
    level = np.repeat([0, 1, 2], [6, 6, 4])
    sector = _sectors()
    rows = {"WT": thickness, "Ecc": middle, "Err": thickness}
    for family, field in rows.items():
        by_level = field.reshape(len(frames), 3, 2, N_ANGLES).mean(axis=2)
        segment = np.einsum("fkp,kp->fk", by_level[:, level], sector)
        if family == "WT":
            numbers, whole = segment[0], float(segment[0].mean())
        else:
            strain = 100 * (segment / segment[0] - 1)
            curve = strain.mean(axis=1)
            numbers = strain.min(axis=0) if family == "Ecc" else strain.max(axis=0)
            whole = float(curve.min() if family == "Ecc" else curve.max())
        values |= {f"{family}_AHA_{k + 1}": float(v) for k, v in enumerate(numbers)}
        values[f"{family}_global"] = whole
    return values


def _longitudinal_strain(heart: Heart, phases: Array) -> dict[str, float]:
    """Peak change of length of the mid-wall contour in the four-chamber plane: 3 lateral, 3 septal parts, and all."""
    plane = move(heart, phases, (FOUR_CHAMBER_ANGLE, FOUR_CHAMBER_ANGLE + np.pi))
    depth = np.linspace(0.0, 0.93, 31) * heart.lv_length_mm
    ring = _grid(plane, depth, np.arange(len(phases)))
    middle = np.sqrt((ring[..., 0] ** 2 + ring[..., 1] ** 2) / 2)
    step = np.diff(depth)[None, :, None] * plane.shrink[:, None, None]
    length = np.sqrt(np.diff(middle, axis=1) ** 2 + step**2).reshape(len(phases), 3, 10, 2).sum(axis=2)
    part = length.transpose(0, 2, 1).reshape(len(phases), 6)
    strain = 100 * (part / part[0] - 1).min(axis=0)
    values = {f"Ell_{k + 1}": float(v) for k, v in enumerate(strain)}
    values["Ell_global"] = float(100 * (length.sum(axis=(1, 2)) / length[0].sum() - 1).min())
    return values


def es_frame(heart: Heart, n_frames: int = N_FRAMES) -> int:
    """Frame of the smallest LV volume among `n_frames` frames of a cycle."""
    systole = move(heart, np.arange(n_frames) / n_frames, RING)
    return int(volume_curves(systole)[0].argmin())


def keyframe_times(heart: Heart, es_phase: float) -> dict[str, float]:
    """Times [ms] of end-diastole, mid-systole, end-systole, peak filling and mid-diastole (end of diastasis)."""
    shift = es_phase - heart.es_fraction
    peak = es_phase + RAPID_FILLING / 2
    start = kick_phase(heart)
    phases = {"ED": 0.0, "MS": shift + heart.es_fraction / 2, "ES": es_phase, "PF": peak, "MD": max(start, peak)}
    return {f"time_{name}_ms": phase * heart.rr_ms for name, phase in phases.items()}


def measure(heart: Heart) -> dict[str, float]:
    """All phenotypes of `PHENOTYPES`, then ED and ES frame of a 25-frame cine and the five keyframe times [ms]."""
    phases = np.arange(N_PHASES) / N_PHASES
    motion = move(heart, phases, RING)
    lv, rv = volume_curves(motion)
    stroke, rv_stroke = lv.max() - lv.min(), rv.max() - rv.min()
    values = {"LVEDV": lv.max(), "LVESV": lv.min(), "LVSV": stroke, "LVEF": 100 * stroke / lv.max()}
    values["LVCO"] = stroke * heart.heart_rate_bpm / 1000.0
    values["LVM"] = MYOCARDIAL_DENSITY * myocardial_volume(motion)
    values |= {"RVEDV": rv.max(), "RVESV": rv.min(), "RVSV": rv_stroke, "RVEF": 100 * rv_stroke / rv.max()}
    for name, size in (("LA", motion.left_atrium), ("RA", motion.right_atrium)):
        curve = _atrial_volume(size)
        emptied = curve.max() - curve.min()
        values |= {f"{name}V_max": curve.max(), f"{name}V_min": curve.min(), f"{name}SV": emptied}
        values[f"{name}EF"] = 100 * emptied / curve.max()
    values |= _wall_and_strain(motion) | _longitudinal_strain(heart, phases[::2])
    values |= {"frame_ED": 0.0, "frame_ES": float(lv[::2].argmin())}
    values |= keyframe_times(heart, float(phases[lv.argmin()]))
    return {name: float(value) for name, value in values.items()}
