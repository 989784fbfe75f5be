"""Two lanes of learning at a time: nets this small gain nothing from a second core, but a second net does.

Measured on two cores (batch 128): a step of the nano autoencoder takes 0.19 s with two threads and 0.21 s with one, a
step of the alignment 0.45 s and 0.64 s. So two processes of one thread each get more done than one of two threads.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty
from typing import Any

from ecgcmr.demo.context import SCRATCH, DemoContext
from ecgcmr.study.stages import Report

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Task:
    """One training within a lane.

    Attributes:
        name: Key in `_work`.
        share: Expected part of the lane's time.
        needs: Runs of the other lane whose weights it waits for.
    """

    name: str
    share: float
    needs: tuple[str, ...] = ()


LANES = (
    (Task("ecg_mae", 260), Task("mae_aligned", 260, needs=("cmr_simclr",))),
    (Task("cmr_simclr", 50), Task("aligned", 260), Task("scratch", 210)),
)
TUNING = ((Task("phenotypes", 1),), (Task("outcomes", 1),))
"""The main arm with all labels: its measurements and diagnoses beside its incident outcomes."""


def _work(name: str) -> Callable[[DemoContext, Report], Any]:
    from ecgcmr.demo import arms, evaluating, learning

    return {
        "ecg_mae": learning.pretrain_ecg,
        "cmr_simclr": learning.pretrain_cmr,
        "mae_aligned": lambda context, report: learning.align(context, report, "mae_aligned", "ecg_mae"),
        "aligned": lambda context, report: learning.align(context, report, "aligned", None),
        "shuffled": lambda context, report: learning.align_shuffled(context, report, "shuffled"),
        "phenotypes": evaluating.tune_phenotypes,
        "outcomes": evaluating.tune_outcomes,
        "scratch": lambda context, report: arms.finetune_arm(context, SCRATCH, report),
    }[name]


def _run_lane(context: DemoContext, lane: Sequence[Task], number: int, told: Any) -> None:
    """What a lane's process does: its tasks in order, telling (lane, share of its time done) or its error."""
    import logging

    import torch

    logging.getLogger("ecgcmr").setLevel(logging.ERROR)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // len(LANES)))
    total, before = sum(task.share for task in lane), 0.0
    try:
        for task in lane:
            while not all(context.weights(run).exists() for run in task.needs):
                time.sleep(POLL_SECONDS)

            def tell(fraction: float, task: Task = task, before: float = before) -> None:
                told.put((number, (before + task.share * fraction) / total))

            _work(task.name)(context, tell)
            before += task.share
        told.put((number, 1.0))
    except BaseException as error:
        told.put((number, f"{type(error).__name__}: {error}"))
        raise SystemExit(1) from error


def learn(context: DemoContext, report: Report, lanes: Sequence[Sequence[Task]] = LANES) -> None:
    """Run the lanes side by side; what is already trained is left as it is.

    Raises:
        ChildProcessError: If a lane failed; the others are stopped (with a checkpoint) and the message is the lane's.
        KeyboardInterrupt: After Ctrl-C, when all lanes have written their checkpoints.
    """
    spawn = multiprocessing.get_context("spawn")
    told = spawn.Queue()
    processes = [
        spawn.Process(target=_run_lane, args=(context, lane, number, told), name=f"lane {number}")
        for number, lane in enumerate(lanes)
    ]
    for process in processes:
        process.start()
    done = [0.0] * len(lanes)
    try:
        while any(share < 1 for share in done):
            try:
                number, news = told.get(timeout=POLL_SECONDS)
            except Empty:
                number, news = _fallen(processes, done)
            if isinstance(news, str):
                raise RuntimeError(
                    f"training stopped: {news}; see train.log in the run folders of {context.out / 'runs'}"
                )
            done[number] = max(done[number], news)
            report(sum(done) / len(done))
    finally:
        for process in processes:
            if process.is_alive() and any(share < 1 for share in done):
                process.terminate()  # SIGTERM: a run writes its checkpoint and ends
            process.join()


def _fallen(processes: Sequence[Any], done: Sequence[float]) -> tuple[int, float | str]:
    """News of a lane that died without a word (killed for its memory, for instance); otherwise nothing new."""
    for number, process in enumerate(processes):
        if process.exitcode not in (None, 0) and done[number] < 1:
            return number, f"{process.name} ended with exit code {process.exitcode} and no message"
    return 0, done[0]
