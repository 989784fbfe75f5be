"""Label efficiency: a metric against the number of labelled subjects, one panel for each target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from ecgcmr.drawing.axes import Panel, padded, round_ticks
from ecgcmr.drawing.svg import MUTED, Svg
from ecgcmr.evaluation.metrics import METRICS
from ecgcmr.report.page import Figure
from ecgcmr.report.palette import ArmStyle, draw_marker

WIDTH, HEIGHT = 360.0, 270.0
R2_FLOOR = -0.3
"""R2 has no lower bound; below this a panel would show nothing else, so points are drawn at the edge."""
CHANCE = {"auroc": 0.5, "balanced_accuracy": 0.5, "r2": 0.0, "pearson_r": 0.0}


@dataclass(frozen=True)
class Curves:
    """What the panels of one section show.

    Attributes:
        metric: Name of the metric.
        styles: Arm -> style, in the order of drawing; arms that are not named are not drawn.
        ceiling: Arm that is drawn as a band (its value and interval at its largest number of labels).
        labels: Target -> title with unit; the target's name when absent.
    """

    metric: str
    styles: Mapping[str, ArmStyle]
    ceiling: str | None = None
    labels: Mapping[str, str] | None = None


def label_efficiency_figure(results: pd.DataFrame, target: str, curves: Curves) -> Figure:
    """Draw one panel.

    Args:
        results: Result rows of one protocol (`evaluation.results.read_results`); mean rows (seed null) are drawn.
        target: Name of the target.
        curves: What to draw.

    Raises:
        ValueError: When there is no row of that target and metric.
    """
    rows = results[(results["target"] == target) & (results["metric"] == curves.metric) & results["seed"].isna()]
    rows = rows[rows["n_labels"].notna() & rows["value"].notna() & rows["arm"].isin([*curves.styles, curves.ceiling])]
    if rows.empty:
        raise ValueError(f"no result row of target {target!r}, metric {curves.metric!r} with a number of labels")
    drawn = rows[rows["arm"] != curves.ceiling]
    band = rows[rows["arm"] == curves.ceiling].sort_values("n_labels").tail(1)
    sizes = sorted({int(n) for n in (drawn if len(drawn) else rows)["n_labels"]})
    title = (curves.labels or {}).get(target, target)
    name = METRICS[curves.metric].label if curves.metric in METRICS else curves.metric
    svg = Svg(WIDTH, HEIGHT, _alt(title, name, rows))
    panel = _panel(rows, sizes, curves.metric)
    if curves.metric in CHANCE and panel.y[0] < CHANCE[curves.metric] < panel.y[1]:
        y = panel.py(CHANCE[curves.metric])
        svg.line((panel.box[0], y), (panel.box[0] + panel.box[2], y), stroke=MUTED, stroke_width=1.2)
    panel.draw_y(svg, round_ticks(*panel.y), name)
    panel.draw_x(svg, sizes, [f"{n:,}" for n in sizes], "labelled subjects")
    if len(band):
        _draw_band(svg, panel, band.iloc[0], curves.styles.get(str(curves.ceiling)))
    arms = [arm for arm in curves.styles if arm != curves.ceiling and (drawn["arm"] == arm).any()]
    for i, arm in enumerate(arms):
        shift = (i - (len(arms) - 1) / 2) * 5.0
        _draw_arm(svg, panel, drawn[drawn["arm"] == arm].sort_values("n_labels"), (curves.styles[arm], shift))
    return Figure(str(svg), svg.label, title=title)


def _panel(rows: pd.DataFrame, sizes: list[int], metric: str) -> Panel:
    values = [*rows["value"], *rows["lo"].fillna(rows["value"]), *rows["hi"].fillna(rows["value"])]
    lo, hi = padded([float(v) for v in values])
    if metric in ("r2", "pearson_r"):
        lo = max(lo, R2_FLOOR)
    if metric in ("r2", "pearson_r", "auroc", "auprc", "balanced_accuracy"):
        hi = min(hi, 1.0) if hi > 1 and max(v for v in values if v == v) <= 1 else hi
    spread = (min(sizes) / 1.4, max(sizes) * 1.4)
    return Panel((46, 26, WIDTH - 58, HEIGHT - 72), spread, (lo, hi if hi > lo else lo + 0.1), log_x=True)


def _draw_band(svg: Svg, panel: Panel, row: pd.Series, style: ArmStyle | None) -> None:
    color = style.color if style else MUTED
    left, _, width, _ = panel.box
    if pd.notna(row["lo"]):
        top, bottom = panel.py(row["hi"]), panel.py(row["lo"])
        svg.add("rect", x=left, y=top, width=width, height=max(1.0, bottom - top), fill=color, fill_opacity=0.14)
    y = panel.py(row["value"])
    svg.line((left, y), (left + width, y), stroke=color, stroke_width=1.6, stroke_dasharray="4 2")


def _draw_arm(svg: Svg, panel: Panel, rows: pd.DataFrame, look: tuple[ArmStyle, float]) -> None:
    style, shift = look
    points = [(panel.px(int(n)) + shift, panel.py(v)) for n, v in zip(rows["n_labels"], rows["value"], strict=True)]
    path = "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points)
    svg.add("path", d=path, fill="none", stroke=style.color, stroke_width=2, stroke_dasharray=style.dash or None)
    for (x, y), lo, hi in zip(points, rows["lo"], rows["hi"], strict=True):
        if pd.notna(lo):
            svg.line((x, panel.py(lo)), (x, panel.py(hi)), stroke=style.color, stroke_width=1.4)
        draw_marker(svg, x, y, style)


def _alt(title: str, metric: str, rows: pd.DataFrame) -> str:
    parts = [
        f"{arm} " + ", ".join(f"{v:.2f} at {int(n):,}" for n, v in zip(part["n_labels"], part["value"], strict=True))
        for arm, part in rows.sort_values("n_labels").groupby("arm", sort=False)
    ]
    return f"{title}: {metric} against the number of labelled subjects. " + "; ".join(parts) + "."
