"""DICOM cine studies: a folder or zip of files becomes one Cine for each view, the short axis as one stack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecgcmr.cmr.cine import Cine
from ecgcmr.cmr.geometry import is_short_axis, towards_apex
from ecgcmr.cmr.readers.dicom_frames import DicomFrame, load_frames
from ecgcmr.cmr.readers.members import DEFAULT_MAX_BYTES
from ecgcmr.cmr.readers.slices import SAME_SLICE_MM, SliceCine, split_slices
from ecgcmr.cmr.readers.stack import PARALLEL_DEG, Stack, assemble, settle
from ecgcmr.cmr.views import Plane, name_planes

INCOMPLETE = ("error", "drop")
_PARALLEL = float(np.cos(np.radians(PARALLEL_DEG)))


def read_dicom(path: str | Path, *, incomplete: str = "error", max_bytes: int = DEFAULT_MAX_BYTES) -> list[Cine]:
    """Read all cine series of a study.

    Frames are ordered by TriggerTime. Parallel short-axis series become one stack ordered from base to apex, where the
    apex lies to the left, the front and the feet. Other planes are named by how they cut the left ventricle
    (`views.name_planes`). Phase images, single images (localizers) and files that are not DICOM are left out, and the
    notes of every Cine say so. No identifier is kept; `recorded_at` is the acquisition time of the header.

    Args:
        path: Folder (recursive, with or without zips in it), zip, or single file.
        incomplete: `error` refuses a study in which a frame is missing or double; `drop` leaves out the slices in
            which that is so and notes it. A whole slice missing is no error: the notes name it, and the places of the
            slices are in `Cine.slice_offsets_mm`.
        max_bytes: What zips may unpack to, and the pixels in all [bytes]. The peak of memory is about twice that of the
            pixels read.

    Returns:
        Short-axis stacks first, then the other views, in the order of SeriesNumber.

    Raises:
        FileNotFoundError: When there is nothing at `path`.
        ValueError: When nothing can be read, a frame is missing or double (naming series description, slice and frame),
            a file is damaged, or a zip is unsafe.
    """
    if incomplete not in INCOMPLETE:
        raise ValueError(f"incomplete must be one of {INCOMPLETE}, got {incomplete!r}")
    drop = incomplete == "drop"
    frames, notes = load_frames(Path(path), max_bytes)
    series, left_out = _series(frames)
    notes += tuple(left_out)
    stacks, planes, left_out = _stacks_and_planes(series)
    notes += tuple(left_out)
    short = [
        settle(stack, towards_apex(stack[0].first.normal), drop) for stack in sorted(stacks, key=len, reverse=True)
    ]
    long = [
        settle(plane, plane[0].first.normal, drop) for plane in sorted(planes, key=lambda item: item[0].first.number)
    ]
    lost = tuple(note for stack in (*short, *long) if not stack.slices for note in stack.notes)
    short, long = [stack for stack in short if stack.slices], [stack for stack in long if stack.slices]
    notes += lost
    if not short and not long:
        raise ValueError(f"{path}: no cine series found. {'; '.join(notes) or 'The folder is empty'}")
    cines = [assemble(stack, "sax", notes) for stack in short]
    for study in dict.fromkeys(stack.slices[0].first.study for stack in long):
        here = [stack for stack in long if stack.slices[0].first.study == study]
        axis = next((stack.axis for stack in short if stack.slices[0].first.study == study), None)
        named = name_planes([_plane(stack) for stack in here], axis)
        cines += [assemble(stack, view, (*notes, *told)) for stack, (view, told) in zip(here, named, strict=True)]
    return cines


def _plane(stack: Stack) -> Plane:
    middle = stack.slices[len(stack.slices) // 2].first
    size = [(count - 1) / 2 for count in middle.pixels.shape]
    center = (
        middle.origin
        + size[1] * middle.spacing_mm[1] * middle.orientation[0]
        + size[0] * middle.spacing_mm[0] * middle.orientation[1]
    )
    return Plane(center, middle.normal, middle.description)


def _series(frames: Sequence[DicomFrame]) -> tuple[list[list[SliceCine]], list[str]]:
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
        slices = split_slices(group)
        if max(len(item.frames) for item in slices) < 2:
            notes.append(f"left out: {group[0].title} has single images, no cine")
        else:
            found.append(slices)
    return found, notes


def _stacks_and_planes(
    series: list[list[SliceCine]],
) -> tuple[list[list[SliceCine]], list[list[SliceCine]], list[str]]:
    """Merge parallel short-axis series; give short-axis stacks, all other planes, and notes.

    Derived series of which every slice also exists as an original (the drawn-on copies of an analysis) are left out.
    """
    stacks: list[list[SliceCine]] = []
    planes: list[list[SliceCine]] = []
    notes: list[str] = []
    for slices in sorted(series, key=lambda item: (not item[0].first.original, -_most_frames(item), _number(item))):
        first = slices[0].first
        if not first.original and all(_has_original(item, series) for item in slices):
            notes.append(f"left out: {first.title} is derived from series that are here")
            continue
        if not is_short_axis(first.normal, first.description):
            planes.append(slices)
            continue
        match = next((stack for stack in stacks if _same_stack(stack, slices)), None)
        if match is None:
            stacks.append(list(slices))
        else:
            match.extend(slices)
    return stacks, planes, notes


def _number(slices: Sequence[SliceCine]) -> int:
    return slices[0].first.number


def _has_original(item: SliceCine, series: Sequence[Sequence[SliceCine]]) -> bool:
    """Whether the same slice is there as an original with at least as many frames."""
    return any(
        other.first.original
        and other.first.study == item.first.study
        and _parallel(other.first, item.first)
        and abs(other.offset_mm - item.offset_mm) <= SAME_SLICE_MM
        and len(other.frames) >= len(item.frames)
        for slices in series
        for other in slices
    )


def _most_frames(slices: Sequence[SliceCine]) -> int:
    return max(len(item.frames) for item in slices)


def _same_stack(stack: Sequence[SliceCine], slices: Sequence[SliceCine]) -> bool:
    """Whether slices belong to a stack; far fewer frames is another kind of scan, a few fewer a damaged one."""
    a, b = stack[0].first, slices[0].first
    same_place = (a.study, a.reference) == (b.study, b.reference) and _parallel(a, b)
    return same_place and 2 * _most_frames(slices) > _most_frames(stack)


def _parallel(a: DicomFrame, b: DicomFrame) -> bool:
    if a.pixels.shape != b.pixels.shape:
        return False
    close = all(abs(x - y) <= 1e-3 * y for x, y in zip(a.spacing_mm, b.spacing_mm, strict=True))
    return close and all(float(a.orientation[i] @ b.orientation[i]) >= _PARALLEL for i in (0, 1))
