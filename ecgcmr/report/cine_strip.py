"""Frames of a cine in a row, in millimeters, with their times and mask contours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray

from ecgcmr.cmr.cine import Cine
from ecgcmr.drawing.svg import Svg, number, to_gray
from ecgcmr.report.page import Figure

CONTOUR_COLORS = {1: "#ffb000", 2: "#4cc9f0", 3: "#c8f04c"}
_GAP, _TITLE = 3.0, 9.0


@dataclass(frozen=True)
class StripOptions:
    """What the strip shows.

    Attributes:
        frames: Indices of the frames; all up to six, spread evenly, when absent.
        slice_index: Slice; the middle one when absent.
        names: Names of the frames, such as ("ED", "mid-systole", "ES").
        contours: Whether masks are outlined.
        columns: Frames in a row.
        crop_mm: Side of a square around the middle of the image (or of the masks); the whole image when absent.
    """

    frames: Sequence[int] | None = None
    slice_index: int | None = None
    names: Sequence[str] = ()
    contours: bool = True
    columns: int = 6
    crop_mm: float | None = None


def cine_strip(cine: Cine, options: StripOptions | None = None, title: str = "") -> Figure:
    """Draw frames of one slice; all share one gray scale and one scale bar of 20 mm.

    Raises:
        ValueError: For a slice or frame that the cine has not.
    """
    options = options or StripOptions()
    n_slices, n_frames = cine.pixels.shape[:2]
    chosen = n_slices // 2 if options.slice_index is None else options.slice_index
    frames = list(options.frames if options.frames is not None else _spread(n_frames))
    outside = [f for f in frames if not 0 <= f < n_frames]
    if outside or not 0 <= chosen < n_slices or not frames:
        raise ValueError(f"slice {chosen} and frames {frames} of a cine with {n_slices} slices and {n_frames} frames")
    rows, columns = _window(cine, chosen, options.crop_mm)
    pixels = to_gray(np.stack([np.asarray(cine.pixels[chosen, f], float)[rows, columns] for f in frames]))
    height, width = pixels.shape[1] * cine.spacing_mm[0], pixels.shape[2] * cine.spacing_mm[1]
    per_row = min(options.columns, len(frames))
    n_rows = -(-len(frames) // per_row)
    # A unit of the drawing is a millimeter of the heart; text is sized by the width of the whole strip.
    total = per_row * width + (per_row - 1) * _GAP
    text = total / (33 if per_row <= 3 else 64)
    step = height + text * 1.6 + _GAP
    svg = Svg(total, n_rows * step - _GAP, _alt(cine, frames, options.contours and cine.masks is not None))
    for i, frame in enumerate(frames):
        x, y = (i % per_row) * (width + _GAP), (i // per_row) * step
        svg.image(pixels[i], (x, y, width, height))
        if options.contours and cine.masks is not None:
            mask = cine.masks[chosen, frame][rows, columns]
            _contours(svg, mask, (x, y), cine.spacing_mm, text / 7)
        svg.text(x, y + height + text * 1.2, _frame_text(cine, frame, i, options.names), font_size=text)
    _scale_bar(svg, (0.0, height), width, text)
    caption = "All frames on one gray scale." + _legend(cine, options.contours)
    return Figure(str(svg), svg.label, caption, "half" if per_row <= 3 else "wide", title)


def _spread(n: int, most: int = 6) -> list[int]:
    return list(range(n)) if n <= most else [int(i) for i in np.linspace(0, n, most, endpoint=False)]


def _window(cine: Cine, chosen: int, crop_mm: float | None) -> tuple[slice, slice]:
    shape = cine.pixels.shape[2:]
    if crop_mm is None:
        return slice(0, shape[0]), slice(0, shape[1])
    center = [shape[0] / 2, shape[1] / 2]
    if cine.masks is not None and cine.masks[chosen].any():
        center = [float(axis.mean()) for axis in np.nonzero(cine.masks[chosen].any(axis=0))]
    parts = []
    for middle, size, spacing in zip(center, shape, cine.spacing_mm, strict=True):
        side = min(size, max(2, round(crop_mm / spacing)))
        start = int(np.clip(round(middle - side / 2), 0, size - side))
        parts.append(slice(start, start + side))
    return parts[0], parts[1]


def _contours(
    svg: Svg, mask: NDArray[np.uint8], origin: tuple[float, float], spacing: tuple[float, float], stroke: float
) -> None:
    # The cavity (1) last: its outline is also the inner border of the myocardium (2) and would be hidden by it.
    for value in sorted((int(v) for v in np.unique(mask) if v), reverse=True):
        padded = np.pad((mask == value).astype(float), 1)
        parts = []
        for line in [np.asarray(one) for one in contour_generator(z=padded).lines(0.5)]:
            # Pixel centers lie at index + 0.5; the padding moved everything by one.
            x = origin[0] + (line[:, 0] - 0.5) * spacing[1]
            y = origin[1] + (line[:, 1] - 0.5) * spacing[0]
            parts.append("M" + "L".join(f"{number(a)} {number(b)}" for a, b in zip(x, y, strict=True)))
        color = CONTOUR_COLORS.get(value, "#ff6ec7")
        svg.add("path", d="".join(parts), fill="none", stroke=color, stroke_width=stroke)


def _scale_bar(svg: Svg, corner: tuple[float, float], width: float, text: float) -> None:
    """20 mm, at the lower right of the first frame."""
    x, y = corner[0] + width - 4, corner[1] - 4
    svg.line((x - 20, y), (x, y), stroke="#fff", stroke_width=text / 4)
    svg.text(x, y - text * 0.4, "20 mm", font_size=text * 0.8, fill="#fff", text_anchor="end")


def _frame_text(cine: Cine, frame: int, place: int, names: Sequence[str]) -> str:
    time = cine.frame_times_ms[frame]
    parts = [names[place]] if place < len(names) else []
    parts.append(f"{time:.0f} ms" if np.isfinite(time) else f"frame {frame}")
    return ", ".join(parts)


def _legend(cine: Cine, contours: bool) -> str:
    if not contours or cine.masks is None or not cine.mask_labels:
        return ""
    words = {1: "amber", 2: "light blue", 3: "lime"}
    plain = {v: name.replace("_", " ") for v, name in cine.mask_labels.items()}
    names = {v: name.replace("lv ", "LV ").replace("rv ", "RV ") for v, name in plain.items()}
    named = [f"{names[v]} ({words.get(v, 'pink')})" for v in sorted(names) if v]
    return " Outlines: " + ", ".join(named) + "."


def _alt(cine: Cine, frames: Sequence[int], outlined: bool) -> str:
    view = {"sax": "Short-axis", "4ch": "Four-chamber", "2ch": "Two-chamber", "3ch": "Three-chamber"}.get(
        cine.view, "Cardiac"
    )
    extra = " with outlined heart structures" if outlined else ""
    return f"{view} cine MRI, {len(frames)} frame(s) of one slice{extra}."
