"""Colors, markers and dashes of the arms: the same arm looks the same in every figure.

Colors are those of Okabe and Ito (Color Universal Design, 2008), darkened where they would be too pale on white.
Nothing is told by color alone: every arm also has its own marker and dash.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ecgcmr.drawing.svg import Svg, polygon


@dataclass(frozen=True)
class ArmStyle:
    """How an arm is drawn.

    Attributes:
        color: Line and marker color.
        marker: circle, square, triangle, diamond, cross or ring.
        dash: SVG dash pattern; empty for a full line.
    """

    color: str
    marker: str
    dash: str = ""


SCRATCH = ArmStyle("#6b7280", "square", "2 3")
MAE = ArmStyle("#c77700", "triangle", "6 3")
ALIGNED = ArmStyle("#3b9ad6", "diamond", "9 3 2 3")
BOTH = ArmStyle("#0a5ea8", "circle")
CEILING = ArmStyle("#00795a", "ring", "4 2")
OTHERS = (ArmStyle("#b0398a", "cross", "7 2"), ArmStyle("#b8430b", "square"), ArmStyle("#111827", "diamond", "3 3"))
GOOD, SHADE = "#00795a", "#e8ecf1"
DARK = {
    "#1f2933": "#e4e9ee",  # ink, muted and grid of `svg`
    "#52606d": "#a3afbb",
    "#dde3ea": "#303a44",
    SHADE: "#232b34",
    "#6b7280": "#9aa4b0",
    "#c77700": "#e8a33d",
    "#3b9ad6": "#5fb4ea",
    "#0a5ea8": "#6cb6f2",
    "#00795a": "#3fbf97",
    "#b0398a": "#dd7fbd",
    "#b8430b": "#ee8350",
    "#111827": "#d5dbe1",
    "#8a94a0": "#aab4bf",
    "#fdecd2": "#46371d",  # hidden patches of `reconstruction`
}
"""Color of a drawing -> its counterpart on a dark page."""


def arm_styles(arms: Sequence[str]) -> dict[str, ArmStyle]:
    """A style for each arm; the arms of the demo are recognised by their words, others get the remaining styles."""
    styles: dict[str, ArmStyle] = {}
    rest = 0
    for arm in arms:
        known = _known(arm.lower())
        if known is None or known in styles.values():
            known = OTHERS[rest % len(OTHERS)]
            rest += 1
        styles[arm] = known
    return styles


def _known(words: str) -> ArmStyle | None:
    if "scratch" in words:
        return SCRATCH
    if "align" in words:
        without = any(cue in words for cue in ("without", "w/o", "no mae", "only")) or "mae" not in words
        return ALIGNED if without else BOTH
    if "cmr" in words:
        return CEILING
    return MAE if "mae" in words else None


def draw_marker(svg: Svg, x: float, y: float, style: ArmStyle, size: float = 4.5) -> None:
    """Draw the marker of an arm with a white rim, so that overlapping markers stay apart."""
    fill: dict[str, Any] = {"fill": style.color, "stroke": "#fff", "stroke_width": 1}
    if style.marker == "circle":
        svg.add("circle", cx=x, cy=y, r=size, **fill)
    elif style.marker == "ring":
        svg.add("circle", cx=x, cy=y, r=size - 0.5, fill="#fff", stroke=style.color, stroke_width=2)
    elif style.marker == "square":
        svg.add("rect", x=x - size * 0.85, y=y - size * 0.85, width=size * 1.7, height=size * 1.7, **fill)
    elif style.marker == "cross":
        path = (
            f"M{x - size:.2f} {y - size:.2f}l{2 * size} {2 * size}M{x - size:.2f} {y + size:.2f}l{2 * size} {-2 * size}"
        )
        svg.add("path", d=path, stroke=style.color, stroke_width=2)
    else:
        corners, turn = (3, -90.0) if style.marker == "triangle" else (4, 0.0)
        angles = [math.radians(turn + 360 * i / corners) for i in range(corners)]
        points = [(x + 1.25 * size * math.cos(a), y + 1.25 * size * math.sin(a)) for a in angles]
        svg.add("polygon", points=polygon(points), **fill)


def swatch(style: ArmStyle) -> str:
    """A piece of line with the marker, for a legend."""
    svg = Svg(34, 14, "")
    svg.line((2, 7), (32, 7), stroke=style.color, stroke_width=2, stroke_dasharray=style.dash or None)
    draw_marker(svg, 17, 7, style)
    return str(svg).replace('role="img" aria-label=""', 'aria-hidden="true"')
