"""A 12-lead ECG on paper: 25 mm/s and 10 mm/mV, on a millimeter grid that is exact.

The coordinate system of the drawing is millimeters, so 1 s is 25 units and 1 mV is 10 units whatever the size on the
screen; printed at its natural size the paper is true to scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecgcmr.drawing.svg import UNIQUE, Svg, polyline
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.report.page import Figure

MM_PER_S, MM_PER_MV = 25.0, 10.0
COLUMNS = (("I", "II", "III"), ("aVR", "aVL", "aVF"), ("V1", "V2", "V3"), ("V4", "V5", "V6"))
Layout = Literal["3x4", "12x1"]
_PAPER, _FINE, _BOLD, _TRACE = "#fffafa", "#f6d5d5", "#e9a9a9", "#16181d"
_MARGIN, _PULSE, _HEAD = 5.0, 10.0, 8.0
RAISES, LOWERS = "#e8722a", "#2f7fd0"
LEVELS = 8  # shades of each color


@dataclass(frozen=True)
class Shade:
    """Colors behind the traces.

    Attributes:
        values: Between -1 (blue, lowers) and 1 (orange, raises), one row for each lead (L, N).
        leads: Leads of the rows.
        rate_hz: Values for each second.
        start_s: Time of the first value in what is drawn [s].
    """

    values: NDArray[np.float64]
    leads: tuple[str, ...]
    rate_hz: float
    start_s: float = 0.0


def ecg_paper(
    recording: EcgRecording,
    layout: Layout = "3x4",
    title: str = "",
    seconds: float = 10.0,
    shade: Shade | None = None,
) -> Figure:
    """Draw a recording in paper style.

    Args:
        recording: Twelve leads by name, in mV. A recording in standard deviations (`unit="z"`) is drawn at 5 mm an
            SD, without a calibration pulse, and says so.
        layout: `3x4` (four columns of a quarter of the time each, and lead II below as rhythm strip) or `12x1`.
        title: Title of the figure.
        seconds: Length that is drawn, from the start; shorter recordings are drawn whole.
        shade: Colors behind the traces, on the paper.

    Raises:
        ValueError: Naming the leads that are missing.
    """
    wanted = [lead for column in COLUMNS for lead in column]
    missing = [lead for lead in wanted if lead not in recording.leads]
    if missing:
        raise ValueError(f"an ECG paper needs twelve leads; missing: {', '.join(missing)}")
    n = min(recording.n_samples, round(seconds * recording.rate_hz))
    leads = {lead: recording.samples[recording.leads.index(lead), :n].astype(np.float64) for lead in wanted}
    duration = n / recording.rate_hz
    rows = 4 if layout == "3x4" else 12
    pitch = 26.0 if layout == "3x4" else 16.0
    # With twelve rows the names stand left of the pulses, because tall complexes of neighbors would run through them.
    names_left = 0.0 if layout == "3x4" else 8.0
    width = _round_up(2 * _MARGIN + names_left + _PULSE + duration * MM_PER_S)
    height = _round_up(_HEAD + rows * pitch + 6)
    label = f"12-lead ECG, {duration:.1f} s, on paper of 25 mm/s and 10 mm/mV, layout {layout}."
    svg = Svg(width, height, label, unit="mm")
    _grid(svg)
    gain = MM_PER_MV if recording.unit == "mV" else 5.0
    centers = [_HEAD + pitch * (row + 0.5) for row in range(rows)]
    if recording.unit == "mV":
        for y in centers:
            _calibration_pulse(svg, _MARGIN + names_left, y + 2)
    x0 = _MARGIN + names_left + _PULSE
    names: list[tuple[float, float, str]] = []
    placed = _placed(layout, n)
    for lead, row, (start, stop) in placed if shade is not None else ():
        assert shade is not None, "there is nothing to loop over without"
        span = (start / recording.rate_hz, stop / recording.rate_hz)
        _shade(svg, shade, lead, span, (x0, centers[row] + 2 - pitch / 2, pitch))
    for lead, row, (start, stop) in placed:
        x = x0 + np.arange(start, stop) / recording.rate_hz * MM_PER_S
        _trace(svg, x, centers[row] + 2 - gain * leads[lead][start:stop])
        at = x0 + start / recording.rate_hz * MM_PER_S
        name_at = (at + 1.2, centers[row] - pitch * 0.28) if layout == "3x4" else (_MARGIN - 1, centers[row] + 2)
        names.append((*name_at, lead))
        if start:
            for shift in (-1.5, 0.5):
                svg.line((at, centers[row] + shift), (at, centers[row] + shift + 2), stroke=_TRACE, stroke_width=0.25)
    # Names last and with a rim of paper, so that no complex runs through them.
    rim = {"stroke": _PAPER, "stroke_width": 1.2, "paint_order": "stroke", "stroke_linejoin": "round"}
    for x_name, y_name, lead in names:
        svg.text(x_name, y_name, lead, font_size=3.6, font_weight=600, fill=_TRACE, **rim)
    scale = "25 mm/s   10 mm/mV" if recording.unit == "mV" else "25 mm/s   5 mm per standard deviation (voltage lost)"
    svg.text(_MARGIN, height - 2.4, scale, font_size=3.2, fill=_TRACE)
    caption = (
        "Large squares: 0.2 s and 0.5 mV." if recording.unit == "mV" else "The source was standardized: no voltage."
    )
    return Figure(str(svg), label, caption, "wide", title)


def _placed(layout: Layout, n: int) -> list[tuple[str, int, tuple[int, int]]]:
    """(lead, row, (first, last sample)) of every trace."""
    if layout == "12x1":
        order = [lead for column in COLUMNS for lead in column]
        return [(lead, row, (0, n)) for row, lead in enumerate(order)]
    edges = [round(i * n / 4) for i in range(5)]
    placed = [
        (lead, row, (edges[i], edges[i + 1])) for i, column in enumerate(COLUMNS) for row, lead in enumerate(column)
    ]
    return [*placed, ("II", 3, (0, n))]


def _shade(svg: Svg, shade: Shade, lead: str, span: tuple[float, float], band: tuple[float, float, float]) -> None:
    """Color the band (left, top, height) [mm] of a trace that shows `span` [s]; equal neighbors are one rectangle."""
    left, top, height = band
    levels = np.round(np.clip(shade.values[shade.leads.index(lead)], -1, 1) * LEVELS).astype(int)
    edges = np.flatnonzero(np.diff(levels)) + 1
    for first, last in zip([0, *edges], [*edges, len(levels)], strict=True):
        begin = max(span[0], shade.start_s + first / shade.rate_hz)
        end = min(span[1], shade.start_s + last / shade.rate_hz)
        if levels[first] and end > begin:
            svg.add(
                "rect", x=left + begin * MM_PER_S, y=top, width=(end - begin) * MM_PER_S, height=height,
                fill=RAISES if levels[first] > 0 else LOWERS, fill_opacity=0.75 * abs(int(levels[first])) / LEVELS,
            )  # fmt: skip


def _grid(svg: Svg) -> None:
    """Lines each millimeter, stronger each 5 mm, as repeating tiles that start at the origin."""
    svg.raw(
        f'<defs><pattern id="{UNIQUE}mm" width="1" height="1" patternUnits="userSpaceOnUse">'
        f'<path d="M1 0H0V1" fill="none" stroke="{_FINE}" stroke-width="0.12"/></pattern>'
        f'<pattern id="{UNIQUE}cm" width="5" height="5" patternUnits="userSpaceOnUse">'
        f'<path d="M5 0H0V5" fill="none" stroke="{_BOLD}" stroke-width="0.3"/></pattern></defs>'
    )
    for fill in (_PAPER, f"url(#{UNIQUE}mm)", f"url(#{UNIQUE}cm)"):
        svg.add("rect", x=0, y=0, width=svg.width, height=svg.height, fill=fill)


def _calibration_pulse(svg: Svg, x: float, y: float) -> None:
    """1 mV for 0.2 s: 10 mm high, 5 mm wide."""
    d = f"M{x} {y}h1.5v-{MM_PER_MV:g}h{0.2 * MM_PER_S:g}v{MM_PER_MV:g}h1.5"
    svg.add("path", d=d, fill="none", stroke=_TRACE, stroke_width=0.3)


def _trace(svg: Svg, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    svg.add("path", d=polyline(x, y), fill="none", stroke=_TRACE, stroke_width=0.32, stroke_linejoin="round")


def _round_up(value: float, step: float = 5.0) -> float:
    return float(np.ceil(value / step - 1e-9) * step)
