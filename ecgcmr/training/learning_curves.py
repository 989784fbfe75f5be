"""learning_curves.svg: what metrics.jsonl holds, as small panels; drawn whenever a run ends, for whatever reason."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgcmr.drawing.axes import Panel, padded, round_ticks
from ecgcmr.drawing.svg import INK, MUTED, Svg, polyline
from ecgcmr.hub.folder import write_text

log = logging.getLogger(__name__)

FILE = "learning_curves.svg"
MAX_PANELS = 24
MAX_POINTS = 400

_COLUMNS = 3
_WIDTH, _HEIGHT, _TOP = 320.0, 200.0, 34.0
_BOX = (58.0, 30.0, _WIDTH - 74.0, _HEIGHT - 74.0)
_STYLES = {"train": ("#6b7280", "3 3"), "val": ("#0a5ea8", None)}
_NOT_DRAWN = frozenset({"event", "epoch", "step", "skipped"})

Series = dict[str, list[tuple[float, float]]]


def draw_learning_curves(folder: Path) -> Path | None:
    """Draw the metrics of a run into its folder.

    A figure is no reason to lose a run: whatever is wrong is logged and nothing is raised.

    Args:
        folder: The run folder.

    Returns:
        The figure, or None if there was nothing to draw or it could not be written.
    """
    try:
        curves = read_curves(folder / "metrics.jsonl")
        if not curves:
            return None
        write_text(folder / FILE, str(curves_figure(curves, folder.name)))
    except (OSError, ValueError) as error:
        log.warning("%s was not drawn: %s", folder / FILE, error)
        return None
    return folder / FILE


def read_curves(path: Path) -> dict[str, Series]:
    """Read value over step for each key and event; a row that was cut off by a kill is passed over.

    Returns:
        Key, for instance "loss", to event ("train", "val") to points (step, value) with finite values, `loss` first.
    """
    if not path.is_file():
        return {}
    curves: dict[str, Series] = {}
    for line in path.read_bytes().splitlines():
        row = _row(line)
        step, event = row.get("step"), row.get("event")
        if not _is_number(step) or event not in _STYLES:
            continue
        for key, value in row.items():
            if key not in _NOT_DRAWN and _is_number(value):
                curves.setdefault(key, {}).setdefault(str(event), []).append((float(str(step)), float(str(value))))
    return dict(sorted(curves.items(), key=lambda item: (item[0] != "loss", "val" not in item[1], item[0])))


def curves_figure(curves: dict[str, Series], title: str) -> Svg:
    """Draw one panel for each key, training dashed and validation full; further ones than `MAX_PANELS` are named.

    Args:
        curves: As `read_curves` gives them, at least one.
        title: Stands above the panels.
    """
    shown = list(curves.items())[:MAX_PANELS]
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    told = "; ".join(f"{key} {_last(series)}" for key, series in shown)
    svg = Svg(max(columns * _WIDTH, 2 * _WIDTH), _TOP + rows * _HEIGHT, f"Learning curves of {title}: {told}.")
    svg.text(10, 22, title, font_size=14)
    _legend(svg, [event for event in _STYLES if any(event in series for _, series in shown)])
    if len(curves) > len(shown):
        rest = ", ".join(list(curves)[len(shown) :])
        svg.text(svg.width - 10, 22, f"not drawn: {rest}", text_anchor="end", font_size=10, fill=MUTED)
    for number, (key, series) in enumerate(shown):
        row, column = divmod(number, columns)
        svg.raw(f'<g transform="translate({column * _WIDTH:.0f} {_TOP + row * _HEIGHT:.0f})">')
        _panel(svg, key, series)
        svg.raw("</g>")
    return svg


def _panel(svg: Svg, key: str, series: Series) -> None:
    points = [point for found in series.values() for point in found]
    panel = Panel(_BOX, padded([x for x, _ in points], 0.01), padded([y for _, y in points]))
    panel.draw_y(svg, round_ticks(*panel.y, count=4))
    panel.draw_x(svg, round_ticks(*panel.x, count=4), title="step")
    svg.text(_BOX[0], 16, key, font_size=12.5, fill=INK)
    for event, found in series.items():
        color, dash = _STYLES[event]
        x, y = _thin(found)
        px, py = np.array([panel.px(v) for v in x]), np.array([panel.py(v) for v in y])
        svg.add("path", d=polyline(px, py), fill="none", stroke=color, stroke_width=1.8, stroke_dasharray=dash)
        if len(px) == 1:
            svg.add("circle", cx=px[0], cy=py[0], r=2.5, fill=color)


def _legend(svg: Svg, events: Sequence[str]) -> None:
    x = 1.2 * _WIDTH
    for event in events:
        color, dash = _STYLES[event]
        svg.line((x, 18), (x + 22, 18), stroke=color, stroke_width=2, stroke_dasharray=dash)
        svg.text(x + 28, 22, {"train": "training", "val": "validation"}[event], font_size=11.5)
        x += 110


def _thin(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Means of neighbors where there are more points than can be seen."""
    table = np.asarray(points)
    if len(table) > MAX_POINTS:
        table = np.array([part.mean(axis=0) for part in np.array_split(table, MAX_POINTS)])
    return table[:, 0].tolist(), table[:, 1].tolist()


def _last(series: Series) -> str:
    event = "val" if "val" in series else next(iter(series))
    return f"ends at {series[event][-1][1]:.4g}"


def _row(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
