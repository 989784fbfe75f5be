"""The files of a folder or a zip, one after the other, without unpacking anything to disk."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

DEFAULT_MAX_BYTES = 4 * 1024**3  # a whole UK Biobank short-axis study unpacks to about 0.1 GiB


@dataclass(frozen=True)
class Member:
    """One file of a folder or a zip.

    Attributes:
        ordinal: Its place in alphabetical order, from 1; file names may hold identifiers and are not repeated.
        size: Its (unpacked) size [bytes].
        open: Opens it for reading.
    """

    ordinal: int
    size: int
    open: Callable[[], IO[bytes]]


def iter_members(path: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> Iterator[Member]:
    """Give every file of a folder (recursive; zips in it are looked into), of a zip, or the one file itself.

    Args:
        path: Folder, zip or single file.
        max_bytes: What all zips together may unpack to; more is refused before anything is unpacked.

    Raises:
        FileNotFoundError: When there is nothing at `path`.
        ValueError: For a broken or encrypted zip, one that unpacks to too much, or names that lead outside of it.
    """
    if not path.exists():
        raise FileNotFoundError(f"no file or folder at {path}")
    files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
    ordinal, left = 0, max_bytes
    for file in files:
        if not zipfile.is_zipfile(file):
            ordinal += 1
            yield Member(ordinal, file.stat().st_size, lambda file=file: file.open("rb"))  # type: ignore[misc]
            continue
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise ValueError(f"{file}: the zip cannot be read ({error}); fetch it again") from error
        with archive:
            entries = _safe_entries(archive, file)
            left -= sum(entry.file_size for entry in entries)
            if left < 0:
                raise ValueError(
                    f"{file}: unpacks to more than the limit of {max_bytes} bytes; "
                    "if that is expected, pass a larger max_bytes"
                )
            for entry in entries:
                ordinal += 1
                yield Member(ordinal, entry.file_size, lambda entry=entry, archive=archive: archive.open(entry))  # type: ignore[misc]


def _safe_entries(archive: zipfile.ZipFile, file: Path) -> list[zipfile.ZipInfo]:
    entries = []
    for number, entry in enumerate(sorted(archive.infolist(), key=lambda item: item.filename), start=1):
        name = entry.filename
        posix, windows = PurePosixPath(name), PureWindowsPath(name)
        if posix.is_absolute() or windows.anchor or ".." in posix.parts or ".." in windows.parts:
            raise ValueError(f"{file}: entry {number} has a name that leads outside the archive; not reading this zip")
        if entry.flag_bits & 0x1:
            raise ValueError(f"{file}: entry {number} is encrypted; decrypt the zip first")
        if not entry.is_dir():
            entries.append(entry)
    return entries
