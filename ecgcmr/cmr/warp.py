"""Affine warp and color jitter of a batch in one pass: compiled on the CPU, grid_sample elsewhere; same numbers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

GRAY = (0.2989, 0.587, 0.114)  # ITU-R 601 luma, as in torchvision's grayscale
MIN_ROWS_PER_THREAD = 8
FAST = {"contract", "nsz", "arcp", "reassoc", "nnan"}  # pixels are finite


def warp_jitter(image_BCHW: Tensor, matrix_B23: Tensor, jitter_BJ3: Tensor, size: int) -> Tensor:
    """Sample every image through its affine map, then apply its sequence of blends; outside the frame is 0.

    Args:
        image_BCHW: uint8, or float in [0, 1].
        matrix_B23: float32 (B, 2, 3) on the CPU: output pixel (column, row, 1) to source (column, row) [px].
        jitter_BJ3: float32 (B, J, 3) on the CPU: J blends v <- clip(a v + b gray + c), as (a, b, c).
        size: Side of the square output [px].

    Returns:
        float32 (B, C, size, size) in [0, 1].
    """
    if image_BCHW.device.type != "cpu":
        device = image_BCHW.device
        return warp_jitter_torch(image_BCHW, matrix_B23.to(device), jitter_BJ3.to(device), size)
    source = image_BCHW.detach()
    source = source.contiguous() if source.dtype == torch.uint8 else source.float().contiguous()
    scale = np.float32(1.0 / 255.0 if source.dtype == torch.uint8 else 1.0)
    out = torch.empty((*source.shape[:2], size, size), dtype=torch.float32)
    arrays = (source.numpy(), matrix_B23.numpy(), jitter_BJ3.numpy(), out.numpy())
    rows = len(source)
    threads = max(1, min(torch.get_num_threads(), rows // MIN_ROWS_PER_THREAD))
    if threads == 1:
        _warp_jitter_cpu(*arrays, scale)
        return out
    cuts = np.linspace(0, rows, threads + 1).astype(int)

    def run(first: int, last: int) -> None:
        image, matrix, jitter, view = (array[first:last] for array in arrays)
        _warp_jitter_cpu(image, matrix, jitter, view, scale)

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(run, first, last) for first, last in pairwise(cuts)]:
            done.result()
    return out


def warp_jitter_torch(image_BCHW: Tensor, matrix_B23: Tensor, jitter_BJ3: Tensor, size: int) -> Tensor:
    """The same as `warp_jitter` in torch operations, for any device."""
    height, width = image_BCHW.shape[2:]
    source = image_BCHW.float() / 255.0 if image_BCHW.dtype == torch.uint8 else image_BCHW.float()
    step = torch.arange(size, device=source.device, dtype=torch.float32)
    m = matrix_B23[:, :, :, None, None]
    column = m[:, 0, 0] * step + m[:, 0, 1] * step[:, None] + m[:, 0, 2]
    row = m[:, 1, 0] * step + m[:, 1, 1] * step[:, None] + m[:, 1, 2]
    grid = torch.stack(((2.0 * column + 1.0) / width - 1.0, (2.0 * row + 1.0) / height - 1.0), dim=-1)
    value = functional.grid_sample(source, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    for index in range(jitter_BJ3.shape[1]):
        a, b, c = (jitter_BJ3[:, index, k, None, None, None] for k in range(3))
        value = (a * value + b * gray(value) + c).clamp_(0.0, 1.0)
    return value.clamp_(0.0, 1.0)


def gray(image_BCHW: Tensor) -> Tensor:
    """Luma of three channels, the mean of any other number of channels: (B, 1, H, W)."""
    if image_BCHW.shape[1] != len(GRAY):
        return image_BCHW.mean(dim=1, keepdim=True)
    weight = torch.tensor(GRAY, device=image_BCHW.device, dtype=image_BCHW.dtype)
    return (image_BCHW * weight[:, None, None]).sum(dim=1, keepdim=True)


def follow_contrast(small_BCHW: Tensor, jitter_BJ3: Tensor, contrast_BJ: Tensor) -> None:
    """Fill in the constant of the contrast blends: (1 - a) times the mean gray that the image has at that place.

    Args:
        small_BCHW: float32 copies of the images on the CPU; used up.
        jitter_BJ3: Blends (B, J, 3) on the CPU, changed in place.
        contrast_BJ: bool (B, J): which blends are contrast.
    """
    _follow_contrast(small_BCHW.numpy(), jitter_BJ3.numpy(), contrast_BJ.numpy())


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _warp_jitter_cpu(
    source: np.ndarray, matrix: np.ndarray, jitter: np.ndarray, out: np.ndarray, scale: np.float32
) -> None:
    """Warp and blend image after image; the working set of one image stays in the cache."""
    count, channels, height, width = source.shape
    size = out.shape[2]
    # A border of zeros: clipped coordinates then need no branch.
    padded = np.zeros((channels, (height + 3) * (width + 3)), dtype=np.float32)
    scratch = np.empty((3, size), dtype=np.float32)
    steps = np.arange(size).astype(np.float32)
    base = np.empty(size, dtype=np.int32)
    for n in range(count):
        for c in range(channels):
            for i in range(height):
                first = (i + 1) * (width + 3) + 1
                for j in range(width):
                    padded[c, first + j] = np.float32(source[n, c, i, j]) * scale
        for i in range(size):
            _coordinates(matrix[n], i, steps, (height, width), base, scratch)
            for c in range(channels):
                _bilinear(padded[c], base, scratch, width + 3, out[n, c, i])
        for k in range(jitter.shape[1]):
            if channels == 3:
                _blend_three(out[n], jitter[n, k])
            else:
                _blend_any(out[n], jitter[n, k], scratch[2])


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _coordinates(
    m: np.ndarray, i: int, steps: np.ndarray, shape: tuple[int, int], base: np.ndarray, scratch: np.ndarray
) -> None:
    """Source position of every pixel of output row i: flat index of its upper left neighbor and the two fractions."""
    x0, y0 = m[0, 1] * np.float32(i) + m[0, 2], m[1, 1] * np.float32(i) + m[1, 2]
    across_x, across_y = m[0, 0], m[1, 0]
    last_x, last_y, pitch = np.float32(shape[1]), np.float32(shape[0]), np.int32(shape[1] + 3)
    across, down = scratch[0], scratch[1]
    for j in range(steps.shape[0]):
        x = min(max(across_x * steps[j] + x0, np.float32(-1.0)), last_x) + np.float32(1.0)
        y = min(max(across_y * steps[j] + y0, np.float32(-1.0)), last_y) + np.float32(1.0)
        left, top = np.int32(x), np.int32(y)
        across[j], down[j] = x - np.float32(left), y - np.float32(top)
        base[j] = top * pitch + left


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _bilinear(plane: np.ndarray, base: np.ndarray, scratch: np.ndarray, pitch: int, row: np.ndarray) -> None:
    across, down = scratch[0], scratch[1]
    for j in range(row.shape[0]):
        k = np.int64(base[j])  # unsigned indices below: no test for negative ones
        a, b = plane[np.uint64(k)], plane[np.uint64(k + 1)]
        c, d = plane[np.uint64(k + pitch)], plane[np.uint64(k + pitch + 1)]
        upper, lower = a + across[j] * (b - a), c + across[j] * (d - c)
        row[j] = upper + down[j] * (lower - upper)


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _blend_three(image_CHW: np.ndarray, blend: np.ndarray) -> None:
    """Apply one blend to three channels in place."""
    a, b, c = blend[0], blend[1], blend[2]
    zero, one = np.float32(0.0), np.float32(1.0)
    gray_r, gray_g, gray_b = b * np.float32(GRAY[0]), b * np.float32(GRAY[1]), b * np.float32(GRAY[2])
    for i in range(image_CHW.shape[1]):
        red, green, blue = image_CHW[0, i], image_CHW[1, i], image_CHW[2, i]
        for j in range(red.shape[0]):
            add = gray_r * red[j] + gray_g * green[j] + gray_b * blue[j] + c
            red[j] = min(max(a * red[j] + add, zero), one)
            green[j] = min(max(a * green[j] + add, zero), one)
            blue[j] = min(max(a * blue[j] + add, zero), one)


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _blend_any(image_CHW: np.ndarray, blend: np.ndarray, add: np.ndarray) -> None:
    """Apply one blend to any number of channels in place; `add` is scratch of one row."""
    a, b, c = blend[0], blend[1] / np.float32(image_CHW.shape[0]), blend[2]
    zero, one = np.float32(0.0), np.float32(1.0)
    for i in range(image_CHW.shape[1]):
        add[:] = c
        if b != zero:
            for k in range(image_CHW.shape[0]):
                row = image_CHW[k, i]
                for j in range(row.shape[0]):
                    add[j] += b * row[j]
        for k in range(image_CHW.shape[0]):
            row = image_CHW[k, i]
            for j in range(row.shape[0]):
                row[j] = min(max(a * row[j] + add[j], zero), one)


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _follow_contrast(small: np.ndarray, jitter: np.ndarray, contrast: np.ndarray) -> None:
    scratch = np.empty(small.shape[3], dtype=np.float32)
    channels = small.shape[1]
    for n in range(small.shape[0]):
        for k in range(jitter.shape[1]):
            if contrast[n, k]:
                mean = np.float32(0.0)
                for c in range(channels):
                    weight = np.float32(1.0) / np.float32(channels)
                    if channels == 3:
                        weight = np.float32(GRAY[c])
                    mean += weight * small[n, c].mean()
                jitter[n, k, 2] = (np.float32(1.0) - jitter[n, k, 0]) * mean
            if channels == 3:
                _blend_three(small[n], jitter[n, k])
            else:
                _blend_any(small[n], jitter[n, k], scratch)
