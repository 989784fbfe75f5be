"""results.json: a tidy list of rows, one for each number that a run reports.

Keys of a row: arm, protocol, n_labels, target, metric, value, lo, hi, n_subjects, seed, compared_to. `seed` is the
seed of the label draw, or null for the mean over all seeds; `compared_to` is null, or, in rows whose metric ends in
`_diff`, the arm that was subtracted. What could not be computed is null, because JSON has no NaN. docs/evaluation.md
states the schema.
"""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

ROW_KEYS = (
    "arm",
    "protocol",
    "n_labels",
    "target",
    "metric",
    "value",
    "lo",
    "hi",
    "n_subjects",
    "seed",
    "compared_to",
)
_NUMBERS = ("value", "lo", "hi")
_OPTIONAL_WHOLE = ("n_labels", "seed")
DIFFERENCE = "_diff"


def make_row(**fields: Any) -> dict[str, Any]:
    """A checked row; absent optional fields (lo, hi, seed, compared_to, n_labels) become null.

    Raises:
        ValueError: For an unknown or a missing field, or a value of the wrong type.
    """
    unknown = sorted(set(fields) - set(ROW_KEYS))
    if unknown:
        raise ValueError(f"unknown field(s) {unknown} in a result row; a row has {ROW_KEYS}")
    row: dict[str, Any] = {key: fields.get(key) for key in ROW_KEYS}
    for key in ("arm", "protocol", "target", "metric"):
        if not isinstance(row[key], str) or not row[key]:
            raise ValueError(f"field {key!r} of a result row must be a non-empty string, got {row[key]!r}")
    for key in _NUMBERS:
        number = row[key]
        row[key] = None if number is None or not math.isfinite(float(number)) else float(number)
    for key in (*_OPTIONAL_WHOLE, "n_subjects"):
        row[key] = None if row[key] is None else _whole(key, row[key])
    if row["n_subjects"] is None:
        raise ValueError(f"field 'n_subjects' is missing in the row of {row['arm']!r}, {row['target']!r}")
    if (row["compared_to"] is not None) != row["metric"].endswith(DIFFERENCE):
        raise ValueError(
            f"metric {row['metric']!r} with compared_to {row['compared_to']!r}: `_diff` rows, and only they, compare"
        )
    return row


def write_results(path: str | os.PathLike[str], rows: Iterable[dict[str, Any]]) -> Path:
    """Write rows as a JSON list, one row a line, under a temporary name that is renamed when complete."""
    path = Path(path)
    checked = [make_row(**row) for row in rows]
    text = "[\n" + ",\n".join(json.dumps(row, allow_nan=False) for row in checked) + "\n]\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_results(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read results.json into a table (missing numbers as NaN, seed and n_labels as nullable integers).

    Raises:
        FileNotFoundError: When there is no such file.
        ValueError: When it is not a list of result rows.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no results here; a run writes results.json when it evaluates")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON (line {error.lineno}: {error.msg})") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: expected a list of rows with the keys {ROW_KEYS}")
    return results_table(rows)


def results_table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table with fixed column types."""
    table = pd.DataFrame([make_row(**row) for row in rows], columns=list(ROW_KEYS))
    for key in _NUMBERS:
        table[key] = table[key].astype("float64")
    for key in (*_OPTIONAL_WHOLE, "n_subjects"):
        table[key] = table[key].astype("Int64")
    table["compared_to"] = table["compared_to"].astype(object).where(table["compared_to"].notna(), None)
    return table


def _whole(key: str, value: Any) -> int:
    if int(value) != value:
        raise ValueError(f"field {key!r} of a result row must be a whole number or null, got {value!r}")
    return int(value)
