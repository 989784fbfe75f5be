"""The predictions table: the one thing that every metric, interval, calibration and audit reads.

Long format, one row for each (subject, item, target):

| column     | type    | meaning                                                                   |
|------------|---------|---------------------------------------------------------------------------|
| subject    | int64   | pseudonymous subject index, the unit of every bootstrap and fold          |
| item       | int64   | which recording (or study) of that subject                                |
| target     | string  | name of the label                                                         |
| truth      | float64 | original unit, or 0/1; NaN where the label was not observed               |
| prediction | float64 | original unit, or the probability of the positive class; always finite    |
| split      | string  | train, val or test; one split for each subject                            |

Outcomes with follow-up (see `survival`) have two more columns, which are NaN in the rows of other targets:

| column     | type    | meaning                                                                   |
|------------|---------|---------------------------------------------------------------------------|
| time       | float64 | follow-up until the event (truth 1) or the censoring (0), NaN: not at risk |
| horizon    | float64 | NaN: prediction is a score, larger is riskier; else a probability by then |

Every further column is a group column (sex, age band, vendor, ...) for the audit and is never read by a metric.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

PREDICTION_COLUMNS = ("subject", "item", "target", "truth", "prediction", "split")
FOLLOW_UP_COLUMNS = ("time", "horizon")
SPLITS = ("train", "val", "test")
_KEY = ["subject", "item", "target"]


def make_predictions(
    subjects: ArrayLike,
    targets: Sequence[str],
    arrays: tuple[ArrayLike, ArrayLike],
    split: str | Sequence[str],
    items: ArrayLike | None = None,
    groups: Mapping[str, ArrayLike] | pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Build a predictions table from arrays.

    Args:
        subjects: Subject of each row (N,).
        targets: Names of the K targets.
        arrays: (truth, prediction), each (N, K), or (N,) when there is one target. Truth may hold NaN.
        split: One split name for all rows, or one for each row (N,).
        items: Item of each row (N,); counted within each subject when absent.
        groups: Group columns, each (N,).

    Returns:
        The checked table, N*K rows, target by target.

    Raises:
        ValueError: Where a shape, a value or a key is wrong; the message names it.
    """
    subject = np.asarray(subjects).astype(np.int64)
    n, k = len(subject), len(targets)
    columns: dict[str, np.ndarray] = {}
    for name, values in zip(("truth", "prediction"), arrays, strict=True):
        matrix = np.asarray(values, dtype=np.float64)
        matrix = matrix[:, None] if matrix.ndim == 1 else matrix
        if matrix.shape != (n, k):
            raise ValueError(f"{name} has shape {matrix.shape}, expected ({n} rows, {k} targets {tuple(targets)})")
        columns[name] = matrix.T.reshape(-1)
    item = pd.Series(subject).groupby(subject).cumcount().to_numpy() if items is None else np.asarray(items)
    table = pd.DataFrame(
        {
            "subject": np.tile(subject, k),
            "item": np.tile(item.astype(np.int64), k),
            "target": np.repeat(np.asarray(targets, dtype=object), n),
            "truth": columns["truth"],
            "prediction": columns["prediction"],
            "split": split if isinstance(split, str) else np.tile(np.asarray(split, dtype=object), k),
        }
    )
    for name, column in ({} if groups is None else dict(groups)).items():
        if name in (*PREDICTION_COLUMNS, *FOLLOW_UP_COLUMNS):
            raise ValueError(f"group column {name!r} has the name of a predictions column; rename it")
        values = np.asarray(column)
        if values.shape != (n,):
            raise ValueError(f"group column {name!r} has shape {values.shape}, expected ({n},)")
        table[str(name)] = np.tile(values, k)
    return check_predictions(table)


def check_predictions(table: pd.DataFrame, source: str = "predictions table") -> pd.DataFrame:
    """Check a predictions table and return it with exact column types.

    Args:
        table: Candidate table.
        source: Name used in error messages (a file name for instance).

    Raises:
        ValueError: Naming the column, the first offending row and what was expected.
    """
    missing = [name for name in PREDICTION_COLUMNS if name not in table.columns]
    if missing:
        raise ValueError(f"{source}: missing column(s) {missing}; a predictions table has {PREDICTION_COLUMNS}")
    table = table.reset_index(drop=True)
    for name in ("subject", "item"):
        if not pd.api.types.is_integer_dtype(table[name]):
            raise ValueError(f"{source}: column {name!r} is {table[name].dtype}, expected integers")
    table = table.assign(
        subject=table["subject"].astype(np.int64),
        item=table["item"].astype(np.int64),
        target=table["target"].astype(str),
        truth=pd.to_numeric(table["truth"]).astype(np.float64),
        prediction=pd.to_numeric(table["prediction"]).astype(np.float64),
        split=table["split"].astype(str),
    )
    _refuse(source, table, ~np.isfinite(table["prediction"]), "prediction", "a finite number")
    _refuse(source, table, np.isinf(table["truth"]), "truth", "a finite number, or NaN where unobserved")
    _refuse(source, table, ~table["split"].isin(SPLITS), "split", f"one of {SPLITS}")
    key = _KEY
    for name in FOLLOW_UP_COLUMNS:
        if name in table.columns:
            table[name] = pd.to_numeric(table[name]).astype(np.float64)
            _refuse(source, table, ~(table[name].isna() | (table[name] >= 0)) | np.isinf(table[name]), name,
                    "a finite time from 0 on, or NaN")  # fmt: skip
    if "horizon" in table.columns:
        key = [*_KEY, "horizon"]
        _refuse(source, table, table["horizon"].notna() & ~table["prediction"].between(0, 1), "prediction",
                "a probability, because the row has a horizon")  # fmt: skip
    _refuse(source, table, table.duplicated(key), "item", f"one row for each ({', '.join(key)})")
    several = table.groupby("subject")["split"].nunique()
    if (several > 1).any():
        subject = several.index[several > 1][0]
        raise ValueError(f"{source}: subject {subject} stands in several splits; splits must be disjoint by subject")
    return table


def group_columns(table: pd.DataFrame) -> tuple[str, ...]:
    """Names of the group columns of a predictions table."""
    return tuple(str(name) for name in table.columns if name not in (*PREDICTION_COLUMNS, *FOLLOW_UP_COLUMNS))


def write_predictions(path: str | os.PathLike[str], table: pd.DataFrame) -> Path:
    """Check a table and write it as parquet, under a temporary name that is renamed when complete."""
    path = Path(path)
    table = check_predictions(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        table.to_parquet(temporary, index=False)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_predictions(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read and check a predictions table (parquet).

    Raises:
        FileNotFoundError: When there is no such file.
        ValueError: When the file is no parquet file or breaks the schema.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no predictions table here; write one with write_predictions")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable parquet file ({error})") from error
    return check_predictions(table, source=path.name)


def _refuse(source: str, table: pd.DataFrame, bad: Any, column: str, expected: str) -> None:
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        key = ", ".join(f"{name} {table[name].iloc[row]}" for name in _KEY)
        value = table[column].iloc[[row]].tolist()[0]
        raise ValueError(f"{source}: row {row} ({key}): {column} is {value!r}, expected {expected}")
