"""Frames of one slice in the order of the heart beat, and what is missing or double among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecgcmr.cmr.readers.dicom_frames import DicomFrame

SAME_SLICE_MM = 0.5
SAME_TIME_MS = 0.5
GAP = 1.5  # a step in time longer than this many median steps is a missing frame
MIN_FRAMES_FOR_GAPS = 5  # fewer frames are chosen phases of a cine and need not be evenly spaced


@dataclass(frozen=True, eq=False)
class SliceCine:
    """The frames of one slice location of one series, ordered by time.

    Attributes:
        frames: In order.
        times_ms: (F,) TriggerTime [ms]; NaN when the series has none.
        notes: What was assumed.
    """

    frames: tuple[DicomFrame, ...]
    times_ms: NDArray[np.float64]
    notes: tuple[str, ...]

    @property
    def first(self) -> DicomFrame:
        """The frame that stands for the geometry of all."""
        return self.frames[0]

    @property
    def offset_mm(self) -> float:
        """Place of the plane along its normal [mm]."""
        return float(self.first.origin @ self.first.normal)

    @property
    def where(self) -> str:
        """How messages name the slice."""
        return f"{self.first.title}, slice at {self.offset_mm:+.1f} mm along its normal"


def split_slices(frames: Sequence[DicomFrame], drop: bool = False) -> tuple[list[SliceCine], list[str]]:
    """Split the frames of one series and one orientation into its slice locations, by place along the normal.

    Args:
        frames: All frames, in any order.
        drop: Leave out slices with a missing or double frame and note it, instead of refusing them.

    Returns:
        Slices by place, and notes on those left out.

    Raises:
        ValueError: For a missing frame (a gap in time, or fewer frames than the other slices or the header have), or
            two different frames of one slice and time.
    """
    normal = frames[0].normal
    groups: list[list[DicomFrame]] = []
    for frame in sorted(frames, key=lambda frame: float(frame.origin @ normal)):
        if groups and abs(float((frame.origin - groups[-1][0].origin) @ normal)) <= SAME_SLICE_MM:
            groups[-1].append(frame)
        else:
            groups.append([frame])
    slices: list[SliceCine] = []
    notes: list[str] = []
    for group in groups:
        try:
            item = _ordered(group)
            _check_gaps(item)
            _check_declared(item)
            slices.append(item)
        except ValueError as error:
            if not drop:
                raise
            notes.append(f"left out: {error}")
    kept, uneven = same_counts(slices, drop)
    return kept, notes + uneven


def same_counts(slices: Sequence[SliceCine], drop: bool) -> tuple[list[SliceCine], list[str]]:
    """Refuse, or leave out, slices of one stack with fewer frames than the others, naming the missing time.

    Raises:
        ValueError: Naming series, slice and the missing time, unless `drop`.
    """
    kept: list[SliceCine] = []
    notes: list[str] = []
    for item in slices:
        fullest = max(slices, key=lambda one: len(one.frames))
        if len(item.frames) == len(fullest.frames):
            kept.append(item)
            continue
        message = (
            f"{item.where}: {len(item.frames)} frame(s), but {len(fullest.frames)} at {fullest.offset_mm:+.1f} mm; "
            f"missing {_absent(item, fullest)}; add the missing files, or pass incomplete='drop' to leave it out"
        )
        if not drop:
            raise ValueError(message)
        notes.append(f"left out: {message}")
    return kept, notes


def _ordered(frames: list[DicomFrame]) -> SliceCine:
    """Order by TriggerTime; by InstanceNumber, and saying so, when there are no usable times."""
    times = np.array([frame.time_ms for frame in frames])
    timed = bool(np.all(np.isfinite(times))) and (len(frames) == 1 or float(np.ptp(times)) > SAME_TIME_MS)
    key = (lambda frame: frame.time_ms) if timed else (lambda frame: float(frame.instance))
    notes: tuple[str, ...] = (
        () if timed else (f"{frames[0].title}: no usable TriggerTime; frames ordered by InstanceNumber",)
    )
    kept: list[DicomFrame] = []
    copies = 0
    for frame in sorted(frames, key=key):
        if kept and abs(key(frame) - key(kept[-1])) <= (SAME_TIME_MS if timed else 0.0):
            if not np.array_equal(frame.pixels, kept[-1].pixels):
                place = SliceCine((frame,), times[:1], ()).where
                when = f"TriggerTime {frame.time_ms:g} ms" if timed else f"InstanceNumber {frame.instance}"
                raise ValueError(
                    f"{place}: two different frames at {when} (instances {kept[-1].instance} and {frame.instance}); "
                    "are two acquisitions in one folder? Keep one of them"
                )
            copies += 1
            continue
        kept.append(frame)
    if copies:
        notes += (f"{frames[0].title}: {copies} file(s) are exact copies of another frame and were left out",)
    final = np.array([frame.time_ms for frame in kept]) if timed else np.full(len(kept), np.nan)
    return SliceCine(tuple(kept), final, notes)


def _check_gaps(item: SliceCine) -> None:
    gaps = np.diff(item.times_ms) if np.all(np.isfinite(item.times_ms)) else np.diff(_instances(item))
    if len(item.frames) < MIN_FRAMES_FOR_GAPS:
        return
    step = float(np.median(gaps))
    wide = np.flatnonzero(gaps > GAP * step)
    if len(wide) == 0:
        return
    at = int(wide[0])
    missing = max(1, round(float(gaps[at]) / step) - 1)
    if np.all(np.isfinite(item.times_ms)):
        when = f"about TriggerTime {item.times_ms[at] + step:.0f} ms (the step is {step:.1f} ms)"
    else:
        when = f"InstanceNumber {item.frames[at].instance + round(step)}"
    raise ValueError(
        f"{item.where}: {missing} frame(s) missing after frame {at + 1} of {len(item.frames)}, at {when}; "
        "add the missing files, or pass incomplete='drop' to leave it out"
    )


def _check_declared(item: SliceCine) -> None:
    """Compare with the number of frames in the header, which tells of frames missing at the end or the start."""
    declared, present = item.first.declared, len(item.frames)
    if not declared / 2 < present < declared:
        return
    times = item.times_ms
    if np.all(np.isfinite(times)) and present > 1:
        step = float(np.median(np.diff(times)))
        where = f"TriggerTime {times[-1] + step:.0f} ms" if times[0] < step else f"{max(times[0] - step, 0.0):.0f} ms"
    else:
        where = f"InstanceNumber {item.frames[-1].instance + 1}"
    raise ValueError(
        f"{item.where}: {present} frames, but the header promises {declared}; missing at about {where}; "
        "add the missing files, or pass incomplete='drop' to leave it out"
    )


def _absent(item: SliceCine, fullest: SliceCine) -> str:
    """Name what the fullest slice has and this one has not."""
    if np.all(np.isfinite(item.times_ms)) and np.all(np.isfinite(fullest.times_ms)):
        near = np.abs(fullest.times_ms[:, None] - item.times_ms).min(axis=1)
        order = np.argsort(-near, kind="stable")[: len(fullest.frames) - len(item.frames)]
        return "TriggerTime " + ", ".join(f"{time:.0f}" for time in np.sort(fullest.times_ms[order])) + " ms"
    return f"{len(fullest.frames) - len(item.frames)} frame(s)"


def _instances(item: SliceCine) -> NDArray[np.float64]:
    return np.array([float(frame.instance) for frame in item.frames])
