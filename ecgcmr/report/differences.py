"""Paired differences between arms, with intervals and a line at zero: one row for each comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ecgcmr.drawing.axes import Panel, padded, round_ticks
from ecgcmr.drawing.svg import INK, MUTED, Svg
from ecgcmr.report.page import Figure
from ecgcmr.report.palette import GOOD

WIDTH = 424.0
LABELS = 118.0  # room for labels
LETTER = 6.4  # mean width of a letter of them
ROOM = 140.0  # room for numbers
DIGIT = 7.1  # mean width of a letter of them, bold
WORSE = "#b8430b"


@dataclass(frozen=True)
class DifferenceRow:
    """One difference.

    Attributes:
        label: What is compared (the target, or the other arm).
        value: First minus second.
        lo: Lower end of its interval.
        hi: Upper end.
        group: Heading under which rows are collected (the number of labels, for instance).
        lower_is_better: Whether a negative difference is the improvement (errors).
    """

    label: str
    value: float
    lo: float
    hi: float
    group: str = ""
    lower_is_better: bool = False

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `open` when the interval holds 0 (or is not estimable)."""
        if not (math.isfinite(self.lo) and math.isfinite(self.hi)) or self.lo <= 0 <= self.hi:
            return "open"
        return "better" if (self.value < 0) == self.lower_is_better else "worse"


def difference_figure(rows: Sequence[DifferenceRow], title: str, axis: str, caption: str = "") -> Figure:
    """Draw the rows.

    Args:
        rows: Differences, in order; a new heading is drawn where `group` changes.
        title: Title, for instance "MAE + aligned minus ECG MAE".
        axis: Name of the axis, for instance "difference of R²".
        caption: Text below.
    """
    if not rows:
        raise ValueError(f"no difference to draw in {title!r}")
    headings = sum(1 for i, row in enumerate(rows) if row.group and (i == 0 or rows[i - 1].group != row.group))
    top, step, head = 8.0, 24.0, 26.0
    height = top + step * len(rows) + head * headings
    finite = [v for row in rows for v in (row.value, row.lo, row.hi) if math.isfinite(v)]
    left = max(LABELS, 10 + LETTER * max(len(row.label) for row in rows))  # long labels widen the figure
    room = max(ROOM, DIGIT * max(len(interval_text(row)) for row in rows))  # and so do numbers of three digits
    width = WIDTH + left - LABELS + room - ROOM
    panel = Panel((left, top, width - left - room - 8, height - top), padded(finite, 0.08, include=0.0), (0.0, 1.0))
    alt = f"{title}, {axis}. " + "; ".join(f"{row.group} {row.label}: {interval_text(row)}".strip() for row in rows)
    svg = Svg(width, height + 44, alt + ".")
    panel.draw_x(svg, round_ticks(*panel.x, count=3), title=axis)
    y, group = top, ""
    for row in rows:
        if row.group and row.group != group:
            group = row.group
            svg.text(0, y + 17, group, font_size=12, font_weight=600)
            y += head
        _draw_row(svg, panel, row, (y + step / 2, width - room))
        y += step
    return Figure(str(svg), svg.label, caption, "half", title)


def interval_text(row: DifferenceRow, digits: int = 2) -> str:
    """`+0.04 [0.01, 0.07]` with true minus signs; one digit more where an end of the interval would round to 0."""
    if not math.isfinite(row.lo):
        return f"{row.value:+.{digits}f} [not estimable]".replace("-", "−")
    if min(abs(row.lo), abs(row.hi)) < 0.5 * 10**-digits:
        digits += 1
    ends = [f"{end:.{digits}f}" for end in (row.lo, row.hi)]
    ends = [end.removeprefix("-") if float(end) == 0 else end for end in ends]
    value = f"{row.value:+.{digits}f}"
    value = value[1:] if float(value) == 0 else value
    return f"{value} [{ends[0]}, {ends[1]}]".replace("-", "−")


def _draw_row(svg: Svg, panel: Panel, row: DifferenceRow, place: tuple[float, float]) -> None:
    y, text_x = place
    color = {"better": GOOD, "worse": WORSE, "open": MUTED}[row.verdict]
    zero = panel.px(0.0)
    svg.line((zero, y - 12), (zero, y + 12), stroke=MUTED, stroke_width=1.2)
    svg.text(8 if row.group else 0, y + 4, row.label, font_size=12)
    if math.isfinite(row.lo):
        svg.line((panel.px(row.lo), y), (panel.px(row.hi), y), stroke=color, stroke_width=2)
        for end in (row.lo, row.hi):
            svg.line((panel.px(end), y - 4), (panel.px(end), y + 4), stroke=color, stroke_width=2)
    # A filled point is a difference whose interval excludes zero: not told by color alone.
    fill = "#fff" if row.verdict == "open" else color
    svg.add("circle", cx=panel.px(row.value), cy=y, r=4.5, fill=fill, stroke=color, stroke_width=2)
    svg.text(
        text_x,
        y + 4,
        interval_text(row),
        font_size=11.5,
        fill=INK,
        font_weight=None if row.verdict == "open" else 600,
    )
