"""Four-chamber cine of a heart with label masks: a plane along the LV axis through the lateral wall and the RV.

The apex points up and the lateral wall to the right. Distances to the curved walls are first-order distances of the
implicit form radius^2 - r^2, so edges stay sharp at the apex, where the wall lies across the rings.
"""
# mypy: disallow-untyped-defs=false, disallow-incomplete-defs=false

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import NDArray

from ecgcmr.cmr.cine import Cine
from ecgcmr.simulation import geometry
from ecgcmr.simulation.cine import SAX_LABELS, Grid, chosen, shading
from ecgcmr.simulation.heart import Heart
from ecgcmr.simulation.motion import ATRIUM_WIDEST, Motion, move
from ecgcmr.simulation.painting import rician, section_key, texture_slab, wall_texture
from ecgcmr.simulation.phenotypes import FOUR_CHAMBER_ANGLE
from ecgcmr.simulation.scanner import Imaging, ImagingDesign, draw_imaging
from ecgcmr.simulation.thorax import occupy, paint_thorax, thorax_numbers

Array = NDArray[np.float64]

FOUR_CHAMBER_LABELS = SAX_LABELS | {4: "la", 5: "ra"}
FADE_MM = 24.0  # length over which the motion of the surroundings fades
N_DEPTHS = 64  # nodes of the wall tables along the axis


def render_4ch(
    heart: Heart,
    frames: Sequence[int] | None = None,
    grid: Grid | None = None,
    imaging: ImagingDesign | None = None,
    scanner: str | None = None,
) -> Cine:
    """Four-chamber cine, or some frames of it.

    Args:
        heart: The heart.
        frames: Frames of the cycle, 0 is the R wave; all by default.
        grid: Frames, size and pixel size; the number of slices is not used.
        imaging: Spread of the imaging nuisance.
        scanner: Preset instead of the one of the heart.

    Raises:
        ValueError: A frame, the grid or the scanner does not exist.
    """
    grid = grid or Grid()
    columns = chosen(frames, grid.n_frames, "frames")
    drawn = draw_imaging(heart, imaging or ImagingDesign(), scanner)
    phases = np.arange(grid.n_frames) / grid.n_frames
    motion = move(heart, phases, (FOUR_CHAMBER_ANGLE, FOUR_CHAMBER_ANGLE + np.pi))
    walls, reach = _wall_tables(motion)
    # Valves are closed while the ventricle empties and open while it fills.
    volume = walls[:, 0].mean(axis=(1, 2)) * motion.shrink
    closed = np.arange(grid.n_frames) <= volume.argmin()
    frame_numbers = np.stack(
        [motion.base_mm, motion.shrink, *motion.left_atrium.T, *motion.right_atrium.T, closed], axis=1
    )
    numbers = np.array(
        [drawn.scanner.edge_mm, grid.spacing_mm, drawn.noise, *reach, _right_atrium_x(heart), heart.bmi / 27.0]
    )
    static, affine = _plane(heart, drawn, grid)
    shape = (1, len(columns), grid.size, grid.size)
    pixels, labels = np.empty(shape, dtype=np.uint8), np.empty(shape, dtype=np.uint8)
    _paint_frames(
        pixels[0], labels[0], columns, static, walls, frame_numbers, numbers, drawn.signals, drawn.texture, drawn.key[1]
    )
    return Cine(
        pixels=pixels,
        spacing_mm=(grid.spacing_mm, grid.spacing_mm),
        slice_spacing_mm=0.0,
        affine=affine,
        frame_times_ms=columns / grid.n_frames * heart.rr_ms,
        view="4ch",
        masks=labels,
        mask_labels=FOUR_CHAMBER_LABELS,
        source="simulated",
    )


def _right_atrium_x(heart: Heart) -> float:
    return -(heart.lv_radius_mm + float(heart.wall_mm[1:3].mean()) + 0.42 * heart.rv_width_mm)


