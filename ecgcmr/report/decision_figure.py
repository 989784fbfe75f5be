"""Decision curves of several arms beside treating everybody and nobody."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from ecgcmr.drawing.axes import Panel, round_ticks
from ecgcmr.drawing.svg import MUTED, Svg, polyline
from ecgcmr.report.page import Figure
from ecgcmr.report.palette import ArmStyle

WIDTH, HEIGHT = 360.0, 290.0
_BOX = (52.0, 26.0, WIDTH - 68, HEIGHT - 72)


def decision_figure(curves: Mapping[str, pd.DataFrame], styles: Mapping[str, ArmStyle], title: str) -> Figure:
    """Net benefit against the threshold.

    Args:
        curves: Arm -> table of `decision_curve`, all with the same thresholds.
        styles: Arm -> style.
        title: Title.
    """
    first = next(iter(curves.values()))
    cuts, everybody = first["threshold"].to_numpy(), first["treat_all"].to_numpy()
    best = max(float(one["net_benefit"].max()) for one in curves.values())
    top = max(best, float(everybody.max()), 0.01)
    panel = Panel(_BOX, (0.0, float(cuts[-1])), (-0.25 * top, top * 1.08))
    told = "; ".join(f"{arm} {float(one['net_benefit'].iloc[len(one) // 2]):.3f}" for arm, one in curves.items())
    middle = cuts[len(cuts) // 2]
    svg = Svg(WIDTH, HEIGHT, f"Decision curve of {title}. Net benefit at the threshold {middle:g}: {told}.")
    panel.draw_y(svg, round_ticks(*panel.y, count=4), "net benefit")
    panel.draw_x(svg, round_ticks(*panel.x, count=5), title="threshold probability")
    inside = everybody >= panel.y[0]
    x = np.array([panel.px(c) for c in cuts])
    all_y = np.array([panel.py(v) for v in everybody])
    svg.add("path", d=polyline(x[inside], all_y[inside]), fill="none", stroke=MUTED, stroke_width=1.5)
    for arm, one in curves.items():
        style = styles[arm]
        values = one["net_benefit"].to_numpy()
        y = np.array([panel.py(v) if v >= panel.y[0] else np.nan for v in values])
        svg.add("path", d=polyline(x, y), fill="none", stroke=style.color, stroke_width=2,
                stroke_dasharray=style.dash or None)  # fmt: skip
    caption = "Thin line: treating everybody; zero: treating nobody."
    return Figure(str(svg), svg.label, caption, title=title)
