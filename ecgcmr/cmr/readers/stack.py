"""Slices of one stack: ordered, repeats resolved, what is missing named, and one array made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ecgcmr.cmr.cine import Cine
from ecgcmr.cmr.geometry import Vector, angle_deg, plane_affine
from ecgcmr.cmr.readers.slices import SAME_SLICE_MM, SliceCine

PARALLEL_DEG = 1.0
STRAIGHT_MM = 1.5  # slices of a stack may leave its line by this before a note says so
TIME_SPREAD_MS = 20.0
GAP = 1.5  # slices farther apart than this many usual steps have a missing one between them
OTHER_COUNT = 0.15  # counts that differ by more than this share are another protocol, not a lost frame
SAME_CYCLE = 0.2
ADVICE = "add the missing files, or pass incomplete='drop' to leave it out"


@dataclass(frozen=True, eq=False)
class Stack:
    """The slices of one view, in order.

    Attributes:
        slices: Whole slices with one number of frames.
        axis: Unit vector along which they are ordered, LPS.
        notes: What was assumed or left out.
    """

    slices: tuple[SliceCine, ...]
    axis: Vector
    notes: tuple[str, ...]


def settle(slices: Sequence[SliceCine], axis: Vector, drop: bool) -> Stack:
    """Order slices along the axis, keep one of each place, and see that all have the same phases of the cycle.

    Slices with another number of frames than most are no error when they are known to be whole: their header promises
    just that number, or the number differs by more than 15 % while the cycle is as long as that of the others. Of
    those, the frames nearest to the phases of the others are taken, and a note says so. Otherwise the slice counts as
    damaged.

    Raises:
        ValueError: Naming series, slice (counted from the base, or along the axis) and frame of what is missing or
            double, unless `drop`, which leaves the slice out and notes it.
    """
    ordered, notes = _without_repeats(sorted(slices, key=lambda item: float(item.first.origin @ axis)))
    checked = _same_counts(ordered, notes)
    kept = []
    for number, item in enumerate(checked, start=1):
        if not item.fault:
            kept.append(item)
            continue
        place = f"slice {number} of {len(checked)}, slice at {item.offset_mm:+.1f} mm along its normal"
        message = f"{item.first.title}, {place}: {item.fault}"
        if "incomplete=" not in message:
            message += "; or pass incomplete='drop' to leave the slice out"
        if not drop:
            raise ValueError(message)
        notes.append(f"left out: {message}")
    return Stack(tuple(kept), axis, tuple(notes))


def assemble(stack: Stack, view: str, notes: Sequence[str]) -> Cine:
    """Put the slices of a stack into one array."""
    chosen, axis = stack.slices, stack.axis
    first = chosen[0].first
    origins = np.array([item.first.origin for item in chosen])
    extra = list(stack.notes)
    offsets = None
    if len(chosen) > 1:
        gaps = np.diff(origins @ axis)
        usual = float(np.median(gaps))
        even = float(np.ptp(gaps)) <= STRAIGHT_MM
        step = (origins[-1] - origins[0]) / (len(chosen) - 1)
        if not even:
            step *= usual / float(step @ axis)
            offsets = (origins - origins[0]) @ axis
        spacing = abs(float(step @ axis))
        extra += _gap_notes(gaps, usual) if not even else []
        extra += _line_notes(origins, step, axis, even)
    else:
        spacing = 0.0
        step = axis * (first.thickness_mm if first.thickness_mm > 0 else 1.0)
    times = np.array([item.times_ms for item in chosen])
    if len(chosen) > 1 and float(np.ptp(times, axis=0).max()) > TIME_SPREAD_MS:
        extra.append(
            f"trigger times differ between slices by up to {np.ptp(times, axis=0).max():.0f} ms (heart rate changed); "
            "frame_times_ms is their mean"
        )
    if len(chosen[0].frames) <= first.declared / 2:
        extra.append(f"{len(chosen[0].frames)} of the {first.declared} frames that the header promises: chosen phases")
    for item in chosen:
        extra.extend(note for note in item.notes if note not in extra)
    recorded = [frame.recorded_at for item in chosen for frame in item.frames if frame.recorded_at is not None]
    pixels = np.empty(
        (len(chosen), len(chosen[0].frames), *first.pixels.shape),
        np.result_type(*{frame.pixels.dtype for item in chosen for frame in item.frames}),
    )
    for index, item in enumerate(chosen):
        for number, frame in enumerate(item.frames):
            pixels[index, number] = frame.pixels
    return Cine(
        pixels=pixels,
        spacing_mm=first.spacing_mm,
        slice_spacing_mm=spacing,
        affine=plane_affine(origins[0], first.orientation, first.spacing_mm, step),
        frame_times_ms=times.mean(axis=0),
        view=view,
        source="dicom",
        notes=(f"scanner {first.scanner}", *extra, *notes),
        slice_offsets_mm=offsets,
        recorded_at=min(recorded, default=None),
    )


def _without_repeats(slices: list[SliceCine]) -> tuple[list[SliceCine], list[str]]:
    """Of slices at one place keep a whole one, the original over the derived, then the latest series."""
    chosen: list[SliceCine] = []
    notes: list[str] = []
    usual = _usual_count(slices)
    for item in slices:
        if not chosen or abs(item.offset_mm - chosen[-1].offset_mm) > SAME_SLICE_MM:
            chosen.append(item)
            continue
        last = chosen[-1]
        rank = [(not one.fault, one.first.original, len(one.frames) == usual, one.first.number) for one in (last, item)]
        chosen[-1] = item if rank[1] > rank[0] else last
        dropped = last if chosen[-1] is item else item
        why = f", which is whole ({dropped.fault})" if dropped.fault and not chosen[-1].fault else ""
        place = f"{dropped.first.title}, slice at {dropped.offset_mm:+.1f} mm along its normal"
        notes.append(f"{place}, was acquired again in {chosen[-1].first.title}, which is used{why}")
    return chosen, notes


def _usual_count(slices: Sequence[SliceCine]) -> int:
    """The number of frames that most slices have; of equals the larger one."""
    counts = Counter(len(item.frames) for item in slices)
    return max(counts, key=lambda count: (counts[count], count))


def _same_counts(slices: Sequence[SliceCine], notes: list[str]) -> list[SliceCine]:
    """Slices with one number of frames; a fault on those that cannot have it."""
    counts = [len(item.frames) for item in slices if not item.fault]
    if len(set(counts)) < 2:
        return list(slices)
    usual = _usual_count([item for item in slices if not item.fault])
    wholes = [item for item in slices if len(item.frames) == usual]
    largest = max(slices, key=lambda item: len(item.frames))
    done = []
    for item in slices:
        if item.fault or len(item.frames) == usual:
            done.append(item)
        elif _other_protocol(item, wholes[0]):
            notes.append(
                f"{item.first.title}: {len(item.frames)} frames where most slices have {usual}; "
                "the frames nearest to their phases of the cycle are used"
            )
            done.append(item.at_phases(usual))
        else:
            reference = wholes[0] if len(item.frames) < usual else largest
            done.append(replace(item, fault=_wrong_count(item, reference, usual)))
    return done


def _other_protocol(item: SliceCine, usual: SliceCine) -> bool:
    """Whether a slice was acquired with another number of phases, rather than having lost some."""
    if len(item.frames) < 3 or len(usual.frames) < 3:
        return False
    if item.whole and usual.whole:
        return True
    ratio = len(item.frames) / len(usual.frames)
    cycle = (item.step_ms * len(item.frames)) / (usual.step_ms * len(usual.frames))
    return (
        abs(ratio - 1.0) > OTHER_COUNT
        and abs(cycle - 1.0) < SAME_CYCLE
        and item.first.declared in (0, len(item.frames))
    )


def _wrong_count(item: SliceCine, reference: SliceCine, usual: int) -> str:
    if len(item.frames) > usual:  # nothing tells which are right: said, and never settled silently
        return (
            f"{len(item.frames)} frame(s), but {usual} in most slices: it has too many, or they lost some; "
            f"remove what does not belong to it, or {ADVICE}"
        )
    return (
        f"{len(item.frames)} frame(s), but {len(reference.frames)} at {reference.offset_mm:+.1f} mm; "
        f"missing {_absent(item, reference)}; {ADVICE}"
    )


def _absent(item: SliceCine, fullest: SliceCine) -> str:
    """Name what the fullest slice has and this one has not."""
    lost = len(fullest.frames) - len(item.frames)
    if not (item.timed and fullest.timed):
        return f"{lost} frame(s)"
    near = np.abs(fullest.times_ms[:, None] - item.times_ms).min(axis=1)
    order = np.sort(np.argsort(-near, kind="stable")[:lost])
    frames = ", ".join(str(index + 1) for index in order)
    return f"frame {frames} at TriggerTime " + ", ".join(f"{fullest.times_ms[i]:.0f}" for i in order) + " ms"


def _gap_notes(gaps: Vector, usual: float) -> list[str]:
    notes = []
    for index in np.flatnonzero(gaps > GAP * usual):
        lost = max(1, round(float(gaps[index]) / usual) - 1)
        notes.append(
            f"gap between slice {index + 1} and slice {index + 2}: {gaps[index]:.1f} mm, where slices are usually "
            f"{usual:.1f} mm apart; {lost} slice(s) missing"
        )
    found = ", ".join(f"{gap:.1f}" for gap in gaps)
    notes.append(f"slice distances are not equal ({found} mm): see slice_offsets_mm; slice_spacing_mm is the median")
    return notes


def _line_notes(origins: Vector, step: Vector, axis: Vector, even: bool) -> list[str]:
    notes = []
    along = (origins - origins[0]) @ axis
    line = origins[0] + (along / float(step @ axis))[:, None] * step
    aside = np.linalg.norm(origins - line - ((origins - line) @ axis)[:, None] * axis, axis=1).max()
    if aside > STRAIGHT_MM:
        notes.append(f"slices are shifted in plane by up to {aside:.1f} mm against the affine")
    if angle_deg(step, axis) > PARALLEL_DEG:
        notes.append(f"the stack is oblique: its slices step {angle_deg(step, axis):.1f} deg off their normal")
    return notes
