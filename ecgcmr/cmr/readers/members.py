"""The files of a folder or a zip, one after the other, without unpacking anything to disk."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

DEFAULT_MAX_BYTES = 4 * 1024**3  # a whole UK Biobank short-axis study unpacks to about 0.1 GiB
MAX_ENTRIES = 200_000  # files in one zip; a study has some thousands
MAX_DEPTH = 2  # a study zip that holds one zip for each series
HEAD_BYTES = 2048
# What unpacking a damaged zip raises, besides ValueError.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error, OSError, RuntimeError)


@dataclass(frozen=True)
class Member:
    """One file of a folder or a zip.

    Attributes:
        ordinal: Its place in alphabetical order, from 1; file names may hold identifiers and are not repeated.
        size: Its (unpacked) size [bytes].
        open: Opens it for reading.
        folder: Key of the folder or zip it lies in; for comparing in memory only.
        name: Its file name; for comparing in memory only.
    """

    ordinal: int
    size: int
    open: Callable[[], IO[bytes]]
    folder: str = ""
    name: str = ""

    @property
    def title(self) -> str:
        """How messages name it."""
        return f"file {self.ordinal} of the listing (alphabetical)"

    def load(self, wanted: Callable[[bytes], bool], max_bytes: int) -> bytes | None:
        """Give the whole content when its first bytes are wanted, else None.

        Args:
            wanted: Told the first `HEAD_BYTES` bytes, says whether the rest is worth reading.
            max_bytes: Largest file to read [bytes].

        Raises:
            ValueError: When it cannot be unpacked or is too large.
        """
        try:
            with self.open() as stream:
                head = stream.read(HEAD_BYTES)
                if not wanted(head):
                    return None
                if self.size > max_bytes:
                    raise ValueError(
                        f"{self.title}: {self.size} bytes are more than the limit of {max_bytes} bytes; "
                        "if that is expected, pass a larger max_bytes"
                    )
                return head + stream.read(max(0, self.size - len(head)))
        except ZIP_ERRORS as error:
            raise ValueError(
                f"{self.title}: cannot be unpacked ({type(error).__name__}); cut off or damaged, copy it again"
            ) from error


def iter_members(path: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> Iterator[Member]:
    """Give every file of a folder (recursive; zips in it are looked into), of a zip, or the one file itself.

    Zips in a zip are opened in memory, one level deep. Use each member before asking for the next one.

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
    walk = _Walk(max_bytes)
    for file in files:
        if zipfile.is_zipfile(file):
            yield from walk.zip_members(file, str(file), 1)
        else:
            yield walk.member(file.stat().st_size, partial(_open, file), str(file.parent), file.name)


class _Walk:
    """Counts files and bytes over all zips of one call."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = self._left = max_bytes
        self._ordinal = 0

    def member(self, size: int, opener: Callable[[], IO[bytes]], folder: str, name: str) -> Member:
        self._ordinal += 1
        return Member(self._ordinal, size, opener, folder, name)

    def zip_members(self, source: Path | IO[bytes], title: str, depth: int) -> Iterator[Member]:
        """Files of a zip; `title` names the outermost zip in messages."""
        try:
            archive = zipfile.ZipFile(source)
        except (*ZIP_ERRORS, ValueError) as error:
            raise ValueError(f"{title}: the zip cannot be read ({error}); fetch it again") from error
        with archive:
            entries = _safe_entries(archive, title)
            self._left -= sum(entry.file_size for entry in entries)
            if self._left < 0:
                raise ValueError(
                    f"{title}: unpacks to more than the limit of {self._max_bytes} bytes; "
                    "if that is expected, pass a larger max_bytes"
                )
            for number, entry in enumerate(entries, start=1):
                place = PurePosixPath(entry.filename)
                if place.suffix.lower() == ".zip":
                    inner = self._inner(archive, entry, f"{title}, entry {number}", depth)
                    yield from self.zip_members(inner, f"{title}, entry {number}", depth + 1)
                    continue
                folder = f"{title}/{place.parent}"
                yield self.member(entry.file_size, partial(archive.open, entry), folder, place.name)

    @staticmethod
    def _inner(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, title: str, depth: int) -> IO[bytes]:
        if depth >= MAX_DEPTH:
            raise ValueError(f"{title}: a zip within a zip within a zip; unpack the outer ones first")
        try:
            return io.BytesIO(archive.read(entry))
        except ZIP_ERRORS as error:
            raise ValueError(f"{title}: the zip cannot be read ({type(error).__name__}); fetch it again") from error


def _safe_entries(archive: zipfile.ZipFile, title: str) -> list[zipfile.ZipInfo]:
    found = sorted(archive.infolist(), key=lambda item: item.filename)
    if len(found) > MAX_ENTRIES:
        raise ValueError(f"{title}: {len(found)} files in one zip; no study has more than {MAX_ENTRIES}")
    entries = []
    for number, entry in enumerate(found, start=1):
        name = entry.filename
        if not name:
            raise ValueError(f"{title}: entry {number} has no name; the zip is damaged, fetch it again")
        posix, windows = PurePosixPath(name), PureWindowsPath(name)
        if posix.is_absolute() or windows.anchor or ".." in posix.parts or ".." in windows.parts:
            raise ValueError(f"{title}: entry {number} has a name that leads outside the archive; not reading this zip")
        if entry.flag_bits & 0x1:
            raise ValueError(f"{title}: entry {number} is encrypted; decrypt the zip first")
        if not entry.is_dir():
            entries.append(entry)
    return entries


def _open(file: Path) -> IO[bytes]:
    return file.open("rb")
