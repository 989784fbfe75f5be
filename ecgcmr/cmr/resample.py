"""Anti-aliased resampling of a window by one small filter for rows and one for columns.

Compiled, and on one thread: matrix products of this size would wake the threads of the linear algebra library, which
costs more than the product itself when several processes share a machine.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray


def triangle_filter(
    length: int, size: int, center_px: float, extent_px: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_], slice]:
    """Matrix that resamples a window of one axis, anti-aliased.

    Output pixel i averages over a triangle around its center, as wide as the larger of the two pixels: linear
    interpolation when enlarging, area weighting when shrinking. Rows whose center is outside the frame are zero.

    Args:
        length: Pixels of the source axis.
        size: Pixels of the output.
        center_px: Middle of the window as a source pixel index.
        extent_px: Length of the window in source pixels.

    Returns:
        Matrix (size, n), which outputs lie in the frame (size,), and the n source pixels that the matrix reads.
    """
    step = extent_px / size
    reach = max(step, 1.0)
    position = center_px + (np.arange(size) + 0.5) * step - 0.5 * extent_px
    inside = (position >= -0.5) & (position <= length - 0.5)
    first = min(max(math.floor(position[0] - reach), 0), length - 1)
    last = max(min(math.ceil(position[-1] + reach), length - 1), first)
    distance = np.abs(position[:, None] - np.arange(first, last + 1)) / reach
    weight = np.maximum(1.0 - distance, 0.0) * inside[:, None]
    weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-12)
    return weight.astype(np.float32), inside, slice(first, last + 1)


def separable(
    pixels: NDArray[np.generic], rows: NDArray[np.float32], columns: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Apply a row filter and a column filter to every image.

    Args:
        pixels: (..., h, w), any number type.
        rows: (size, h), few neighboring entries of each row not zero.
        columns: (size, w), the same.

    Returns:
        float32 (..., size, size).
    """
    images = np.ascontiguousarray(pixels, dtype=np.float32).reshape(-1, *pixels.shape[-2:])
    out = np.empty((len(images), len(rows), len(columns)), dtype=np.float32)
    _separable(images, rows, _spans(rows), columns, _spans(columns), out)
    return out.reshape(*pixels.shape[:-2], len(rows), len(columns))


def _spans(weights: NDArray[np.float32]) -> NDArray[np.int64]:
    """First and one past the last entry that is not zero, (size, 2); (0, 0) for rows of zeros."""
    used = weights != 0
    first, last = used.argmax(axis=1), weights.shape[1] - used[:, ::-1].argmax(axis=1)
    return np.where(used.any(axis=1)[:, None], np.stack((first, last), axis=1), 0)


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def _separable(
    images: np.ndarray,
    rows: np.ndarray,
    row_spans: np.ndarray,
    columns: np.ndarray,
    column_spans: np.ndarray,
    out: np.ndarray,
) -> None:
    mixed = np.empty(images.shape[2], dtype=np.float32)
    for n in range(images.shape[0]):
        for i in range(rows.shape[0]):
            mixed[:] = np.float32(0.0)
            for r in range(row_spans[i, 0], row_spans[i, 1]):
                weight = rows[i, r]
                for j in range(mixed.shape[0]):
                    mixed[j] += weight * images[n, r, j]
            for k in range(columns.shape[0]):
                total = np.float32(0.0)
                for c in range(column_spans[k, 0], column_spans[k, 1]):
                    total += columns[k, c] * mixed[c]
                out[n, i, k] = total
