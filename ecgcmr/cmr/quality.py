"""What is odd about a cine: flags with reasons, for a ledger or a person; never an exception."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ecgcmr.cmr.cine import Cine
from ecgcmr.cmr.selection import motion_center

logger = logging.getLogger(__name__)

MIN_FRAMES = 15  # fewer sample the cycle too coarsely for end-systole (SCMR recommends 20 to 30)
PIXEL_MM = (0.5, 3.0)
SLICE_MM = (4.0, 20.0)
MIN_SAX_SLICES = 6
CYCLE_MS = (300.0, 2000.0)
HEART_MARGIN_MM = 45.0  # about half a heart
HEART_RADIUS_MM = 32.5


@dataclass(frozen=True)
class QualityFlag:
    """One finding.

    Attributes:
        code: Stable name of the check.
        detail: What was found, in numbers.
    """

    code: str
    detail: str


def check_cine(cine: Cine) -> tuple[QualityFlag, ...]:
    """Look at frames, geometry, intensities and the place of the heart.

    A check that cannot be done is a flag as well (`check_failed`), so a bad cine never stops an ingest.
    """
    found: list[QualityFlag] = []
    for check in _CHECKS:
        try:
            found.extend(check(cine))
        except Exception as error:
            logger.warning("quality check %s failed: %s", check.__name__, type(error).__name__)
            found.append(QualityFlag("check_failed", f"{check.__name__.strip('_')}: {type(error).__name__}"))
    return tuple(found)


def _frames(cine: Cine) -> Iterator[QualityFlag]:
    count, times = cine.pixels.shape[1], cine.frame_times_ms
    if count < MIN_FRAMES:
        yield QualityFlag("few_frames", f"{count} frames; a whole cine has at least {MIN_FRAMES}")
    if not np.isfinite(times).all():
        yield QualityFlag("no_frame_times", "the frame times are not known")
        return
    steps = np.diff(times)
    if (steps <= 0).any():
        yield QualityFlag(
            "times_not_rising", f"frame times fall or repeat after frame {int(np.argmax(steps <= 0)) + 1}"
        )
    elif count >= MIN_FRAMES:
        cycle = float(times[-1] - times[0] + np.median(steps))
        if not CYCLE_MS[0] <= cycle <= CYCLE_MS[1]:
            yield QualityFlag("odd_cycle", f"the frames span {cycle:.0f} ms")


def _geometry(cine: Cine) -> Iterator[QualityFlag]:
    if not PIXEL_MM[0] <= min(cine.spacing_mm) <= max(cine.spacing_mm) <= PIXEL_MM[1]:
        yield QualityFlag("odd_spacing", f"pixel spacing {cine.spacing_mm[0]:.2f} x {cine.spacing_mm[1]:.2f} mm")
    slices = cine.pixels.shape[0]
    if slices > 1 and not SLICE_MM[0] <= cine.slice_spacing_mm <= SLICE_MM[1]:
        yield QualityFlag("odd_slice_spacing", f"slices are {cine.slice_spacing_mm:.1f} mm apart")
    if cine.view == "sax" and slices < MIN_SAX_SLICES:
        yield QualityFlag("few_slices", f"{slices} short-axis slices do not cover a ventricle")


def _intensities(cine: Cine) -> Iterator[QualityFlag]:
    if cine.pixels.dtype.kind == "f" and not np.isfinite(cine.pixels).all():
        bad = np.count_nonzero(~np.isfinite(cine.pixels))
        yield QualityFlag("not_finite", f"{bad} of {cine.pixels.size} pixels are not finite")
        return
    spread = np.ptp(cine.pixels.astype(np.float32), axis=(2, 3))
    flat = np.argwhere(spread == 0)
    if len(flat):
        yield QualityFlag("flat", f"{len(flat)} flat frames, first slice {flat[0][0] + 1} frame {flat[0][1] + 1}")


def _heart(cine: Cine) -> Iterator[QualityFlag]:
    pixels = cine.pixels
    if pixels.shape[1] < 2 or (pixels.dtype.kind == "f" and not np.isfinite(pixels).all()):
        return
    if (pixels == pixels[:, :1]).all():
        yield QualityFlag("still", "no pixel changes over time")
        return
    place = motion_center(pixels, cine.spacing_mm, HEART_RADIUS_MM)
    margin = min(
        min(at + 0.5, length - 0.5 - at) * step
        for at, length, step in zip(place, pixels.shape[2:], cine.spacing_mm, strict=True)
    )
    if margin < HEART_MARGIN_MM:
        yield QualityFlag("heart_at_border", f"the moving heart is centered {margin:.0f} mm from the edge of the frame")


_CHECKS: tuple[Callable[[Cine], Iterator[QualityFlag]], ...] = (_frames, _geometry, _intensities, _heart)
