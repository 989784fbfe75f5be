"""Forest plot: one metric of several targets, with an interval for each arm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ecgcmr.drawing.axes import Panel, padded, round_ticks
from ecgcmr.drawing.svg import GRID, INK, MUTED, Svg
from ecgcmr.report.page import Figure
from ecgcmr.report.palette import ArmStyle, draw_marker

WIDTH = 424.0
LEFT, RIGHT = 96.0, 150.0
_ROW, _HEAD, _GAP = 19.0, 6.0, 9.0


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; NaN where it is not estimable."""

    value: float
    lo: float
    hi: float

    def text(self, digits: int = 2) -> str:
        """`0.71 [0.65, 0.77]` with true minus signs; a dash where there is no number."""
        if not math.isfinite(self.value):
            return "–"
        ends = f"[{self.lo:.{digits}f}, {self.hi:.{digits}f}]" if math.isfinite(self.lo) else "[not estimable]"
        return f"{self.value:.{digits}f} {ends}".replace("-", "−")


@dataclass(frozen=True)
class ForestRow:
    """One target, or one group: its name and an estimate for each arm."""

    label: str
    estimates: Mapping[str, Estimate]


def forest_figure(
    rows: Sequence[ForestRow],
    styles: Mapping[str, ArmStyle],
    title: str,
    axis: str,
    reference: float | None = None,
    floor: float = -math.inf,
    caption: str = "",
) -> Figure:
    """Draw the rows.

    Args:
        rows: Targets in order.
        styles: Arm -> style, in the order of drawing within a target.
        title: Title.
        axis: Name of the metric.
        reference: Value with a dashed line (0.5 for AUROC).
        floor: Values below are drawn at the edge (R² has no lower bound); the numbers beside are not cut.
        caption: Text below.

    Raises:
        ValueError: When no row has a finite value.
    """
    known = [one for row in rows for one in row.estimates.values() if math.isfinite(one.value)]
    if not known:
        raise ValueError(f"no value to draw in {title!r}")
    numbers = [max(v, floor) for one in known for v in (one.value, one.lo, one.hi) if math.isfinite(v)]
    heights = [len(row.estimates) * _ROW + _GAP for row in rows]
    height = _HEAD + sum(heights)
    panel = Panel((LEFT, _HEAD, WIDTH - LEFT - RIGHT, height - _HEAD), padded(numbers, 0.05, reference), (0.0, 1.0))
    told = "; ".join(
        f"{row.label}: " + ", ".join(f"{arm} {one.text()}" for arm, one in row.estimates.items()) for row in rows
    )
    svg = Svg(WIDTH, height + 44, f"{title}, {axis}. {told}.")
    ticks = round_ticks(*panel.x, count=4)
    for tick in ticks:
        svg.line((panel.px(tick), _HEAD), (panel.px(tick), height), stroke=GRID)
    panel.draw_x(svg, ticks, title=axis)
    if reference is not None:
        x = panel.px(reference)
        svg.line((x, _HEAD), (x, height), stroke=MUTED, stroke_width=1.2, stroke_dasharray="3 3")
    top = _HEAD
    for row, tall in zip(rows, heights, strict=True):
        middle = top + (tall - _GAP) / 2
        for k, line in enumerate(_wrapped(row.label)):
            svg.text(0, middle + 4 + 14 * (k - (len(_wrapped(row.label)) - 1) / 2), line, font_size=12, font_weight=600)
        for k, (arm, one) in enumerate(row.estimates.items()):
            _draw(svg, panel, one, (styles[arm], floor), top + _ROW * (k + 0.5))
        top += tall
    return Figure(str(svg), svg.label, caption, "half", title)


def _draw(svg: Svg, panel: Panel, one: Estimate, how: tuple[ArmStyle, float], y: float) -> None:
    style, floor = how
    svg.text(WIDTH - RIGHT + 8, y + 4, one.text(), font_size=11.5, fill=INK if math.isfinite(one.value) else MUTED)
    if not math.isfinite(one.value):
        return
    if math.isfinite(one.lo):
        a, b = panel.px(max(one.lo, floor)), panel.px(max(one.hi, floor))
        svg.line((a, y), (b, y), stroke=style.color, stroke_width=2)
        ends = [(b, one.hi)] if one.lo < floor else [(a, one.lo), (b, one.hi)]
        for x, _ in ends:
            svg.line((x, y - 3.5), (x, y + 3.5), stroke=style.color, stroke_width=2)
    draw_marker(svg, panel.px(max(one.value, floor)), y, style, 4)


def _wrapped(label: str, most: int = 15) -> list[str]:
    """A label in at most two lines; what is longer still is cut."""
    if len(label) <= most:
        return [label]
    words, first = label.replace("_", " ").split(" "), ""
    while words and len(first) + len(words[0]) < most:
        first = f"{first} {words.pop(0)}".strip()
    if not first:
        first, words = label[:most], [label[most:]]
    rest = " ".join(words)
    return [first, rest if len(rest) <= most else rest[: most - 1] + "…"]
