"""Jobs on several processes of one thread each: a small network gains nothing from a second core, a second one does."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from ecgcmr.study.plan import Job
from ecgcmr.study.stages import Report

Work = Callable[[Job, Report], None]
"""Does a job in a worker and tells the share that is done; must be importable, because workers are spawned."""

POLL_SECONDS = 0.5


@dataclass
class _Worker:
    process: Any
    connection: Connection
    job: Job | None = None
    share: float = 0.0


def _serve(connection: Connection, work: Work) -> None:
    """What a worker does: jobs until there are no more, or until whoever gave them is gone."""
    import torch

    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C in the terminal is for the study, which then asks its workers to stop
    logging.getLogger("ecgcmr").setLevel(logging.ERROR)
    torch.set_num_threads(1)

    def tell(share: float) -> None:
        connection.send(("share", share))  # fails when the study was killed, which ends the job too

    while True:
        try:
            job = connection.recv()
        except (EOFError, OSError):
            return
        try:
            work(job, tell)
        except BaseException as error:
            _try_to_send(connection, ("failed", f"{type(error).__name__}: {error}"))
            raise SystemExit(1) from None
        _try_to_send(connection, ("done", 1.0))


def _try_to_send(connection: Connection, news: tuple[str, Any]) -> None:
    try:
        connection.send(news)
    except OSError:
        raise SystemExit(1) from None  # nobody listens any more


def run_jobs(jobs: Sequence[Job], work: Work, workers: int, report: Report) -> None:
    """Do the jobs that are not done, each after those that it needs.

    Args:
        jobs: In an order in which they could be done one after the other.
        work: Does one job.
        workers: Processes.
        report: Told the share of all jobs.

    Raises:
        RuntimeError: If a job failed or a worker died; names the job. The others are stopped, with a checkpoint.
        KeyboardInterrupt: After Ctrl-C, likewise.
    """
    finished = {job.key for job in jobs if job.is_done}
    waiting = [job for job in jobs if job.key not in finished]
    if not waiting:
        report(1.0)
        return
    spawn = multiprocessing.get_context("spawn")
    pool: list[_Worker] = []
    try:
        for number in range(min(workers, len(waiting))):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(theirs, work), name=f"worker {number}")
            process.start()
            theirs.close()
            pool.append(_Worker(process, ours))
        while waiting or any(worker.job for worker in pool):
            _hand_out(pool, waiting, finished)
            for connection in wait([worker.connection for worker in pool], timeout=POLL_SECONDS):
                _listen(next(worker for worker in pool if worker.connection is connection), finished)
            running = sum(worker.share for worker in pool if worker.job)
            report((len(finished) + running) / len(jobs))
    finally:
        for worker in pool:
            if worker.job is not None and worker.process.is_alive():
                worker.process.terminate()  # SIGTERM: a run writes its checkpoint and ends
            worker.connection.close()
        for worker in pool:
            worker.process.join()


def _hand_out(pool: Sequence[_Worker], waiting: list[Job], finished: set[str]) -> None:
    for worker in (worker for worker in pool if worker.job is None):
        ready = next((job for job in waiting if set(job.needs) <= finished), None)
        if ready is None:
            return
        waiting.remove(ready)
        worker.job, worker.share = ready, 0.0
        worker.connection.send(ready)


def _listen(worker: _Worker, finished: set[str]) -> None:
    job = worker.job
    try:
        kind, news = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        what = f"{worker.process.name} ended with exit code {worker.process.exitcode} and no message"
        raise RuntimeError(f"{job.key if job else 'study'}: {what}; repeat the command to go on") from None
    assert job is not None, "only a worker with a job tells news"
    if kind == "failed":
        raise RuntimeError(f"{job.key} stopped: {news}; see {job.folder}")
    worker.share = news
    if kind == "done":
        finished.add(job.key)
        worker.job = None
