"""Which frames, which slices, and where the heart is: decisions made from pixels, times and (when given) masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LATE_START_MS = 150.0  # a first frame later than this after the R wave is not end-diastole
SYSTOLE = (0.20, 0.55)  # share of the cycle in which end-systole is looked for
COARSE_MM = 4.0  # pixel of the motion map: finer than any wall motion that matters, coarse enough to be free
MOVING_CM2, BRIGHTEST_CM2 = 40.0, 5.0  # area of the moving heart, and of its most changing part
MEAN_SHIFT_STEPS, LAST_WINDOW, TAIL = 6, 1.5, 0.05
ROUNDING = 1e-5  # change over time below this share of the brightest pixel is rounding


def cycle_fractions(frame_times_ms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Place of every frame in the cardiac cycle (F,), from 0 at the first frame.

    The cycle is taken to end one median frame gap after the last frame. Unknown times give evenly spaced frames.
    """
    n = len(frame_times_ms)
    if n < 2 or not np.all(np.isfinite(frame_times_ms)) or frame_times_ms[-1] <= frame_times_ms[0]:
        return np.arange(n) / max(n, 1)
    elapsed = frame_times_ms - frame_times_ms[0]
    return np.asarray(elapsed / (elapsed[-1] + np.median(np.diff(frame_times_ms))), dtype=np.float64)


def bright_area(
    pixels_SFHW: NDArray[np.generic], center: tuple[float, float], radius_px: tuple[float, float]
) -> NDArray:
    """Number of bright (blood) pixels near the heart in every frame (F,).

    Bright means above the middle between the 10th and 95th percentile of the window over all frames, so the result
    does not depend on gain or offset.
    """
    window = _window(pixels_SFHW, center, radius_px).astype(np.float32)
    low, high = np.percentile(window, (10.0, 95.0))
    return np.count_nonzero(window > 0.5 * (low + high), axis=(0, 2, 3))


def end_diastole(
    pixels_SFHW: NDArray[np.generic],
    frame_times_ms: NDArray[np.float64],
    lv_area_F: NDArray[np.float64] | None,
    center: tuple[float, float],
    radius_px: tuple[float, float],
) -> int:
    """Index of the end-diastolic frame: the first by time.

    Retrospective gating puts the first frame at the R wave. A series that starts later than 150 [ms] after it (single
    frames kept of a cine) has its end-diastole elsewhere: then the frame with the largest LV area (masks) or the
    largest bright area near the heart is taken.
    """
    if not np.isfinite(frame_times_ms[0]) or frame_times_ms[0] <= LATE_START_MS:
        return 0
    if lv_area_F is not None:
        return int(np.nanargmax(lv_area_F))
    return int(np.argmax(bright_area(pixels_SFHW, center, radius_px)))


def end_systole(
    pixels_SFHW: NDArray[np.generic],
    frame_times_ms: NDArray[np.float64],
    ed: int,
    lv_area_F: NDArray[np.float64] | None,
    window: tuple[tuple[float, float], tuple[float, float]],
) -> int:
    """Index of the end-systolic frame.

    With masks: the smallest LV area. Without: the frame that differs most (mean absolute difference) from end-diastole
    around the heart, among frames at 20-55 % of the cycle after end-diastole; among all others when none lies there.

    Args:
        pixels_SFHW: Intensities (S, F, H, W).
        frame_times_ms: (F,) time after the R wave [ms].
        ed: Index of the end-diastolic frame.
        lv_area_F: LV cavity area in every frame (F,), or None without masks.
        window: Center and half size of the region around the heart, both as (row, column) [px].
    """
    n = pixels_SFHW.shape[1]
    if lv_area_F is not None:
        return int(np.nanargmin(lv_area_F))
    fraction = cycle_fractions(frame_times_ms)
    phase = (fraction - fraction[ed]) % 1.0
    allowed = (phase >= SYSTOLE[0]) & (phase <= SYSTOLE[1])
    if not allowed.any():
        allowed = np.arange(n) != ed
    if not allowed.any():
        return ed
    near = _window(pixels_SFHW, *window).astype(np.float32)
    change = np.abs(near - near[:, ed : ed + 1]).mean(axis=(0, 2, 3))
    return int(np.argmax(np.where(allowed, change, -1.0)))


def between(ed: int, es: int, frame_times_ms: NDArray[np.float64]) -> int:
    """Index of the frame nearest in time to the middle of systole; end-diastole itself when no frame lies between."""
    n = len(frame_times_ms)
    steps = (es - ed) % n
    if steps < 2:
        return ed
    inside = (ed + np.arange(1, steps)) % n
    fraction = cycle_fractions(frame_times_ms)
    phase = (fraction - fraction[ed]) % 1.0
    return int(inside[np.argmin(np.abs(phase[inside] - 0.5 * phase[es]))])


