"""A map of embeddings: the first two principal components, colored by a measurement or a diagnosis."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgcmr.drawing.svg import INK, MUTED, UNIQUE, Svg
from ecgcmr.report.page import Figure

Array = NDArray[np.float64]

WIDTH, HEIGHT = 360.0, 320.0
MAX_POINTS = 700
# Nine steps of viridis (van der Walt and Smith, CC0): ordered in lightness, for all kinds of color vision.
STEPS = ("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725")
CLASSES = ("#6b7280", "#b8430b")


def principal_map(embeddings: ArrayLike) -> tuple[Array, Array]:
    """First two principal components (N, 2) of embeddings (N, D), and the shares of variance that they hold (2,).

    Signs are fixed, so that the same embeddings always give the same map.

    Raises:
        ValueError: For fewer than three embeddings, or such that are all the same.
    """
    x = np.asarray(embeddings, dtype=np.float64)
    if x.ndim != 2 or len(x) < 3:
        raise ValueError(f"a map needs at least three embeddings (N, D), got {x.shape}")
    x = x - x.mean(axis=0)
    total = float((x**2).sum())
    if total <= 0:
        raise ValueError("all embeddings are the same: there is nothing to map")
    _, sizes, axes = np.linalg.svd(x, full_matrices=False)
    axes = np.pad(axes, ((0, max(0, 2 - len(axes))), (0, 0)))[:2]
    largest = np.abs(axes).argmax(axis=1)
    axes = axes * np.where(axes[np.arange(2), largest] < 0, -1.0, 1.0)[:, None]
    return x @ axes.T, np.pad(sizes**2 / total, (0, 2))[:2]


def embedding_map(places: ArrayLike, values: ArrayLike, title: str, binary: bool, shares: ArrayLike) -> Figure:
    """Draw the map.

    Args:
        places: From `principal_map` (N, 2).
        values: Measurement, or 0/1 (N,); NaN where unknown, drawn as small rings.
        title: Title with the unit.
        binary: Whether values are 0/1.
        shares: Shares of variance of the two axes (2,).
    """
    xy, v = np.asarray(places, dtype=np.float64), np.asarray(values, dtype=np.float64)
    a, b = (float(s) for s in np.asarray(shares))
    order = np.random.default_rng(0).permutation(len(xy))[:MAX_POINTS]  # no class is drawn on top of the other
    low, high = np.percentile(xy, 0.5, axis=0), np.percentile(xy, 99.5, axis=0)
    span = np.where(high > low, high - low, 1.0)
    share = np.clip((xy - low) / span, -0.02, 1.02)
    known = v[~np.isnan(v)]
    lo, hi = (float(e) for e in np.percentile(known, [2, 98])) if known.size else (0.0, 1.0)
    told = "two classes" if binary else f"{lo:.4g} to {hi:.4g}"
    svg = Svg(
        WIDTH, HEIGHT, f"Embeddings of {len(xy)} recordings in two principal components, colored by {title} ({told})."
    )
    box = (8.0, 8.0, WIDTH - 16, HEIGHT - 62)
    for k in order:
        x, y = box[0] + 6 + share[k, 0] * (box[2] - 12), box[1] + box[3] - 6 - share[k, 1] * (box[3] - 12)
        if np.isnan(v[k]):
            svg.add("circle", cx=x, cy=y, r=2, fill="none", stroke=MUTED, stroke_width=0.8)
            continue
        color = CLASSES[int(v[k] > 0.5)] if binary else STEPS[_step(v[k], lo, hi)]
        svg.add("circle", cx=x, cy=y, r=2.8, fill=color, fill_opacity=0.8 if not binary or v[k] > 0.5 else 0.45)
    _key(svg, binary, (lo, hi))
    caption = f"Principal components 1 ({a:.0%} of the variance) and 2 ({b:.0%}) of the embeddings of the test items."
    return Figure(str(svg), svg.label, caption, title=title)


def _step(value: float, lo: float, hi: float) -> int:
    share = (value - lo) / (hi - lo) if hi > lo else 0.5
    return int(np.clip(share * len(STEPS), 0, len(STEPS) - 1))


def _key(svg: Svg, binary: bool, limits: tuple[float, float]) -> None:
    y = HEIGHT - 34
    if binary:
        for x, color, word in ((10.0, CLASSES[1], "yes"), (80.0, CLASSES[0], "no")):
            svg.add("circle", cx=x + 5, cy=y + 6, r=5, fill=color)
            svg.text(x + 15, y + 10, word, font_size=12)
        return
    stops = "".join(f'<stop offset="{k / (len(STEPS) - 1):.3f}" stop-color="{c}"/>' for k, c in enumerate(STEPS))
    svg.raw(f'<defs><linearGradient id="{UNIQUE}scale">{stops}</linearGradient></defs>')
    svg.add("rect", x=8, y=y, width=WIDTH - 16, height=10, rx=3, fill=f"url(#{UNIQUE}scale)")
    for x, value, anchor in ((8.0, limits[0], "start"), (WIDTH - 8, limits[1], "end")):
        svg.text(x, y + 25, f"{value:.4g}".replace("-", "−"), font_size=11.5, fill=INK, text_anchor=anchor)
