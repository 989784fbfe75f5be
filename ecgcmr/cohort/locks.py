"""An advisory lock on a file that the system releases by itself when its holder dies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: renames alone keep files whole, at the price of double work
    fcntl = None  # type: ignore[assignment]


class FolderLock:
    """Exclusive lock by `flock`.

    Args:
        path: The lock file; its folder must exist when the lock is taken.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: IO[str] | None = None

    def acquire(self, busy: str | None = None) -> None:
        """Take the lock.

        Args:
            busy: When given, a lock that is held elsewhere raises `BlockingIOError` with this message; otherwise wait.
        """
        while True:
            stream = self._path.open("a")
            if fcntl is not None:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
                except BlockingIOError:
                    stream.close()
                    raise BlockingIOError(busy) from None
            if _same_file(self._path, stream):
                self._stream = stream
                return
            stream.close()  # the holder before us removed or renamed the file: that lock guards nothing

    def release(self) -> None:
        """Give the lock back; does nothing when it is not held."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _same_file(path: Path, stream: IO[str]) -> bool:
    held = os.fstat(stream.fileno())
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    return (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)
