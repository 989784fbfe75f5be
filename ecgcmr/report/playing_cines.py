"""Hearts that beat on the page: the frames of a cine lie side by side in one image, which moves behind a window.

No script and no request: the movement is a CSS animation in steps. It rests under the pointer and while it has the
focus, does not start where the reader asked for reduced motion, and on paper shows the first frame.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgcmr.cmr.cine import Cine
from ecgcmr.cmr.selection import motion_center
from ecgcmr.drawing.svg import INK, MUTED, UNIQUE, Svg, number, png, polyline, to_gray
from ecgcmr.report.page import Figure
from ecgcmr.report.palette import GOOD

CROP_MM = 120.0
CYCLE_MS = 900.0
"""Cycle of a cine that does not tell its own."""
_LINE = 14.0


@dataclass(frozen=True)
class PlayingHeart:
    """One cine of a gallery.

    Attributes:
        frames: (F, H, W) uint8, all on one gray scale.
        cycle_ms: Time for all frames [ms].
        notes: Short lines below it.
        own: Whether it is the query's own study.
        rank: Its place in the whole gallery, where that is not its place in the row: of an own study that is drawn
            behind the nearest because it is not among them.
    """

    frames: NDArray[np.uint8]
    cycle_ms: float
    notes: Sequence[str] = ()
    own: bool = False
    rank: int | None = None


def playing_heart(
    cine: Cine, notes: Sequence[str] = (), own: bool = False, crop_mm: float = CROP_MM, rank: int | None = None
) -> PlayingHeart:
    """Cut the heart out of the middle slice of a cine.

    A cine of the whole cycle plays at its own heart rate; one of a few systolic frames plays there and back.
    """
    middle = cine.pixels.shape[0] // 2
    frames = np.asarray(cine.pixels[middle], dtype=np.float64)
    center = motion_center(cine.pixels, cine.spacing_mm, 0.25 * crop_mm) if len(frames) > 1 else None
    parts = []
    for axis, size in enumerate(frames.shape[1:]):
        side = min(size, max(2, round(crop_mm / cine.spacing_mm[axis])))
        place = size / 2 if center is None else center[axis]
        start = int(np.clip(round(place - side / 2), 0, size - side))
        parts.append(slice(start, start + side))
    gray = to_gray(frames[:, parts[0], parts[1]])
    times = cine.frame_times_ms
    cycle = CYCLE_MS
    if len(gray) <= 4:
        gray = np.concatenate([gray, gray[-2:0:-1]])
    elif np.isfinite(times).all() and times[-1] > times[0]:
        cycle = float((times[-1] - times[0]) * len(times) / (len(times) - 1))
    return PlayingHeart(gray, cycle, tuple(notes), own, rank)


def playing_gallery(
    hearts: Sequence[PlayingHeart],
    ecg: ArrayLike | None = None,
    rate_hz: float = 500.0,
    lead: str = "II",
    title: str = "",
    gallery: int | None = None,
) -> Figure:
    """Draw hearts that beat, best first, below the ECG that they were found for.

    Args:
        hearts: From `playing_heart`.
        ecg: One lead of the query (T,), or None.
        rate_hz: Its sampling rate [Hz].
        lead: Its name.
        title: Title of the figure.
        gallery: Size of the gallery, for the caption.

    Raises:
        ValueError: No hearts.
    """
    if not hearts:
        raise ValueError("a gallery of playing hearts needs at least one")
    of = f" of {gallery}" if gallery else ""
    nearest = sum(heart.rank is None for heart in hearts)
    label = f"The {nearest} most similar hearts{of}, as playing short-axis cines, most similar first."
    places = [heart.rank or i for i, heart in enumerate(hearts, 1) if heart.own]
    label += f" The query's own study is at rank {places[0]}{of}." if places else ""
    side, gap = 132.0, 8.0
    top = 92.0 if ecg is not None else 8.0
    lines = max(len(heart.notes) for heart in hearts)
    width = max(len(hearts), 3) * (side + gap) - gap + 16
    svg = Svg(width, top + side + 26 + _LINE * lines, label)
    svg.add("rect", x=0, y=0, width=svg.width, height=svg.height, rx=6, fill="#fff")
    if ecg is not None:
        _trace(svg, np.asarray(ecg, dtype=np.float64), rate_hz, lead)
    rules = []
    svg.raw(f'<g class="{UNIQUE}g" tabindex="0">')
    for i, heart in enumerate(hearts):
        x = 8 + i * (side + gap)
        rules.append(_place(svg, heart, i, (x, top, side)))
        color = GOOD if heart.own else INK
        place = f"{heart.rank or i + 1}." + (" own study" if heart.own else "")
        svg.text(x, top + side + 16, place, font_size=12.5, font_weight=600, fill=color)
        for row, line in enumerate(heart.notes):
            svg.text(x, top + side + 31 + _LINE * row, line, font_size=11, fill=MUTED)
    svg.raw("</g>")
    svg.raw(f"<style>{''.join(rules)}{_still()}</style>")
    caption = "Each heart beats at its own rate where the cine holds a whole cycle. Point at them to hold them."
    caption = (f"Own study at rank {places[0]}{of}, framed in green. " if places else "") + caption
    return Figure(str(svg), label, caption, "wide", title)


def _place(svg: Svg, heart: PlayingHeart, i: int, box: tuple[float, float, float]) -> str:
    """Draw the window on the strip of frames, and give its rule of movement."""
    frames = heart.frames
    n, height, width = frames.shape
    x, y, side = box
    strip = np.ascontiguousarray(frames.transpose(1, 0, 2).reshape(height, n * width))
    data = base64.b64encode(png(strip)).decode("ascii")
    svg.raw(
        f'<svg x="{number(x)}" y="{number(y)}" width="{number(side)}" height="{number(side)}" '
        f'viewBox="0 0 {width} {height}" overflow="hidden"><image class="{UNIQUE}p {UNIQUE}p{i}" width="{n * width}" '
        f'height="{height}" preserveAspectRatio="none" href="data:image/png;base64,{data}"/></svg>'
    )
    if heart.own:
        svg.add("rect", x=x + 1.5, y=y + 1.5, width=side - 3, height=side - 3, fill="none", stroke=GOOD, stroke_width=3)
    move = f"@keyframes {UNIQUE}k{i}{{to{{transform:translateX(-{n * width}px)}}}}"
    return f"{move}.{UNIQUE}p{i}{{animation:{UNIQUE}k{i} {heart.cycle_ms:.0f}ms steps({n}) infinite}}" if n > 1 else ""


def _still() -> str:
    hold = f".{UNIQUE}g:hover .{UNIQUE}p,.{UNIQUE}g:focus .{UNIQUE}p{{animation-play-state:paused}}"
    none = f".{UNIQUE}p{{animation:none !important}}"
    return f"{hold}@media (prefers-reduced-motion: reduce){{{none}}}@media print{{{none}}}"


def _trace(svg: Svg, ecg: NDArray[np.float64], rate_hz: float, lead: str) -> None:
    n = min(len(ecg), round(5 * rate_hz))
    low, high = np.nanpercentile(ecg[:n], [0.1, 99.9])
    x = 36 + np.arange(n) / n * (svg.width - 46)
    y = 8 + 70 * (1 - np.clip((ecg[:n] - low) / max(high - low, 1e-9), -0.05, 1.05))
    svg.add("path", d=polyline(x, y), fill="none", stroke=INK, stroke_width=1.3)
    svg.text(8, 48, lead, font_size=12.5, font_weight=600)
