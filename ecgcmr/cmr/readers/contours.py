"""Contours as lists of points to masks: the Sunnybrook text files, and an exact polygon fill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MAX_POINTS = 100_000
MAX_BYTES = 8 * 1024**2


def read_contour(path: Path) -> NDArray[np.float64]:
    """Points (N, 2) as (x, y): column and row [px], pixel centers at whole numbers.

    Raises:
        ValueError: For a line that is not two numbers, fewer than three points, or far too many.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size} bytes are no contour")
    points = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            x, y = (float(word) for word in line.split())
        except ValueError:
            raise ValueError(f"{path}: line {number} must be two numbers, x and y in pixels") from None
        points.append((x, y))
    made = np.array(points, dtype=np.float64).reshape(-1, 2)
    if not 3 <= len(made) <= MAX_POINTS or not np.isfinite(made).all():
        raise ValueError(f"{path}: a contour has at least three finite points, found {len(made)}")
    return made


def fill_polygon(points_N2: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels (H, W) whose centers lie inside a closed polygon, by the even-odd rule.

    For each row of pixel centers the crossings with the polygon's edges are sorted; every second stretch between them
    is inside. An edge counts on its upper end and not on its lower one, so a row through a corner is counted once, and
    two polygons with a common edge share no pixel and leave none out.

    Args:
        points_N2: (x, y) [px], pixel centers at whole numbers; the last point is joined to the first.
        shape: (H, W).
    """
    mask = np.zeros(shape, dtype=bool)
    x0, y0 = points_N2.T
    x1, y1 = np.roll(points_N2, -1, axis=0).T
    first, last = max(0, int(np.ceil(y0.min()))), min(shape[0] - 1, int(np.floor(y0.max())))
    for row in range(first, last + 1):
        crosses = (np.minimum(y0, y1) <= row) & (row < np.maximum(y0, y1))
        share = (row - y0[crosses]) / (y1[crosses] - y0[crosses])
        at = np.sort(x0[crosses] + share * (x1[crosses] - x0[crosses]))
        for left, right in zip(at[::2], at[1::2], strict=True):
            start, stop = (int(np.clip(np.ceil(edge), 0, shape[1])) for edge in (left, right))
            mask[row, start:stop] = True
    return mask
