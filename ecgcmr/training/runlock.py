"""One run folder, one run: a lock that names its holder and that the system releases when the holder dies."""

from __future__ import annotations

import json
import logging
import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from accelerate.utils import broadcast_object_list

from ecgcmr.cohort.locks import FolderLock

log = logging.getLogger(__name__)

LOCK = "run.lock"


class RunLock:
    """Exclusive right to write into a run folder; held by the main process.

    The file tells people who holds it; the lock itself is the system's (`flock`), so that the file of a killed process
    locks nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = FolderLock(folder / LOCK)
        self.held = False

    def acquire(self) -> None:
        """Take the lock, over that of a process that is dead; the folder is made.

        Raises:
            ValueError: If another process writes into this folder; the message names it.
        """
        if self.held:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        before = _holder(self._folder)
        try:
            self._lock.acquire(busy="held")
        except BlockingIOError:
            raise ValueError(
                f"{self._folder} is being trained by {_holder(self._folder) or 'another process'}: wait for that run, "
                "stop it (SIGTERM ends it with a checkpoint), or choose another folder with out=..."
            ) from None
        except OSError as error:
            # Some network file systems have no locks; a run there is worth more than the guard.
            log.warning("%s cannot be locked (%s): start only one run in it", self._folder, error.strerror)
            return
        self.held = True
        if before:
            log.info("took over the lock of %s, which is gone", before)
        about = {
            "process": os.getpid(),
            "host": platform.node(),
            "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        }
        (self._folder / LOCK).write_text(json.dumps(about) + "\n", encoding="utf-8")

    def acquire_existing(self) -> None:
        """Take the lock if a run has left or holds one here; makes no folder.

        Raises:
            ValueError: As `acquire`.
        """
        if (self._folder / LOCK).exists():
            self.acquire()

    def close(self) -> None:
        """Give the lock back and remove its file; does nothing where it is not held."""
        if self.held:
            self.held = False
            (self._folder / LOCK).unlink(missing_ok=True)
            self._lock.release()


def _holder(folder: Path) -> str | None:
    """Say who wrote the lock file; None without one."""
    try:
        about = json.loads((folder / LOCK).read_text(encoding="utf-8"))
        return f"process {about['process']} on {about['host']} since {about['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def on_main_process(take: Callable[[], None], is_main: bool, n_processes: int) -> None:
    """Let the main process take what only one can have, and all processes end alike if it is refused.

    Raises:
        ValueError: On every process, with the message of the one that `take` raised.
    """
    refused: list[str | None] = [None]
    if is_main:
        try:
            take()
        except ValueError as error:
            refused[0] = str(error)
    if n_processes > 1:
        broadcast_object_list(refused, from_process=0)
    if refused[0] is not None:
        raise ValueError(refused[0])
