"""Reading the tables that come with a data set, as text, and only the columns that are needed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.cohort.ingest_walk import glob_pattern, walk_files

SIDECAR_ITEM = "folder"
_MAX_SIDECAR_BYTES = 1 << 16


def find_table(root: Path, file: str, required: bool, where: str) -> Path | None:
    """The file of a table, a glob taking the first match by name.

    Raises:
        FileNotFoundError: It is required and not there.
    """
    pattern = Path(file)
    if pattern.is_absolute() or not any(mark in file for mark in "*?"):
        found = [root / pattern] if (root / pattern).is_file() else []
    else:
        found = sorted(path for path in root.glob(file) if path.is_file())
    if found:
        return found[0]
    if required:
        raise FileNotFoundError(f"{where}: there is no file {file} below {root}; fetch it, or change {where}=...")
    return None


def read_text_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a CSV (also .tsv, .txt with tabs, .gz) or parquet table with all values as stripped text, "" where missing.

    Args:
        path: The file.
        columns: Columns to read; None for all.

    Raises:
        ValueError: Not such a table, or a column is not there; names those that are.
    """
    lower = path.name.lower()
    try:
        if lower.endswith(".parquet"):
            have = list(pd.read_parquet(path).columns) if columns is None else _parquet_columns(path)
            _require(path, have, columns or ())
            table = pd.read_parquet(path, columns=list(columns) if columns is not None else None)
            table = table.astype("string").fillna("")
        else:
            separator = "\t" if re.search(r"\.(tsv|txt)(\.gz)?$", lower) else ","
            have = list(pd.read_csv(path, sep=separator, dtype=str, nrows=0, encoding="utf-8-sig").columns)
            _require(path, have, columns or ())
            table = pd.read_csv(
                path,
                sep=separator,
                dtype="string[pyarrow]",  # a byte for each letter and not fifty for each value
                keep_default_na=False,
                encoding="utf-8-sig",
                usecols=list(dict.fromkeys(columns)) if columns is not None else None,
            )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError, EOFError) as error:
        raise ValueError(f"{path}: not a readable CSV table ({error}); expected text with a header line") from error
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: not a readable table ({error}); expected CSV, TSV or parquet") from error
    return pd.DataFrame({name: table[name].astype("string[pyarrow]").str.strip() for name in table.columns})


def _parquet_columns(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    return list(pq.read_schema(path).names)


def _require(path: Path, have: Sequence[str], columns: Sequence[str]) -> None:
    for column in columns:
        if column not in have:
            shown = ", ".join(have[:40]) + (f", ... ({len(have)} in all)" if len(have) > 40 else "")
            raise ValueError(f"{path}: no column {column!r}; it has {shown}")


def read_sidecars(root: Path, glob: str) -> pd.DataFrame:
    """Small files of `key: value` lines, one for each study -> a table with the column `folder`.

    Raises:
        ValueError: A file has no such line.
    """
    rows = []
    wanted = glob_pattern([glob])
    for relative, stat in walk_files(root):
        if not wanted.fullmatch(relative) or stat.st_size > _MAX_SIDECAR_BYTES:
            continue
        text = (root / relative).read_text(encoding="utf-8", errors="replace")
        pairs = dict(re.findall(r"^\s*([^:#\n]+?)\s*:\s*(.*?)\s*$", text, re.MULTILINE))
        if not pairs:
            raise ValueError(f"{root / relative}: expected lines of `key: value`")
        rows.append({SIDECAR_ITEM: Path(relative).parent.name, **pairs})
    return pd.DataFrame(rows).fillna("").astype("string[pyarrow]") if rows else pd.DataFrame()


def numbers(column: pd.Series) -> NDArray[np.float64]:
    """Texts (n,) -> numbers, NaN where there is none."""
    return pd.to_numeric(column.astype(object), errors="coerce").to_numpy(dtype=np.float64)


def days(column: pd.Series) -> tuple[NDArray[np.int32], int]:
    """Texts (n,) that begin with a date -> days since year 1 (0 where there is none), and how many are no date.

    Taken are YYYY-MM-DD, YYYYMMDD and YYYY/MM/DD, with or without a time; years may lie in the future, as in MIMIC.
    """
    found = column.astype(object).str.extract(r"^(\d{4})[-/]?(\d\d)[-/]?(\d\d)(?!\d)")
    filled = found[0].notna().to_numpy()
    out = np.zeros(len(column), dtype=np.int32)
    if filled.any():
        year, month, day = (found[k][filled].astype(np.int64).to_numpy() for k in range(3))
        months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
        values = months.astype("datetime64[D]") + (day - 1)
        right = (month >= 1) & (month <= 12) & (day >= 1) & (values.astype("datetime64[M]") == months) & (year > 0)
        out[filled] = np.where(right, values.astype(np.int64) + 719_163, 0)
    wrong = int(((column != "").to_numpy(dtype=bool) & (out == 0)).sum())
    return out, wrong


def tidy_key(text: str) -> str:
    """Keys as text; 12.0 (a number that went through a spreadsheet) is 12."""
    text = text.strip()
    return text[:-2] if text.endswith(".0") and text[:-2].isdigit() else text
