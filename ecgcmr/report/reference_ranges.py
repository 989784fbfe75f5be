"""Predicted phenotypes with their intervals against reference ranges: one row each, on a scale of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecgcmr.drawing.svg import INK, MUTED, Svg
from ecgcmr.report.page import Figure
from ecgcmr.report.palette import BOTH, SHADE

_ROW, _LEFT, _RIGHT, _WIDTH, _HEAD = 34.0, 92.0, 150.0, 680.0, 26.0
_OUTSIDE = "#b8430b"


@dataclass(frozen=True)
class Predicted:
    """One phenotype of one recording.

    Attributes:
        name: Its name.
        unit: Its unit.
        value: The prediction.
        interval: (low, high) of the prediction; NaN where the model gives none.
        reference: (low, high) that holds 95 % of the reference subjects; None where there are too few.
    """

    name: str
    unit: str
    value: float
    interval: tuple[float, float] = (np.nan, np.nan)
    reference: tuple[float, float] | None = None

    @property
    def outside(self) -> bool:
        """Whether the prediction lies outside of the reference range."""
        return self.reference is not None and not self.reference[0] <= self.value <= self.reference[1]

    @property
    def told(self) -> str:
        """The prediction in words."""
        lo, hi = self.interval
        interval = f" ({short(lo)} to {short(hi)})" if np.isfinite([lo, hi]).all() else ""
        where = ""
        if self.reference is not None:
            word = "outside of" if self.outside else "within"
            where = f", {word} the reference {short(self.reference[0])} to {short(self.reference[1])}"
        return f"{self.name} {short(self.value)} {self.unit}{interval}{where}"


def short(value: float) -> str:
    """A measurement with as many digits as are worth reading."""
    return f"{value:.0f}" if abs(value) >= 20 else f"{value:.1f}"


def reference_ranges(rows: Sequence[Predicted], title: str = "", caption: str = "") -> Figure:
    """Draw the predictions as points with intervals, over the bar of the reference range.

    Args:
        rows: The phenotypes, in order.
        title: Title of the figure.
        caption: Who the reference subjects are.

    Raises:
        ValueError: Without any phenotype.
    """
    if not rows:
        raise ValueError("a figure of predicted phenotypes needs at least one")
    svg = Svg(_WIDTH, _HEAD + _ROW * len(rows) + 8, "; ".join(row.told for row in rows) + ".")
    svg.text(_LEFT, 14, "bar: reference range; point and line: prediction and interval", font_size=11.5, fill=MUTED)
    for i, row in enumerate(rows):
        _draw(svg, row, _HEAD + _ROW * i)
    return Figure(str(svg), svg.label, caption, "wide", title)


def _draw(svg: Svg, row: Predicted, top: float) -> None:
    known = [row.value, *row.interval, *(row.reference or ())]
    finite = [v for v in known if np.isfinite(v)]
    low, high = min(finite), max(finite)
    pad = 0.08 * (high - low) or max(abs(row.value), 1.0) * 0.1
    width = _WIDTH - _LEFT - _RIGHT

    def px(value: float) -> float:
        return _LEFT + width * (value - low + pad) / (high - low + 2 * pad)

    middle = top + _ROW / 2
    svg.text(0, middle + 5, row.name, font_size=14, font_weight=600)
    svg.line((_LEFT, middle), (_LEFT + width, middle), stroke=SHADE, stroke_width=1)
    if row.reference is not None:
        x, end = px(row.reference[0]), px(row.reference[1])
        svg.add("rect", x=x, y=middle - 8, width=end - x, height=16, rx=3, fill="#cfdbe8")
        for at, value in ((x, row.reference[0]), (end, row.reference[1])):
            svg.text(at, middle + 19, short(value), font_size=9.5, fill=MUTED, text_anchor="middle")
    color = _OUTSIDE if row.outside else BOTH.color
    lo, hi = row.interval
    if np.isfinite([lo, hi]).all():
        svg.line((px(lo), middle), (px(hi), middle), stroke=color, stroke_width=2.4)
        for at in (px(lo), px(hi)):
            svg.line((at, middle - 5), (at, middle + 5), stroke=color, stroke_width=2.4)
    if row.outside:  # not by color alone
        d = f"M{px(row.value) - 6:.2f} {middle}l6 -6l6 6l-6 6z"
        svg.add("path", d=d, fill=color, stroke="#fff", stroke_width=1)
    else:
        svg.add("circle", cx=px(row.value), cy=middle, r=5.5, fill=color, stroke="#fff", stroke_width=1)
    interval = f" [{short(lo)}, {short(hi)}]" if np.isfinite([lo, hi]).all() else ""
    svg.text(
        _WIDTH - _RIGHT + 12, middle + 5, f"{short(row.value)} {row.unit}{interval}", font_size=13, fill=INK,
        font_weight=600 if row.outside else 400,
    )  # fmt: skip
