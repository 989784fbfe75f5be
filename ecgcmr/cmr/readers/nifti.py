"""NIfTI cines: 4-D (x, y, slice, time), or one slice as (x, y, time), with an optional mask file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgcmr.cmr.cine import VIEWS, Cine
from ecgcmr.cmr.geometry import LPS_TO_RAS, classify_long_axis, is_short_axis, named_view, towards_apex
from ecgcmr.cmr.readers.members import DEFAULT_MAX_BYTES
from ecgcmr.cmr.readers.nifti_file import frame_times, load_nifti, to_sfhw

MASK_LABELS = {1: "lv_cavity", 2: "lv_myocardium", 3: "rv_cavity"}
# What the numbers in the mask files of public data mean, 0 being background.
MASK_PRESETS: dict[str, dict[int, str]] = {
    "ukbb": {1: "lv_cavity", 2: "lv_myocardium", 3: "rv_cavity"},
    "acdc": {1: "rv_cavity", 2: "lv_myocardium", 3: "lv_cavity"},
    "mnms": {1: "lv_cavity", 2: "lv_myocardium", 3: "rv_cavity"},
    "mnms2": {1: "lv_cavity", 2: "lv_myocardium", 3: "rv_cavity"},
}


def read_nifti(
    path: str | Path,
    *,
    mask: str | Path | None = None,
    mask_labels: str | Mapping[int, str] | None = None,
    view: str | None = None,
    third_axis: str | None = None,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> Cine:
    """Read one NIfTI cine.

    Short-axis stacks are turned to what DICOM shows (columns grow to the subject's left, rows to the back, slices from
    base to apex) when the header's orientation is that of a short axis; files that lost their orientation (ACDC) stay
    as they are, and the notes say so.

    Args:
        path: `.nii` or `.nii.gz`.
        mask: Mask file of the same shape.
        mask_labels: Meaning of its values: a name in `MASK_PRESETS`, or value -> name (names of `MASK_LABELS`).
        view: One of `VIEWS`; None takes it from the geometry, then from the file name.
        third_axis: What the third axis of a 3-D file is: `time` or `slice`. Needed for such files only.
        max_bytes: Largest image to unpack [bytes].

    Raises:
        FileNotFoundError: When a file does not exist.
        ValueError: For a damaged file, a shape that is no cine, or a mask that does not fit.
    """
    source = Path(path)
    data, affine, header = load_nifti(source, max_bytes)
    pixels = to_sfhw(data, third_axis, source)
    times, notes = frame_times(header, data.ndim, third_axis, pixels.shape[1])
    masks = None if mask is None else _read_mask(Path(mask), source, affine, (third_axis, mask_labels, max_bytes))
    if masks is not None and masks.shape != pixels.shape:
        raise ValueError(f"{mask}: mask shape (slices, frames, rows, columns) {masks.shape} is not {pixels.shape}")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    cine = Cine(
        pixels=pixels,
        spacing_mm=(float(lengths[1]), float(lengths[0])),
        slice_spacing_mm=float(lengths[2]) if pixels.shape[0] > 1 else 0.0,
        affine=affine,
        frame_times_ms=times,
        view="other",
        masks=masks,
        mask_labels=MASK_LABELS if masks is not None else {},
        source="nifti",
        notes=notes,
    )
    return with_view(cine, view, source.name.split(".")[0])


def to_display(cine: Cine) -> Cine:
    """Turn a short-axis stack to what DICOM shows: columns to the left, rows to the back, slices base to apex.

    Pixels are only transposed and flipped, and the affine with them, so every pixel stays at its place in the body.
    """
    if abs(cine.affine[0, 1]) / cine.spacing_mm[0] > abs(cine.affine[0, 0]) / cine.spacing_mm[1]:
        cine = replace(
            cine,
            pixels=np.swapaxes(cine.pixels, 2, 3),
            masks=None if cine.masks is None else np.swapaxes(cine.masks, 2, 3),
            spacing_mm=(cine.spacing_mm[1], cine.spacing_mm[0]),
            affine=cine.affine[:, [1, 0, 2, 3]],
        )
    if cine.affine[0, 0] > 0:  # RAS: the left is negative
        cine = _flip(cine, affine_column=0, axis=3)
    if cine.affine[1, 1] > 0:  # RAS: the back is negative
        cine = _flip(cine, affine_column=1, axis=2)
    normal = _normal_lps(cine)
    step_lps = (LPS_TO_RAS @ cine.affine)[:3, 2]
    if cine.pixels.shape[0] > 1 and float(step_lps @ towards_apex(normal)) < 0:
        cine = _flip(cine, affine_column=2, axis=0)
    return cine


def _read_mask(
    path: Path, image: Path, affine: NDArray[np.float64], options: tuple[Any, Any, int]
) -> NDArray[np.uint8]:
    """Masks (S, F, H, W) with our label values."""
    third_axis, labels, max_bytes = options
    if isinstance(labels, str) and labels not in MASK_PRESETS:
        raise ValueError(f"unknown mask labels {labels!r}; known: {', '.join(MASK_PRESETS)}")
    if labels is None:
        raise ValueError(
            f"{path}: say what the mask values mean: mask_labels={' or '.join(MASK_PRESETS)}, or a mapping"
        )
    data, mask_affine, _ = load_nifti(path, max_bytes)
    if not np.allclose(mask_affine, affine, atol=1e-2):
        raise ValueError(f"{path}: the mask's affine is not that of {image.name}; resample it to the image first")
    meaning: Mapping[int, str] = MASK_PRESETS[labels] if isinstance(labels, str) else labels
    return to_our_labels(to_sfhw(data, third_axis, path), meaning, path)


def to_our_labels(values: NDArray[np.generic], meaning: Mapping[int, str], path: Path) -> NDArray[np.uint8]:
    """Masks with the values of `MASK_LABELS` from masks with other values.

    Args:
        values: Values of a mask file, any shape.
        meaning: What its values mean, 0 being background: names of `MASK_LABELS`.
        path: How messages name the file.

    Raises:
        ValueError: For a value without a meaning, or a meaning without a name.
    """
    ours = {name: value for value, name in MASK_LABELS.items()}
    unknown = sorted(set(meaning.values()) - set(ours))
    if unknown:
        raise ValueError(f"mask_labels names {unknown}; known names are {sorted(ours)}")
    found = {float(value) for value in np.unique(values)} - {0.0}
    strange = sorted(found - {float(value) for value in meaning})
    if strange:
        raise ValueError(f"{path}: mask values {strange[:10]} have no meaning in {dict(meaning)}")
    out = np.zeros(values.shape, dtype=np.uint8)
    for value, name in meaning.items():
        out[values == value] = ours[name]
    return out


def with_view(cine: Cine, view: str | None, name: str) -> Cine:
    """Settle the view and, for a short axis whose orientation can be believed, turn it to the display convention."""
    if view is not None and view not in VIEWS:
        raise ValueError(f"view must be one of {VIEWS}, got {view!r}")
    normal = _normal_lps(cine)
    believable = is_short_axis(normal, "sax")
    notes: tuple[str, ...] = ()
    if view is None:
        named = named_view(name)
        if believable and named in (None, "sax"):
            view = "sax"
        elif named == "sax" or (named is None and cine.pixels.shape[0] >= 3):
            view = "sax"
            notes = () if named else (f"taken for a short-axis stack because it has {cine.pixels.shape[0]} slices",)
        else:
            view, note = classify_long_axis(normal, None, name)
            notes = (note,) if note else ()
    if view == "sax" and believable:
        return to_display(replace(cine, view=view, notes=cine.notes + notes))
    if view == "sax":
        notes += ("the header's orientation is not that of a short axis: order of slices and rows is the file's",)
    return replace(cine, view=view, notes=cine.notes + notes)


def _normal_lps(cine: Cine) -> NDArray[np.float64]:
    lps = (LPS_TO_RAS @ cine.affine)[:3]
    normal = np.cross(lps[:, 0], lps[:, 1])
    return np.asarray(normal / np.linalg.norm(normal))


def _flip(cine: Cine, affine_column: int, axis: int) -> Cine:
    affine = cine.affine.copy()
    affine[:, 3] += affine[:, affine_column] * (cine.pixels.shape[axis] - 1)
    affine[:, affine_column] *= -1.0
    masks = None if cine.masks is None else np.flip(cine.masks, axis)
    return replace(cine, pixels=np.flip(cine.pixels, axis), masks=masks, affine=affine)
