"""Inner loops that turn moving radii into pixels and labels. One section (slice, frame) never sees another.

Layers are painted from the outside to the inside, each with a soft edge (partial volume); labels are decided at pixel
centers by the same radii. Noise is a hash of (key, slice, frame, pixel), so any subset of sections is exactly a part
of the whole.
"""
# mypy: disallow-untyped-defs=false, disallow-incomplete-defs=false

from __future__ import annotations

import numba
import numpy as np

from ecgcmr.simulation.motion import N_ANGLES
from ecgcmr.simulation.thorax import occupy

FULL_SCALE = 255.0 / 1.05
BYTE_SUM = 3.0**0.5 / 256.0  # scales the sum of four uniform bytes to unit variance
REACH_MM = 22.0  # the surroundings follow the heart up to this distance, with quadratic fading


@numba.njit(cache=True, nogil=True, inline="always")
def _mix(x):
    """SplitMix64 finalizer (Steele et al. 2014, 10.1145/2660193.2660195)."""
    x = np.uint64(x) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@numba.njit(cache=True, nogil=True, inline="always")
def rician(signal, noise, key, pixel):
    """8-bit magnitude of a complex signal with independent noise in both channels.

    The noise of a channel is the sum of four uniform bytes of one hash, which is close to normal and cheap.
    """
    bits = _mix(key + np.uint64(pixel))
    lanes = np.uint64(0x00FF00FF00FF00FF)
    pairs = (bits & lanes) + ((bits >> np.uint64(8)) & lanes)
    low = np.uint64(0xFFFF)
    real = float(pairs & low) + float((pairs >> np.uint64(16)) & low) - 510.0
    imaginary = float((pairs >> np.uint64(32)) & low) + float(pairs >> np.uint64(48)) - 510.0
    real = signal + noise * real * BYTE_SUM
    imaginary = noise * imaginary * BYTE_SUM
    return np.uint8(min(np.sqrt(real * real + imaginary * imaginary) * FULL_SCALE + 0.5, 255.0))


@numba.njit(cache=True, nogil=True, inline="always")
def section_key(key, index, frame):
    """Key of the noise of one slice at one frame."""
    return _mix(np.uint64(key) ^ _mix(np.uint64(index * 65536 + frame))) & np.uint64(0xFFFFFFFFFFFF0000)


@numba.njit(cache=True, nogil=True, inline="always")
def bilinear(image, row, column):
    """Value of an image between its pixels; the border continues outside."""
    size = image.shape[0]
    row = min(max(row, 0.0), size - 1.001)
    column = min(max(column, 0.0), size - 1.001)
    i, j = int(row), int(column)
    u, v = row - i, column - j
    top = image[i, j] * (1 - v) + image[i, j + 1] * v
    return top * (1 - u) + (image[i + 1, j] * (1 - v) + image[i + 1, j + 1] * v) * u


@numba.njit(cache=True, nogil=True, error_model="numpy")
def texture_slab(texture, along):
    """Texture (angle, depth) of the wall at a place in [0, 1) along the axis."""
    place = min(max(along, 0.0), 0.999) * (texture.shape[0] - 1)
    k = int(place)
    w = np.float32(place - k)
    return texture[k] * (1 - w) + texture[k + 1] * w


