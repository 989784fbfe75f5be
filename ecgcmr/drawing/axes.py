"""Axes of the small panels: scales, round ticks, grid lines and labels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ecgcmr.drawing.svg import GRID, INK, MUTED, Svg


@dataclass(frozen=True)
class Panel:
    """A plotting area within a drawing.

    Attributes:
        box: (left, top, width, height) of the area.
        x: (low, high) of the horizontal axis.
        y: (low, high) of the vertical axis; low is at the bottom.
        log_x: Whether the horizontal axis is logarithmic.
    """

    box: tuple[float, float, float, float]
    x: tuple[float, float]
    y: tuple[float, float]
    log_x: bool = False

    def px(self, value: float) -> float:
        """Horizontal position of a value."""
        lo, hi = self.x
        if self.log_x:
            lo, hi, value = math.log(lo), math.log(hi), math.log(value)
        return self.box[0] + self.box[2] * (value - lo) / (hi - lo)

    def py(self, value: float) -> float:
        """Vertical position of a value, kept within the area."""
        lo, hi = self.y
        share = min(1.0, max(0.0, (value - lo) / (hi - lo)))
        return self.box[1] + self.box[3] * (1 - share)

    def draw_y(self, svg: Svg, ticks: Sequence[float], title: str = "") -> None:
        """Horizontal grid lines with numbers at the left."""
        left, top, width, _ = self.box
        for tick, label in zip(ticks, tick_labels(ticks), strict=True):
            y = self.py(tick)
            strong = tick == 0
            svg.line((left, y), (left + width, y), stroke=MUTED if strong else GRID, stroke_width=1)
            svg.text(left - 6, y + 4, label, text_anchor="end", font_size=11.5, fill=MUTED)
        if title:
            svg.text(left, top - 8, title, font_size=11.5, fill=MUTED)

    def draw_x(self, svg: Svg, ticks: Sequence[float], labels: Sequence[str] | None = None, title: str = "") -> None:
        """Ticks with labels below the area."""
        left, top, width, height = self.box
        bottom = top + height
        svg.line((left, bottom), (left + width, bottom), stroke=MUTED, stroke_width=1)
        for tick, label in zip(ticks, labels or tick_labels(ticks), strict=True):
            x = self.px(tick)
            svg.line((x, bottom), (x, bottom + 4), stroke=MUTED, stroke_width=1)
            svg.text(x, bottom + 17, label, text_anchor="middle", font_size=11.5, fill=MUTED)
        if title:
            svg.text(left + width / 2, bottom + 34, title, text_anchor="middle", font_size=11.5, fill=INK)


def round_ticks(lo: float, hi: float, count: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) within [lo, hi], as near to `count` as can be."""
    if not (math.isfinite(lo) and math.isfinite(hi)) or hi <= lo:
        raise ValueError(f"an axis needs two finite rising limits, got {lo} and {hi}")
    power = 10.0 ** math.floor(math.log10((hi - lo) / max(1, count)))
    found: list[list[float]] = []
    for step in (factor * power for factor in (1, 2, 2.5, 5, 10, 20)):
        first, last = math.ceil(lo / step - 1e-9), math.floor(hi / step + 1e-9)
        found.append([round(i * step, 12) + 0.0 for i in range(first, last + 1)])
    # Of equally near ones the coarser is taken: it has the rounder numbers.
    return min(reversed(found), key=lambda ticks: abs(len(ticks) - count))


def padded(values: Sequence[float], share: float = 0.06, include: float | None = None) -> tuple[float, float]:
    """Limits around finite values with some room; a single value gets room too."""
    finite = [float(v) for v in values if math.isfinite(v)] + ([] if include is None else [include])
    if not finite:
        return 0.0, 1.0
    lo, hi = min(finite), max(finite)
    room = (hi - lo) * share or max(abs(hi), 1.0) * share
    return lo - room, hi + room


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Labels with as many decimals as the step needs, a true minus sign and thousands separators."""
    steps = [abs(b - a) for a, b in itertools.pairwise(ticks)] or [abs(ticks[0]) if ticks else 1.0]
    step = min(steps) or 1.0
    decimals = next(d for d in range(10) if abs(round(step, d) - step) < 1e-9 * max(step, 1e-9) or d == 9)
    return [f"{tick:,.{decimals}f}".replace("-", "−") for tick in ticks]