def _wall_tables(motion: Motion) -> tuple[Array, tuple[float, float]]:
    """Squared radii (F, 4, N_DEPTHS, 2) of LV endo, LV epi, RV endo, RV epi over depth; lengths of endo and epi."""
    heart, n_f = motion.heart, len(motion.phases)
    tip = geometry.epicardial_length(heart)
    tables = np.empty((n_f, 4, N_DEPTHS, 2))
    frame = np.repeat(np.arange(n_f), N_DEPTHS)
    for layers, length in (((0,), heart.lv_length_mm), ((1, 2, 3), tip)):
        depth = np.tile(np.linspace(0.0, length, N_DEPTHS), n_f)
        radii = motion.sections(depth, frame)[0].reshape(n_f, N_DEPTHS, 2, 4)
        for layer in layers:
            tables[:, layer] = radii[..., layer] ** 2
    return tables, (heart.lv_length_mm, tip)


def _plane(heart: Heart, drawn: Imaging, grid: Grid) -> tuple[NDArray[np.float32], Array]:
    """Static layers (4, H, W): surroundings, shading, u and depth [mm] of each pixel; and the affine to RAS."""
    half = (grid.size - 1) / 2 * grid.spacing_mm
    across = np.array([np.cos(FOUR_CHAMBER_ANGLE), np.sin(FOUR_CHAMBER_ANGLE), 0.0])
    axis = np.array([0.0, 0.0, 1.0])
    # Breathing shifts this view as it shifts a slice; the last drawn shift is its own.
    place = drawn.center_mm[1] + drawn.shift_mm[-1]
    right = (np.arange(grid.size) * grid.spacing_mm - half)[None, :] - place[0]
    up = (half - np.arange(grid.size) * grid.spacing_mm)[:, None] - place[1]
    corner = heart.position_mm + heart.rotation @ (right[0, 0] * across + up[0, 0] * axis)
    column, row = heart.rotation @ across * grid.spacing_mm, -(heart.rotation @ axis) * grid.spacing_mm
    numbers = thorax_numbers(heart, drawn.signals, drawn.key[0])
    static = np.empty((4, grid.size, grid.size), dtype=np.float32)
    static[0] = paint_thorax(corner, column, row, grid.size, numbers)
    static[1] = shading(grid.size, drawn.bias[1])
    static[2], static[3] = right, up
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = column, row, heart.rotation @ np.cross(across, -axis)
    affine[:3, 3] = corner
    return static, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _wall(table, side, depth, length, r, shrink):
    """Signed distance [mm] inside a wall (positive inside) and its squared radius at this depth."""
    n = table.shape[0]
    place = depth / length * (n - 1)
    k = min(max(int(place), 0), n - 2)
    rise = table[k + 1, side] - table[k, side]
    square = table[k, side] + rise * (place - k)
    slope = rise * (n - 1) / (length * shrink)
    return (square - r * r) / np.sqrt(4.0 * max(r * r, 1.0) + slope * slope), square


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _atrium_distance(u, height, radius, length):
    """Signed distance [mm] inside an atrium of axis 0; `height` is the distance from the valve plane."""
    w = height / length
    steep = radius * radius / ((1.0 - ATRIUM_WIDEST) ** 2)
    square = radius * radius - steep * (w - ATRIUM_WIDEST) ** 2
    slope = 2.0 * steep * (w - ATRIUM_WIDEST) / length
    return (square - u * u) / np.sqrt(4.0 * max(u * u, 1.0) + slope * slope)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _ventricles(value, u, depth, walls, shrink, numbers, signals, slab):
    """Signal and label of a point below the base plane; see `_paint_frames`."""
    edge, reach_in, reach_out = numbers[0], numbers[3], numbers[4]
    blood, muscle, fat = signals[0], signals[1], signals[2]
    r, side = abs(u), 0 if u >= 0 else 1
    endo, endo_square = _wall(walls[0], side, depth, reach_in, r, shrink)
    epi, epi_square = _wall(walls[1], side, depth, reach_out, r, shrink)
    rv_in, rv_square = _wall(walls[2], side, depth, reach_out, r, shrink)
    outer, _ = _wall(walls[3], side, depth, reach_out, r, shrink)
    value += (0.92 * fat - value) * occupy(outer + numbers[6] * (1.0 + 3.0 * side), edge)
    value += (muscle - value) * occupy(outer, edge)
    if rv_square > epi_square + 1.0:
        rough = wall_texture(slab, 0.5, r / np.sqrt(rv_square))
        value += (blood * (0.97 + 0.4 * rough) - value) * occupy(rv_in, edge) * occupy(-epi, edge)
    deep = (r * r - endo_square) / max(epi_square - endo_square, 1.0)
    rough = wall_texture(slab, 0.5 * side, deep)
    value += (muscle * (1.0 + rough) - value) * occupy(epi, edge)
    value += (blood - value) * occupy(endo + 3.0 * rough * (deep < 0.4), edge)
    # The label asks the same squared radii, so that it stays a partition.
    label = 0
    if depth <= reach_out:
        if endo_square > r * r:
            label = 1
        elif epi_square > r * r:
            label = 2
        elif rv_square > r * r:
            label = 3
    return value, label, outer


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _atria(value, u, height, frame, numbers, signals):
    """Signal and label of a point above the base plane; see `_paint_frames`."""
    edge, right_x = numbers[0], numbers[5]
    left = _atrium_distance(u - 1.0, height, frame[2], frame[3])
    right = _atrium_distance(u - right_x, height, frame[4], frame[5])
    both = max(left, right)
    value += (0.85 * signals[2] - value) * occupy(both + 4.5 * numbers[6], 2.0 * edge)
    value += (signals[1] - value) * occupy(both + 2.2, edge)
    # Where the atria touch, the septum between them keeps its thickness.
    apart = abs(left - right) - 1.2
    inside = occupy(both, edge) * (occupy(apart, edge) if min(left, right) > -2.0 else 1.0)
    value += (0.96 * signals[0] - value) * inside
    label = 0
    if both > 0.0:
        label = 4 if left >= right else 5
    return value, label


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _paint_frames(pixels, labels, columns, static, walls, frames, numbers, signals, texture, key):
    """Paints the chosen frames.

    `frames` (F, 7): descent of the base [mm], shrink, radius and length of left and right atrium [mm], 1 if the
    valves are closed.
    `numbers` (7,): edge, pixel size [mm], noise SD, length of endo- and epicardium, x of the right atrium [mm], fat.
    """
    spacing, noise = numbers[1], numbers[2]
    size = pixels.shape[1]
    for n in range(len(columns)):
        f = columns[n]
        frame = frames[f]
        base, shrink = frame[0], frame[1]
        noise_key = section_key(key, 0, f)
        far_right = max(np.sqrt(walls[f, 3, :, 0].max()), frame[2]) + 9.0
        far_left = min(-np.sqrt(walls[f, 3, :, 1].max()), numbers[5] - frame[4]) - 12.0
        for i in range(size):
            height = base - static[3, i, 0]
            cover = occupy(-height, 1.2)
            # The surroundings of the base follow its descent and those of apex and roof rest.
            row = i + base * np.exp(-abs(height) / FADE_MM) / spacing
            low = min(int(row), size - 2)
            shift = min(row - low, 1.0)
            slab = texture_slab(texture, -height / (shrink * numbers[4]))
            for j in range(size):
                u = static[2, i, j]
                value = (1.0 - shift) * static[0, low, j] + shift * static[0, low + 1, j]
                below, label, above = value, 0, value
                if u < far_left or u > far_right:
                    pixels[n, i, j] = rician(value * static[1, i, j], noise, noise_key, i * size + j)
                    labels[n, i, j] = 0
                    continue
                if cover > 0.0:
                    below, label, _ = _ventricles(
                        value, u, max(-height, 0.0) / shrink, walls[f], shrink, numbers, signals, slab
                    )
                if cover < 1.0:
                    above, upper = _atria(value, u, max(height, 0.0), frame, numbers, signals)
                    if height > 0.0:
                        label = upper
                value = above + (below - above) * cover
                if label in (1, 3, 4, 5):
                    leaflet = occupy(1.0 - abs(height), 1.0) * frame[6]
                    value += (1.4 * signals[1] - value) * 0.7 * leaflet
                pixels[n, i, j] = rician(value * static[1, i, j], noise, noise_key, i * size + j)
                labels[n, i, j] = label
