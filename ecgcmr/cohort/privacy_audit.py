"""Looking for identifiers in what is going to be shared: a cohort, a run, a weights folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TEXT_SUFFIXES = (".json", ".jsonl", ".yaml", ".yml", ".log", ".txt", ".md", ".csv", ".tsv")

_PATTERNS = (("long number", re.compile(r"(?<![\d.])\d{7,}(?![\d.])")),)


@dataclass(frozen=True)
class Finding:
    """Something that looks like an identifier.

    Attributes:
        file: File relative to the scanned folder.
        place: Column, key or tag; "" where the file has none.
        row: Row of a table or line of a text, from 1; 0 where neither applies.
        kind: What it looks like.
        excerpt: What was found with its middle hidden: a report must not spread what it warns of.
    """

    file: str
    place: str
    row: int
    kind: str
    excerpt: str

    def __str__(self) -> str:
        place = f" {self.place}" if self.place else ""
        return f"{self.file}{place}{f' row {self.row}' if self.row else ''}: {self.kind}: {self.excerpt}"


def audit(folder: str | Path) -> list[Finding]:
    """Scan the files of a folder for what looks like an identifier.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: there is no such folder")
    found: list[Finding] = []
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.suffix in TEXT_SUFFIXES:
            found.extend(_text(path, path.relative_to(root).as_posix()))
    return found


def _text(path: Path, name: str) -> Iterator[Finding]:
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        for kind, pattern in _PATTERNS:
            for match in pattern.finditer(line):
                yield Finding(name, "", number, kind, redact(match.group()))


def redact(text: str) -> str:
    """Keep the first and the last character of what was found."""
    return text[0] + "*" * max(len(text) - 2, 1) + text[-1] if text else ""
