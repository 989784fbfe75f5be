"""Agreement of a predicted with a measured value: Bland-Altman."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ecgcmr.report.axes import Panel, padded, round_ticks
from ecgcmr.report.forest import Estimate
from ecgcmr.report.page import Figure
from ecgcmr.report.palette import SHADE, ArmStyle
from ecgcmr.report.svg import INK, MUTED, Svg

WIDTH, HEIGHT = 360.0, 290.0
_BOX = (58.0, 26.0, WIDTH - 112, HEIGHT - 72)
MAX_POINTS = 600


def bland_altman_figure(
    truth: ArrayLike,
    prediction: ArrayLike,
    lines: tuple[Estimate, Estimate, Estimate],
    style: ArmStyle,
    title: str,
    unit: str = "",
) -> Figure:
    """Difference against mean, with bias and limits of agreement and their intervals.

    Bland & Altman, Lancet 1986, 10.1016/S0140-6736(86)90837-8.

    Args:
        truth: Measured values (N,).
        prediction: Predicted values (N,).
        lines: Lower limit, bias and upper limit, as they stand in the results.
        style: Style of the arm; its color is that of the points.
        title: Title.
        unit: Unit for the axes.
    """
    y, p = np.asarray(truth, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    mean, difference = (y + p) / 2, p - y
    shown = np.arange(len(y))
    if len(shown) > MAX_POINTS:
        shown = np.sort(np.random.default_rng(0).permutation(len(y))[:MAX_POINTS])
    ends = [v for one in lines for v in (one.value, one.lo, one.hi)]
    panel = Panel(_BOX, padded(mean[shown].tolist(), 0.04), padded([*difference[shown].tolist(), *ends]))
    told = ", ".join(
        f"{name} {one.text(1)}" for name, one in zip(("lower limit", "bias", "upper limit"), lines, strict=True)
    )
    svg = Svg(WIDTH, HEIGHT, f"Bland-Altman plot of {title}: {told}; {len(y)} pairs.")
    of_unit = f" [{unit}]" if unit else ""
    panel.draw_y(svg, round_ticks(*panel.y), f"predicted − measured{of_unit}")
    panel.draw_x(svg, round_ticks(*panel.x, count=4), title=f"mean of both{of_unit}")
    left, right = _BOX[0], _BOX[0] + _BOX[2]
    for one in lines:
        if np.isfinite(one.lo):
            top, bottom = panel.py(one.hi), panel.py(one.lo)
            svg.add("rect", x=left, y=top, width=right - left, height=max(bottom - top, 0.5), fill=SHADE)
    for k in shown:
        svg.add("circle", cx=panel.px(mean[k]), cy=panel.py(difference[k]), r=2.2, fill=style.color, fill_opacity=0.55)
    for place, one in enumerate(lines):
        if np.isfinite(one.value):
            at = panel.py(one.value)
            svg.line(
                (left, at), (right, at), stroke=INK, stroke_width=1.4, stroke_dasharray=None if place == 1 else "5 3"
            )
            svg.text(right + 5, at + 4, f"{one.value:.1f}".replace("-", "−"), font_size=11.5, fill=INK)
    svg.line((left, panel.py(0)), (right, panel.py(0)), stroke=MUTED, stroke_width=0.8)
    caption = f"{len(shown):,} of {len(y):,} pairs drawn." if len(shown) < len(y) else ""
    return Figure(str(svg), svg.label, caption, title=title)
