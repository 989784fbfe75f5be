"""Turn SIGTERM and Ctrl-C into a question that the loop asks after each step, so that a run ends with a checkpoint."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

log = logging.getLogger(__name__)

EXIT_INTERRUPTED = 75
"""Exit code of an interrupted run that can be resumed (EX_TEMPFAIL: the same command may be tried again)."""


class RunInterrupted(Exception):
    """A run was asked to stop; its state is in `folder`/checkpoints/last and `--resume` continues it."""

    def __init__(self, folder: Path, step: int) -> None:
        super().__init__(f"interrupted at step {step}; the checkpoint is written: continue {folder} with --resume")
        self.folder = folder
        self.step = step


class StopRequest:
    """Whether somebody asked the run to stop."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Listen for SIGTERM and SIGINT; the first asks for a stop, a second one interrupts at once.

    Python delivers signals to the main thread only: in another thread the request simply never comes.

    Yields:
        The request, whose `asked` becomes True.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if request.asked:
            raise KeyboardInterrupt
        request.asked = True
        log.warning("%s: stopping after this step; once more stops at once", signal.Signals(number).name)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
