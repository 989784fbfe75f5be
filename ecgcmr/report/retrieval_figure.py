"""Retrieval in pictures: ranks against chance. The hearts themselves are in `playing_cines`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from ecgcmr.drawing.axes import Panel, round_ticks
from ecgcmr.drawing.svg import GRID, INK, MUTED, Svg
from ecgcmr.report.page import Figure
from ecgcmr.report.palette import ArmStyle

WIDTH, HEIGHT = 360.0, 270.0
_BLUE = "#0a5ea8"


def rank_histogram(ranks: ArrayLike, gallery: int, title: str = "", bins: int = 20) -> Figure:
    """Histogram of the rank of the own study, with the flat line of a random order.

    Args:
        ranks: Rank of each query (N,), 1 is best.
        gallery: Size of the gallery.
        title: Title, for instance "ECG → CMR".
        bins: Number of bars.
    """
    values = np.asarray(ranks, dtype=np.float64)
    bins = min(bins, gallery)
    edges = np.linspace(0.5, gallery + 0.5, bins + 1)
    share = np.histogram(values, edges)[0] / len(values)
    median = float(np.median(values))
    panel = Panel((52, 26, WIDTH - 64, HEIGHT - 72), (0.5, gallery + 0.5), (0.0, max(share.max(), 2 / bins) * 1.08))
    label = (
        f"{title or 'Retrieval'}: rank of the subject's own study among {gallery}; median {median:.0f}, "
        f"by chance {(gallery + 1) / 2:.0f}; {share[0]:.0%} within the best {edges[1] - 0.5:.0f}, "
        f"by chance {1 / bins:.0%}."
    )
    svg = Svg(WIDTH, HEIGHT, label)
    ticks = round_ticks(*panel.y, count=4)
    for tick in ticks:
        y = panel.py(tick)
        svg.line((panel.box[0], y), (panel.box[0] + panel.box[2], y), stroke=GRID)
        svg.text(panel.box[0] - 6, y + 4, f"{tick:.0%}", text_anchor="end", font_size=11.5, fill=MUTED)
    svg.text(panel.box[0], 18, "share of queries", font_size=11.5, fill=MUTED)
    for a, b, value in zip(edges, edges[1:], share, strict=False):
        x, top = panel.px(a), panel.py(float(value))
        bottom = panel.box[1] + panel.box[3]
        svg.add(
            "rect", x=x + 0.6, y=top, width=panel.px(b) - x - 1.2, height=bottom - top, fill=_BLUE, fill_opacity=0.85
        )
    chance = panel.py(1 / bins)
    right = panel.box[0] + panel.box[2]
    svg.line((panel.box[0], chance), (right, chance), stroke="#b8430b", stroke_width=1.6, stroke_dasharray="5 3")
    svg.text(right, chance - 6, "chance", text_anchor="end", font_size=11.5, fill="#b8430b")
    marks = sorted(
        {1, gallery, *(t for t in (int(t) for t in round_ticks(1, gallery)) if gallery * 0.1 < t < gallery * 0.92)}
    )
    panel.draw_x(svg, marks, title=f"rank of the own study among {gallery}")
    return Figure(str(svg), label, f"Median rank {round(median, 1):g} (chance {(gallery + 1) / 2:g}).", title=title)


def recall_bars(
    recalls: Mapping[str, tuple[float, float, float]], chance: float, styles: Mapping[str, ArmStyle], title: str
) -> Figure:
    """Recall of several arms with intervals, and chance.

    Args:
        recalls: Arm -> (value, lo, hi).
        chance: Recall of a random order.
        styles: Arm -> style.
        title: Title, for instance "ECG → CMR, R@10 among 200".
    """
    top = max([chance, *(v for row in recalls.values() for v in row if np.isfinite(v))]) * 1.1
    row, left = 40.0, 14.0
    panel = Panel((left, 8, WIDTH - left - 52, row * len(recalls)), (0.0, top), (0.0, 1.0))
    told = "; ".join(f"{arm} {v:.0%} ({lo:.0%} to {hi:.0%})" for arm, (v, lo, hi) in recalls.items())
    svg = Svg(WIDTH, 8 + row * len(recalls) + 44, f"{title}. {told}; chance {chance:.1%}.")
    for i, (arm, (value, lo, hi)) in enumerate(recalls.items()):
        y = 8 + row * i
        color = styles[arm].color
        svg.text(0, y + 11, arm, font_size=12)
        svg.add("rect", x=left, y=y + 16, width=panel.px(value) - left, height=14, fill=color, fill_opacity=0.85)
        if np.isfinite(lo):
            svg.line((panel.px(lo), y + 23), (panel.px(hi), y + 23), stroke=INK, stroke_width=1.6)
        end = panel.px(hi if np.isfinite(hi) else value)
        svg.text(end + 6, y + 27, f"{value:.0%}", font_size=12, font_weight=600)
        x = panel.px(chance)
        svg.line((x, y + 14), (x, y + 34), stroke="#b8430b", stroke_width=1.8, stroke_dasharray="4 2")
    ticks = round_ticks(0, top, count=4)
    panel.draw_x(svg, ticks, [f"{t:.0%}" for t in ticks], f"recall (dashed: chance, {chance:.1%})")
    return Figure(str(svg), svg.label, title=title)
