"""Study: the cines of one subject's folder, with what the folder says beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgcmr.cmr.cine import Cine
from ecgcmr.cmr.readers.nifti import MASK_LABELS, MASK_PRESETS, to_our_labels, with_view
from ecgcmr.cmr.readers.nifti_file import frame_times, load_nifti, to_sfhw

NIFTI_ENDINGS = (".nii.gz", ".nii")
CAVITY = next(value for value, name in MASK_LABELS.items() if name == "lv_cavity")


@dataclass(frozen=True)
class Study:
    """What one study folder holds.

    Attributes:
        layout: Which layout it was read as.
        cines: One for each view.
        phases: For each cine the frames of end-diastole and end-systole, counted from 0: {"ed": 0, "es": 11}; empty
            when the folder does not tell.
        facts: What the folder's table or text says about the subject (diagnosis, scanner, ...), as it is written there.
        notes: What was found, assumed or left out.
    """

    layout: str
    cines: tuple[Cine, ...]
    phases: tuple[Mapping[str, int], ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Volume:
    """A NIfTI image as (S, F, H, W), with its place and times."""

    path: Path
    pixels: NDArray[np.generic]
    affine: NDArray[np.float64]
    times_ms: NDArray[np.float64]
    notes: tuple[str, ...]


def find(folder: Path, stem: str) -> Path | None:
    """The file of this name in a folder, packed or not."""
    return next((folder / (stem + ending) for ending in NIFTI_ENDINGS if (folder / (stem + ending)).is_file()), None)


def read_volume(path: Path, max_bytes: int) -> Volume:
    """Read an image; three axes are a stack at one time."""
    data, affine, header = load_nifti(path, max_bytes)
    third = "slice" if data.ndim == 3 else None
    pixels = to_sfhw(data, third, path)
    times, notes = frame_times(header, data.ndim, third, pixels.shape[1])
    return Volume(path, pixels, affine, times, notes)


def read_mask(path: Path, image: Volume, preset: str, max_bytes: int) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Masks (S, F, H, W) with the values of `MASK_LABELS`, drawn on the grid of an image of the same layout.

    Raises:
        ValueError: For a value that the layout's label map does not have, or another grid than the image's.
    """
    data, affine, _ = load_nifti(path, max_bytes)
    values = to_sfhw(data, "slice" if data.ndim == 3 else None, path)
    grid, wanted = (values.shape[0], *values.shape[2:]), (image.pixels.shape[0], *image.pixels.shape[2:])
    here, there = (np.linalg.norm(one[:3, :3], axis=0) for one in (affine, image.affine))
    if grid != wanted or not np.allclose(here, there, rtol=1e-2):
        raise ValueError(
            f"{path}: the mask has the grid (slices, rows, columns) {grid} with spacing {here.round(3).tolist()} mm, "
            f"its image {image.path.name} has {wanted} with {there.round(3).tolist()} mm"
        )
    notes: tuple[str, ...] = ()
    if not np.allclose(affine, image.affine, atol=1e-2):
        notes = ("the affine of a mask differs from its image's: they are matched pixel by pixel",)
    return to_our_labels(values, MASK_PRESETS[preset], path), notes


def same_frame(frame_SHW: NDArray[np.generic], cine: Volume, expected: int | None, what: str) -> tuple[int, str]:
    """Which frame of a cine an extracted frame is, and a note when it is not plainly the expected one.

    Args:
        frame_SHW: The extracted frame.
        cine: The cine.
        expected: The frame that it should be; None when nothing tells.
        what: How messages name the extracted frame.

    Raises:
        ValueError: When its pixels are those of another frame than the expected one.
    """
    equal = [f for f in range(cine.pixels.shape[1]) if np.array_equal(cine.pixels[:, f], frame_SHW)]
    if expected is not None:
        if expected in equal:
            return expected, ""
        if equal:
            raise ValueError(
                f"{what} should be frame {expected + 1} of {cine.path.name}, but its pixels are those of frame "
                f"{equal[0] + 1}: the numbering is wrong, and its mask would go to the wrong frame"
            )
        return expected, f"{what}: its pixels are not exactly those of frame {expected + 1} of the cine"
    if equal:
        return equal[0], ""
    flat = frame_SHW.astype(np.float64).ravel()
    scores = [_correlation(cine.pixels[:, f].astype(np.float64).ravel(), flat) for f in range(cine.pixels.shape[1])]
    best = int(np.argmax(scores))
    return best, f"{what}: no frame of the cine is equal to it; frame {best + 1} is most like it ({scores[best]:.3f})"


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale > 0 else 0.0


