"""Looking for identifiers in what is going to be shared: a cohort, a run, a weights folder.

Names of files, tables, text, and the headers of images and arrays are read; the samples and pixels are not. Pickles are
never loaded: only the text in them is looked at.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecgcmr.cohort.privacy_files import READERS
from ecgcmr.cohort.privacy_patterns import (
    LOGGED_AT,
    counts_something,
    identifying_name,
    looks_identifying,
    redact,
    redact_within,
)

LARGEST_SAFE = 999_999  # whole numbers above it have seven digits or more
_TEXT = ".txt .log .md .html .htm .xml .svg .hea .cff .toml .ini .cfg .py .sh .rst .yaml .yml .tex"
_ARRAYS = ".bin .f32 .f16 .raw .mmap .lock"
TEXT_SUFFIXES = frozenset(_TEXT.split())
ARRAY_SUFFIXES = frozenset(_ARRAYS.split())  # numbers without any header


@dataclass(frozen=True)
class Finding:
    """Something that looks like an identifier.

    Attributes:
        file: File relative to the scanned folder, long numbers hidden.
        place: Column, key or tag; "" where the file has none.
        row: Row of a table or line of a text where it stands first, from 1; 0 where neither applies.
        kind: What it looks like.
        excerpt: The first one with its middle hidden: a report must not spread what it warns of.
        count: How many there are in this place.
    """

    file: str
    place: str
    row: int
    kind: str
    excerpt: str
    count: int = 1

    def __str__(self) -> str:
        where = f"{f', {self.place}' if self.place else ''}{f', row {self.row}' if self.row else ''}"
        more = f" and {self.count - 1} more" if self.count > 1 else ""
        return f"{self.file}{where}: {self.kind}: {self.excerpt}{more}"


@dataclass(frozen=True)
class AuditReport:
    """What an audit looked at and found.

    Attributes:
        findings: What looks like an identifier.
        files: Number of files that were looked into.
        skipped: Files that nothing can be said about, by suffix.
    """

    findings: tuple[Finding, ...]
    files: int
    skipped: dict[str, int]


Hit = tuple[str, int, str, str]  # place, row, kind, match


def audit(folder: str | Path) -> list[Finding]:
    """Scan the files of a folder for what looks like an identifier; see `scan`."""
    return list(scan(folder).findings)


def scan(folder: str | Path) -> AuditReport:
    """Scan a folder: names of files, tables, text, headers of images and arrays.

    Args:
        folder: A cohort, a run, a weights folder, or any folder; links out of it are not followed.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: there is no such folder")
    findings: list[Finding] = []
    skipped: Counter[str] = Counter()
    files = 0
    for path in sorted(root.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            continue
        name = path.relative_to(root).as_posix()
        shown = redact_within(name)
        hits: list[Hit] = [("file name", 0, kind, match) for kind, match in looks_identifying(path.name)]
        if path.is_file():
            reader = _reader(path)
            if reader is None:
                if path.suffix.lower() not in ARRAY_SUFFIXES:
                    skipped[path.suffix.lower() or "no suffix"] += 1
                files -= 1
            else:
                try:
                    hits.extend(reader(path))
                except Exception as error:  # a broken file is told, and the others are still looked at
                    hits.append(("", 0, "cannot be read", type(error).__name__))
            files += 1
        findings.extend(_gather(shown, hits))
    return AuditReport(tuple(findings), files, dict(skipped.most_common()))


def _gather(file: str, hits: Iterable[Hit]) -> Iterator[Finding]:
    """One finding for each place and kind, with the number of hits; rows of a text are places of their own."""
    first: dict[tuple[str, str], tuple[int, str]] = {}
    count: Counter[tuple[str, str]] = Counter()
    for place, row, kind, match in hits:
        first.setdefault((place, kind), (row, match))
        count[place, kind] += 1
    for (place, kind), (row, match) in first.items():
        excerpt = match if kind == "cannot be read" else redact(match)
        yield Finding(file, redact_within(place), row, kind, excerpt, count[place, kind])


def _reader(path: Path) -> Callable[[Path], Iterable[Hit]] | None:
    suffix = path.suffix.lower()
    if suffix in TEXT_SUFFIXES:
        return _text
    if suffix in _TABLES:
        return _TABLES[suffix]
    if suffix in READERS:
        return _headers
    with path.open("rb") as stream:
        head = stream.read(4096)
    if head[128:132] == b"DICM":
        return lambda where: _strings(READERS[".dcm"](where))
    if suffix in ARRAY_SUFFIXES or b"\0" in head:
        return None
    return _text


def _text(path: Path) -> Iterator[Hit]:
    logged = path.suffix.lower() == ".log"
    with path.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            for kind, match in looks_identifying(LOGGED_AT.sub("", line) if logged else line):
                yield "", number, kind, match


def _headers(path: Path) -> Iterator[Hit]:
    yield from _strings(READERS[path.suffix.lower()](path))


def _strings(pairs: Iterable[tuple[str, str]]) -> Iterator[Hit]:
    for place, text in pairs:
        if place.startswith("tag "):  # the tag itself says what it holds
            yield place[4:], 0, "identifying tag", text
            continue
        for kind, match in looks_identifying(text):
            yield place, 0, kind, match


def _json(path: Path) -> Iterator[Hit]:
    yield from _tree(json.loads(path.read_text(encoding="utf-8")), "", 0)


def _json_lines(path: Path) -> Iterator[Hit]:
    with path.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield from _tree(json.loads(line), "", number)
            except ValueError:  # a line that a killed run left half
                yield from (("", number, kind, match) for kind, match in looks_identifying(line))


def _tree(value: Any, place: str, row: int) -> Iterator[Hit]:
    if isinstance(value, dict):
        for key, item in value.items():
            here = f"{place}.{key}" if place else str(key)
            for kind, match in looks_identifying(str(key)):
                yield place or "keys", row, kind, match
            if identifying_name(str(key)) and item not in (None, "", [], {}):
                yield here, row, "identifying key", str(key)
            yield from _tree(item, here, row)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tree(item, place, row)
    elif isinstance(value, str):
        yield from ((place, row, kind, match) for kind, match in looks_identifying(value))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _number(value, place, row)


def _number(value: float, place: str, row: int) -> Iterator[Hit]:
    if LARGEST_SAFE < abs(value) < 1e15 and float(value).is_integer() and not counts_something(place):
        yield place, row, "long number", str(int(value))


def _csv(path: Path) -> Iterator[Hit]:
    with path.open(encoding="utf-8", errors="replace", newline="") as stream:
        rows = csv.reader(stream, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        header = next(rows, [])
        for name in header:
            yield from _column_name(name)
        for number, row in enumerate(rows, 1):
            for k, cell in enumerate(row):
                name = header[k] if k < len(header) else f"column {k + 1}"
                for kind, match in looks_identifying(cell):
                    if kind != "long number" or not counts_something(name):
                        yield name, number, kind, match


def _column_name(name: str) -> Iterator[Hit]:
    if identifying_name(name):
        yield name, 0, "identifying column", name
    yield from (("column name", 0, kind, match) for kind, match in looks_identifying(name))


def _parquet(path: Path) -> Iterator[Hit]:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path)
    for name in table.schema_arrow.names:
        yield from _column_name(name)
    for key, value in (table.schema_arrow.metadata or {}).items():
        if key not in (b"pandas", b"ARROW:schema"):
            yield from _strings([(f"metadata {key.decode(errors='replace')}", value.decode(errors="replace"))])
    row = 0
    for batch in table.iter_batches(65_536):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            yield from _column(name, column, row)
        row += batch.num_rows


def _column(name: str, column: Any, first: int) -> Iterator[Hit]:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_temporal(kind) and not pa.types.is_duration(kind):
        found = pc.drop_null(column)
        if len(found):
            yield name, first + 1, "date", str(found[0])
    elif pa.types.is_nested(kind):
        for k, value in enumerate(column.to_pylist(), first + 1):
            yield from _tree(value, name, k)
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        large = pc.fill_null(pc.greater(pc.abs(column.cast(pa.float64(), safe=False)), LARGEST_SAFE), False)
        if not counts_something(name) and pc.any(large).as_py():
            for k, value in enumerate(column.to_pylist(), first + 1):
                if value is not None:
                    yield from _number(value, name, k)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
        seen: dict[str, list[tuple[str, str]]] = {}
        for k, value in enumerate(column.to_pylist(), first + 1):
            if isinstance(value, str):
                if value not in seen:
                    seen[value] = list(looks_identifying(value))
                yield from ((name, k, what, match) for what, match in seen[value])


_TABLES: dict[str, Callable[[Path], Iterator[Hit]]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
