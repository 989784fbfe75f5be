"""Outcomes with follow-up in figures: Kaplan-Meier by predicted stratum, and calibration at a horizon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.evaluation.kaplan_meier import Strata
from ecgcmr.evaluation.moments import equal_mass_bins
from ecgcmr.evaluation.survival import Survival
from ecgcmr.evaluation.survival_kernels import order_by_time, survival_at
from ecgcmr.report.axes import Panel, padded, round_ticks
from ecgcmr.report.page import Figure
from ecgcmr.report.palette import ArmStyle, draw_marker
from ecgcmr.report.svg import INK, MUTED, Svg, polyline

Array = NDArray[np.float64]

WIDTH, HEIGHT = 360.0, 330.0
_BOX = (52.0, 26.0, WIDTH - 68, 190.0)
_COLORS = (("#00795a", ""), ("#c77700", "6 3"), ("#b8430b", "2 3"), ("#0a5ea8", "9 3 2 3"))
_NAMES = {2: ("lower half", "upper half"), 3: ("lowest third", "middle third", "highest third")}


def kaplan_meier_figure(strata: Strata, title: str, unit: str) -> Figure:
    """Share with the event over time in each predicted stratum, with intervals and numbers at risk.

    Args:
        strata: From `predicted_strata`.
        title: Title.
        unit: Unit of the follow-up time.
    """
    curves = strata.curves
    risk = curves.assign(value=1 - curves["survival"], low=1 - curves["hi"], high=1 - curves["lo"])
    parts = {int(number): risk[risk["stratum"] == number] for number in np.unique(risk["stratum"])}
    names = _NAMES.get(max(parts), tuple(f"stratum {k + 1}" for k in range(max(parts))))
    top = float(np.nanmax(risk[["value", "high"]].to_numpy()))
    panel = Panel(_BOX, (0.0, float(curves["time"].max())), (0.0, max(top * 1.06, 0.01)))
    ends = {number: _last(part) for number, part in parts.items()}
    told = "; ".join(f"{names[number - 1]} {end:.1%}" for number, end in ends.items() if np.isfinite(end))
    test = f"log-rank p {_p(strata.test.p)}"
    svg = Svg(WIDTH, HEIGHT, f"Cumulative incidence of {title} by predicted risk; at the end: {told}; {test}.")
    panel.draw_y(svg, round_ticks(*panel.y, count=4), "share with the event (Kaplan-Meier)")
    marks = round_ticks(*panel.x, count=5)
    panel.draw_x(svg, marks, title=f"time [{unit}]" if unit else "time")
    for number, part in parts.items():
        _incidence(svg, panel, part, _COLORS[(number - 1) % len(_COLORS)])
    svg.height = _at_risk(svg, panel, parts, marks) + 8
    lines = ", ".join(f"{names[number - 1]} {_words(number)}" for number in parts)
    caption = f"{lines}. Cut at the scores of {_part(strata.cut_on)} subjects; {test}."
    return Figure(str(svg), svg.label, caption[0].upper() + caption[1:], title=title)


def _incidence(svg: Svg, panel: Panel, part: pd.DataFrame, look: tuple[str, str]) -> None:
    """The steps of one stratum, from 0 at time 0, with its interval."""
    columns = [np.concatenate([[0.0], part[name].to_numpy(np.float64)]) for name in ("time", "value", "low", "high")]
    t, value, low, high = _stairs(*columns)
    color, dash = look
    _band(svg, panel, (t, low, high), color)
    x, y = np.array([panel.px(v) for v in t]), np.array([panel.py(v) if np.isfinite(v) else np.nan for v in value])
    svg.add("path", d=polyline(x, y), fill="none", stroke=color, stroke_width=2, stroke_dasharray=dash or None)


def _at_risk(svg: Svg, panel: Panel, parts: Mapping[int, pd.DataFrame], marks: Sequence[float]) -> float:
    """Numbers at risk under the ticks, a row for each stratum; returns where the last one stands."""
    y = _BOX[1] + _BOX[3] + 52
    svg.text(0, y, "At risk", font_size=11.5, fill=MUTED)
    for number, part in parts.items():
        y += 17
        color, dash = _COLORS[(number - 1) % len(_COLORS)]
        svg.line((0, y - 4), (16, y - 4), stroke=color, stroke_width=2.5, stroke_dasharray=dash or None)
        times = np.concatenate([[0.0], part["time"].to_numpy(np.float64)])
        left = [int(part["n_subjects"].iloc[0]), *(int(n) for n in part["at_risk"])]
        for mark in marks:
            n = left[max(0, int(np.searchsorted(times, mark + 1e-9, side="right")) - 1)]
            svg.text(panel.px(mark), y, str(n), font_size=11, text_anchor="middle", fill=INK)
    return y


def horizon_calibration_figure(
    data: Mapping[str, Survival], horizon: float, styles: Mapping[str, ArmStyle], title: str, n_bins: int = 5
) -> Figure:
    """Observed (Kaplan-Meier) against predicted risk by a horizon, in bins of equal size.

    Args:
        data: Arm -> follow-up with probabilities.
        horizon: Time; must be among the horizons of all arms.
        styles: Arm -> style.
        title: Title.
        n_bins: Number of bins.
    """
    points = {arm: _observed(one, horizon, n_bins) for arm, one in data.items()}
    ends = [float(v) for pair in points.values() for column in pair for v in column if np.isfinite(v)]
    low, high = padded([0.0, *ends])
    limits = (min(0.0, low), max(high, 0.01))
    box = (52.0, 26.0, WIDTH - 68, 206.0)
    panel = Panel(box, limits, limits)
    svg = Svg(
        WIDTH, 286, f"Calibration of {title} at {horizon:g}: observed against predicted risk of {', '.join(data)}."
    )
    ticks = round_ticks(*limits, count=4)
    panel.draw_y(svg, ticks, f"observed by {horizon:g} (Kaplan-Meier)")
    panel.draw_x(svg, ticks, title=f"predicted risk by {horizon:g}")
    corners = ((panel.px(limits[0]), panel.py(limits[0])), (panel.px(limits[1]), panel.py(limits[1])))
    svg.line(*corners, stroke=MUTED, stroke_width=1.2, stroke_dasharray="3 3")
    for arm, (x, y) in points.items():
        px, py = np.array([panel.px(v) for v in x]), np.array([panel.py(v) if np.isfinite(v) else np.nan for v in y])
        style = styles[arm]
        svg.add("path", d=polyline(px, py), fill="none", stroke=style.color, stroke_width=2,
                stroke_dasharray=style.dash or None)  # fmt: skip
        for a, b in zip(px, py, strict=True):
            if np.isfinite(b):
                draw_marker(svg, a, b, style, 3.5)
    return Figure(str(svg), svg.label, title=title)


def _observed(data: Survival, horizon: float, n_bins: int) -> tuple[Array, Array]:
    """Mean predicted and observed risk of each bin."""
    if data.risks is None or horizon not in data.horizons:
        raise ValueError(f"no probability by {horizon:g}; there are those by {data.horizons}")
    risk = data.risks[:, data.horizons.index(horizon)]
    code = equal_mass_bins(risk, n_bins)
    grid = np.array([horizon])
    predicted, observed = [], []
    for k in np.unique(code):
        inside = np.flatnonzero(code == k)
        ordered = order_by_time(data.time[inside], data.event[inside], np.arange(len(inside)))
        curve, _ = survival_at(ordered.rows, ordered.time, ordered.event, np.ones((1, len(inside)), np.uint16), grid)
        predicted.append(risk[inside].mean())
        observed.append(1 - curve[0, 0])
    return np.array(predicted), np.array(observed)


def _stairs(t: Array, *columns: Array) -> tuple[Array, ...]:
    """Times and values of step functions: a value holds until the next time."""
    return np.repeat(t, 2)[1:], *(np.repeat(column, 2)[:-1] for column in columns)


def _band(svg: Svg, panel: Panel, lines: tuple[Array, Array, Array], color: str) -> None:
    t, low, high = lines
    good = np.isfinite(low) & np.isfinite(high)
    if good.sum() < 2:
        return
    forth = [(panel.px(a), panel.py(b)) for a, b in zip(t[good], high[good], strict=True)]
    back = [(panel.px(a), panel.py(b)) for a, b in zip(t[good][::-1], low[good][::-1], strict=True)]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*forth, *back])
    svg.add("polygon", points=points, fill=color, fill_opacity=0.14)


def _last(part: pd.DataFrame) -> float:
    known = part["value"].dropna()
    return float(known.iloc[-1]) if len(known) else float("nan")


def _words(stratum: int) -> str:
    return ("(green, full line)", "(amber, dashed)", "(red, dotted)", "(blue, dash-dotted)")[(stratum - 1) % 4]


def _part(name: str) -> str:
    return {"val": "validation", "train": "training"}.get(name, name)


def _p(value: float) -> str:
    if not np.isfinite(value):
        return "not defined"
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