def even_frames(n_frames: int, wanted: int, first: int = 0) -> NDArray[np.int64]:
    """Indices (wanted,) evenly spaced over the periodic cycle, starting at `first`; repeated when there are fewer."""
    return (first + np.arange(wanted) * n_frames // wanted) % n_frames


def even_slices(n_slices: int, wanted: int) -> NDArray[np.int64]:
    """Indices (wanted,) of the middles of `wanted` equal parts of the stack, base to apex; repeated when fewer."""
    return (2 * np.arange(wanted) + 1) * n_slices // (2 * wanted)


def mask_center(masks_SFHW: NDArray[np.uint8]) -> tuple[float, float] | None:
    """Middle (row, column) [px] of the box around everything labeled in any slice and frame; None when empty."""
    labeled = (masks_SFHW.max(axis=(0, 1), initial=0)) > 0
    if not labeled.any():
        return None
    rows, columns = np.flatnonzero(labeled.any(axis=1)), np.flatnonzero(labeled.any(axis=0))
    return 0.5 * float(rows[0] + rows[-1]), 0.5 * float(columns[0] + columns[-1])


def motion_center(
    pixels_SFHW: NDArray[np.generic], spacing_mm: tuple[float, float], radius_mm: float
) -> tuple[float, float]:
    """Find the heart by its motion: (row, column) [px] of the middle of what moves.

    The standard deviation over time is averaged over slices on a grid of about 4 [mm] and reduced by its median
    (noise and still tissue). It saturates at the level that 40 cm2 exceed, so that LV and RV count by their area and
    not by how bright their blood is. Mean shift (doi:10.1109/34.1000236) follows its centroid with a Gaussian window
    that starts at the whole map and shrinks to `radius_mm`, so that vessels and chest wall lose their pull. In a
    last window of 1.5 radii the middle between the 5 % and 95 % quantile of rows and of columns is taken: a broad
    right ventricular wall then does not outweigh a thin ring. Depends only on pixels and is invariant to gain and
    offset. The middle of the image when nothing moves.
    """
    height, width = pixels_SFHW.shape[2:]
    block = tuple(max(1, round(COARSE_MM / step)) for step in spacing_mm)
    blocks = block_mean(pixels_SFHW, block)
    coarse = _temporal_std(blocks).mean(axis=0)
    coarse[coarse < ROUNDING * np.abs(blocks).max()] = 0.0
    cell_cm2 = block[0] * block[1] * spacing_mm[0] * spacing_mm[1] / 100.0
    weight = _saturate(np.maximum(coarse - np.median(coarse), 0.0), cell_cm2)
    row, column = 0.5 * (height - 1), 0.5 * (width - 1)
    if not float(weight.max()) > 0.0:
        return row, column
    rows = np.arange(weight.shape[0]) * block[0] + 0.5 * (block[0] - 1)
    columns = np.arange(weight.shape[1]) * block[1] + 0.5 * (block[1] - 1)
    for step in range(MEAN_SHIFT_STEPS + 1):
        last = step == MEAN_SHIFT_STEPS
        sigma_mm = radius_mm * (LAST_WINDOW if last else max(1.0, 4.0 * 0.5**step))
        by_row = np.exp(-0.5 * ((rows - row) * spacing_mm[0] / sigma_mm) ** 2)
        by_column = np.exp(-0.5 * ((columns - column) * spacing_mm[1] / sigma_mm) ** 2)
        along_rows, along_columns = by_row * (weight @ by_column), by_column * (by_row @ weight)
        total = float(along_rows.sum())
        if not total > 0.0:
            break
        if last:
            return _mid_quantiles(along_rows, block[0]), _mid_quantiles(along_columns, block[1])
        row, column = float(along_rows @ rows) / total, float(along_columns @ columns) / total
    return row, column


def _mid_quantiles(weight: NDArray[np.floating], block: int) -> float:
    """Middle of the two tail quantiles of a profile of cells of `block` pixels, as a pixel index."""
    share = np.concatenate(([0.0], np.cumsum(weight)))
    edges = np.arange(len(share)) * block - 0.5
    low, high = np.interp((TAIL * share[-1], (1.0 - TAIL) * share[-1]), share, edges)
    return 0.5 * float(low + high)


def _saturate(motion: NDArray[np.floating], cell_cm2: float) -> NDArray[np.floating]:
    """Square of the motion up to the level that the heart's area exceeds; at least a fifth of the strongest motion."""
    last = motion.size - 1
    ranks = [last - min(round(area / cell_cm2), last) for area in (MOVING_CM2, BRIGHTEST_CM2)]
    ordered = np.partition(motion.ravel(), ranks)
    level = max(float(ordered[ranks[0]]), 0.2 * float(ordered[ranks[1]]))
    if not level > 0.0:
        return (motion > 0).astype(np.float32)
    return np.minimum(motion / level, 1.0) ** 2


def block_mean(pixels_SFHW: NDArray[np.generic], block: tuple[int, ...]) -> NDArray[np.float32]:
    """Mean over blocks of pixels (S, F, H // block, W // block); an incomplete last block is left out."""
    down, right = block
    height, width = (pixels_SFHW.shape[2] // down) * down, (pixels_SFHW.shape[3] // right) * right
    if height == 0 or width == 0:
        return pixels_SFHW.astype(np.float32)
    total = np.zeros((*pixels_SFHW.shape[:2], height // down, width // right), dtype=np.float32)
    for i in range(down):
        for j in range(right):
            total += pixels_SFHW[:, :, i:height:down, j:width:right]
    total /= np.float32(down * right)
    return total


def _temporal_std(frames_SFHW: NDArray[np.float32]) -> NDArray[np.floating]:
    centered = frames_SFHW - frames_SFHW.mean(axis=1, keepdims=True)
    return np.sqrt(np.mean(centered * centered, axis=1))


def _window(
    pixels_SFHW: NDArray[np.generic], center: tuple[float, float], radius_px: tuple[float, float]
) -> NDArray[np.generic]:
    """Cut (S, F, h, w) around the center; never empty, because the center lies inside the frame."""
    spans = []
    for middle, radius, length in zip(center, radius_px, pixels_SFHW.shape[2:], strict=True):
        first = int(np.clip(np.floor(middle - radius), 0, length - 1))
        spans.append(slice(first, int(np.clip(np.ceil(middle + radius) + 1, first + 1, length))))
    return pixels_SFHW[:, :, spans[0], spans[1]]