@numba.njit(cache=True, nogil=True, inline="always")
def wall_texture(slab, turn, depth):
    """Texture at an angle [turns, -1 to 2] and wall depth in [0, 1); linear in angle."""
    n_a, n_d = slab.shape
    d = min(max(int(depth * n_d), 0), n_d - 1)
    a = (turn + 1.0) * n_a
    i = int(a)
    u = a - i
    while i >= n_a:
        i -= n_a
    n = i + 1 if i + 1 < n_a else 0
    return slab[i, d] * (1 - u) + slab[n, d] * u


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _interpolate(place, ring, still, walls):
    """Writes the wall radii in the direction of every pixel, and the outer radius at rest, to `walls` (5, H, W)."""
    n_angles, size = ring.shape[0], place.shape[1]
    widest = ring[:, 3].max() + REACH_MM
    for i in range(size):
        for j in range(size):
            if place[3, i, j] >= widest:
                walls[:, i, j] = -REACH_MM
                continue
            angle = place[2, i, j]
            k = int(angle)
            u = angle - k
            n = k + 1 if k + 1 < n_angles else 0
            for m in range(4):
                walls[m, i, j] = ring[k, m] * (1 - u) + ring[n, m] * u
            walls[4, i, j] = still[k] * (1 - u) + still[n] * u


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _paint_outside(values, place, static, walls, slab, signals, numbers):
    """Writes everything outside the LV: surroundings that follow the wall, fat, RV wall and RV cavity."""
    edge, spacing, size = numbers[1], numbers[6], values.shape[0]
    blood, muscle, fat = signals[0], signals[1], signals[2]
    ground = static[0]
    for i in range(size):
        for j in range(size):
            r, outer, epi = place[3, i, j], walls[3, i, j], walls[1, i, j]
            value = float(ground[i, j])
            fade = 1.0 - (r - outer) / REACH_MM
            if fade <= 0.0 or r < epi - edge:
                values[i, j] = value
                continue
            if r > outer - edge:
                # The tissue around is pulled along with the wall and comes to rest farther out. Less than a twentieth
                # of a pixel is not seen.
                move = (outer - walls[4, i, j]) * min(fade, 1.0) ** 2 / spacing
                if abs(move) > 0.05:
                    move /= max(r, 1.0)
                    value = bilinear(ground, i - move * static[3, i, j], j - move * static[4, i, j])
                value += (0.92 * fat - value) * occupy(outer + static[2, i, j] - r, edge)
            value += (muscle - value) * occupy(outer - r, edge)
            rv_in = walls[2, i, j]
            if rv_in > epi + 0.05 and r < rv_in + edge:
                # Trabeculae: the blood of the RV is less even than that of the LV.
                rough = wall_texture(slab, place[2, i, j] / N_ANGLES, (r - epi) / (rv_in - epi))
                inside = occupy(rv_in - r, edge) * occupy(r - epi, edge)
                value += (blood * (0.97 + 0.5 * rough - 0.25 * abs(rough)) - value) * inside
            values[i, j] = value


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _paint_lv(values, place, walls, slab, papillary, signals, numbers):
    """Paints LV wall, cavity and papillary muscles over what is there."""
    edge_in, edge_out, twist, size = numbers[0], numbers[1], numbers[4], values.shape[0]
    blood, muscle = signals[0], signals[1]
    for i in range(size):
        for j in range(size):
            r, endo, epi = place[3, i, j], walls[0, i, j], walls[1, i, j]
            if r >= epi + edge_out:
                continue
            turn, share = place[2, i, j] / N_ANGLES - twist, 0.0
            if r < endo + edge_in + 3.0 and endo > 0.0:
                # Trabeculae roughen the seen border, not the contour.
                rough = wall_texture(slab, turn, 0.0)
                share = occupy(endo + 5.0 * rough - r, edge_in)
                for m in range(2):
                    gap = (place[0, i, j] - papillary[m, 0]) ** 2 + (place[1, i, j] - papillary[m, 1]) ** 2
                    reach = papillary[m, 2] * (1.0 + 1.6 * rough)
                    if papillary[m, 2] > 0.0 and gap < (reach + edge_in) ** 2:
                        share *= 1.0 - occupy(reach - np.sqrt(gap), edge_in)
            value = float(values[i, j])
            if share < 1.0:
                deep = (r * r - endo * endo) / max(epi * epi - endo * endo, 1e-3)
                tissue = muscle * (1.0 + wall_texture(slab, turn, deep))
                value += (tissue - value) * occupy(epi - r, edge_out)
            values[i, j] = value + (blood - value) * share


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _paint_above_base(values, place, ground, discs, signals, numbers):
    """Blends in what lies behind the valves: atria and great vessels as discs (x, y, radius) in fat."""
    edge, uncovered, size = numbers[1], 1.0 - numbers[2], values.shape[0]
    blood, muscle, fat = 0.97 * signals[0], signals[1], 0.85 * signals[2]
    for i in range(size):
        for j in range(size):
            value = float(ground[i, j])
            # First the fat of all of them, then the vessels, so that no fat covers a vessel.
            for step in range(2):
                for k in range(discs.shape[0]):
                    x, y = place[0, i, j] - discs[k, 0], place[1, i, j] - discs[k, 1]
                    if discs[k, 2] > 0.0 and x * x + y * y < (discs[k, 2] + 10.0) ** 2:
                        distance = discs[k, 2] - np.sqrt(x * x + y * y)
                        if step == 0:
                            value += (fat - value) * occupy(distance + 5.0, 2.0 * edge)
                        else:
                            value += (muscle - value) * occupy(distance + 1.8, edge)
                            value += (blood - value) * occupy(distance, edge)
            values[i, j] += (value - values[i, j]) * uncovered


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _expose(pixels, labels, values, radius, walls, shading, noise, key, below):
    """Writes noisy 8-bit pixels and labels; `below` is False where the slice center lies outside the ventricles."""
    size = pixels.shape[0]
    for i in range(size):
        for j in range(size):
            pixels[i, j] = rician(values[i, j] * shading[i, j], noise, key, i * size + j)
    for i in range(size):
        for j in range(size):
            r = radius[i, j]
            label = 3 if r < walls[2, i, j] else 0
            label = 2 if r < walls[1, i, j] else label
            label = 1 if r < walls[0, i, j] else label
            labels[i, j] = label if below else 0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def paint_section(
    pixels, labels, scratch, place, ring, still, numbers, papillary, discs, static, signals, texture, key
):
    """Paints one short-axis section.

    Args:
        pixels: (H, W) uint8, written.
        labels: (H, W) uint8, written.
        scratch: (6, H, W) float32, working memory.
        place: (4, H, W) float32: x and y in the heart frame [mm], ring index of the angle, radius [mm].
        ring: (P, 4) radii of this section [mm].
        still: (P,) outer radius at end-diastole [mm].
        numbers: inner and outer edge width [mm], share of the slice below the base, 1 if its center is below it,
            twist [turns], long-axis place of the tissue in [0, 1), pixel size [mm], noise SD.
        papillary: (2, 3) x, y and radius of the papillary muscles [mm].
        discs: (4, 3) x, y and radius of atria and great vessels above the base [mm].
        static: (5, H, W) float32: surroundings, shading, pericardial fat [mm], row and column distance from the LV
            axis [mm].
        signals: (7,) signals of the tissues.
        texture: Texture of the wall.
        key: Key of the noise of this section.
    """
    walls, values = scratch[:5], scratch[5]
    _interpolate(place, ring, still, walls)
    if numbers[2] > 0.0:
        slab = texture_slab(texture, numbers[5])
        _paint_outside(values, place, static, walls, slab, signals, numbers)
        _paint_lv(values, place, walls, slab, papillary, signals, numbers)
    else:
        values[:] = static[0]
    if numbers[2] < 1.0:
        _paint_above_base(values, place, static[0], discs, signals, numbers)
    _expose(pixels, labels, values, place[3], walls, static[1], numbers[7], key, numbers[3] > 0.0)