def make_cine(
    image: Volume, masks: NDArray[np.uint8] | None, frames: tuple[int, ...] | None, view: str, notes: tuple[str, ...]
) -> Cine:
    """The Cine of an image and its masks, slices from base to apex where header or masks tell.

    Args:
        image: The image.
        masks: Masks of the same shape, or None.
        frames: Frames that are labeled; None when all are.
        view: Its view.
        notes: What to note besides.
    """
    lengths = np.linalg.norm(image.affine[:3, :3], axis=0)
    labeled = masks is not None
    cine = Cine(
        pixels=image.pixels,
        spacing_mm=(float(lengths[1]), float(lengths[0])),
        slice_spacing_mm=float(lengths[2]) if image.pixels.shape[0] > 1 else 0.0,
        affine=image.affine,
        frame_times_ms=image.times_ms,
        view="other",
        masks=masks,
        mask_labels=MASK_LABELS if labeled else {},
        source="nifti",
        notes=tuple(dict.fromkeys((*image.notes, *notes))),
        masked_frames=frames if labeled and frames is not None and len(frames) < image.pixels.shape[1] else None,
    )
    cine = with_view(cine, view, "")
    return _base_first(cine) if view == "sax" and labeled else cine


def _base_first(cine: Cine) -> Cine:
    """Turn the slices by the masks when the header lost its orientation: the left ventricle is narrow at the apex."""
    if not any("orientation is not that of a short axis" in note for note in cine.notes) or cine.masks is None:
        return cine
    inside = np.isin(cine.masks, [value for value, name in MASK_LABELS.items() if name.startswith("lv_")])
    area = inside.sum(axis=(1, 2, 3)).astype(float)
    drawn = np.flatnonzero(area)
    if len(drawn) < 4:
        return cine
    third = max(1, len(drawn) // 3)
    first, last = area[drawn[:third]].mean(), area[drawn[-third:]].mean()
    if last <= first:
        return replace(cine, notes=(*cine.notes, "by the masks, the slices run from base to apex"))
    affine = cine.affine.copy()
    affine[:, 3] += affine[:, 2] * (cine.pixels.shape[0] - 1)
    affine[:, 2] *= -1.0
    note = "slices turned to run from base to apex, as the masks are smaller at the file's first slices"
    return replace(
        cine,
        pixels=np.flip(cine.pixels, 0),
        masks=np.flip(cine.masks, 0),
        affine=affine,
        notes=(*cine.notes, note),
    )


def phases_by_volume(masks: NDArray[np.uint8], frames: tuple[int, ...]) -> dict[str, int]:
    """End-diastole and end-systole of two labeled frames: the larger and the smaller cavity; empty otherwise."""
    if len(frames) != 2:
        return {}
    sizes = [int((masks[:, frame] == CAVITY).sum()) for frame in frames]
    larger = int(np.argmax(sizes))
    return {} if sizes[0] == sizes[1] else {"ed": frames[larger], "es": frames[1 - larger]}


def pair_of_frames(parts: Mapping[str, Volume]) -> Volume:
    """ED and ES images (each one frame) as a cine of two frames of unknown time.

    Raises:
        ValueError: When their grids differ.
    """
    first, *rest = parts.values()
    for other in rest:
        if other.pixels.shape != first.pixels.shape or not np.allclose(other.affine, first.affine, atol=1e-2):
            raise ValueError(f"{other.path}: its grid is not that of {first.path.name}: are they of one subject?")
    pixels = np.concatenate([part.pixels for part in parts.values()], axis=1)
    named = " and ".join(name.upper() for name in parts)
    note = f"only {named}, no whole cine: frame times unknown"
    return Volume(first.path, pixels, first.affine, np.full(pixels.shape[1], np.nan), (*first.notes, note))


def masked(shape: tuple[int, ...], parts: Mapping[int, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Masks (S, F, H, W) from masks (S, 1, H, W) of some frames."""
    out = np.zeros(shape, dtype=np.uint8)
    for frame, mask in parts.items():
        out[:, frame] = mask[:, 0]
    return out


def table_row(folder: Path, column: str, code: str, levels: int = 3) -> tuple[dict[str, Any], str]:
    """The row of a subject in a CSV of the folder or of up to `levels` folders above, and a note when there is none."""
    import csv

    for place in [folder, *folder.resolve().parents[:levels]]:
        for path in sorted(place.glob("*.csv")):
            if path.stat().st_size > 16 * 1024**2:
                continue
            with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
                sample = file.readline()
                if column not in sample:
                    continue
                file.seek(0)
                rows = csv.DictReader(file, delimiter=";" if sample.count(";") > sample.count(",") else ",")
                for row in rows:
                    value = str(row.get(column) or "").strip()
                    if value == code or (value.isdigit() and code.isdigit() and int(value) == int(code)):
                        return {key: str(text or "").strip() for key, text in row.items() if key and key != column}, ""
            return {}, f"the table with column {column!r} has no row for this subject"
    return {}, f"no table with column {column!r} in the folder or above it"
