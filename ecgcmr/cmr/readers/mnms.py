"""The M&Ms and M&Ms-2 layouts.

M&Ms (doi:10.1109/TMI.2021.3090082): CODE_sa.nii.gz with CODE_sa_gt.nii.gz over all frames, of which only ED and ES are
labeled; a table with columns `External code`, `ED`, `ES` (frames from 0) above the folders. M&Ms-2
(doi:10.1109/JBHI.2023.3267857): CODE_SA_CINE, CODE_SA_ED, CODE_SA_ES with _gt, and the same as LA, the four-chamber
view; a table with `SUBJECT_CODE`. Masks of both: 1 left ventricular cavity, 2 left ventricular myocardium, 3 right
ventricular cavity; in M&Ms-2's long axis too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgcmr.cmr.cine import Cine
from ecgcmr.cmr.readers.study import (
    Study,
    Volume,
    find,
    make_cine,
    masked,
    pair_of_frames,
    phases_by_volume,
    read_mask,
    read_volume,
    same_frame,
    table_row,
)

MNMS = re.compile(r"^(.+)_sa(_gt)?\.nii(\.gz)?$")
MNMS2 = re.compile(r"^(.+)_(SA|LA)_(CINE|ED|ES)(_gt)?\.nii(\.gz)?$")
MNMS2_VIEWS = {"SA": "sax", "LA": "4ch"}


def read_mnms(folder: Path, max_bytes: int) -> Study:
    """Read one subject's folder of M&Ms.

    Raises:
        ValueError: For files of several subjects, mask values other than 0 to 3, or labels on other frames than the
            table's ED and ES.
    """
    code = _one_code(folder, MNMS)
    path = find(folder, f"{code}_sa")
    if path is None:
        raise ValueError(f"{folder}: a mask without its image, {code}_sa.nii.gz")
    image = read_volume(path, max_bytes)
    facts, note = table_row(folder, "External code", code)
    notes = [note] if note else []
    told = _told_phases(facts, image, folder)
    drawn = find(folder, f"{code}_sa_gt")
    masks: NDArray[np.uint8] | None = None
    labeled: tuple[int, ...] = ()
    if drawn is not None:
        masks, more = read_mask(drawn, image, "mnms", max_bytes)
        notes += more
        if masks.shape != image.pixels.shape:
            raise ValueError(f"{drawn}: {masks.shape[1]} frames, but {path.name} has {image.pixels.shape[1]}")
        labeled = tuple(int(frame) for frame in np.flatnonzero(masks.any(axis=(0, 2, 3))))
        if not labeled:
            masks = None  # M&Ms ships empty masks for its unlabeled part
            notes.append("the mask file is empty: the study is not labeled")
        elif told and set(labeled) != set(told.values()):
            raise ValueError(
                f"{drawn}: labels on frames {list(labeled)}, but the table says ED {told['ed']} and ES {told['es']} "
                "(frames from 0): is it the table of these files?"
            )
    phases = told
    if masks is not None and not told:
        phases = phases_by_volume(masks, labeled)
        notes.append("ED and ES told by the size of the labeled cavity")
    cine = make_cine(image, masks, labeled if masks is not None else None, "sax", tuple(notes))
    return Study("mnms", (cine,), (phases,), facts)


def _told_phases(facts: Mapping[str, str], image: Volume, folder: Path) -> dict[str, int]:
    found = {}
    for name in ("ED", "ES"):
        text = facts.get(name, "").removesuffix(".0")
        if not text:
            continue
        if not text.isdigit() or int(text) >= image.pixels.shape[1]:
            raise ValueError(
                f"{folder}: the table says {name} is {text!r}, but the frames are 0 to {image.pixels.shape[1] - 1}"
            )
        found[name.lower()] = int(text)
    return found if len(found) == 2 else {}


def read_mnms2(folder: Path, max_bytes: int) -> Study:
    """Read one subject's folder of M&Ms-2: the short-axis stack and the four-chamber view.

    ED and ES images are frames of the cine: they are found in it by their pixels. Where the grids differ, or there is
    no cine, the view is a cine of two frames.

    Raises:
        ValueError: For files of several subjects, or mask values other than 0 to 3.
    """
    code = _one_code(folder, MNMS2)
    facts, note = table_row(folder, "SUBJECT_CODE", code)
    made = [_view(folder, f"{code}_{axis}", view, max_bytes) for axis, view in MNMS2_VIEWS.items()]
    found = [item for item in made if item is not None]
    if not found:
        raise ValueError(f"{folder}: masks without images")
    return Study(
        "mnms2", tuple(cine for cine, _ in found), tuple(phases for _, phases in found), facts, (note,) if note else ()
    )


def _view(folder: Path, stem: str, view: str, max_bytes: int) -> tuple[Cine, dict[str, int]] | None:
    whole = find(folder, f"{stem}_CINE")
    parts = {name: read_volume(path, max_bytes) for name in ("ED", "ES") if (path := find(folder, f"{stem}_{name}"))}
    for part in parts.values():
        if part.pixels.shape[1] != 1:
            raise ValueError(f"{part.path}: one frame expected, found {part.pixels.shape[1]}")
    if whole is None and not parts:
        return None
    notes: list[str] = []
    cine = None if whole is None else read_volume(whole, max_bytes)
    if cine is not None and any(_grid(part) != _grid(cine) for part in parts.values()):
        notes.append(f"{stem}_CINE has another grid than the labeled frames: left out")
        cine = None
    phases: dict[str, int] = {}
    if cine is not None:
        image = cine
        for name, part in parts.items():
            phases[name.lower()], note = same_frame(part.pixels[:, 0], cine, None, f"{name} image")
            notes += [note] if note else []
        if len(set(phases.values())) < len(phases):
            raise ValueError(f"{folder}: {stem}_ED and {stem}_ES are the same frame of the cine")
    else:
        image = pair_of_frames(parts)
        phases = {name.lower(): index for index, name in enumerate(parts)}
    masks: dict[int, NDArray[np.uint8]] = {}
    for name in parts:
        drawn = find(folder, f"{stem}_{name}_gt")
        if drawn is not None:
            masks[phases[name.lower()]], more = read_mask(drawn, parts[name], "mnms2", max_bytes)
            notes += more
    labels = masked(image.pixels.shape, masks) if masks else None
    return make_cine(image, labels, tuple(sorted(masks)) if masks else None, view, tuple(notes)), phases


def _grid(volume: Volume) -> tuple[Any, ...]:
    return (volume.pixels.shape[0], *volume.pixels.shape[2:])


def _one_code(folder: Path, pattern: re.Pattern[str]) -> str:
    codes = {match[1] for path in folder.iterdir() if path.is_file() and (match := pattern.match(path.name))}
    if len(codes) != 1:
        raise ValueError(f"{folder}: expected the files of one subject, found those of {len(codes)}")
    return next(iter(codes))
