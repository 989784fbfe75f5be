"""Retrieval in pictures: an ECG and the studies that the model finds for it; ranks against chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgcmr.drawing.axes import Panel, round_ticks
from ecgcmr.drawing.svg import GRID, INK, MUTED, Svg, polyline, to_gray
from ecgcmr.report.page import Figure
from ecgcmr.report.palette import GOOD, ArmStyle

WIDTH, HEIGHT = 360.0, 270.0
NOTE_LINE = 14.0  # height of a line below a match
_BLUE = "#0a5ea8"


@dataclass(frozen=True)
class Example:
    """One query.

    Attributes:
        ecg: Lead of the query to draw (T,).
        rate_hz: Its sampling rate [Hz].
        frames: Frames of the best matches, best first, each (H, W).
        true_place: Place of the subject's own study among them (0 is best), or None when it is not among them.
        rank: Rank of the own study in the whole gallery, 1 is best.
        gallery: Size of the gallery.
        true_frame: Frame of the own study, drawn at the end when it is not among the matches.
        notes: Some short lines for each match, such as its LVEDV.
    """

    ecg: ArrayLike
    rate_hz: float
    frames: Sequence[NDArray[np.generic]]
    true_place: int | None
    rank: int
    gallery: int
    true_frame: NDArray[np.generic] | None = None
    notes: Sequence[Sequence[str]] = ()


def retrieval_example(example: Example, lead: str = "II", title: str = "") -> Figure:
    """Draw the query ECG and below it the frames of the best matches; the subject's own study is framed and named."""
    frames = [np.asarray(frame, dtype=np.float64) for frame in example.frames]
    if not frames:
        raise ValueError("a retrieval example needs at least one match")
    extra = example.true_place is None and example.true_frame is not None
    if extra:
        frames = [*frames, np.asarray(example.true_frame, dtype=np.float64)]
    width, gap = 400.0, 7.0
    side = (width - gap * (len(frames) - 1)) / max(len(frames), 5)
    where = (
        f"at place {example.true_place + 1}"
        if example.true_place is not None
        else f"not among the first {len(example.frames)}"
    )
    label = (
        f"Query ECG (lead {lead}) and the {len(example.frames)} most similar of {example.gallery} cardiac MRI studies; "
        f"the subject's own study is {where} (rank {example.rank})."
    )
    n_lines = max((len(lines) for lines in example.notes), default=0)
    svg = Svg(width, 96 + side + 24 + NOTE_LINE * n_lines, label)
    _query(svg, np.asarray(example.ecg, dtype=np.float64), example.rate_hz, lead)
    # Each study has its own gray scale: scanners have no common unit.
    for i, frame in enumerate(frames):
        x, y = i * (side + gap), 96.0
        svg.image(to_gray(frame), (x, y, side, side))
        own = i == example.true_place or (extra and i == len(frames) - 1)
        if own:
            svg.add(
                "rect", x=x + 1.5, y=y + 1.5, width=side - 3, height=side - 3, fill="none", stroke=GOOD, stroke_width=4
            )
            svg.add("rect", x=x, y=y + side - 17, width=side, height=17, fill=GOOD)
            svg.text(x + side / 2, y + side - 5, "own study", font_size=11.5, fill="#fff", text_anchor="middle")
        place = f"{example.rank}." if extra and i == len(frames) - 1 else f"{i + 1}."
        svg.text(x, y + side + 17, place, font_size=12.5, fill=GOOD if own else INK, font_weight=600 if own else None)
        for row, line in enumerate(example.notes[i] if i < len(example.notes) else ()):
            svg.text(x, y + side + 32 + NOTE_LINE * row, line, font_size=11, fill=MUTED)
    caption = f"Own study at rank {example.rank} of {example.gallery}; framed in green."
    return Figure(str(svg), label, caption, "half", title)


def _query(svg: Svg, ecg: NDArray[np.float64], rate_hz: float, lead: str) -> None:
    n = min(len(ecg), round(5 * rate_hz))
    low, high = np.nanpercentile(ecg[:n], [0.1, 99.9])
    x = 28 + np.arange(n) / n * (svg.width - 28)
    y = 8 + 72 * (1 - np.clip((ecg[:n] - low) / max(high - low, 1e-9), -0.05, 1.05))
    svg.add("path", d=polyline(x, y), fill="none", stroke=INK, stroke_width=1.4)
    svg.text(0, 48, lead, font_size=12.5, font_weight=600)


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
