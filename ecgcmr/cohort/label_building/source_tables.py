"""The tables that labels are built from: CSV, tab-separated text or parquet, read by column and piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ecgcmr.cohort.label_building.fields import FieldColumn, field_columns, id_column

CHUNK_CELLS = 10_000_000  # text cells held at once: wide tables are read in shorter pieces
_SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
_MISSING = ("", "NA", "NaN", "nan", "<NA>", "None", "NULL")


@dataclass
class SourceTables:
    """Tables by name; one table may be spread over several files.

    Attributes:
        files: Name -> files.
    """

    files: dict[str, list[Path]]
    _headers: dict[Path, list[str]] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, texts: Sequence[str]) -> SourceTables:
        """Read NAME=FILE, a FILE (its stem is the name), or a FOLDER of such files.

        Raises:
            FileNotFoundError: A file is not there.
            ValueError: A file of an unknown kind, or nothing was given.
        """
        files: dict[str, list[Path]] = {}
        for text in texts:
            name, equals, rest = text.partition("=")
            path = Path(rest if equals else text)
            if not equals and path.is_dir():
                inside = [file for file in sorted(path.iterdir()) if _suffix(file) in (*_SEPARATORS, ".parquet")]
                for file in inside:
                    files.setdefault(_stem(file), []).append(file)
                continue
            if not path.is_file():
                raise FileNotFoundError(f"--tables {text}: there is no such file")
            if _suffix(path) not in (*_SEPARATORS, ".parquet"):
                raise ValueError(f"--tables {text}: expected one of {', '.join((*_SEPARATORS, '.parquet'))} (or .gz)")
            files.setdefault(name if equals else _stem(path), []).append(path)
        if not files:
            raise ValueError("no tables: give --tables NAME=FILE for each table, or a folder that holds them")
        return cls(files)

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def header(self, path: Path) -> list[str]:
        """Column names of a file.

        Raises:
            ValueError: The file is no table.
        """
        if path not in self._headers:
            try:
                if _suffix(path) == ".parquet":
                    names = [str(name) for name in pq.read_schema(path).names]
                else:
                    read = pd.read_csv(path, sep=_SEPARATORS[_suffix(path)], dtype=str, nrows=0, encoding="utf-8-sig")
                    names = [str(name) for name in read.columns]
            except (
                OSError,
                pa.ArrowException,
                pd.errors.ParserError,
                pd.errors.EmptyDataError,
                UnicodeDecodeError,
            ) as error:
                raise ValueError(f"{path}: not a readable table ({error})") from error
            self._headers[path] = names
        return self._headers[path]

    def require(self, name: str, why: str) -> list[Path]:
        """Files of a table.

        Raises:
            ValueError: There is no such table; says what it is needed for.
        """
        if name not in self.files:
            raise ValueError(
                f"table {name!r} is needed for {why}: add --tables {name}=FILE; given: {', '.join(self.files)}"
            )
        return self.files[name]

    def subject_column(self, path: Path, wanted: str) -> str:
        """The column of the subject in a file.

        Raises:
            ValueError: There is none; names the columns.
        """
        found = id_column(self.header(path), wanted)
        if found is None:
            raise ValueError(f"{path}: no subject column {wanted!r}; it has {_listed(self.header(path))}")
        return found

    def fields(self, name: str, number: int, instance: int | None = None) -> list[tuple[Path, FieldColumn]]:
        """Where the columns of a UK Biobank field are: (file, column)."""
        found = []
        for path in self.files.get(name, []):
            found += [(path, column) for column in field_columns(self.header(path), number, instance)]
        return found

    def chunks(self, path: Path, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        """Rows of a file as text ("" is missing), a piece at a time, with the asked columns only.

        Raises:
            ValueError: A column is missing or the file breaks off; names them.
        """
        absent = [column for column in columns if column not in self.header(path)]
        if absent:
            raise ValueError(f"{path}: no column {absent[0]!r}; it has {_listed(self.header(path))}")
        wanted = list(dict.fromkeys(columns))
        rows = max(1000, CHUNK_CELLS // max(1, len(wanted)))
        try:
            if _suffix(path) == ".parquet":
                for batch in pq.ParquetFile(path).iter_batches(rows, columns=wanted):
                    yield batch.to_pandas().apply(_as_text)[wanted]
                return
            reader = pd.read_csv(
                path,
                sep=_SEPARATORS[_suffix(path)],
                dtype=str,
                usecols=wanted,
                keep_default_na=False,
                encoding="utf-8-sig",
                chunksize=rows,
            )
            for chunk in reader:
                yield chunk.fillna("").apply(_as_text)[wanted]
        except (pa.ArrowException, pd.errors.ParserError, UnicodeDecodeError, EOFError, OSError) as error:
            raise ValueError(f"{path}: not a readable table ({error})") from error

    def read(self, path: Path, columns: Sequence[str]) -> pd.DataFrame:
        """All rows of a file as text, with the asked columns only."""
        pieces = list(self.chunks(path, columns))
        return pd.concat(pieces, ignore_index=True) if pieces else pd.DataFrame(columns=list(columns), dtype=str)


def key(values: pd.Series) -> pd.Series:
    """Subjects as text; 12.0 (a number that went through a spreadsheet) is 12."""
    return values.str.strip().str.replace(r"^(\d+)\.0$", r"\1", regex=True)


def _as_text(column: pd.Series) -> pd.Series:
    if pd.api.types.is_datetime64_any_dtype(column):
        text = column.dt.strftime("%Y-%m-%d %H:%M:%S").fillna("")
    elif column.dtype == object and len(column) and isinstance(next((v for v in column if v is not None), ""), list):
        text = column.map(lambda cell: "|".join(map(str, cell)) if cell is not None else "")
    else:
        text = column.astype("string").fillna("").astype(object).str.strip()
    return text.where(~text.isin(_MISSING), "")


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _stem(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).stem


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
