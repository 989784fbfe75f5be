"""One writing at a time in a background thread, whose errors come out where the run can stop for them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

log = logging.getLogger(__name__)


class BackgroundWriter:
    """Runs jobs one after the other: in one background thread, or at once where `background` is False.

    At most one job is under way: handing over the next waits for it, so that what is written never goes back in time
    and memory holds one copy of the state. The thread is no daemon: an interpreter that ends waits for it. As a context
    manager it waits at the end; an error of the last job is raised there, or logged if another one is under way.
    """

    def __init__(self, background: bool = True) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint") if background else None
        self._job: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return self._job is not None and not self._job.done()

    def submit(self, job: Callable[[], None]) -> None:
        """Wait for the job that is under way, then start this one.

        Raises:
            Exception: What the job before raised; this one is not started then.
        """
        self.wait()
        if self._pool is None:
            job()
        else:
            self._job = self._pool.submit(job)

    def check(self) -> None:
        """Raise what a job raised that is over; does not wait."""
        if self._job is not None and self._job.done():
            self.wait()

    def wait(self) -> None:
        """Wait until nothing is under way, and raise what the job raised, once."""
        job = self._job
        if job is None:
            return
        try:
            job.result()
        finally:
            if job.done():  # not so after Ctrl-C: then the end waits for it once more
                self._job = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except Exception as failed:
            if error is None:
                raise
            log.warning("the checkpoint that was being written failed too: %s", failed)
        finally:
            if self._pool is not None:
                self._pool.shutdown()
