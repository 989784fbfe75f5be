"""Parquet tables of a cohort: fixed column types, the same bytes for the same rows, hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ecgcmr.cohort.schema import TABLES

ROW_GROUP = 65_536
_ARROW = {
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "list<float64>": pa.list_(pa.float64()),
}


def to_table(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows -> Arrow table; fixed columns first and typed, further columns in the order of first appearance.

    Args:
        name: Table name, a key of `TABLES`.
        rows: One mapping for each row; an absent value becomes null (NaN).
    """
    fixed = TABLES[name]
    extra = [column for column in dict.fromkeys(key for row in rows for key in row) if column not in fixed]
    columns: dict[str, pa.Array] = {}
    for column, kind in fixed.items():
        columns[column] = pa.array([row.get(column) for row in rows], type=_ARROW[kind])
    for column in extra:
        columns[column] = _infer([row.get(column) for row in rows])
    return pa.table(columns)


def _infer(values: list[Any]) -> pa.Array:
    """An Arrow array of text, whole numbers, numbers or lists; mixed number types become float64."""
    seen = {type(value) for value in values if value is not None}
    if seen <= {bool}:
        return pa.array([None if value is None else float(value) for value in values], type=pa.float64())
    if seen == {int} and None not in values:
        return pa.array(values, type=pa.int64())
    if seen <= {int, float, bool}:
        return pa.array([None if value is None else float(value) for value in values], type=pa.float64())
    if seen == {list}:
        return pa.array(values, type=pa.list_(pa.float64()))
    return pa.array([None if value is None else str(value) for value in values], type=pa.string())


def write_table(path: Path, name: str, rows: Sequence[Mapping[str, Any]] | pa.Table) -> str:
    """Write rows, or a table, as parquet and return the sha256 of the file."""
    table = rows if isinstance(rows, pa.Table) else to_table(name, rows)
    pq.write_table(table, path, compression="zstd")
    return sha256(path)


def write_stream(path: Path, tables: Iterable[pa.Table]) -> str:
    """Write tables of one schema one behind the other and return the sha256 of the file.

    Row groups have `ROW_GROUP` rows however the rows come in, so that the bytes follow from the rows alone and memory
    is bounded.
    """
    writer: pq.ParquetWriter | None = None
    waiting: list[pa.Table] = []
    count = 0
    try:
        for table in tables:
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
            waiting.append(table)
            count += len(table)
            while count >= ROW_GROUP:
                together = pa.concat_tables(waiting)
                writer.write_table(together.slice(0, ROW_GROUP).combine_chunks(), row_group_size=ROW_GROUP)
                waiting, count = [together.slice(ROW_GROUP)], count - ROW_GROUP
        assert writer is not None, "a stream has at least one table, which may be empty"
        if count:
            writer.write_table(pa.concat_tables(waiting).combine_chunks(), row_group_size=ROW_GROUP)
    finally:
        if writer is not None:
            writer.close()
    return sha256(path)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a parquet table.

    Args:
        path: The file.
        columns: What to read, in this order; those that are not there are left out. None reads all.

    Raises:
        FileNotFoundError: The file is absent.
        ValueError: The file is no parquet table.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; run `ecgcmr cohort validate {path.parent}`")
    try:
        if columns is None:
            return pq.read_table(path, use_threads=False).to_pandas()
        with pq.ParquetFile(path) as file:
            there = set(file.schema_arrow.names)
            return file.read([name for name in columns if name in there], use_threads=False).to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a readable parquet table ({error})") from error


def sha256(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
