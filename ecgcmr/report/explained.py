"""Explanations drawn where they belong: behind the traces of the paper ECG, over the frames of the cine, as bars."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.drawing.axes import Panel, round_ticks
from ecgcmr.drawing.svg import GRID, INK, MUTED, Svg
from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.evaluation.explain.result import CLASS_AGNOSTIC, Explanation
from ecgcmr.evaluation.explain.waves import WAVES
from ecgcmr.report.ecg_paper import LOWERS, RAISES, Layout, Shade, ecg_paper
from ecgcmr.report.page import Figure, Size

BIN_S = 0.04
"""Attributions are summed over a small square of the paper, so that a hundred samples a second can be seen."""
_QUANTILE = 0.99
_HALF_S = 6.0  # what is shorter fits into half of the page's width
_DRAWS = 2000


def explained_paper(
    recording: EcgRecording, explanation: Explanation, layout: Layout = "12x1", title: str = ""
) -> Figure:
    """Draw the window that the model read, with its attributions behind the traces.

    Args:
        recording: The recording, in any order of leads.
        explanation: Of this recording.
        layout: `12x1`, or `3x4`, which shows a quarter of each lead.
        title: Title; says target and method by default.

    Raises:
        ValueError: The explanation is of an image.
    """
    if explanation.modality != "ecg":
        raise ValueError(f"{explanation.method} explains {', '.join(explanation.axes)}, not an ECG")
    rate, values, words = _coarse(explanation)
    length_s = values.shape[1] / rate
    first = round(explanation.start_s * recording.rate_hz)
    last = min(recording.n_samples, first + round(length_s * recording.rate_hz))
    shown = replace(recording, samples=recording.samples[:, first:last])
    scale = scale_of(values)
    shade = Shade(values / scale, explanation.leads, rate)
    figure = ecg_paper(shown, layout, title or heading(explanation), length_s, shade)
    top = max(explanation.leads, key=lambda lead: abs(explanation.by_lead()[lead]))
    piece = "region that is taken away" if explanation.regions else f"{1000 / rate:.0f} ms"
    caption = (
        f"{words} Full color: {scale:.3g} {explanation.unit} for each {piece}. The model read {explanation.start_s:g} "
        f"to {explanation.start_s + length_s:g} s. {told(explanation)} {figure.caption}"
    )
    alt = f"{figure.alt} Behind it {explanation.method} of {explanation.target}; the largest sum is in lead {top}."
    size: Size = "half" if length_s <= _HALF_S and layout == "12x1" else "wide"
    return replace(figure, alt=alt, caption=caption, size=size)


def _coarse(explanation: Explanation) -> tuple[float, NDArray[np.float64], str]:
    """Rate and values of bins of `BIN_S`, and what the colors mean; what is coarser than a bin stays as it is."""
    values, words = painted(explanation)
    n = max(1, round(BIN_S * explanation.rate_hz))
    if explanation.regions or n == 1:
        return explanation.rate_hz, values, words
    padded = np.pad(values, ((0, 0), (0, -values.shape[1] % n)))
    return explanation.rate_hz / n, padded.reshape(len(values), -1, n).sum(axis=2), words


def painted(explanation: Explanation) -> tuple[NDArray[np.float64], str]:
    """Values to color, and what the colors mean; cosines are colored by their distance from their mean."""
    values = explanation.values
    if explanation.unit.startswith("cosine over"):
        mean = float(values.mean())
        return (
            values - mean,
            f"Orange resembles {explanation.target} more than the mean of all parts ({mean:.2g}) does.",
        )
    if (values < 0).any():
        return values, "Orange raises the output, blue lowers it."
    return values, "The stronger the orange, the larger."


def scale_of(values: NDArray[np.float64]) -> float:
    """Value of full color: the 99th percentile of the sizes, so that one sample does not bleach all others."""
    sizes = np.abs(values[values != 0])
    return float(np.quantile(sizes, _QUANTILE)) if sizes.size else 1.0


def heading(explanation: Explanation) -> str:
    """Target and method in a line."""
    if explanation.target == CLASS_AGNOSTIC:
        return f"{explanation.method}, about no target"
    return f"{explanation.target}: {explanation.method}"


def told(explanation: Explanation) -> str:
    """Output and settings in a sentence or two."""
    parts = []
    if np.isfinite(explanation.output):
        unit = explanation.unit if explanation.unit != "relative" else ""
        parts.append(f"Output {explanation.output:.3g} {unit}".strip())
    if np.isfinite(explanation.baseline_output):
        parts.append(f"of the baseline {explanation.baseline_output:.3g}")
    kept = ("baseline", "by", "layer", "delineation_lead", "temperature")
    parts += [
        f"{name.replace('_', ' ')}: {explanation.settings[name]}" for name in kept if name in explanation.settings
    ]
    return re.sub(r"(?<= )-(?=\d)", "−", f"{', '.join(parts)}.") if parts else ""


def explained_frames(explanation: Explanation, names: Sequence[str] = (), title: str = "") -> Figure:
    """Draw the prepared frames, and beside each the map over it.

    Args:
        explanation: Of a cine.
        names: Names of the frames.
        title: Title; says target and method by default.

    Raises:
        ValueError: The explanation is of an ECG.
    """
    frames = explanation.frames
    if explanation.modality != "cmr" or frames is None:
        raise ValueError(f"{explanation.method} explains {', '.join(explanation.axes)}, not an image")
    frames = frames[:: -(-len(frames) // 4)]  # of many frames some four are shown
    values, words = painted(explanation)
    values = _fit(values / scale_of(values), frames.shape[-2:])
    side, gap, text = 150.0, 6.0, 11.5
    label = (
        f"{len(frames)} frame(s) of the cine as the model sees them, and {explanation.method} of {explanation.target} "
        "over them."
    )
    svg = Svg(len(frames) * (side + gap) - gap + 8, 2 * side + 40, label)
    svg.add("rect", x=0, y=0, width=svg.width, height=svg.height, rx=6, fill="#fff")
    for i, frame in enumerate(frames):
        x = 4 + i * (side + gap)
        gray = np.repeat(np.clip(np.round(frame * 255), 0, 255).astype(np.uint8)[..., None], 3, axis=2)
        svg.image(gray, (x, 4, side, side))
        svg.image(_overlay(frame, values), (x, 8 + side, side, side))
        name = names[i] if i < len(names) else f"frame {i + 1}"
        svg.text(x, 2 * side + 24, name, font_size=text)
    caption = f"{words} One map for all frames. {told(explanation)}"
    return Figure(str(svg), label, caption, "half" if len(frames) <= 3 else "wide", title or heading(explanation))


def _fit(values: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Nearest values of a coarser map at each pixel."""
    rows = (np.arange(shape[0]) + 0.5) * values.shape[0] / shape[0]
    columns = (np.arange(shape[1]) + 0.5) * values.shape[1] / shape[1]
    return values[np.ix_(rows.astype(int), columns.astype(int))]


