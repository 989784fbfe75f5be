"""ROC and precision-recall curves of several arms."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgcmr.drawing.axes import Panel
from ecgcmr.drawing.svg import MUTED, Svg, polyline
from ecgcmr.report.page import Figure
from ecgcmr.report.palette import ArmStyle

Array = NDArray[np.float64]
Columns = Mapping[str, tuple[ArrayLike, ArrayLike]]

WIDTH, HEIGHT = 360.0, 290.0
_BOX = (52.0, 26.0, WIDTH - 68, HEIGHT - 72)
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
MAX_POINTS = 200


def roc_figure(columns: Columns, styles: Mapping[str, ArmStyle], title: str, values: Mapping[str, float]) -> Figure:
    """Sensitivity against 1 - specificity.

    Args:
        columns: Arm -> (truth 0/1, score), each (N,).
        styles: Arm -> style.
        title: Title.
        values: Arm -> AUROC, for the words that describe the figure.

    Raises:
        ValueError: When an arm has one class only.
    """
    svg, panel = _axes(title, "ROC curve", values, "AUROC", ("1 − specificity", "sensitivity"))
    svg.line((panel.px(0), panel.py(0)), (panel.px(1), panel.py(1)), stroke=MUTED, stroke_dasharray="3 3")
    for arm, (truth, score) in columns.items():
        false, true, _ = _rates(truth, score)
        _curve(svg, panel, (false, true), styles[arm])
    return Figure(str(svg), svg.label, title=title)


def precision_recall_figure(
    columns: Columns, styles: Mapping[str, ArmStyle], title: str, values: Mapping[str, float]
) -> Figure:
    """Precision against recall, with the prevalence as the line of chance; arguments as `roc_figure`."""
    svg, panel = _axes(title, "Precision-recall curve", values, "AUPRC", ("recall", "precision"))
    for k, (arm, (truth, score)) in enumerate(columns.items()):
        _, recall, precision = _rates(truth, score)
        if k == 0:
            share = float(np.mean(np.asarray(truth, dtype=np.float64)))
            svg.line((panel.px(0), panel.py(share)), (panel.px(1), panel.py(share)), stroke=MUTED,
                     stroke_dasharray="3 3")  # fmt: skip
        _curve(svg, panel, (recall[1:], precision[1:]), styles[arm])
    return Figure(str(svg), svg.label, title=title)


def _rates(truth: ArrayLike, score: ArrayLike) -> tuple[Array, Array, Array]:
    """False positive rate, true positive rate and precision at falling thresholds, from (0, 0) on."""
    y, s = np.asarray(truth, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if not 0 < y.sum() < len(y):
        raise ValueError(f"a curve needs both classes; {y.sum():.0f} of {len(y)} are positive")
    order = np.argsort(-s, kind="stable")
    last = np.concatenate([s[order][1:] != s[order][:-1], [True]])  # equal scores are one threshold
    true, called = y[order].cumsum()[last], np.flatnonzero(last) + 1.0
    false = called - true
    start = np.zeros(1)
    return (
        np.concatenate([start, false / (len(y) - y.sum())]),
        np.concatenate([start, true / y.sum()]),
        np.concatenate([[1.0], true / called]),
    )


def _axes(title: str, what: str, values: Mapping[str, float], metric: str, names: tuple[str, str]) -> tuple[Svg, Panel]:
    told = "; ".join(f"{arm} {value:.2f}" for arm, value in values.items() if np.isfinite(value))
    svg = Svg(WIDTH, HEIGHT, f"{what} of {title}. {metric}: {told or 'not estimable'}.".replace("-0", "−0"))
    panel = Panel(_BOX, (0.0, 1.0), (0.0, 1.0))
    panel.draw_y(svg, _TICKS, names[1])
    panel.draw_x(svg, _TICKS, title=names[0])
    return svg, panel


def _curve(svg: Svg, panel: Panel, points: tuple[Array, Array], style: ArmStyle) -> None:
    keep = np.arange(len(points[0]))
    if len(keep) > MAX_POINTS:
        keep = np.unique(np.linspace(0, len(keep) - 1, MAX_POINTS).round().astype(int))
    x, y = (
        np.array([place(v) for v in column[keep]]) for place, column in zip((panel.px, panel.py), points, strict=True)
    )
    svg.add("path", d=polyline(x, y), fill="none", stroke=style.color, stroke_width=2, stroke_linejoin="round",
            stroke_dasharray=style.dash or None)  # fmt: skip
