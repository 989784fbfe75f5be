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
def _above_base(background, x, y, discs, signals, edge):
    """Signal of a section behind the valves: atria and great vessels as discs (x, y, radius) in fat."""
    value = background
    for k in range(discs.shape[0]):
        distance = discs[k, 2] - np.sqrt((x - discs[k, 0]) ** 2 + (y - discs[k, 1]) ** 2)
        value += (0.85 * signals[2] - value) * occupy(distance + 5.0, 2.0 * edge) * (discs[k, 2] > 0)
    for k in range(discs.shape[0]):
        if discs[k, 2] > 0:
            distance = discs[k, 2] - np.sqrt((x - discs[k, 0]) ** 2 + (y - discs[k, 1]) ** 2)
            value += (signals[1] - value) * occupy(distance + 1.8, edge)
            value += (0.97 * signals[0] - value) * occupy(distance, edge)
    return value


@numba.njit(cache=True, nogil=True, inline="always")
def _surroundings(i, j, r, outer, rest, spacing, static):
    """Signal outside the heart: the tissue there is pulled along with the wall and comes to rest farther out."""
    fade = 1.0 - max(r - outer, 0.0) / REACH_MM
    move = (outer - rest) * fade * fade / spacing
    # Less than a twentieth of a pixel is not seen.
    if fade <= 0.0 or abs(move) < 0.05:
        return float(static[0, i, j])
    move /= max(r, 1.0)
    return bilinear(static[0], i - move * static[3, i, j], j - move * static[4, i, j])


@numba.njit(cache=True, nogil=True, inline="always")
def _blood_share(x, y, slab, turn, papillary, edge):
    """Share of blood in the LV cavity off the wall: the papillary muscles take the rest."""
    inside = 1.0
    for m in range(2):
        gap = (x - papillary[m, 0]) ** 2 + (y - papillary[m, 1]) ** 2
        if papillary[m, 2] > 0.0 and gap < (1.6 * papillary[m, 2] + edge) ** 2:
            reach = papillary[m, 2] * (1.0 + 1.6 * wall_texture(slab, turn, 0.0))
            inside *= 1.0 - occupy(reach - np.sqrt(gap), edge)
    return inside


@numba.njit(cache=True, nogil=True, inline="always")
def _outside_lv(i, j, r, radii, numbers, static, signals, slab, turn):
    """Signal outside the LV: surroundings, fat, RV wall and RV cavity; `radii` are LV epi, RV endo, RV epi, rest."""
    epi, rv_in, outer, rest = radii
    edge = numbers[1]
    value = 0.0
    if r > outer - edge:
        value = _surroundings(i, j, r, outer, rest, numbers[6], static)
        value += (0.92 * signals[2] - value) * occupy(outer + static[2, i, j] - r, edge)
    value += (signals[1] - value) * occupy(outer - r, edge)
    if rv_in > epi + 0.05 and r < rv_in + edge:
        # Trabeculae: the blood of the RV is less even than that of the LV.
        rough = wall_texture(slab, turn, (r - epi) / (rv_in - epi))
        inside = occupy(rv_in - r, edge) * occupy(r - epi, edge)
        value += (signals[0] * (0.97 + 0.5 * rough - 0.25 * abs(rough)) - value) * inside
    return value


@numba.njit(cache=True, nogil=True, inline="always")
def _point(i, j, r, place, ring, still, numbers, papillary, static, signals, slab):
    """Signal and label of one pixel of a section below the base; arguments as in `paint_section`."""
    edge_in, edge_out, twist = numbers[0], numbers[1], numbers[4]
    angle, n_angles = place[2, i, j], ring.shape[0]
    k = int(angle)
    u = angle - k
    n = k + 1 if k + 1 < n_angles else 0
    turn = angle / N_ANGLES
    endo = ring[k, 0] * (1 - u) + ring[n, 0] * u
    epi = ring[k, 1] * (1 - u) + ring[n, 1] * u
    value, label = 0.0, 0
    if r > epi - edge_out:
        rv_in = ring[k, 2] * (1 - u) + ring[n, 2] * u
        outer = ring[k, 3] * (1 - u) + ring[n, 3] * u
        rest = still[k] * (1 - u) + still[n] * u
        value = _outside_lv(i, j, r, (epi, rv_in, outer, rest), numbers, static, signals, slab, turn)
        label = 3 if r < rv_in else 0
    if r < epi:
        label = 1 if r < endo else 2
    if r < epi + edge_out:
        share = 0.0
        if r < endo + edge_in + 3.0 and endo > 0.0:
            # Trabeculae roughen the seen border, not the contour.
            rough = wall_texture(slab, turn - twist, 0.0)
            share = occupy(endo + 5.0 * rough - r, edge_in)
            share *= _blood_share(place[0, i, j], place[1, i, j], slab, turn - twist, papillary, edge_in)
        if share < 1.0:
            deep = (r * r - endo * endo) / max(epi * epi - endo * endo, 1e-3)
            rough = wall_texture(slab, turn - twist, deep)
            value += (signals[1] * (1 + rough) - value) * occupy(epi - r, edge_out)
        value += (signals[0] - value) * share
    return value, label


@numba.njit(cache=True, nogil=True, error_model="numpy")
def paint_section(pixels, labels, place, ring, still, numbers, papillary, discs, static, signals, texture, key):
    """Paints one short-axis section.

    Args:
        pixels: (H, W) uint8, written.
        labels: (H, W) uint8, written.
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
    cover, below, noise = numbers[2], numbers[3], numbers[7]
    size = pixels.shape[0]
    widest = ring[:, 3].max() + REACH_MM
    slab = texture_slab(texture, numbers[5])
    for i in range(size):
        for j in range(size):
            r = place[3, i, j]
            value, label = float(static[0, i, j]), 0
            if r < widest and cover > 0.0:
                value, label = _point(i, j, r, place, ring, still, numbers, papillary, static, signals, slab)
                if below == 0.0:
                    label = 0
            if cover < 1.0:
                x, y = place[0, i, j], place[1, i, j]
                above = _above_base(static[0, i, j], x, y, discs, signals, numbers[1])
                value += (above - value) * (1.0 - cover)
            pixels[i, j] = rician(value * static[1, i, j], noise, key, i * size + j)
            labels[i, j] = label
