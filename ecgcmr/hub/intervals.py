"""Prediction intervals by split conformal prediction: half-widths from the residuals of held-out subjects.

With residuals that are exchangeable with that of a new subject, the interval prediction +- half-width covers the
truth with at least the stated probability, whatever the model and the distribution (Lei et al. 2018,
doi:10.1080/01621459.2017.1307116, arXiv 1604.04173; Papadopoulos et al. 2002, doi:10.1007/3-540-36755-1_29). The
promise is for subjects like the held-out ones and is marginal: within a subgroup the coverage can be lower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FIELDS = ("level", "half_width", "n", "windows")


def half_width(residuals: ArrayLike, level: float = 0.9) -> float:
    """Return the ceil((n + 1) * level)-th smallest absolute residual.

    Args:
        residuals: Truth minus prediction (n,), one of each held-out subject, in any unit; NaN is left out.
        level: Wanted coverage, between 0 and 1.

    Raises:
        ValueError: The level is outside (0, 1), or there are too few residuals for it: an interval of that level
            would have no bounds.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, expected a number between 0 and 1, such as 0.9")
    sizes = np.abs(np.asarray(residuals, dtype=np.float64).reshape(-1))
    sizes = np.sort(sizes[~np.isnan(sizes)])
    rank = _rank(len(sizes), level)
    if rank > len(sizes):
        needed = next(n for n in range(len(sizes), 10**9) if _rank(n, level) <= n)
        raise ValueError(f"{len(sizes)} residuals bound no interval of level {level:g}; at least {needed} are needed")
    return float(sizes[rank - 1])


def _rank(n: int, level: float) -> int:
    return math.ceil((n + 1) * level - 1e-9)  # 0.9 * 10 is a little more than 9 in floating point


def interval_options(
    truth: ArrayLike,
    predicted: ArrayLike,
    labels: Sequence[Mapping[str, str]],
    level: float = 0.9,
    windows: str | int = "first",
) -> dict[str, Any]:
    """Compute what `save_weights(head_options={"interval": ...})` stores.

    Args:
        truth: Labels (n, K) of held-out subjects, one row each, NaN where unobserved. The head must not have been
            trained, stopped or chosen on them.
        predicted: Predictions (n, K) as `LoadedModel.predict` gives them.
        labels: Name, kind and unit of the K labels; binary ones get no interval, their probability says it.
        level: Wanted coverage.
        windows: The `windows` that the predictions were made with; others get no interval.

    Returns:
        {"level", "half_width": {label: half-width in its unit}, "n": {label: residuals}, "windows"}.

    Raises:
        ValueError: The shapes do not fit, or a label has too few residuals; names the label.
    """
    residuals = np.asarray(truth, dtype=np.float64) - np.asarray(predicted, dtype=np.float64)
    if residuals.ndim != 2 or residuals.shape[1] != len(labels):
        raise ValueError(f"residuals have shape {residuals.shape}, expected (subjects, {len(labels)})")
    widths, counts = {}, {}
    for label, column in zip(labels, residuals.T, strict=True):
        if label["kind"] != "binary":
            try:
                widths[label["name"]] = half_width(column, level)
            except ValueError as error:
                raise ValueError(f"label {label['name']!r}: {error}") from error
            counts[label["name"]] = int((~np.isnan(column)).sum())
    return {"level": float(level), "half_width": widths, "n": counts, "windows": windows}


def checked_interval(options: Mapping[str, Any], labels: Sequence[Mapping[str, str]], where: str) -> dict[str, Any]:
    """Return the interval options of a head after a check; empty when it has none.

    Raises:
        ValueError: A field is missing or wrong, or a label is not one of the head's regression labels.
    """
    found = options.get("interval")
    if found is None:
        return {}
    if not isinstance(found, Mapping) or not {"level", "half_width"} <= set(found) or set(found) - set(FIELDS):
        raise ValueError(f"{where}: head_options.interval needs level and half_width, and may hold n and windows")
    names = {label["name"] for label in labels if label["kind"] != "binary"}
    for name, width in found["half_width"].items():
        if name not in names:
            raise ValueError(f"{where}: head_options.interval is about {name!r}, which is no regression label here")
        if not isinstance(width, int | float) or not 0 <= width < math.inf:
            raise ValueError(f"{where}: head_options.interval.half_width of {name!r} is {width!r}, expected a size")
    if not 0 < float(found["level"]) < 1:
        raise ValueError(f"{where}: head_options.interval.level is {found['level']!r}, expected between 0 and 1")
    return dict(found)


def with_bounds(
    values: NDArray[np.float32], names: Sequence[str], widths: Mapping[str, float], holds: NDArray[np.bool_]
) -> dict[str, NDArray[np.float32]]:
    """Columns of a prediction table: each label, followed by `_lo` and `_hi` where it has a half-width.

    Args:
        values: Predictions (n, K).
        names: Names of the K labels.
        widths: Half-width by label [unit of the label].
        holds: Rows (n,) for which the half-widths were made; the others get NaN bounds.
    """
    columns: dict[str, NDArray[np.float32]] = {}
    for name, column in zip(names, values.T, strict=True):
        columns[name] = column
        if name in widths:
            bound = np.where(holds, widths[name], np.nan)
            columns[f"{name}_lo"], columns[f"{name}_hi"] = (
                (column + sign * bound).astype(np.float32) for sign in (-1, 1)
            )
    return columns
