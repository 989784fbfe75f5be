"""What a head knows of a subject besides the ECG: rows of a table, found for each recording."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ecgcmr.cohort.tabular import TabularColumn, encode
from ecgcmr.models.tabular import tabular_input

if TYPE_CHECKING:
    import pandas as pd

    from ecgcmr.hub.inputs import EcgInputs, EcgItem

    CovariatesLike = pd.DataFrame | Mapping[str, Any]
    """A table, or one row for all recordings."""

_KEYS = ("item", "recording", "subject")


class Covariates:
    """Tabular inputs of recordings.

    A table has one row for each recording and, to find it, a column `item` (the file as it was given), or for a cohort
    `recording` or `subject`; without any of them its rows stand in the order of the recordings. A mapping of names to
    single values is one row, for all recordings.

    Args:
        columns: What the head reads.
        table: The values; NaN or None where one is not known.
        inputs: The recordings.

    Raises:
        ValueError: A column is missing, a value is not what it was in training, a key is there twice, or nothing says
            whose the rows are.
    """

    def __init__(self, columns: Sequence[TabularColumn], table: CovariatesLike, inputs: EcgInputs) -> None:
        import pandas as pd

        names = [column.name for column in columns]
        scalars = isinstance(table, Mapping)
        frame = pd.DataFrame([dict(table)]) if isinstance(table, Mapping) else table
        absent = [name for name in names if name not in frame]
        if absent:
            raise ValueError(f"covariates: no column {', '.join(absent)}; {describe(columns)}")
        values, known = encode(columns, {name: frame[name].to_numpy(dtype=object) for name in names})
        self._input = tabular_input(torch.from_numpy(values), torch.from_numpy(known))
        self._for_all = scalars
        self._key = None if scalars else next((key for key in _KEYS if key in frame), None)
        self._row_of: dict[str, int] = {}
        if self._key is not None:
            keys = [str(value) for value in frame[self._key]]
            self._row_of = {key: row for row, key in enumerate(keys)}
            if len(self._row_of) < len(keys):
                twice = next(key for row, key in enumerate(keys) if self._row_of[key] != row)
                raise ValueError(f"covariates: {self._key} {twice} has two rows")
        elif not scalars and (len(values) != inputs.total or (inputs.files and not inputs.single)):
            raise ValueError(
                f"covariates: {len(values)} rows for {inputs.total} recordings; give one row for each array in their "
                f"order, or a column {', '.join(_KEYS[:-1])} or {_KEYS[-1]} that says whose a row is"
            )

    def of(self, items: Sequence[EcgItem]) -> Tensor:
        """Input of the tabular encoder (B, 2 C) for recordings.

        Raises:
            ValueError: There is no row for one of them.
        """
        return self._input[torch.tensor([self._row(item) for item in items], dtype=torch.int64)]

    def _row(self, item: EcgItem) -> int:
        if self._for_all:
            return 0
        if self._key is None:
            return item.position
        key = item.name if self._key == "item" else str(item.about.get(self._key))
        if key not in self._row_of:
            raise ValueError(
                f"covariates: no row with {self._key} {key}; give one, with empty values if nothing is known"
            )
        return self._row_of[key]


def read_covariates(path: Path) -> pd.DataFrame:
    """Read a table of covariates.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no .csv or .parquet, or cannot be read as one.
    """
    import pandas as pd

    readers: dict[str, Callable[..., pd.DataFrame]] = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
    if path.suffix not in readers:
        raise ValueError(f"{path}: covariates are read from .csv and .parquet")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        return readers[path.suffix](path)
    except (ValueError, OSError) as error:  # of pandas and of pyarrow alike
        raise ValueError(f"{path}: cannot be read as {path.suffix[1:]} ({error})") from None


def describe(columns: Sequence[TabularColumn]) -> str:
    """Say which columns a head reads, and what they may hold."""
    parts = []
    for column in columns:
        unit = f" in {column.unit}" if column.unit else ""
        what = {
            "number": f"a number{unit}, in training {column.mean:.4g} on average",
            "binary": "0 or 1",
            "category": f"one of {', '.join(column.levels)}",
        }[column.kind]
        parts.append(f"{column.name} ({what})")
    return f"this head reads {'; '.join(parts)}; leave a value empty where it is not known"


def covariates_for(
    modules: Mapping[str, nn.Module], config: Mapping[str, Any], table: CovariatesLike | None, inputs: EcgInputs
) -> Covariates | None:
    """Match a table with the recordings, if the head reads more than the ECG; None if it does not.

    Raises:
        ValueError: A table is needed and was not given, or was given and nothing reads it; or as `Covariates`.
    """
    if not config["head_options"].get("tabular"):
        if table is not None:
            raise ValueError("covariates were given, but this head reads the ECG alone; leave them out")
        return None
    columns = columns_of(modules)
    if table is None:
        raise ValueError(f"covariates are missing: {describe(columns)}; predict(..., covariates=table)")
    return Covariates(columns, table, inputs)


def with_covariates(modules: Mapping[str, nn.Module], embedding: Tensor, known: Tensor | None) -> Tensor:
    """Put the embedding of tabular inputs (B, 2 C) behind that of the signal (B, D), as the head reads it.

    Raises:
        ValueError: If they were not given.
    """
    if known is None:
        raise ValueError(f"covariates are missing: {describe(columns_of(modules))}; use predict(..., covariates=table)")
    beside: Tensor = modules["tabular"](known.to(embedding.device))
    return torch.cat([embedding, beside.to(embedding.dtype)], dim=1)


def columns_of(modules: Mapping[str, nn.Module]) -> tuple[TabularColumn, ...]:
    """Columns that the tabular encoder reads."""
    encoder: Any = modules["tabular"]
    columns: tuple[TabularColumn, ...] = encoder.columns
    return columns
