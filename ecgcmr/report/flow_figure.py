"""The cohort flow: who was there, who was left out and why, who was evaluated."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from ecgcmr.drawing.svg import GRID, INK, MUTED, Svg
from ecgcmr.report.page import Figure
from ecgcmr.report.palette import SHADE

WIDTH = 400.0
MOST_TARGETS = 8
_BOX, _LINE, _PAD, _GAP = 204.0, 15.0, 9.0, 16.0


def flow_figure(flow: Sequence[Mapping[str, Any]], title: str = "") -> Figure:
    """Draw the stages that `evaluation.flow.cohort_flow` counted: a column of boxes, with the losses at the right.

    Args:
        flow: Stages with `stage`, `n`, `of` and `lost`; the last one with `parts`.
        title: Title.

    Raises:
        ValueError: When there is no stage.
    """
    if not flow:
        raise ValueError("a flow needs at least one stage")
    svg = Svg(WIDTH, 10, _told(flow))
    y = 2.0
    for k, stage in enumerate(flow):
        lines = [f"{stage['n']:,} {stage['of']}", *textwrap.wrap(str(stage["stage"]), 30)]
        y = _box(svg, (2.0, y, _BOX), lines, stage["lost"], last=k == len(flow) - 1)
    parts = flow[-1].get("parts") or {}
    if parts:
        y = _parts(svg, y, parts)
        y = _labels(svg, y, flow[-1].get("targets") or {})
    svg.height = y + 4
    lost = any(stage["lost"] for stage in flow)
    caption = "Losses stand at the right, with the reason." if lost else "Nobody was left out on the way."
    return Figure(str(svg), svg.label, caption, "half", title)


def _box(
    svg: Svg, place: tuple[float, float, float], lines: Sequence[str], lost: Sequence[Mapping[str, Any]], last: bool
) -> float:
    """A box with the losses after it; returns where the next one begins."""
    x, y, width = place
    height = _LINE * len(lines) + 2 * _PAD
    svg.add("rect", x=x, y=y, width=width, height=height, rx=6, fill=SHADE, stroke=GRID)
    for k, line in enumerate(lines):
        bold = {"font_weight": 600, "font_size": 13} if k == 0 else {"font_size": 12, "fill": MUTED}
        svg.text(x + 12, y + _PAD + 11.5 + _LINE * k, line, **bold)
    words = [line for one in lost for line in _loss_lines(one)]
    below = max(_GAP, len(words) * 13.0 + 10) if words else _GAP
    middle, bottom = x + width / 2, y + height
    if words:
        at = bottom + 5
        svg.line((middle, at + 6), (x + width + 14, at + 6), stroke=MUTED)
        for k, line in enumerate(words):
            svg.text(x + width + 19, at + 10 + 13 * k, line, font_size=11.5, fill=INK if line[0].isdigit() else MUTED)
    if not last:
        svg.line((middle, bottom), (middle, bottom + below - 5), stroke=MUTED)
        svg.add("polygon", points=f"{middle - 4},{bottom + below - 6} {middle + 4},{bottom + below - 6} "
                f"{middle},{bottom + below}", fill=MUTED)  # fmt: skip
    return bottom + below


def _loss_lines(one: Mapping[str, Any]) -> list[str]:
    lines = textwrap.wrap(f"{one['n']:,} {one['why']}", 29) or [f"{one['n']:,}"]
    return lines if len(lines) <= 3 else [*lines[:2], lines[2][:27] + "…"]


def _parts(svg: Svg, y: float, parts: Mapping[str, int]) -> float:
    names = {"train": "training", "val": "validation", "test": "test"}
    width = (WIDTH - 4 - 2 * 10) / 3
    for k, (part, n) in enumerate(parts.items()):
        x = 2 + k * (width + 10)
        own = part == "test"
        svg.add("rect", x=x, y=y, width=width, height=44, rx=6, fill=SHADE, stroke="#0a5ea8" if own else GRID,
                stroke_width=2 if own else 1)  # fmt: skip
        svg.text(x + width / 2, y + 19, f"{n:,}", font_size=13, font_weight=600, text_anchor="middle")
        svg.text(x + width / 2, y + 35, names.get(part, part), font_size=12, fill=MUTED, text_anchor="middle")
    return y + 44


def _labels(svg: Svg, y: float, targets: Mapping[str, int]) -> float:
    """Under the test box: who has an observed label, and so is evaluated, for each target."""
    if not targets:
        return y
    words = [f"{name}: {n:,}" for name, n in targets.items()]
    if len(words) > MOST_TARGETS:
        words = [f"{len(words)} targets:", f"{min(targets.values()):,} to {max(targets.values()):,}"]
    width = (WIDTH - 4 - 2 * 10) / 3
    x = 2 + 2 * (width + 10)
    svg.line((x + width / 2, y), (x + width / 2, y + 11), stroke=MUTED)
    svg.add("polygon", points=f"{x + width / 2 - 4},{y + 10} {x + width / 2 + 4},{y + 10} {x + width / 2},{y + 16}",
            fill=MUTED)  # fmt: skip
    svg.add("rect", x=x, y=y + 16, width=width, height=_LINE * (len(words) + 1) + 2 * _PAD, rx=6, fill=SHADE,
            stroke="#0a5ea8", stroke_width=2)  # fmt: skip
    svg.text(x + 10, y + 16 + _PAD + 11.5, "with a label", font_size=12, fill=MUTED)
    for k, line in enumerate(words):
        text = line if len(line) <= 21 else line[:20] + "…"
        svg.text(x + 10, y + 16 + _PAD + 11.5 + _LINE * (k + 1), text, font_size=12, font_weight=600)
    return y + 16 + _LINE * (len(words) + 1) + 2 * _PAD


def _told(flow: Sequence[Mapping[str, Any]]) -> str:
    words = []
    for stage in flow:
        lost = ", ".join(f"{one['n']:,} {one['why']}" for one in stage["lost"])
        words.append(f"{stage['stage']}: {stage['n']:,} {stage['of']}" + (f" (lost: {lost})" if lost else ""))
    parts = ", ".join(f"{part} {n:,}" for part, n in (flow[-1].get("parts") or {}).items())
    observed = flow[-1].get("targets") or {}
    if observed:
        parts += "; test subjects with a label: " + ", ".join(
            f"{name} {n:,}" for name, n in list(observed.items())[:10]
        )
    return "Flow of the cohort. " + "; ".join(words) + (f"; of these {parts}" if parts else "") + "."
