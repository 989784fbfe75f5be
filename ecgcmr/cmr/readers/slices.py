"""Frames of one slice in the order of the heart beat, and what is missing or double among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
        fault: What is missing or double, in words; empty for a whole slice.
    """

    frames: tuple[DicomFrame, ...]
    times_ms: NDArray[np.float64]
    notes: tuple[str, ...]
    fault: str = ""

    @property
    def first(self) -> DicomFrame:
        """The frame that stands for the geometry of all."""
        return self.frames[0]

    @property
    def offset_mm(self) -> float:
        """Place of the plane along its normal [mm]."""
        return float(self.first.origin @ self.first.normal)

    @property
    def timed(self) -> bool:
        """Whether the frame times are known."""
        return bool(np.isfinite(self.times_ms).all())

    @property
    def step_ms(self) -> float:
        """Median step in time [ms]; NaN when the times are not known."""
        return float(np.median(np.diff(self.times_ms))) if self.timed and len(self.times_ms) > 1 else float("nan")

    @property
    def whole(self) -> bool:
        """Whether the header promises exactly the frames that are here."""
        return not self.fault and self.first.declared == len(self.frames)

    def at_phases(self, count: int) -> SliceCine:
        """The same cycle in `count` frames: of each phase of the cycle the nearest frame."""
        chosen = np.minimum(np.rint(np.arange(count) * len(self.frames) / count).astype(int), len(self.frames) - 1)
        return replace(self, frames=tuple(self.frames[i] for i in chosen), times_ms=self.times_ms[chosen])


def split_slices(frames: Sequence[DicomFrame]) -> list[SliceCine]:
    """Split the frames of one series and one orientation into its slice locations, by place along the normal.

    Nothing is refused here: what is missing or double in a slice is written into its `fault`, because another series
    of the study may hold the same slice whole.
    """
    normal = frames[0].normal
    groups: list[list[DicomFrame]] = []
    for frame in sorted(frames, key=lambda frame: float(frame.origin @ normal)):
        if groups and abs(float((frame.origin - groups[-1][0].origin) @ normal)) <= SAME_SLICE_MM:
            groups[-1].append(frame)
        else:
            groups.append([frame])
    slices = []
    for group in groups:
        item = _ordered(group)
        if not item.fault:
            item = replace(item, fault=_gap(item) or _unkept_promise(item))
        slices.append(item)
    return slices


def _ordered(frames: list[DicomFrame]) -> SliceCine:
    """Order by TriggerTime; by InstanceNumber, and saying so, when there are no usable times."""
    times = np.array([frame.time_ms for frame in frames])
    timed = bool(np.all(np.isfinite(times))) and (len(frames) == 1 or float(np.ptp(times)) > SAME_TIME_MS)
    key = (lambda frame: frame.time_ms) if timed else (lambda frame: float(frame.instance))
    notes: tuple[str, ...] = (
        () if timed else (f"{frames[0].title}: no usable TriggerTime; frames ordered by InstanceNumber",)
    )
    kept: list[DicomFrame] = []
    copies, fault = 0, ""
    for frame in sorted(frames, key=key):
        if kept and abs(key(frame) - key(kept[-1])) <= (SAME_TIME_MS if timed else 0.0):
            if np.array_equal(frame.pixels, kept[-1].pixels):
                copies += 1
            elif not fault:
                when = f"TriggerTime {frame.time_ms:g} ms" if timed else f"InstanceNumber {frame.instance}"
                fault = (
                    f"two different frames at {when} (frame {len(kept)}, instances {kept[-1].instance} and "
                    f"{frame.instance}); are two acquisitions in one folder? Keep one of them"
                )
            continue
        kept.append(frame)
    if copies:
        notes += (f"{frames[0].title}: {copies} file(s) are exact copies of another frame and were left out",)
    final = np.array([frame.time_ms for frame in kept]) if timed else np.full(len(kept), np.nan)
    return SliceCine(tuple(kept), final, notes, fault)


def _gap(item: SliceCine) -> str:
    """Name the first missing frame within the cycle; empty when there is none."""
    if len(item.frames) < MIN_FRAMES_FOR_GAPS:
        return ""
    gaps = np.diff(item.times_ms) if item.timed else np.diff([float(frame.instance) for frame in item.frames])
    step = float(np.median(gaps))
    wide = np.flatnonzero(gaps > GAP * step)
    if len(wide) == 0:
        return ""
    at = int(wide[0])
    missing = max(1, round(float(gaps[at]) / step) - 1)
    if item.timed:
        when = f"about TriggerTime {item.times_ms[at] + step:.0f} ms (the step is {step:.1f} ms)"
    else:
        when = f"InstanceNumber {item.frames[at].instance + round(step)}"
    more = "" if missing == 1 else f" to {at + 1 + missing}"
    return (
        f"{missing} frame(s) missing after frame {at + 1} of {len(item.frames)}: frame {at + 2}{more} at {when}; "
        "add the missing files"
    )


def _unkept_promise(item: SliceCine) -> str:
    """Compare with the number of frames in the header, which tells of frames missing at the end or the start."""
    declared, present = item.first.declared, len(item.frames)
    if not declared / 2 < present < declared:
        return ""
    times = item.times_ms
    if item.timed and present > 1:
        step = item.step_ms
        where = f"TriggerTime {times[-1] + step:.0f} ms" if times[0] < step else f"{max(times[0] - step, 0.0):.0f} ms"
        frame = f"frame {present + 1}" if times[0] < step else "frame 1"
    else:
        where, frame = f"InstanceNumber {item.frames[-1].instance + 1}", f"frame {present + 1}"
    return f"{present} frames, but the header promises {declared}; missing at about {where} ({frame}); add the files"
