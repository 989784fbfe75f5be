"""A small SVG canvas: elements in, one string out; text is escaped, numbers are short, the result is deterministic."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
INK = "#1f2933"
MUTED = "#52606d"
GRID = "#dde3ea"
UNIQUE = "@UID@"
"""Placeholder in element ids; the page replaces it, so that ids of several figures do not collide."""


def number(value: float) -> str:
    """A coordinate with at most two decimals."""
    text = f"{float(value):.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


class Svg:
    """Elements of one drawing with its own coordinate system.

    Args:
        width: Width of the view box.
        height: Height of the view box.
        label: What a reader who can not see the figure is told.
        unit: Unit of the natural size: `""` for CSS pixels or `mm`.
    """

    def __init__(self, width: float, height: float, label: str, unit: str = "") -> None:
        self.width, self.height, self.label, self.unit = width, height, label, unit
        self._parts: list[str] = []

    def add(self, tag: str, text: str | None = None, **attributes: Any) -> Svg:
        """Add an element; `stroke_width` becomes `stroke-width`, numbers are shortened, None is left out."""
        written = "".join(
            f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
            for key, value in attributes.items()
            if value is not None
        )
        self._parts.append(f"<{tag}{written}/>" if text is None else f"<{tag}{written}>{escape(text)}</{tag}>")
        return self

    def raw(self, markup: str) -> Svg:
        """Add markup that was made here (definitions, group tags); never user text."""
        self._parts.append(markup)
        return self

    def line(self, start: tuple[float, float], end: tuple[float, float], **attributes: Any) -> Svg:
        """Add a straight line."""
        return self.add("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], **({"stroke": INK} | attributes))

    def text(self, x: float, y: float, text: str, **attributes: Any) -> Svg:
        """Add text with its baseline at y."""
        return self.add("text", text, x=x, y=y, **({"fill": INK} | attributes))

    def image(self, pixels: NDArray[np.uint8], box: tuple[float, float, float, float]) -> Svg:
        """Add pixels (H, W) or (H, W, 3) into a box (x, y, width, height)."""
        x, y, width, height = box
        href = "data:image/png;base64," + base64.b64encode(png(pixels)).decode("ascii")
        return self.raw(
            f'<image x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}" '
            f'preserveAspectRatio="none" href="{href}"/>'
        )

    def __str__(self) -> str:
        w, h = number(self.width), number(self.height)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}{self.unit}" '
            f'height="{h}{self.unit}" role="img" aria-label="{escape(self.label, quote=True)}" '
            f'font-family="{FONT}">' + "".join(self._parts) + "</svg>"
        )


def polyline(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    """Path data of a curve (N,); it is interrupted where a value is NaN."""
    good = np.isfinite(x) & np.isfinite(y)
    starts = good & ~np.concatenate([[False], good[:-1]])
    parts = [
        f"{'M' if start else 'L'}{number(a)} {number(b)}"
        for a, b, start in zip(x[good], y[good], starts[good], strict=True)
    ]
    return "".join(parts)


def polygon(points: Sequence[tuple[float, float]]) -> str:
    """Value of a `points` attribute."""
    return " ".join(f"{number(x)},{number(y)}" for x, y in points)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels (H, W) or (H, W, 3), uint8, as PNG (ISO/IEC 15948), without metadata."""
    array = np.ascontiguousarray(pixels)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise ValueError(f"pixels must be uint8 (H, W) or (H, W, 3), got {array.dtype} {array.shape}")
    height, width = array.shape[:2]
    color_type = 0 if array.ndim == 2 else 2
    rows = array.reshape(height, -1)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(filtered, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def to_gray(values: NDArray[Any], limits: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """Intensities as uint8 between limits, or between their 1st and 99.5th percentile."""
    array = np.nan_to_num(np.asarray(values, dtype=np.float64))
    lo, hi = limits if limits is not None else tuple(np.percentile(array, [1, 99.5]))
    scaled = (array - lo) / (hi - lo) if hi > lo else np.zeros_like(array)
    return np.asarray(np.clip(np.round(scaled * 255), 0, 255), dtype=np.uint8)


def _value(value: Any) -> str:
    if isinstance(value, (float, int, np.floating, np.integer)) and not isinstance(value, bool):
        return number(float(value))
    return escape(str(value), quote=True)
