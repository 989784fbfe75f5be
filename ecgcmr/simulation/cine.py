"""Short-axis cine of a heart, with label masks: the same deforming geometry that is measured in `phenotypes`.

Slice k of n lies at (k + 1/2) d below the end-diastolic base plane, with d chosen so that the stack covers the
ventricle. Every slice and frame is painted by itself from tables that never depend on what else was asked for, so a
subset of slices and frames equals the same part of the whole stack, byte by byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from ecgcmr.cmr.cine import Cine
from ecgcmr.simulation import geometry
from ecgcmr.simulation.heart import Heart
from ecgcmr.simulation.motion import ATRIUM_WIDEST, N_ANGLES, Motion, move
from ecgcmr.simulation.painting import paint_section, section_key
from ecgcmr.simulation.phenotypes import N_FRAMES, es_frame
from ecgcmr.simulation.scanner import MAX_SLICES, Imaging, ImagingDesign, draw_imaging
from ecgcmr.simulation.thorax import paint_thorax, thorax_numbers

Array = NDArray[np.float64]

N_SLICES = 9
SIZE = 96
SPACING_MM = 1.8
SAX_LABELS = {1: "lv_cavity", 2: "lv_myocardium", 3: "rv_cavity"}
# Angle [degree] and place from the center of the papillary muscles: anterolateral and posteromedial.
PAPILLARY = ((42.0, 0.66), (292.0, 0.66))


@dataclass(frozen=True)
class Grid:
    """The short-axis stack.

    Attributes:
        n_slices: Slices of the whole stack.
        n_frames: Frames of the whole cycle.
        size: Rows and columns.
        spacing_mm: Pixel size [mm].
    """

    n_slices: int = N_SLICES
    n_frames: int = N_FRAMES
    size: int = SIZE
    spacing_mm: float = SPACING_MM

    def __post_init__(self) -> None:
        if not 1 <= self.n_slices <= MAX_SLICES:
            raise ValueError(f"n_slices must lie in [1, {MAX_SLICES}], got {self.n_slices}")
        if not 1 <= self.n_frames <= 1000:
            raise ValueError(f"n_frames must lie in [1, 1000], got {self.n_frames}")
        if not 16 <= self.size <= 256:
            raise ValueError(f"size must lie in [16, 256] pixels, got {self.size}")
        if not self.spacing_mm > 0:
            raise ValueError(f"spacing_mm must be positive, got {self.spacing_mm}")


def chosen(wanted: Sequence[int] | None, count: int, what: str) -> NDArray[np.int64]:
    """The chosen slices or frames as an array; all when nothing was asked for.

    Raises:
        ValueError: Nothing is chosen, or a number outside [0, count).
    """
    numbers = np.arange(count) if wanted is None else np.asarray(wanted, dtype=np.int64)
    if numbers.ndim != 1 or numbers.size == 0 or numbers.min() < 0 or numbers.max() >= count:
        raise ValueError(f"{what} must be a non-empty list of numbers in [0, {count}), got {wanted}")
    return numbers


def slice_distance_mm(heart: Heart, n_slices: int = N_SLICES) -> float:
    """Distance of the slices [mm]: 8 mm or more, so that the whole stack covers the ventricle."""
    least = 8.0 if n_slices <= N_SLICES else 1.0
    return float(max(geometry.epicardial_length(heart) / n_slices, least))


def render_sax(
    heart: Heart,
    slices: Sequence[int] | None = None,
    frames: Sequence[int] | None = None,
    grid: Grid | None = None,
    imaging: ImagingDesign | None = None,
    scanner: str | None = None,
) -> Cine:
    """Short-axis cine, or some slices and frames of it.

    Args:
        heart: The heart.
        slices: Slices of the stack, base first; all by default.
        frames: Frames of the cycle, 0 is the R wave; all by default.
        grid: The whole stack: 9 slices of 25 frames of 96 x 96 pixels of 1.8 mm by default.
        imaging: Spread of the imaging nuisance.
        scanner: Preset instead of the one of the heart.

    Raises:
        ValueError: A slice, a frame, the grid or the scanner does not exist.
    """
    grid = grid or Grid()
    rows = chosen(slices, grid.n_slices, "slices")
    columns = chosen(frames, grid.n_frames, "frames")
    drawn = draw_imaging(heart, imaging or ImagingDesign(), scanner)
    motion = move(heart, np.arange(grid.n_frames) / grid.n_frames)
    distance = slice_distance_mm(heart, grid.n_slices)
    z = np.arange(grid.n_slices, dtype=np.float64) * distance + 0.5 * distance
    rings, still, numbers, papillary, discs = _section_tables(motion, z, drawn, grid)
    place, static = _slice_layers(heart, z, drawn, grid, rows)
    shape = (len(rows), len(columns), grid.size, grid.size)
    pixels, labels = np.empty(shape, dtype=np.uint8), np.empty(shape, dtype=np.uint8)
    _paint_stack(
        pixels, labels, rows, columns, place, static, rings, still, numbers, papillary, discs,
        drawn.signals, drawn.texture, drawn.key[0],
    )  # fmt: skip
    return Cine(
        pixels=pixels,
        spacing_mm=(grid.spacing_mm, grid.spacing_mm),
        slice_spacing_mm=distance if grid.n_slices > 1 else 0.0,
        affine=_affine(heart, drawn, grid, z[rows]),
        frame_times_ms=columns.astype(np.float64) / grid.n_frames * heart.rr_ms,
        view="sax",
        masks=labels,
        mask_labels=SAX_LABELS,
        source="simulated",
    )


def render_mid3(heart: Heart, imaging: ImagingDesign | None = None, scanner: str | None = None) -> Cine:
    """Middle slice at end-diastole, mid-systole and end-systole: exactly these frames of the whole stack."""
    end = es_frame(heart)
    return render_sax(heart, [N_SLICES // 2], [0, max(end // 2, 1), max(end, 2)], imaging=imaging, scanner=scanner)


def _section_tables(motion: Motion, z: Array, drawn: Imaging, grid: Grid) -> tuple[Array, ...]:
    """What the painter reads, for all slices and frames of the stack: rings, still, numbers, papillary, discs."""
    heart, n_s, n_f = motion.heart, len(z), len(motion.phases)
    tip = geometry.epicardial_length(heart)
    frame = np.tile(np.arange(n_f), n_s)
    height = np.repeat(z, n_f) - motion.base_mm[frame]
    depth = np.clip(height / motion.shrink[frame], 0.0, tip)
    rings, slope = motion.sections(depth, frame)
    thick = drawn.scanner.slice_mm
    edge = drawn.scanner.edge_mm
    # A wall that leans against the slice is blurred over the slice thickness.
    widths = np.minimum(np.hypot(edge, 0.30 * thick * slope), 6.0)
    numbers = np.empty((n_s * n_f, 8))
    numbers[:, 0:2] = widths
    numbers[:, 2] = np.clip(0.5 + height / thick, 0.0, 1.0)
    numbers[:, 3] = (height >= 0.0) & (np.repeat(z, n_f) <= tip)
    numbers[:, 4] = heart.twist_deg / 360.0 * motion.activity[frame] * (depth / tip - 0.3)
    numbers[:, 5] = depth / tip
    numbers[:, 6], numbers[:, 7] = grid.spacing_mm, drawn.noise
    rings = rings.reshape(n_s, n_f, N_ANGLES, 4)
    still = np.ascontiguousarray(rings[:, 0, :, 3])
    papillary = _papillary(motion, depth, frame, rings).reshape(n_s, n_f, 2, 3)
    return rings, still, numbers.reshape(n_s, n_f, 8), papillary, _discs(motion, z)


def _papillary(motion: Motion, depth: Array, frame: NDArray[np.int64], rings: Array) -> Array:
    """Place and radius (N, 2, 3) [mm] of the papillary muscles: free at mid level, one with the wall at the apex."""
    heart = motion.heart
    s = depth / heart.lv_length_mm
    free = np.clip((s - 0.22) / 0.12, 0.0, 1.0) * np.clip((0.80 - s) / 0.12, 0.0, 1.0)
    radius = 0.19 * heart.lv_radius_mm * np.sqrt(free / motion.shrink[frame])
    flat = rings.reshape(len(depth), N_ANGLES, 4)
    out = np.empty((len(depth), 2, 3))
    for k, (degree, share) in enumerate(PAPILLARY):
        endo = flat[:, round(degree / 360 * N_ANGLES) % N_ANGLES, 0]
        # Towards the apex the muscle moves out until it merges with the wall; in systole it keeps its own thickness.
        out_share = share + 0.08 * motion.activity[frame] + 0.3 * np.clip((s - 0.5) / 0.3, 0.0, 1.0)
        center = np.maximum(np.minimum(endo * out_share, endo - 0.5 * radius), 0.0)
        out[:, k, 0] = center * np.cos(np.deg2rad(degree))
        out[:, k, 1] = center * np.sin(np.deg2rad(degree))
        out[:, k, 2] = np.minimum(radius, 0.42 * endo)
    return out


def _discs(motion: Motion, z: Array) -> Array:
    """Atria, aortic root and outflow of the RV (S, F, 4, 3): x, y, radius [mm] where a slice lies above the base."""
    heart = motion.heart
    above = motion.base_mm[None, :] - z[:, None]
    discs = np.zeros((len(z), len(motion.phases), 4, 3))
    wide = heart.lv_radius_mm + float(heart.wall_mm[:6].mean())
    for k, (size, x) in enumerate(((motion.left_atrium, 2.0), (motion.right_atrium, -wide - 0.45 * heart.rv_width_mm))):
        place = above / size[None, :, 1]
        radius = size[None, :, 0] * geometry.profile(place, ATRIUM_WIDEST, 1 - ATRIUM_WIDEST)
        discs[:, :, k] = np.stack([np.full_like(radius, x), np.full_like(radius, -6.0), radius * (place > 0)], axis=-1)
    scale = heart.lv_radius_mm / 28.0
    discs[:, :, 2] = np.array([-12.0, 15.0, 13.0]) * scale
    discs[:, :, 3] = np.array([-14.0, 42.0, 13.0]) * scale
    return discs


def _in_plane(drawn: Imaging) -> Array:
    """(2, 2) from image directions (right, up) to heart x and y."""
    cos, sin = np.cos(drawn.rotation), np.sin(drawn.rotation)
    return np.array([[cos, sin], [-sin, cos]])


def _affine(heart: Heart, drawn: Imaging, grid: Grid, z: Array) -> Array:
    """(4, 4) from (column, row, slice) to RAS [mm]; breath-hold shifts are unknown to it, as in a scanner."""
    turn, half = _in_plane(drawn), (grid.size - 1) / 2 * grid.spacing_mm
    step = z[1] - z[0] if len(z) > 1 else slice_distance_mm(heart, grid.n_slices)
    local = np.eye(4)
    local[:2, 0] = turn @ np.array([grid.spacing_mm, 0.0])
    local[:2, 1] = turn @ np.array([0.0, -grid.spacing_mm])
    local[2, 2] = step
    local[:2, 3] = turn @ (np.array([-half, half]) - drawn.center_mm[0])
    local[2, 3] = z[0]
    torso = np.eye(4)
    torso[:3, :3], torso[:3, 3] = heart.rotation, heart.position_mm
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ torso @ local


def shading(size: int, bias: Array) -> NDArray[np.float32]:
    """Receiver shading (size, size): the exponential of a quadratic polynomial over the image."""
    v, u = np.mgrid[1 : -1 : size * 1j, -1 : 1 : size * 1j]
    field = bias[0] * u + bias[1] * v + bias[2] * u * v + bias[3] * (u * u - 0.33) + bias[4] * (v * v - 0.33)
    return np.exp(field).astype(np.float32)


def _slice_layers(
    heart: Heart, z: Array, drawn: Imaging, grid: Grid, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Place (S, 4, H, W) and static (S, 5, H, W) layers of the chosen slices; see `paint_section`."""
    size, half = grid.size, (grid.size - 1) / 2
    turn = _in_plane(drawn)
    place = np.empty((len(rows), 4, size, size), dtype=np.float32)
    static = np.empty((len(rows), 5, size, size), dtype=np.float32)
    shade = shading(size, drawn.bias[0])
    numbers = thorax_numbers(heart, drawn.signals, drawn.key[0])
    right = (np.arange(size) - half) * grid.spacing_mm
    for n, k in enumerate(rows):
        u = (right - drawn.center_mm[0, 0] - drawn.shift_mm[k, 0])[None, :]
        v = (-right - drawn.center_mm[0, 1] - drawn.shift_mm[k, 1])[:, None]
        x, y = turn[0, 0] * u + turn[0, 1] * v, turn[1, 0] * u + turn[1, 1] * v
        angle = np.mod(np.arctan2(y, x), 2 * np.pi)
        place[n] = np.stack([x, y, np.minimum(angle / (2 * np.pi), 1 - 1e-7) * N_ANGLES, np.hypot(x, y)])
        corner = heart.position_mm + heart.rotation @ np.array([x[0, 0], y[0, 0], z[k]])
        column = heart.rotation @ np.array([x[0, 1] - x[0, 0], y[0, 1] - y[0, 0], 0.0])
        row = heart.rotation @ np.array([x[1, 0] - x[0, 0], y[1, 0] - y[0, 0], 0.0])
        static[n, 0] = paint_thorax(corner, column, row, size, numbers)
        static[n, 1] = shade
        static[n, 2] = _pericardial_fat(heart, angle)
        static[n, 3], static[n, 4] = np.broadcast_to(-v, (size, size)), np.broadcast_to(u, (size, size))
    return place, static


def _pericardial_fat(heart: Heart, angle: Array) -> Array:
    """Thickness [mm] of the fat on the heart: thick in the grooves and over the RV, more with a high BMI."""
    start, stop = np.deg2rad(heart.rv_insertion_deg)
    grooves = np.exp(-(((angle - start + 0.12) / 0.22) ** 2)) + np.exp(-(((angle - stop - 0.12) / 0.22) ** 2))
    over = np.exp(-(((angle - np.pi) / 0.8) ** 2))
    return (heart.bmi / 27.0) * (0.8 + 3.5 * grooves + 2.2 * over)


@numba.njit(cache=True, nogil=True)
def _paint_stack(  # type: ignore[no-untyped-def]
    pixels, labels, rows, columns, place, static, rings, still, numbers, papillary, discs, signals, texture, key
):
    size = pixels.shape[2]
    scratch = np.empty((6, size, size), dtype=np.float32)
    for n in range(len(rows)):
        k = rows[n]
        for m in range(len(columns)):
            f = columns[m]
            paint_section(
                pixels[n, m], labels[n, m], scratch, place[n], rings[k, f], still[k], numbers[k, f], papillary[k, f],
                discs[k, f], static[n], signals, texture, section_key(key, k, f),
            )  # fmt: skip
