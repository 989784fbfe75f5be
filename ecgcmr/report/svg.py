"""The canvas has moved to `ecgcmr.drawing.svg`; the names stay here for whoever imports them."""

from ecgcmr.drawing.svg import FONT, GRID, INK, MUTED, UNIQUE, Svg, number, png, polygon, polyline, to_gray

__all__ = ["FONT", "GRID", "INK", "MUTED", "UNIQUE", "Svg", "number", "png", "polygon", "polyline", "to_gray"]
