"""DICOM cine studies: a folder or zip of files becomes one Cine for each view, the short axis as one stack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecgcmr.cmr.cine import Cine
from ecgcmr.cmr.geometry import (
    Vector,
    angle_deg,
    classify_long_axis,
    is_short_axis,
    plane_affine,
    towards_apex,
)
from ecgcmr.cmr.readers.dicom_frames import DicomFrame, load_frames
from ecgcmr.cmr.readers.members import DEFAULT_MAX_BYTES
from ecgcmr.cmr.readers.slices import SAME_SLICE_MM, SliceCine, same_counts, split_slices

PARALLEL_DEG = 1.0
STRAIGHT_MM = 1.5  # slices of a stack may leave its line by this before a note says so
TIME_SPREAD_MS = 20.0
INCOMPLETE = ("error", "drop")


def read_dicom(path: str | Path, *, incomplete: str = "error", max_bytes: int = DEFAULT_MAX_BYTES) -> list[Cine]:
    """Read all cine series of a study.

    Frames are ordered by TriggerTime. Parallel short-axis series become one stack ordered from base to apex, where the
    apex lies to the left, the front and the feet. Other planes are named by how they cut that stack
    (`geometry.classify_long_axis`). Phase images, single images (localizers) and files that are not DICOM are left
    out, and the notes of every Cine say so. No identifier is kept.

    Args:
        path: Folder (recursive, with or without zips in it), zip, or single file.
        incomplete: `error` refuses a study in which a frame is missing or double; `drop` leaves out the slices in
            which that is so and notes it.
        max_bytes: What zips may unpack to [bytes].

    Returns:
        Short-axis stacks first, then the other views, in the order of SeriesNumber.

    Raises:
        FileNotFoundError: When there is nothing at `path`.
        ValueError: When nothing can be read, a frame is missing or double (naming series description, slice position
            and time), a file is damaged, or a zip is unsafe.
    """
    if incomplete not in INCOMPLETE:
        raise ValueError(f"incomplete must be one of {INCOMPLETE}, got {incomplete!r}")
    frames, notes = load_frames(Path(path), max_bytes)
    slices, left_out = _series_slices(frames, incomplete == "drop")
    notes += tuple(left_out)
    if not slices:
        raise ValueError(f"{path}: no cine series found. {'; '.join(notes) or 'The folder is empty'}")
    stacks, planes, left_out = _stacks(slices, incomplete == "drop")
    notes += tuple(left_out)
    cines = []
    axes: dict[str, Vector] = {}
    for stack in sorted(stacks, key=len, reverse=True):
        axis = towards_apex(stack[0].first.normal)
        axes.setdefault(stack[0].first.study, axis)
        cines.append(_assemble(stack, "sax", axis, notes))
    for plane in sorted(planes, key=lambda item: item[0].first.number):
        first = plane[0].first
        view, note = classify_long_axis(first.normal, axes.get(first.study), first.description)
        cines.append(_assemble(plane, view, first.normal, notes + ((note,) if note else ())))
    return cines


def _series_slices(frames: Sequence[DicomFrame], drop: bool) -> tuple[list[list[SliceCine]], list[str]]:
    """Slices of every series and orientation that is a cine; single images are left out."""
    series: dict[tuple[str, str], list[list[DicomFrame]]] = {}
    for frame in frames:
        groups = series.setdefault((frame.study, frame.series), [])
        match = next((group for group in groups if _parallel(group[0], frame)), None)
        if match is None:
            groups.append([frame])
        else:
            match.append(frame)
    found: list[list[SliceCine]] = []
    notes: list[str] = []
    for group in (group for groups in series.values() for group in groups):
        slices, left_out = split_slices(group, drop)
        notes += left_out
        if slices and len(slices[0].frames) < 2:
            notes.append(f"left out: {group[0].title} has single images, no cine")
        elif slices:
            found.append(slices)
    return found, notes


def _stacks(
    series: list[list[SliceCine]], drop: bool
) -> tuple[list[list[SliceCine]], list[list[SliceCine]], list[str]]:
    """Merge parallel short-axis series; give short-axis stacks, all other planes, and notes."""
    stacks: list[list[SliceCine]] = []
    planes: list[list[SliceCine]] = []
    notes: list[str] = []
    for slices in sorted(series, key=lambda item: (-len(item[0].frames), item[0].first.number)):
        first = slices[0].first
        if not is_short_axis(first.normal, first.description):
            planes.append(slices)
            continue
        match = next((stack for stack in stacks if _same_stack(stack[0], slices[0])), None)
        if match is None:
            stacks.append(list(slices))
        else:
            match.extend(slices)
    for stack in stacks:
        stack[:], left_out = same_counts(stack, drop)
        notes += left_out
    return stacks, planes, notes


def _same_stack(a: SliceCine, b: SliceCine) -> bool:
    """Whether two slices belong to one stack; far fewer frames is another kind of scan, a few fewer a damaged one."""
    here, there = (a.first.study, a.first.reference), (b.first.study, b.first.reference)
    return here == there and _parallel(a.first, b.first) and 2 * len(b.frames) > len(a.frames)


def _parallel(a: DicomFrame, b: DicomFrame) -> bool:
    turned = max(float(np.degrees(np.arccos(np.clip(a.orientation[i] @ b.orientation[i], -1, 1)))) for i in (0, 1))
    same_grid = a.pixels.shape == b.pixels.shape and np.allclose(a.spacing_mm, b.spacing_mm, rtol=1e-3)
    return same_grid and turned <= PARALLEL_DEG


def _assemble(slices: Sequence[SliceCine], view: str, axis: Vector, notes: tuple[str, ...]) -> Cine:
    """Order slices along the axis and put them into one array."""
    chosen, repeated = _without_repeats(sorted(slices, key=lambda item: float(item.first.origin @ axis)))
    first = chosen[0].first
    origins = np.array([item.first.origin for item in chosen])
    extra = list(repeated)
    if len(chosen) > 1:
        step = (origins[-1] - origins[0]) / (len(chosen) - 1)
        spacing = abs(float(step @ axis))
        extra += _stack_notes(origins, step, axis)
    else:
        spacing = 0.0
        step = axis * (first.thickness_mm if first.thickness_mm > 0 else 1.0)
    times = np.array([item.times_ms for item in chosen])
    if len(chosen) > 1 and float(np.ptp(times, axis=0).max()) > TIME_SPREAD_MS:
        extra.append(
            f"trigger times differ between slices by up to {np.ptp(times, axis=0).max():.0f} ms (heart rate changed); "
            "frame_times_ms is their mean"
        )
    declared = first.declared
    if len(chosen[0].frames) <= declared / 2:
        extra.append(f"{len(chosen[0].frames)} of the {declared} frames that the header promises: chosen phases")
    for item in chosen:
        extra.extend(note for note in item.notes if note not in extra)
    pixels = np.stack([np.stack([frame.pixels for frame in item.frames]) for item in chosen])
    return Cine(
        pixels=pixels,
        spacing_mm=first.spacing_mm,
        slice_spacing_mm=spacing,
        affine=plane_affine(origins[0], first.orientation, first.spacing_mm, step),
        frame_times_ms=times.mean(axis=0),
        view=view,
        source="dicom",
        notes=(f"scanner {first.scanner}", *extra, *notes),
    )


def _without_repeats(slices: list[SliceCine]) -> tuple[list[SliceCine], list[str]]:
    """Of slices at one place keep the original over the derived, then the latest series."""
    chosen: list[SliceCine] = []
    notes: list[str] = []
    for item in slices:
        if chosen and abs(item.offset_mm - chosen[-1].offset_mm) <= SAME_SLICE_MM:
            last = chosen[-1]
            rank = [(one.first.original, one.first.number) for one in (last, item)]
            chosen[-1] = item if rank[1] > rank[0] else last
            dropped = last if chosen[-1] is item else item
            notes.append(f"{dropped.where} was acquired again in {chosen[-1].first.title}, which is used")
        else:
            chosen.append(item)
    return chosen, notes


def _stack_notes(origins: Vector, step: Vector, axis: Vector) -> list[str]:
    notes = []
    line = origins[0] + np.arange(len(origins))[:, None] * step
    gaps = np.diff(origins @ axis)
    if np.ptp(gaps) > STRAIGHT_MM:
        found = ", ".join(f"{gap:.1f}" for gap in gaps)
        notes.append(f"slice distances are not equal ({found} mm): a slice may be missing; the mean is used")
    aside = np.linalg.norm(origins - line - ((origins - line) @ axis)[:, None] * axis, axis=1).max()
    if aside > STRAIGHT_MM:
        notes.append(f"slices are shifted in plane by up to {aside:.1f} mm against the affine")
    if angle_deg(step, axis) > PARALLEL_DEG:
        notes.append(f"the stack is oblique: its slices step {angle_deg(step, axis):.1f} deg off their normal")
    return notes