def _overlay(frame: NDArray[np.floating], values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Gray frame (H, W) in [0, 1] under a map (H, W) in [-1, 1], as RGB."""
    strength = np.clip(np.abs(values), 0, 1)[..., None] * 0.7
    color = np.where((values > 0)[..., None], _rgb(RAISES), _rgb(LOWERS))
    gray = np.clip(frame, 0, 1)[..., None] * 255.0 * 0.85
    return np.asarray(np.round(gray * (1 - strength) + color * strength), dtype=np.uint8)


def _rgb(color: str) -> NDArray[np.float64]:
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float64)


def wave_bars(effects: Sequence[pd.DataFrame], unit: str, title: str = "") -> Figure:
    """Mean effect of each wave in each lead over recordings, with 95 % intervals (bootstrap over recordings).

    Args:
        effects: `Explanation.effects()` of occlusion by wave, one for each recording, each of another subject.
        unit: Unit of the target.
        title: Title.

    Raises:
        ValueError: No recording, or none with waves.
    """
    rows = [*LEADS, "all"]
    waves = [wave for wave in WAVES if any(wave in one for one in effects)]
    if not waves:
        raise ValueError("there is no effect of a wave to draw; explain with method 'occlusion' and by='wave'")
    cube = np.stack([one.reindex(index=rows, columns=waves).to_numpy(dtype=np.float64) for one in effects])
    mean, lo, hi = _intervals(cube)
    n = len(effects)
    pitch, left, top, wide, gap = 15.0, 44.0, 34.0, 148.0, 12.0
    # single leads share a scale; all leads at once are another order of magnitude and have their own
    svg = Svg(left + len(waves) * (wide + gap), top + pitch * len(rows) + 58, "")
    svg.add("rect", x=0, y=0, width=svg.width, height=svg.height, rx=6, fill="#fff")
    limits = [_limits(lo[:-1], hi[:-1], mean[:-1]), _limits(lo[-1:], hi[-1:], mean[-1:])]
    for j, wave in enumerate(waves):
        x = left + j * (wide + gap)
        svg.text(x, 20, wave, font_size=13, font_weight=600)
        for i, lead in enumerate(rows):
            panel = Panel((x, top, wide, pitch), limits[lead == "all"], (0, 1))
            y = top + i * pitch + (8 if lead == "all" else 0)
            if j == 0:
                svg.text(left - 8, y + 11, lead, font_size=11.5, text_anchor="end", fill=INK)
            _bar(svg, panel, y, (mean[i, j], lo[i, j], hi[i, j]))
        for which, y in ((0, top + 12 * pitch), (1, top + 13 * pitch + 8)):
            panel = Panel((x, top, wide, pitch), limits[which], (0, 1))
            svg.line((panel.px(0), y - (12 if which == 0 else 1) * pitch), (panel.px(0), y), stroke=MUTED)
        panel = Panel((x, top, wide, 13 * pitch + 8), limits[0], (0, 1))
        panel.draw_x(svg, round_ticks(*limits[0], count=3))
    svg.text(left, svg.height - 8, f"effect of the wave on the output [{unit}]", font_size=11.5, fill=MUTED)
    best = np.unravel_index(np.nanargmax(np.abs(mean[:-1])), mean[:-1].shape)
    svg.label = (
        f"Effect of P, QRS, ST and T of each lead, mean of {n} recording(s); the largest is {waves[best[1]]} of "
        f"{rows[best[0]]} ({mean[best]:.2g} {unit})."
    )
    interval = " with 95 % bootstrap intervals over recordings" if n > 1 else "; one recording has no interval"
    caption = (
        f"Output minus output with the wave flattened in all beats, mean of {n} recording(s){interval}. The last row "
        f"flattens all leads at once and has its own scale (±{max(map(abs, limits[1])):.2g} {unit})."
    )
    return Figure(str(svg), svg.label, caption, "wide", title)


def _bar(svg: Svg, panel: Panel, y: float, numbers: tuple[float, float, float]) -> None:
    mean, lo, hi = numbers
    left, width = panel.box[0], panel.box[2]
    svg.line((left, y + 15), (left + width, y + 15), stroke=GRID, stroke_width=0.6)
    if not np.isfinite(mean):
        svg.text(panel.px(0) + 3, y + 11, "–", font_size=11, fill=MUTED)
        return
    start, end = sorted((panel.px(0), panel.px(mean)))
    color = RAISES if mean > 0 else LOWERS
    svg.add("rect", x=start, y=y + 3, width=max(end - start, 0.4), height=9, fill=color, fill_opacity=0.85)
    if np.isfinite(lo):
        svg.line((panel.px(lo), y + 7.5), (panel.px(hi), y + 7.5), stroke=INK, stroke_width=1.4)


def _intervals(cube: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Mean and ends of the interval (R, W) over recordings (N, R, W); NaN where nothing was found."""
    seen = np.isfinite(cube)
    values, n = np.where(seen, cube, 0.0), len(cube)
    with np.errstate(invalid="ignore"):
        mean = values.sum(axis=0) / seen.sum(axis=0)
    if n < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    counts = np.random.default_rng(3).multinomial(n, np.full(n, 1 / n), size=_DRAWS).astype(np.float64)
    with np.errstate(invalid="ignore"):
        draws = np.tensordot(counts, values, 1) / np.tensordot(counts, seen.astype(np.float64), 1)
    lo, hi = np.nanquantile(draws, [0.025, 0.975], axis=0)
    return mean, lo, hi


def _limits(*parts: NDArray[np.float64]) -> tuple[float, float]:
    """A range around 0 that holds everything."""
    values = np.concatenate([part.ravel() for part in parts])
    values = values[np.isfinite(values)]
    low, high = min(0.0, *values.tolist(), 0.0), max(0.0, *values.tolist(), 0.0)
    room = 0.08 * (high - low) or 1.0
    return low - room, high + room
