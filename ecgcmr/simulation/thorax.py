"""What surrounds the heart in an image: skin, fat, chest wall, lung, liver, stomach, aorta and spine.

The tissues live in the torso frame, in the same elliptic torso that carries the ECG electrodes, so the fat that
lowers the voltage is the fat that is seen.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from ecgcmr.simulation.heart import Heart

Array = NDArray[np.float64]


def thorax_numbers(heart: Heart, signals: Array, key: int) -> Array:
    """Numbers (16,) that `thorax_signal` reads: torso, diaphragm, great vessels and signals."""
    axis = heart.rotation[:, 2]
    middle = heart.position_mm + 0.5 * heart.lv_length_mm * axis
    floor = middle[2] - 0.95 * (heart.lv_radius_mm + float(heart.wall_mm[:12].mean())) - 2.0
    depth = heart.torso_b_mm / 118.0
    lattice = float(key % 65_521)
    numbers = [heart.torso_a_mm, heart.torso_b_mm, heart.fat_mm, floor, middle[0], middle[1], 24.0, 50.0 * depth]
    return np.array([*numbers, lattice, *signals])


@numba.njit(cache=True, nogil=True, inline="always")
def _hash01(i: int, j: int, k: int, key: int) -> float:
    x = (i * 374761393 + j * 668265263 + k * 2147483647 + key * 40503) & 0xFFFFFFFF
    x = ((x ^ (x >> 13)) * 1274126177) & 0xFFFFFFFF
    return float((x ^ (x >> 16)) & 0xFFFF) / 65536.0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def value_noise(x: float, y: float, z: float, key: int) -> float:
    """Smooth noise in [0, 1): trilinear interpolation of random values on the unit lattice."""
    i, j, k = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
    u, v, w = x - i, y - j, z - k
    u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
    low = (_hash01(i, j, k, key) * (1 - u) + _hash01(i + 1, j, k, key) * u) * (1 - v)
    low += (_hash01(i, j + 1, k, key) * (1 - u) + _hash01(i + 1, j + 1, k, key) * u) * v
    high = (_hash01(i, j, k + 1, key) * (1 - u) + _hash01(i + 1, j, k + 1, key) * u) * (1 - v)
    high += (_hash01(i, j + 1, k + 1, key) * (1 - u) + _hash01(i + 1, j + 1, k + 1, key) * u) * v
    return low * (1 - w) + high * w


@numba.njit(cache=True, nogil=True, inline="always")
def occupy(distance: float, half_width: float) -> float:
    """Share of a pixel inside a surface: 0 outside, 1 inside, smooth over the edge; `distance` is positive inside."""
    x = min(max(0.5 + 0.5 * distance / half_width, 0.0), 1.0)
    return x * x * (3.0 - 2.0 * x)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def thorax_signal(x: float, y: float, z: float, numbers: Array) -> float:
    """Signal without the heart at a point of the torso frame [mm]."""
    a, b, fat, floor, mid_x, mid_y, vessel_x, vessel_y = numbers[:8]
    key = int(numbers[8])
    blood, muscle, fat_signal = numbers[9], numbers[14], numbers[11]
    lung, liver, bone = numbers[12], numbers[13], numbers[15]
    ellipse = np.sqrt((x / a) ** 2 + (y / b) ** 2)
    gradient = np.sqrt((x / (a * a)) ** 2 + (y / (b * b)) ** 2) / max(ellipse, 1e-6)
    depth = (1.0 - ellipse) / max(gradient, 1e-6)
    if depth < -4.0:
        return 0.005
    grain = value_noise(x / 7.0, y / 7.0, z / 7.0, key)
    fine = value_noise(x / 3.5, y / 3.5, z / 3.5, key + 7)
    # Lung with vessels: bright spots where two noises are high together.
    signal = lung * (0.5 + grain) + 0.55 * max(grain + fine - 1.28, 0.0)
    # The diaphragm: a high dome over the liver on the right, a lower one over the stomach on the left.
    right = floor + 16.0 - ((x + 62.0) ** 2 + (y + 10.0) ** 2) / 420.0
    left = floor - ((x - mid_x) ** 2 + (y - mid_y) ** 2) / 650.0
    below = max(right, left) - z
    if below > -3.0:
        organ = liver * (0.82 + 0.36 * grain) + 0.35 * max(fine - 0.86, 0.0)
        stomach = fat_signal * 0.55 * (0.5 + 0.6 * grain)
        # The left lobe of the liver reaches under the heart; the stomach lies left and behind it.
        organ += (stomach - organ) * occupy(x - mid_x + 4.0 + 0.4 * (y - mid_y), 4.0)
        signal += (muscle - signal) * occupy(below + 1.5, 1.5)
        signal += (organ - signal) * occupy(below - 2.0, 1.5)
    # Mediastinum behind the heart, with spine and descending aorta.
    behind = 1.0 - np.sqrt(((x - 4.0) / 36.0) ** 2 + ((y - vessel_y - 8.0) / 34.0) ** 2)
    signal += (fat_signal * 0.62 * (0.7 + 0.5 * grain) - signal) * occupy(behind * 34.0, 2.0)
    # Between heart and sternum there is fat, not lung.
    front = 1.0 - np.sqrt(((x - 6.0) / 52.0) ** 2 + ((y + 0.80 * b) / 46.0) ** 2)
    signal += (fat_signal * 0.55 * (0.6 + 0.6 * grain) - signal) * occupy(front * 40.0, 4.0)
    spine = 21.0 - np.sqrt((x * 0.92) ** 2 + (y - vessel_y - 22.0) ** 2)
    signal += (bone * (0.8 + 0.4 * fine) - signal) * occupy(spine, 1.5)
    vessel = np.sqrt((x - vessel_x) ** 2 + (y - vessel_y) ** 2)
    signal += (muscle - signal) * occupy(13.0 - vessel, 1.0)
    signal += (blood * 0.95 - signal) * occupy(11.3 - vessel, 1.2)
    # Chest wall: pleural fat, ribs in muscle, subcutaneous fat, skin.
    wall = fat + 13.0
    if depth < wall + 4.0:
        rib = 0.5 + 0.5 * np.sin(2 * np.pi * (z - 0.35 * y) / 27.0)
        inner = muscle * (0.8 + 0.4 * grain) + (bone * 1.15 - muscle) * occupy((rib - 0.55) * 10.0, 2.0)
        signal += (fat_signal * 0.7 - signal) * occupy(wall + 2.0 - depth, 1.2)
        signal += (inner - signal) * occupy(wall - depth, 1.2)
        signal += (fat_signal * (0.88 + 0.16 * grain) - signal) * occupy(fat - depth, 1.2)
        signal += (muscle - signal) * occupy(1.6 - depth, 1.0)
        signal += (0.005 - signal) * occupy(-depth, 1.0)
    return signal


@numba.njit(cache=True, nogil=True, error_model="numpy")
def paint_thorax(origin, column, row, size, numbers):  # type: ignore[no-untyped-def]
    """Signal (H, W) of a plane: origin (3,) of pixel (0, 0) and steps (3,) per column and per row, torso frame [mm]."""
    out = np.empty((size, size), dtype=np.float32)
    for i in range(size):
        for j in range(size):
            x = origin[0] + j * column[0] + i * row[0]
            y = origin[1] + j * column[1] + i * row[1]
            z = origin[2] + j * column[2] + i * row[2]
            out[i, j] = thorax_signal(x, y, z, numbers)
    return out
