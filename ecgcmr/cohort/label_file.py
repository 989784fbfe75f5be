"""A file of labels with the meaning of its columns: what `labels build` writes and `ingest --labels` reads.

A parquet file carries the specs in its metadata; beside NAME.csv they lie in NAME.specs.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ecgcmr.cohort.schema import LabelSpec

SPECS_VERSION = 1
_META = b"ecgcmr_labels"


@dataclass(frozen=True)
class LabelColumns:
    """What the columns of a file of labels are.

    Attributes:
        specs: The labels.
        subject_column: Column of the subject, or None.
        item_column: Column of the item, or None.
        provenance: Where the labels come from.
    """

    specs: tuple[LabelSpec, ...]
    subject_column: str | None = None
    item_column: str | None = None
    provenance: str = ""

    def to_json(self) -> str:
        """The text of a specs file."""
        return json.dumps({"format_version": SPECS_VERSION, **asdict(self)}, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, where: Path) -> LabelColumns:
        """Read the text of a specs file.

        Raises:
            ValueError: It is broken or of another version; names the file.
        """
        try:
            data = json.loads(text)
            version = data.pop("format_version")
            if version != SPECS_VERSION:
                raise ValueError(f"format_version is {version!r}, this ecgcmr reads {SPECS_VERSION}")
            specs = [LabelSpec(**{**spec, "values": tuple(spec.get("values", ()))}) for spec in data.pop("specs")]
            return cls(specs=tuple(specs), **data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{where}: not a description of labels ({error}); build the labels again") from error


def specs_path(path: Path) -> Path:
    """Where the specs of a CSV file of labels lie."""
    return path.with_name(path.name.removesuffix(".csv") + ".specs.json")


def write_labels(path: Path, table: pd.DataFrame, columns: LabelColumns) -> list[Path]:
    """Write labels and what they mean; whole or not at all.

    Args:
        path: File that ends in .csv or .parquet.
        table: Keys as text, labels as numbers; NaN is missing.
        columns: What the columns are.

    Returns:
        The files that were written.

    Raises:
        ValueError: Another kind of file.
    """
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        arrow = pa.Table.from_pandas(table, preserve_index=False)
        arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), _META: columns.to_json().encode()})
        pq.write_table(arrow, partial, compression="zstd")
        partial.replace(path)
        return [path]
    if path.suffix != ".csv":
        raise ValueError(f"--out {path}: labels are written as .csv or .parquet")
    table.to_csv(partial, index=False, lineterminator="\n")
    specs = specs_path(path)
    partial_specs = specs.with_name(specs.name + ".partial")
    partial_specs.write_text(columns.to_json())
    partial_specs.replace(specs)
    partial.replace(path)
    return [path, specs]


def read_label_columns(path: Path, names: Sequence[str] | None = None) -> LabelColumns | None:
    """What the columns of a file of labels are; None when the file does not say.

    Args:
        path: The file of labels, CSV or parquet.
        names: Its columns; None does not ask whether each described column is there.

    Raises:
        ValueError: The specs are broken, or describe a column that is not there.
    """
    if path.suffix.lower() == ".parquet":
        try:
            meta = (pq.read_schema(path).metadata or {}).get(_META)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path}: not a readable parquet table ({error})") from error
        found = LabelColumns.from_json(meta.decode(), path) if meta else None
    else:
        specs = specs_path(path)
        is_there = path.suffix.lower() == ".csv" and specs.is_file()
        found = LabelColumns.from_json(specs.read_text(), specs) if is_there else None
    if found is not None and names is not None:
        absent = [spec.name for spec in found.specs if spec.name not in names]
        absent += [name for name in (found.subject_column, found.item_column) if name and name not in names]
        if absent:
            raise ValueError(
                f"{path}: its specs describe the column {absent[0]!r}, which it does not have; build it again"
            )
    return found


def numbers(texts: pd.Series) -> NDArray[np.float64]:
    """Texts (n,) as the nearest numbers, NaN where there is none; `pandas.to_numeric` may be off by the last bit."""

    def number(text: str) -> float:
        try:
            return float("nan") if "_" in text else float(text)  # Python reads 1_0 as ten
        except ValueError:
            return float("nan")

    return np.array([number(text) for text in texts], dtype=np.float64)


def declared_values(path: Path, spec: LabelSpec, texts: pd.Series) -> NDArray[np.float64]:
    """Numbers (n,) of a column with a declared meaning, NaN where it is empty.

    Raises:
        ValueError: A value is no number, not of its kind, or outside its range; names the row.
    """
    values = numbers(texts)
    low = 0.0 if spec.kind == "time" and spec.low is None else spec.low
    wrong = (texts != "").to_numpy(dtype=bool) & np.isnan(values)
    expected = "a number or nothing"
    if spec.kind in ("binary", "event"):
        wrong |= ~np.isnan(values) & ~np.isin(values, (0.0, 1.0))
        expected = "0, 1 or nothing"
    wrong |= (values < (-np.inf if low is None else low)) | (values > (np.inf if spec.high is None else spec.high))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        limits = f" from {low} to {spec.high} {spec.unit}".rstrip() if spec.high is not None else ""
        raise ValueError(
            f"{path}: column {spec.name!r}, data row {row + 1}: {texts.iloc[row]!r} is no {spec.kind} value; expected "
            f"{expected}{limits}. Build the labels again, or correct the row"
        )
    return values


def shape(text: str) -> str:
    """The look of a value without its content, for messages: letters become A, digits 9."""
    return re.sub(r"[0-9]", "9", re.sub(r"[^\W\d_]", "A", text))[:40]
