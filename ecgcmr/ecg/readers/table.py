"""Text tables (`.csv`, `.tsv`, `.txt`): one column for each lead, or one row where the leads are named on the side."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.leads import canonical_lead
from ecgcmr.ecg.readers.limits import MAX_LEADS, bounded_bytes
from ecgcmr.ecg.units import canonical_unit

MAX_TABLE_BYTES = 256 << 20
_HEAD = re.compile(r"^\s*(?P<name>[^\[(/]*?)\s*(?:[\[(/]\s*(?P<unit>[^\])]*?)\s*[\])]?)?\s*$")
_TIME = {"time", "t", "seconds", "sec", "timestamp", "time_s", "time_ms", "t_s", "t_ms", "time_sec"}
_INDEX = {"", "index", "sample", "n", "unnamed: 0"}
_MISSING = {"", "nan", "na", "n/a", "null"}
_SECONDS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "milliseconds": 1e-3}


def open_table(path: Path) -> dict[str, Any]:
    """Return what a table holds, as members for `ArrayFile`.

    The first line may name the leads, with a unit (`II (uV)`, `V1 [mV]`). A column of time or of sample numbers is
    left out; a time whose unit is written gives the sampling rate. Commas, semicolons (then with decimal commas),
    tabs and spaces separate; lines that start with `#` are comments.

    Returns:
        `ecg` (L, T) float64, and where the file states them `leads`, `unit` and `fs`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is too large, no table of numbers (line and value are named), or its leads have several units.
    """
    data = bounded_bytes(path, MAX_TABLE_BYTES)
    if b"\0" in data[:4096]:
        raise ValueError(f"{path} is no text table: it holds binary data")
    text = data.decode("utf-8-sig", errors="replace")
    lines = enumerate(text.splitlines(), 1)
    kept = [(number, line) for number, line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not kept:
        raise ValueError(f"{path} holds no line of numbers")
    separator = _separator(kept[0][1])
    heads = [head.strip().strip('"') for head in _cells(kept[0][1], separator)]
    if len(heads) > MAX_LEADS:
        raise ValueError(f"{path}: {len(heads)} columns, expected one for each lead (leads as columns, time as rows)")
    named = not all(_is_number(head, separator) for head in heads)
    values = _numbers(path, kept[1:] if named else kept, separator, len(heads))
    if not named:
        return {"ecg": values.T}
    return _interpret(path, heads, values)


def _separator(line: str) -> str | None:
    """The character between cells; None for white space."""
    counts = {one: line.count(one) for one in ("\t", ";", ",")}
    if counts["\t"] or counts[";"]:
        return "\t" if counts["\t"] >= counts[";"] else ";"
    return "," if counts[","] else None


def _cells(line: str, separator: str | None) -> list[str]:
    return line.split(separator) if separator else line.split()


def _is_number(cell: str, separator: str | None) -> bool:
    if cell.strip().lower() in _MISSING:
        return False
    try:
        float(cell.replace(",", ".") if separator == ";" else cell)
    except ValueError:
        return False
    return True


def _numbers(path: Path, lines: list[tuple[int, str]], separator: str | None, n_columns: int) -> NDArray[np.float64]:
    """Cells (T, columns) float64; empty cells and `nan` are NaN.

    Cell by cell: the compiled parser of pandas ends the process on some damaged tables.
    """
    if not lines:
        raise ValueError(f"{path} names its columns and holds no sample")
    values = np.empty((len(lines), n_columns))
    for row, (number, line) in enumerate(lines):
        cells = _cells(line, separator)
        if len(cells) != n_columns:
            raise ValueError(f"{path}: {n_columns} columns in the first line, {len(cells)} in line {number}")
        try:
            values[row] = [float(cell) for cell in cells]
        except ValueError:  # decimal commas, empty cells, or no numbers
            values[row] = [_value(path, number, at, cell, separator) for at, cell in enumerate(cells, 1)]
    return values


def _value(path: Path, line: int, column: int, cell: str, separator: str | None) -> float:
    text = cell.strip().strip('"')
    if text.lower() in _MISSING:
        return math.nan
    try:
        return float(text.replace(",", ".") if separator == ";" else text)
    except ValueError as error:
        raise ValueError(f"{path}, line {line}, column {column}: {text[:30]!r} is no number") from error


def _interpret(path: Path, heads: list[str], values: np.ndarray) -> dict[str, Any]:
    names: list[str] = []
    units: set[str] = set()
    keep: list[int] = []
    out: dict[str, Any] = {}
    for column, head in enumerate(heads):
        name, unit = _split(head)
        if name.lower() in _TIME or (column == 0 and name.lower() in _INDEX):
            seconds = _SECONDS.get((unit or name.rpartition("_")[2]).lower())
            if seconds is not None and len(values) > 2:
                out["fs"] = _rate(path, values[:, column] * seconds)
            continue
        keep.append(column)
        names.append(name)
        if unit:
            try:
                units.add(canonical_unit(unit))
            except ValueError as error:
                raise ValueError(f"{path}, column {head!r}: {error}") from error
    if len(units) > 1:
        raise ValueError(f"{path}: columns in {' and '.join(sorted(units))}; expected one unit for all")
    if not keep:
        raise ValueError(f"{path}: no column of samples among {', '.join(heads)}")
    if units:
        out["unit"] = units.pop()
    return {"ecg": values[:, keep].T, "leads": np.array(names), **out}


def _split(head: str) -> tuple[str, str | None]:
    """Name and unit of a column: `II (uV)`, `V1_mV` and `I`."""
    match = _HEAD.match(head)
    if match and match.group("unit"):
        return match.group("name"), match.group("unit")
    name, _, unit = head.rpartition("_")
    if unit.lower() in ("mv", "uv", "v") and name:
        try:
            return canonical_lead(name), unit
        except ValueError:
            pass
    return head, None


def _rate(path: Path, seconds_T: np.ndarray) -> float:
    """Sampling rate [Hz] of a column of times.

    Raises:
        ValueError: The times do not rise evenly.
    """
    steps = np.diff(seconds_T)
    step = (seconds_T[-1] - seconds_T[0]) / max(len(seconds_T) - 1, 1)
    if not (np.isfinite(steps).all() and step > 0 and np.abs(steps - step).max() <= 0.51 * step):
        raise ValueError(f"{path}: the column of times does not rise evenly; declare rate_hz and leave it out")
    rate = 1.0 / float(step)
    return float(round(rate)) if abs(rate - round(rate)) < 2e-3 * rate else rate
