"""Calibration curves and training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from ecgcmr.drawing.axes import Panel, padded, round_ticks
from ecgcmr.drawing.svg import INK, MUTED, Svg, polyline
from ecgcmr.evaluation.calibration import reliability_curve
from ecgcmr.report.page import Figure
from ecgcmr.report.palette import ArmStyle, draw_marker

WIDTH, HEIGHT = 360.0, 270.0
_BOX = (52.0, 26.0, WIDTH - 72, HEIGHT - 72)
_LINES = (("#0a5ea8", ""), ("#c77700", "6 3"), ("#6b7280", "2 3"), ("#00795a", "4 2"))
MAX_POINTS = 400


def calibration_figure(
    columns: Mapping[str, tuple[ArrayLike, ArrayLike]], styles: Mapping[str, ArmStyle], title: str, n_bins: int = 10
) -> Figure:
    """Observed against predicted, in equal-mass bins, with the line of perfect calibration.

    Args:
        columns: Arm -> (truth, prediction), each (N,).
        styles: Arm -> style.
        title: Title with the unit.
        n_bins: Number of bins.
    """
    curves = {arm: reliability_curve(truth, prediction, n_bins)[:2] for arm, (truth, prediction) in columns.items()}
    limits = padded([float(v) for pair in curves.values() for column in pair for v in column])
    panel = Panel(_BOX, limits, limits)
    svg = Svg(
        WIDTH, HEIGHT, f"Calibration of {title}: mean observed against mean predicted value of {', '.join(columns)}."
    )
    ticks = round_ticks(*limits)
    panel.draw_y(svg, ticks, "observed")
    panel.draw_x(svg, ticks, title="predicted")
    corners = ((panel.px(limits[0]), panel.py(limits[0])), (panel.px(limits[1]), panel.py(limits[1])))
    svg.line(*corners, stroke=MUTED, stroke_width=1.2, stroke_dasharray="3 3")
    for arm, (x, y) in curves.items():
        px, py = np.array([panel.px(v) for v in x]), np.array([panel.py(v) for v in y])
        style = styles[arm]
        svg.add(
            "path",
            d=polyline(px, py),
            fill="none",
            stroke=style.color,
            stroke_width=2,
            stroke_dasharray=style.dash or None,
        )
        for a, b in zip(px, py, strict=True):
            draw_marker(svg, a, b, style, 3.5)
    return Figure(str(svg), svg.label, title=title)


def loss_figure(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str, x_label: str = "step"
) -> Figure:
    """Training curves.

    Args:
        series: Name -> (steps, values); at most four. Long series are thinned to `MAX_POINTS` bin means.
        title: Title, for instance "ECG masked autoencoder: loss".
        x_label: Name of the horizontal axis.
    """
    if not series or len(series) > len(_LINES):
        raise ValueError(f"a loss figure takes 1 to {len(_LINES)} series, got {len(series)}")
    thinned = {name: _thin(np.asarray(x, float), np.asarray(y, float)) for name, (x, y) in series.items()}
    xs = [float(v) for x, _ in thinned.values() for v in x]
    ys = [float(v) for _, y in thinned.values() for v in y]
    last = ", ".join(f"{name} ends at {y[-1]:.3g}" for name, (_, y) in thinned.items() if len(y))
    panel = Panel(_BOX, padded(xs, 0.01), padded(ys))
    svg = Svg(WIDTH, HEIGHT, f"{title}: {last}.")
    panel.draw_y(svg, round_ticks(*panel.y))
    panel.draw_x(svg, round_ticks(*panel.x), title=x_label)
    offset = _BOX[0]
    for (name, (x, y)), (color, dash) in zip(thinned.items(), _LINES, strict=False):
        path = polyline(np.array([panel.px(v) for v in x]), np.array([panel.py(v) for v in y]))
        svg.add("path", d=path, fill="none", stroke=color, stroke_width=1.8, stroke_dasharray=dash or None)
        svg.line((offset, 12), (offset + 20, 12), stroke=color, stroke_width=2, stroke_dasharray=dash or None)
        svg.text(offset + 25, 16, name, font_size=11.5, fill=INK)
        offset += 44 + 6.4 * len(name)
    return Figure(str(svg), svg.label, title=title)


def _thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    good = np.isfinite(x) & np.isfinite(y)
    x, y = x[good], y[good]
    if len(x) <= MAX_POINTS:
        return x, y
    parts = np.array_split(np.arange(len(x)), MAX_POINTS)
    return np.array([x[p].mean() for p in parts]), np.array([y[p].mean() for p in parts])
