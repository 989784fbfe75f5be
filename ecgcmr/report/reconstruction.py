"""What a masked autoencoder makes of a masked ECG: the original, the hidden patches and the reconstruction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgcmr.drawing.svg import GRID, INK, MUTED, Svg, polyline
from ecgcmr.report.page import Figure

WIDTH, ROW, LEFT, HEAD = 400.0, 74.0, 32.0, 30.0
_ORIGINAL, _MADE, _HIDDEN = "#8a94a0", "#0a5ea8", "#fdecd2"
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def reconstruction_figure(
    signals: tuple[ArrayLike, ArrayLike],
    hidden: ArrayLike,
    rate_hz: float,
    leads: Sequence[str] = ("II", "V2", "V5"),
    title: str = "",
) -> Figure:
    """Draw chosen leads.

    Args:
        signals: (original, reconstruction), each (12, T) in the units of the model, canonical lead order.
        hidden: Hidden patches (12, N), True where the model did not see the signal; N patches fill T samples.
        rate_hz: Sampling rate [Hz].
        leads: Leads to draw.
        title: Title of the figure.

    Raises:
        ValueError: For shapes that do not fit, or an unknown lead.
    """
    original, made = (np.asarray(s, dtype=np.float64) for s in signals)
    mask = np.asarray(hidden, dtype=bool)
    if original.shape != made.shape or original.ndim != 2 or mask.ndim != 2 or len(mask) != len(original):
        raise ValueError(f"original {original.shape}, reconstruction {made.shape} and mask {mask.shape} do not fit")
    n = original.shape[1]
    if n % mask.shape[1]:
        raise ValueError(f"{mask.shape[1]} patches do not divide {n} samples")
    unknown = [lead for lead in leads if lead not in LEADS]
    if unknown or len(original) != len(LEADS):
        raise ValueError(
            f"leads {unknown or leads} of a signal with {len(original)} rows; expected the twelve leads {LEADS}"
        )
    rows = [LEADS.index(lead) for lead in leads]
    correlation = masked_correlation(original, made, mask)
    label = (
        f"Masked ECG reconstruction, leads {', '.join(leads)}: {mask.mean():.0%} of the patches were hidden; "
        f"correlation of the reconstruction with the original within hidden patches {correlation:.2f}."
    )
    svg = Svg(WIDTH, HEAD + ROW * len(rows) + 30, label)
    _key(svg)
    low, high = np.percentile(original[rows], [0.1, 99.9])
    for i, row in enumerate(rows):
        box = (HEAD + ROW * i, float(low), float(high))
        _draw_lead(svg, box, (original[row], made[row]), mask[row])
        svg.text(0, HEAD + ROW * (i + 0.5) + 4, LEADS[row], font_size=12.5, font_weight=600)
    _time_axis(svg, HEAD + ROW * len(rows), n / rate_hz)
    caption = (
        f"{mask.mean():.0%} of all patches hidden; correlation within hidden patches, all leads: {correlation:.2f}."
    )
    return Figure(str(svg), label, caption, "half", title)


def masked_correlation(original: NDArray[np.float64], made: NDArray[np.float64], mask: NDArray[np.bool_]) -> float:
    """Pearson correlation over the samples of hidden patches, all leads together; NaN when nothing is hidden."""
    samples = np.repeat(mask, original.shape[1] // mask.shape[1], axis=1)
    a, b = original[samples], made[samples]
    if a.size < 2 or a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _draw_lead(
    svg: Svg,
    box: tuple[float, float, float],
    signals: tuple[NDArray[np.float64], NDArray[np.float64]],
    hidden: NDArray[np.bool_],
) -> None:
    top, low, high = box
    original, made = signals
    n, width, room = len(original), WIDTH - LEFT - 2, ROW - 10
    x = LEFT + (np.arange(n) + 0.5) / n * width
    patch = width / len(hidden)
    for start, stop in _runs(hidden):
        svg.add("rect", x=LEFT + start * patch, y=top + 2, width=(stop - start) * patch, height=ROW - 4, fill=_HIDDEN)

    def y(values: NDArray[np.float64]) -> NDArray[np.float64]:
        share = np.clip((values - low) / max(high - low, 1e-9), -0.06, 1.06)
        return top + 5 + room * (1 - share)

    svg.add("path", d=polyline(x, y(original)), fill="none", stroke=_ORIGINAL, stroke_width=1.6)
    samples = np.repeat(hidden, n // len(hidden))
    svg.add("path", d=polyline(x, y(np.where(samples, made, np.nan))), fill="none", stroke=_MADE, stroke_width=1.5)


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(start, stop) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _key(svg: Svg) -> None:
    svg.add("rect", x=LEFT, y=6, width=18, height=12, fill=_HIDDEN)
    svg.text(LEFT + 23, 16, "hidden", font_size=12, fill=INK)
    for x, color, name in ((LEFT + 78, _ORIGINAL, "original"), (LEFT + 166, _MADE, "reconstructed from the rest")):
        svg.line((x, 12), (x + 20, 12), stroke=color, stroke_width=2)
        svg.text(x + 25, 16, name, font_size=12, fill=INK)


def _time_axis(svg: Svg, y: float, duration: float) -> None:
    width = WIDTH - LEFT - 2
    svg.line((LEFT, y), (LEFT + width, y), stroke=GRID)
    for second in range(int(duration + 1e-6) + 1):
        x = LEFT + width * second / duration
        svg.line((x, y), (x, y + 4), stroke=MUTED)
        anchor = "end" if x > WIDTH - 14 else "middle"
        svg.text(x, y + 18, f"{second} s", text_anchor=anchor, font_size=11.5, fill=MUTED)
