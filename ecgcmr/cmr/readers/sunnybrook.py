"""The Sunnybrook layout: short-axis DICOM images and expert contours in text files (Radau et al. 2009, CC0).

Contours are named IM-0001-NNNN-icontour-manual.txt (inner border of the left ventricle) and -ocontour- (outer border);
the image is the one whose file name ends in the same four digits, whatever stands before them. The digits number files
and not slices: with 20 phases a slice, 0020 is the last phase of one slice and 0028 a phase of the next, so slices are
found by position.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgcmr.cmr.geometry import towards_apex
from ecgcmr.cmr.readers.contours import fill_polygon, read_contour
from ecgcmr.cmr.readers.dicom_frames import DicomFrame, read_member
from ecgcmr.cmr.readers.members import iter_members
from ecgcmr.cmr.readers.slices import split_slices
from ecgcmr.cmr.readers.stack import Stack, assemble, settle
from ecgcmr.cmr.readers.study import Study, phases_by_volume

CONTOUR = re.compile(r"IM-\d+-(\d{4})-([io])contour-(manual|auto)\.txt$")
IMAGE = re.compile(r"(\d{4})(\.dcm)?$", re.IGNORECASE)
CAVITY, MYOCARDIUM = 1, 2
LABELS = {CAVITY: "lv_cavity", MYOCARDIUM: "lv_myocardium"}


def read_sunnybrook(folder: Path, incomplete: str, max_bytes: int) -> Study:
    """Read the images of one subject as a short-axis stack, with masks of what the contours enclose.

    The cavity is what the inner contour encloses; the myocardium lies between the two contours, where both were drawn.
    An outer contour alone says nothing of either and is left out. The notes name every image with less than both.

    Raises:
        ValueError: For contours without an image, images whose four digits are not unique, a contour outside its image,
            or an incomplete stack (`incomplete`, see `open_cine`).
    """
    frames, digits = _frames(folder, max_bytes)
    borders = _contours(folder)
    lost = sorted(set(borders) - set(digits.values()))
    if lost:
        raise ValueError(f"{folder}: contour(s) {', '.join(lost)} have no image that ends in these digits")
    shapes = {(frame.series, frame.pixels.shape) for frame in frames}
    if len(shapes) > 1:
        raise ValueError(f"{folder}: images of {len(shapes)} series or sizes; one short-axis stack was expected")
    axis = towards_apex(frames[0].normal)
    stack = settle(split_slices(frames), axis, incomplete == "drop")
    if not stack.slices:
        raise ValueError(f"{folder}: no cine series found. {'; '.join(stack.notes)}")
    masks, labeled, notes = _masks(stack, digits, borders)
    cine = assemble(stack, "sax", notes)
    if labeled:
        some = tuple(labeled) if len(labeled) < cine.pixels.shape[1] else None
        cine = replace(cine, masks=masks, mask_labels=LABELS, masked_frames=some)
    return Study("sunnybrook", (cine,), (phases_by_volume(masks, tuple(labeled)) if labeled else {},))


def _frames(folder: Path, max_bytes: int) -> tuple[list[DicomFrame], dict[int, str]]:
    """All images, and the last four digits of their file names by identity of the frame."""
    frames: list[DicomFrame] = []
    digits: dict[int, str] = {}
    left = max_bytes
    for member in iter_members(folder, max_bytes):
        found = read_member(member, left)
        if isinstance(found, str):
            continue
        match = IMAGE.search(member.name)
        for frame in found:
            left -= frame.pixels.nbytes
            frames.append(frame)
            if match is not None:
                digits[id(frame)] = match[1]
    if not frames:
        raise ValueError(f"{folder}: no cine series found: no DICOM image in it")
    if len(set(digits.values())) < len(digits):
        raise ValueError(f"{folder}: several images end in the same four digits: contours cannot be matched to them")
    return frames, digits


def _contours(folder: Path) -> dict[str, dict[str, Path]]:
    """Digits -> {"i": file, "o": file}; manual ones before automatic ones."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.rglob("*.txt")):
        match = CONTOUR.search(path.name)
        if match is not None and (match[3] == "manual" or match[2] not in found.get(match[1], {})):
            found.setdefault(match[1], {})[match[2]] = path
    return found


def _masks(
    stack: Stack, digits: dict[int, str], borders: dict[str, dict[str, Path]]
) -> tuple[NDArray[np.uint8], list[int], tuple[str, ...]]:
    """Masks (S, F, H, W), the frames with a contour, and notes."""
    first = stack.slices[0]
    shape = (first.first.pixels.shape[0], first.first.pixels.shape[1])
    masks = np.zeros((len(stack.slices), len(first.frames), *shape), dtype=np.uint8)
    told: dict[str, list[str]] = {}
    labeled: set[int] = set()
    for index, item in enumerate(stack.slices):
        for number, frame in enumerate(item.frames):
            here = borders.get(digits.get(id(frame), ""), {})
            filled = {kind: _fill(path, shape) for kind, path in here.items()}
            place = f"slice {index + 1} frame {number + 1}"
            if "i" in filled:
                labeled.add(number)
                if "o" in filled:
                    masks[index, number][filled["o"]] = MYOCARDIUM
                else:
                    told.setdefault("inner contour only, myocardium not labeled", []).append(place)
                masks[index, number][filled["i"]] = CAVITY
            else:
                why = "outer contour only, not labeled" if "o" in filled else "no contour"
                told.setdefault(why, []).append(place)
    notes = tuple(f"{why}: {', '.join(places)}" for why, places in told.items())
    return masks, sorted(labeled), notes


def _fill(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    points = read_contour(path)
    if points.min() < -0.5 or points[:, 0].max() > shape[1] - 0.5 or points[:, 1].max() > shape[0] - 0.5:
        raise ValueError(f"{path}: points outside the image of {shape[0]} rows and {shape[1]} columns")
    return fill_polygon(points, shape)
