"""Cine: the one type that every CMR reader returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

VIEWS = ("sax", "2ch", "3ch", "4ch", "rvot", "other")


@dataclass(frozen=True)
class Cine:
    """A cine series or stack with its geometry.

    Attributes:
        pixels: Intensities (S, F, H, W): slices base to apex, frames by time, rows, columns.
        spacing_mm: (row, column) pixel spacing [mm].
        slice_spacing_mm: Distance between slice centres [mm]; 0 for a single slice. The usual one when they are uneven.
        affine: (4, 4) from (column, row, slice, 1) to body coordinates in mm, NIfTI RAS+.
        frame_times_ms: (F,) time after the R wave [ms]; NaN where the source does not tell.
        view: One of `VIEWS`.
        masks: Labels (S, F, H, W) uint8, or None.
        mask_labels: Meaning of the mask values, for instance {1: "lv_cavity", 2: "lv_myocardium", 3: "rv_cavity"}.
        source: What the file was (`dicom`, `nifti`, `simulated`); never a path or an identifier.
        notes: What was assumed, left out or found odd while reading.
        slice_offsets_mm: (S,) place of each slice along the normal, from the first one [mm], where slices are unevenly
            spaced (a slice is missing): the affine then holds for the slices before the gap. None when they are even.
        masked_frames: Frames that were labeled, where masks are of some frames only (ED and ES): the masks of the
            others are empty because nobody drew them. None when masks are of all frames, or there are none.
        recorded_at: Local date and time of the acquisition, for pairing with an ECG by visit; None where the source
            does not tell. Never stored in a cohort: ingest turns it into day offsets.
    """

    pixels: NDArray[np.generic]
    spacing_mm: tuple[float, float]
    slice_spacing_mm: float
    affine: NDArray[np.float64]
    frame_times_ms: NDArray[np.float64]
    view: str
    masks: NDArray[np.uint8] | None = None
    mask_labels: Mapping[int, str] = field(default_factory=dict)
    source: str = "array"
    notes: tuple[str, ...] = field(default=())
    slice_offsets_mm: NDArray[np.float64] | None = None
    masked_frames: tuple[int, ...] | None = None
    recorded_at: datetime | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4:
            raise ValueError(f"pixels must have shape (slices, frames, rows, columns), got {self.pixels.shape}")
        if self.frame_times_ms.shape != (self.pixels.shape[1],):
            raise ValueError(f"{self.pixels.shape[1]} frames but frame_times_ms has shape {self.frame_times_ms.shape}")
        if self.masks is not None and self.masks.shape != self.pixels.shape:
            raise ValueError(f"masks {self.masks.shape} do not match pixels {self.pixels.shape}")
        if self.view not in VIEWS:
            raise ValueError(f"view must be one of {VIEWS}, got {self.view!r}")
        if min(self.spacing_mm) <= 0:
            raise ValueError(f"spacing_mm must be positive, got {self.spacing_mm}")
        if self.slice_offsets_mm is not None and self.slice_offsets_mm.shape != (self.pixels.shape[0],):
            raise ValueError(
                f"{self.pixels.shape[0]} slices but slice_offsets_mm has shape {self.slice_offsets_mm.shape}"
            )
        if self.masked_frames is not None and not set(self.masked_frames) <= set(range(self.pixels.shape[1])):
            raise ValueError(f"masked_frames {self.masked_frames} are not all among {self.pixels.shape[1]} frames")
