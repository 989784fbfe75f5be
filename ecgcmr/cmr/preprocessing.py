"""From a calibrated cine to the small uint8 array that a network sees: one frozen, serialisable pipeline."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgcmr.cmr import selection
from ecgcmr.cmr.cine import Cine
from ecgcmr.cmr.resample import separable, triangle_filter

VERSION = 1
FRAME_RULES = ("ed_mid_es", "even")
CENTER_RULES = ("motion", "masks", "image")
FLAT = 1e-5  # a contrast below this share of the level is rounding
UKB_PIXEL_MM = 1.8269  # in-plane pixel of UK Biobank short-axis cines, on which the reference window was laid


@dataclass(frozen=True)
class CmrPipeline:
    """Choice of slices and frames, heart crop in mm, anti-aliased resampling, percentile scaling to uint8.

    Steps, in this order:

    1. slices: the middles of `slices` equal parts of the stack, base to apex (1: the middle slice).
    2. frames: `ed_mid_es` takes end-diastole, the middle of systole and end-systole (a cine that has exactly three
       frames is taken as it is); `even` takes `frames` frames evenly spaced over the cycle from end-diastole on.
    3. crop: a square of `crop_mm` around the heart. `motion` looks at nothing but pixels, so training and inference
       agree; `masks` uses the box of the masks where there are any; `image` is the middle of the frame.
    4. resample to `size` px with a triangle filter as wide as the larger of both pixels; outside the frame is 0.
    5. scale: the `percentiles` of the crop, over all its frames and slices together, become 0 and 255.

    Attributes:
        name: Name that `named_pipeline` knows.
        frame_rule: One of `FRAME_RULES`.
        frames: Frames in the output (3 for `ed_mid_es`).
        slices: Slices in the output.
        crop_mm: Side of the crop [mm].
        size: Side of the output [px].
        center: One of `CENTER_RULES`.
        offset_mm: (row, column) shift of the crop from that center [mm].
        percentiles: Intensity percentiles that become black and white.
        stacked: Whether the slice axis is kept: (V, F, H, W) instead of (C, H, W).
        version: Version of the arithmetic; another number is another preprocessing.
    """

    name: str
    frame_rule: str = "ed_mid_es"
    frames: int = 3
    slices: int = 1
    crop_mm: float = 130.0
    size: int = 64
    center: str = "motion"
    offset_mm: tuple[float, float] = (0.0, 0.0)
    percentiles: tuple[float, float] = (1.0, 99.0)
    stacked: bool = False
    version: int = VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, "crop_mm", float(self.crop_mm))  # 130 and 130.0 are one pipeline, one fingerprint
        for pair in ("offset_mm", "percentiles"):
            object.__setattr__(self, pair, tuple(float(value) for value in getattr(self, pair)))
        self._check()

    @property
    def steps(self) -> tuple[dict[str, Any], ...]:
        """The steps with their settings, in order, for people and model cards."""
        return (
            {"step": "slices", "count": self.slices},
            {"step": "frames", "rule": self.frame_rule, "count": self.frames},
            {"step": "crop", "mm": self.crop_mm, "center": self.center, "offset_mm": list(self.offset_mm)},
            {"step": "resample", "size": self.size, "filter": "triangle"},
            {"step": "scale", "percentiles": list(self.percentiles), "dtype": "uint8"},
        )

    @property
    def channels(self) -> int:
        """Frames x slices for (C, H, W); frames for (V, F, H, W)."""
        return self.frames if self.stacked else self.frames * self.slices

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one output: (C, H, W) or (V, F, H, W)."""
        lead = (self.slices, self.frames) if self.stacked else (self.channels,)
        return (*lead, self.size, self.size)

    def __call__(self, cine: Cine) -> NDArray[np.uint8]:
        """Prepare one cine.

        Args:
            cine: A cine of any number of slices, frames, rows and columns.

        Returns:
            uint8 (C, H, W), or (V, F, H, W) when `stacked`.

        Raises:
            ValueError: When the cine has no pixels, or some that are not finite.
        """
        if 0 in cine.pixels.shape:
            raise ValueError(f"the cine has no pixels: shape (slices, frames, rows, columns) is {cine.pixels.shape}")
        if cine.pixels.dtype.kind == "f" and not np.isfinite(cine.pixels).all():
            bad = np.count_nonzero(~np.isfinite(cine.pixels))
            raise ValueError(f"{bad} of {cine.pixels.size} pixels of the cine are not finite; repair or leave it out")
        center = self._heart(cine.pixels, cine.spacing_mm, cine.masks)
        slices = selection.even_slices(cine.pixels.shape[0], self.slices)
        frames = self._choose_frames(cine, center)
        chosen = cine.pixels[slices[:, None], frames[None, :]]
        return self._crop_and_scale(chosen, cine.spacing_mm, center).reshape(self.shape)

    def apply_batch(
        self, pixels_BFHW: NDArray[np.generic], spacing_mm: tuple[float, float] | float
    ) -> NDArray[np.uint8]:
        """Prepare many single-slice cines of one shape and spacing; equal to calling the pipeline on each.

        Args:
            pixels_BFHW: Intensities (B, F, H, W), frames ordered from end-diastole on.
            spacing_mm: (row, column) pixel spacing [mm], or one number for both.

        Returns:
            uint8 (B, C, H, W) or (B, V, F, H, W).
        """
        if pixels_BFHW.ndim != 4:
            raise ValueError(f"pixels must have shape (batch, frames, rows, columns), got {pixels_BFHW.shape}")
        spacing = (spacing_mm, spacing_mm) if isinstance(spacing_mm, int | float) else spacing_mm
        times = np.full(pixels_BFHW.shape[1], np.nan)
        affine = np.eye(4)
        out = np.empty((len(pixels_BFHW), *self.shape), dtype=np.uint8)
        for row, pixels_FHW in enumerate(pixels_BFHW):
            out[row] = self(Cine(pixels_FHW[None], spacing, 0.0, affine, times, "sax"))
        return out

    def crop_labels(self, cine: Cine) -> NDArray[np.uint8]:
        """Masks where the pixels of the output are: the middle slice at the first chosen frame, nearest neighbour.

        Returns:
            uint8 (size, size), 0 outside the frame.

        Raises:
            ValueError: The cine has no masks.
        """
        if cine.masks is None:
            raise ValueError("the cine has no masks to crop")
        center = self._heart(cine.pixels, cine.spacing_mm, cine.masks)
        middle = selection.even_slices(cine.pixels.shape[0], self.slices)[self.slices // 2]
        mask = cine.masks[middle, self._choose_frames(cine, center)[0]]
        places = []
        for axis in (0, 1):
            extent = self.crop_mm / cine.spacing_mm[axis]
            begin = center[axis] + self.offset_mm[axis] / cine.spacing_mm[axis] - 0.5 * extent
            places.append(np.round(begin + (np.arange(self.size) + 0.5) * extent / self.size).astype(np.int64))
        inside = [(at >= 0) & (at < n) for at, n in zip(places, mask.shape, strict=True)]
        rows, columns = (np.clip(at, 0, n - 1) for at, n in zip(places, mask.shape, strict=True))
        return np.asarray(mask[np.ix_(rows, columns)] * (inside[0][:, None] & inside[1]), dtype=np.uint8)

    def to_dict(self) -> dict[str, Any]:
        """All settings as JSON types; `from_dict` gives the same pipeline back."""
        values = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CmrPipeline:
        """Rebuild a pipeline; unknown or missing keys and other versions are errors.

        Raises:
            ValueError: Naming the keys or the version.
        """
        known = {item.name for item in fields(cls)}
        unknown, missing = sorted(set(values) - known), sorted(known - set(values))
        if unknown or missing:
            raise ValueError(f"CMR pipeline settings: unknown keys {unknown}, missing keys {missing}")
        return cls(**values)

    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON of all settings: equal exactly when the preprocessing is equal."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _check(self) -> None:
        if self.version != VERSION:
            raise ValueError(f"CMR pipeline version {self.version} is not the version {VERSION} of this package")
        if self.frame_rule not in FRAME_RULES or self.center not in CENTER_RULES:
            raise ValueError(
                f"frame_rule must be one of {FRAME_RULES} and center one of {CENTER_RULES}, "
                f"got {self.frame_rule!r} and {self.center!r}"
            )
        if self.frame_rule == "ed_mid_es" and self.frames != 3:
            raise ValueError(f"frame_rule 'ed_mid_es' gives 3 frames, got frames={self.frames}; use frame_rule='even'")
        if min(self.frames, self.slices, self.size) < 1 or not self.crop_mm > 0:
            raise ValueError("frames, slices, size and crop_mm must be positive")
        if len(self.offset_mm) != 2 or len(self.percentiles) != 2:
            raise ValueError("offset_mm and percentiles are pairs of numbers")
        if not 0.0 <= self.percentiles[0] < self.percentiles[1] <= 100.0:
            raise ValueError(f"percentiles must rise within 0 to 100, got {self.percentiles}")

    def _heart(
        self, pixels_SFHW: NDArray[np.generic], spacing_mm: tuple[float, float], masks: NDArray[np.uint8] | None
    ) -> tuple[float, float]:
        """Row and column [px] of the crop's anchor, before the offset."""
        if self.center == "masks" and masks is not None and (found := selection.mask_center(masks)) is not None:
            return found
        if self.center == "image":
            return 0.5 * (pixels_SFHW.shape[2] - 1), 0.5 * (pixels_SFHW.shape[3] - 1)
        return selection.motion_center(pixels_SFHW, spacing_mm, radius_mm=0.25 * self.crop_mm)

    def _choose_frames(self, cine: Cine, center: tuple[float, float]) -> NDArray[np.int64]:
        n, times = cine.pixels.shape[1], cine.frame_times_ms
        if self.frame_rule == "ed_mid_es" and n == 3:
            return np.arange(3)
        radius_px = (0.25 * self.crop_mm / cine.spacing_mm[0], 0.25 * self.crop_mm / cine.spacing_mm[1])
        area = lv_area(cine)
        ed = selection.end_diastole(cine.pixels, times, area, center, radius_px)
        if self.frame_rule == "even":
            return selection.even_frames(n, self.frames, ed)
        es = selection.end_systole(cine.pixels, times, ed, area, (center, radius_px))
        return np.array([ed, selection.between(ed, es, times), es])

    def _crop_and_scale(
        self, pixels_SFHW: NDArray[np.generic], spacing_mm: tuple[float, float], center: tuple[float, float]
    ) -> NDArray[np.uint8]:
        """Crop, resample and scale the chosen frames: (V, F, H, W) to uint8 (V, F, size, size)."""
        filters = []
        for axis in (0, 1):
            middle = center[axis] + self.offset_mm[axis] / spacing_mm[axis]
            filters.append(
                triangle_filter(pixels_SFHW.shape[2 + axis], self.size, middle, self.crop_mm / spacing_mm[axis])
            )
        (rows, rows_inside, tall), (columns, columns_inside, wide) = filters
        crop = separable(pixels_SFHW[:, :, tall, wide], rows, columns)
        inside = crop[:, :, rows_inside][:, :, :, columns_inside]
        if inside.size == 0:
            return np.zeros(crop.shape, dtype=np.uint8)
        low, high = _percentiles(inside, self.percentiles)
        if not high - low > FLAT * max(abs(low), abs(high)):
            return np.zeros(crop.shape, dtype=np.uint8)
        scaled = (crop - low) * np.float32(255.0 / (high - low))
        scaled *= rows_inside[:, None] & columns_inside
        return (np.clip(scaled, 0.0, 255.0) + np.float32(0.5)).astype(np.uint8)


def lv_area(cine: Cine) -> NDArray[np.float64] | None:
    """LV cavity pixels in every frame (F,), over all slices; None without masks or without that label."""
    labels = [value for value, name in cine.mask_labels.items() if name == "lv_cavity"]
    if cine.masks is None or not labels:
        return None
    area = (cine.masks == labels[0]).sum(axis=(0, 2, 3)).astype(np.float64)
    area[area == 0] = np.nan  # a frame that nobody segmented
    if np.isfinite(area).sum() < 2:
        return None
    return np.asarray(area)


def named_pipeline(name: str, **overrides: Any) -> CmrPipeline:
    """Give a pipeline by name.

    - `three_frames`: end-diastole, mid-systole and end-systole of the middle short-axis slice, 130 mm, 64 px.
    - `cine`: 3 slices x 8 frames, 130 mm, 64 px, as (V, F, H, W).
    - `reference_crop`: the fixed window of the MMCL-ECG-CMR reference (arXiv:2308.05764): 78 x 78 px at (44, 68) of a
      210 x 210 frame, resized to 210, laid down in mm for UK Biobank's pixel of about 1.83 mm (142.5 mm, its middle
      40 mm above and 4 mm right of the image's). On other scanners it is the same window in mm.
    - `reference_frame`: the whole 210 x 210 frame of that reference, which its unimodal image encoder saw, in mm.

    Args:
        name: One of the names above.
        overrides: Any other setting of `CmrPipeline`, for instance `size=96`.

    Raises:
        ValueError: When the name or a setting is unknown.
    """
    top, left, window, frame = 44, 68, 78, 210
    middle = 0.5 * frame - 0.5 * window
    presets: dict[str, dict[str, Any]] = {
        "three_frames": {},
        "cine": {"frame_rule": "even", "frames": 8, "slices": 3, "stacked": True},
        "reference_crop": {
            "crop_mm": window * UKB_PIXEL_MM,
            "size": frame,
            "center": "image",
            "offset_mm": ((top - middle) * UKB_PIXEL_MM, (left - middle) * UKB_PIXEL_MM),
        },
        "reference_frame": {"crop_mm": frame * UKB_PIXEL_MM, "size": frame, "center": "image"},
    }
    if name not in presets:
        raise ValueError(f"unknown CMR pipeline {name!r}; known: {', '.join(presets)}")
    unknown = sorted(set(overrides) - {item.name for item in fields(CmrPipeline)} | set(overrides) & {"name"})
    if unknown:
        raise ValueError(f"CMR pipeline {name!r} has no settings {unknown}")
    return CmrPipeline(name=name, **{**presets[name], **overrides})


def _percentiles(values: NDArray[np.float32], percentiles: tuple[float, float]) -> tuple[float, float]:
    """Two percentiles, each the nearest order statistic: one partial sort instead of interpolation."""
    flat = values.ravel()
    ranks = [round(q / 100.0 * (flat.size - 1)) for q in percentiles]
    ordered = np.partition(flat, ranks)
    return float(ordered[ranks[0]]), float(ordered[ranks[1]])
