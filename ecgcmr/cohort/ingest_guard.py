"""What keeps one file from stopping an ingest: a time limit, and a mark that tells what was read when a worker died."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from ecgcmr.cohort.ledger import Reason

MARK_SUFFIX = ".at"
DEATHS_SUFFIX = ".died"


class ReaderTimeout(BaseException):
    """A file took too long. No `Exception`, because readers turn those into other ones."""


class Mark:
    """Writes down which item of a chunk is being read; what a dead worker leaves behind names the suspect.

    Args:
        chunk: Folder of the chunk; the mark stands beside it.
    """

    def __init__(self, chunk: Path) -> None:
        self._path = mark_path(chunk)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_CREAT | os.O_WRONLY, 0o644)

    def set(self, index: int) -> None:
        """Item `index` begins; the time of the file's last change is the time of its begin."""
        os.pwrite(self._file, index.to_bytes(8, "little"), 0)

    def close(self) -> None:
        """The chunk is done, or failed in a way that was told."""
        os.close(self._file)
        self._path.unlink(missing_ok=True)


def mark_path(chunk: Path) -> Path:
    """The mark of a chunk."""
    return chunk.with_name(chunk.name + MARK_SUFFIX)


def marked_item(chunk: Path) -> int | None:
    """The item that a dead worker was reading, or None when it had begun none."""
    try:
        content = mark_path(chunk).read_bytes()
    except FileNotFoundError:
        return None
    return int.from_bytes(content, "little") if len(content) == 8 else None


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `ReaderTimeout` after some seconds; where a signal cannot reach, the process ends after twice as long.

    Python runs a signal's handler only in the main thread and between two of its own steps: a C library that hangs is
    ended by the watchdog of `faulthandler`, and the mark then tells the parent which file it was.
    """

    def ring(number: int, frame: FrameType | None) -> None:
        raise ReaderTimeout

    in_main = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")
    previous: Any = signal.signal(signal.SIGALRM, ring) if in_main else None
    silence = os.open(os.devnull, os.O_WRONLY)
    try:
        faulthandler.dump_traceback_later(2 * seconds if in_main else seconds, exit=True, file=silence)
        if in_main:
            signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        if in_main:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        faulthandler.cancel_dump_traceback_later()
        os.close(silence)


def note_death(chunk: Path, item: int, seconds: float, limit_s: float) -> None:
    """Keep for the next try that reading an item alone ended its process.

    Args:
        chunk: Folder of the chunk.
        item: The item.
        seconds: Time from its begin to the death [s].
        limit_s: The time limit [s].
    """
    reason = Reason.READER_TIMEOUT if seconds >= limit_s else Reason.READER_CRASHED
    with _deaths_path(chunk).open("a") as stream:
        stream.write(f"{item} {reason.value}\n")


def known_deaths(chunk: Path) -> dict[int, Reason]:
    """Items of a chunk that ended the process that read them alone."""
    with suppress(FileNotFoundError):
        lines = [line.split() for line in _deaths_path(chunk).read_text().splitlines()]
        return {int(item): Reason(reason) for item, reason in lines}
    return {}


def _deaths_path(chunk: Path) -> Path:
    return chunk.with_name(chunk.name + DEATHS_SUFFIX)
