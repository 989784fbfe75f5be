"""How much memory a job takes: all of its processes together, sampled while it works."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil

SAMPLE_SECONDS = 1.0


def memory_mib() -> float:
    """Memory of this process and its descendants [MiB]; what they share counts once where the system can tell."""
    me = psutil.Process()
    return sum(_own(process) for process in (me, *me.children(recursive=True))) / 2**20


def _own(process: psutil.Process) -> int:
    """Proportional set size on Linux, resident memory elsewhere; 0 for a process that has just ended [bytes]."""
    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", full.rss))
    except psutil.AccessDenied:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


class MemoryWatch:
    """Samples `memory_mib` in a thread of its own while the `with` block runs.

    Attributes:
        peak_mib: Largest sample so far [MiB]; peaks between two samples are missed.
    """

    def __init__(self, every_s: float = SAMPLE_SECONDS) -> None:
        self.peak_mib = 0.0
        self._every = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory watch", daemon=True)

    def _watch(self) -> None:
        while True:
            self.peak_mib = max(self.peak_mib, memory_mib())
            if self._stop.wait(self._every):
                return

    def __enter__(self) -> MemoryWatch:
        """Start sampling."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the last sample and stop."""
        self._stop.set()
        self._thread.join()
        self.peak_mib = max(self.peak_mib, memory_mib())
