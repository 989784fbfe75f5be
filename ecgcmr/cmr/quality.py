"""What is odd about a cine: flags with reasons, for a ledger or a person; never an exception."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ecgcmr.cmr.cine import Cine
from ecgcmr.cmr.registration import slice_shifts_mm
from ecgcmr.cmr.selection import block_mean, motion_center
from ecgcmr.cmr.views import OFF_AXIS

logger = logging.getLogger(__name__)

MIN_FRAMES = 15  # fewer sample the cycle too coarsely for end-systole (SCMR recommends 20 to 30)
PIXEL_MM = (0.5, 3.0)
SLICE_MM = (4.0, 20.0)
MIN_SAX_SLICES = 6
CYCLE_MS = (300.0, 2000.0)
HEART_MARGIN_MM = 45.0  # about half a heart
HEART_RADIUS_MM = 32.5
SHIFT_MM = 7.0  # a slice this far beside its neighbors was taken in another breath-hold
FRAME_LEVEL = (0.7, 1.4)  # mean intensity of a frame over that of its slice's median frame
SLICE_LEVEL = 0.5  # the same of a slice over the lower of its neighbors
PART_LEVEL = 0.15  # the same of a part of a frame
SUDDEN = 0.15
PARTS = 8  # parts are 1/8 of the image high and wide
BRIGHT_SHARE = 0.5  # parts darker than this share of the mean are air or lung: nothing can drop out there
GAP_MM = 1.5  # unevenness of slices that is no gap


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
    affine = np.asarray(cine.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(float(np.linalg.det(affine[:3, :3]))) < 1e-6:
        yield QualityFlag("bad_affine", "the affine does not place the pixels in the body")
    if cine.slice_offsets_mm is not None:
        gaps = np.diff(cine.slice_offsets_mm)
        for k in np.flatnonzero(gaps > cine.slice_spacing_mm + GAP_MM):
            yield QualityFlag(
                "slice_gap",
                f"slices {k + 1} and {k + 2} are {gaps[k]:.1f} mm apart, the others {cine.slice_spacing_mm:.1f} mm",
            )


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


def _signal(cine: Cine) -> Iterator[QualityFlag]:
    """Frames, slices and parts of frames that lost their signal, against the same place at other times."""
    pixels = cine.pixels
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        return
    block = tuple(max(1, length // PARTS) for length in pixels.shape[2:])
    for k in range(pixels.shape[0]):
        part = block_mean(pixels[k : k + 1], block)[0]
        level = part.mean(axis=(1, 2))
        usual = float(np.median(level))
        if usual <= 0 or len(level) < 3:
            continue
        share = level / usual
        flat = np.ptp(pixels[k], axis=(1, 2)) == 0  # has a flag of its own
        odd = np.flatnonzero(((share < FRAME_LEVEL[0]) | (share > FRAME_LEVEL[1])) & ~flat)
        if len(odd):
            worst = odd[int(np.abs(np.log(np.maximum(share[odd], 1e-6))).argmax())]
            yield QualityFlag(
                "frame_intensity",
                f"slice {k + 1}: {len(odd)} frame(s), frame {worst + 1} with {share[worst]:.0%} of the others",
            )
            continue
        still = np.median(part, axis=0)
        lit = still > BRIGHT_SHARE * usual
        beside = np.maximum(np.roll(part, 1, axis=0), np.roll(part, -1, axis=0))
        sudden = part < SUDDEN * beside  # walls that move away leave a part darker, but not from one frame to the next
        lost = lit & sudden & (part < PART_LEVEL * still) & ~flat[:, None, None]
        if lost.any():
            frame = int(lost.any(axis=(1, 2)).argmax())
            yield QualityFlag(
                "signal_dropout", f"slice {k + 1} frame {frame + 1}: {lost[frame].sum()} of {lit.sum()} parts went dark"
            )


def _slice_levels(cine: Cine) -> Iterator[QualityFlag]:
    """Slices far darker than both neighbors."""
    pixels = cine.pixels
    if pixels.shape[0] < 3 or (pixels.dtype.kind == "f" and not np.isfinite(pixels).all()):
        return
    level = pixels.mean(axis=(1, 2, 3), dtype=np.float64)
    for k in range(1, len(level) - 1):
        beside = min(level[k - 1], level[k + 1])
        if level[k] < SLICE_LEVEL * beside:
            yield QualityFlag(
                "slice_intensity", f"slice {k + 1} has {level[k] / beside:.0%} of its neighbors' intensity"
            )


def _breath_holds(cine: Cine) -> Iterator[QualityFlag]:
    """Short-axis slices that lie beside their neighbors."""
    if cine.view != "sax" or (cine.pixels.dtype.kind == "f" and not np.isfinite(cine.pixels).all()):
        return
    shifts = slice_shifts_mm(cine)
    length = np.nan_to_num(np.linalg.norm(shifts, axis=1))
    for k in np.flatnonzero(length > SHIFT_MM):
        if length[k] == length[max(0, k - 1) : k + 2].max():  # the neighbors of a shifted slice show half of it
            yield QualityFlag("slice_shift", f"slice {k + 1} lies {length[k]:.0f} mm beside its neighbors")


def _placement(cine: Cine) -> Iterator[QualityFlag]:
    for note in cine.notes:
        if OFF_AXIS in note:
            yield QualityFlag("off_axis", note)


_CHECKS: tuple[Callable[[Cine], Iterator[QualityFlag]], ...] = (
    _frames,
    _geometry,
    _intensities,
    _heart,
    _signal,
    _slice_levels,
    _breath_holds,
    _placement,
)
