"""Work that takes no time, for the tests of workers: it is imported by the processes that do it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ecgcmr.study.plan import Job
from ecgcmr.study.stages import Report


def note(job: Job, tell: Report) -> None:
    """Write down who did it and when."""
    tell(0.5)
    time.sleep(0.05)
    finish(job)


def finish(job: Job) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    with (job.folder.parent / "order.txt").open("a") as file:
        file.write(f"{job.key} {os.getpid()}\n")
    (job.folder / "done.json").write_text("{}")


def fail(job: Job, tell: Report) -> None:
    if job.arm == "bad":
        raise ValueError("no such thing")
    note(job, tell)


def die(job: Job, tell: Report) -> None:
    if job.arm == "bad":
        os._exit(9)
    note(job, tell)


def job(folder: Path, arm: str, needs: tuple[str, ...] = ()) -> Job:
    return Job(arm, "evaluate", arm, 0, folder / arm, folder / arm / "weights", needs)
