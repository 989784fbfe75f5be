"""Stages of a long job: each leaves a marker when it is done, so that an interrupted job continues where it stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ecgcmr.study.memory import MemoryWatch

Report = Callable[[float], None]
"""A stage calls it with the share of its own work that is done, from 0 to 1."""


@dataclass(frozen=True)
class Stage:
    """One step of a job.

    Attributes:
        key: Name of the marker file.
        title: What the progress bar says.
        share: Expected part of the whole job's time; only ratios matter.
        work: Does the step; it must itself be resumable and write its results to disk.
    """

    key: str
    title: str
    share: float
    work: Callable[[Report], None]


class StageLog:
    """Markers and costs of finished stages, kept in `stages.json` of the output folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "stages.json"
        self.done: dict[str, dict[str, float]] = json.loads(self._path.read_text()) if self._path.exists() else {}

    def add(self, key: str, seconds: float, peak_mib: float) -> None:
        """Remember that a stage is done; written to a temporary name and renamed."""
        self.done[key] = {"seconds": round(seconds, 1), "peak_memory_mib": round(peak_mib)}
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self.done, indent=1))
        partial.replace(self._path)


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description:<34}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
    )
    with Progress(*columns, console=console, refresh_per_second=4, speed_estimate_period=120) as progress:
        yield progress


def run_stages(stages: Sequence[Stage], folder: Path, console: Console, skip_done: bool = True) -> StageLog:
    """Run what is not done yet, with one progress bar over the whole job.

    Args:
        stages: Steps in their order.
        folder: Where the markers are kept.
        console: Where the bar is drawn; a line for each stage is printed where there is no terminal.
        skip_done: Leave out stages whose marker is there; False asks each of them, for a job that may grow.
    """
    log = StageLog(folder)
    total = sum(stage.share for stage in stages)
    with _progress(console) as progress:
        bar = progress.add_task("starting", total=total)
        before = 0.0
        for number, stage in enumerate(stages, 1):
            title = f"{number}/{len(stages)} {stage.title}"
            progress.update(bar, description=title, completed=before)
            if not skip_done or stage.key not in log.done:
                started = time.monotonic()
                with MemoryWatch() as memory:
                    stage.work(_within(progress, bar, before, stage.share))
                log.add(stage.key, time.monotonic() - started, memory.peak_mib)
                progress.console.print(f"{title}: {log.done[stage.key]['seconds']:.0f} s", highlight=False)
            else:
                progress.console.print(f"{title}: done before", highlight=False)
            before += stage.share
            progress.update(bar, completed=before)
    return log


def _within(progress: Progress, bar: TaskID, before: float, share: float) -> Report:
    def report(fraction: float) -> None:
        progress.update(bar, completed=before + share * min(max(fraction, 0.0), 1.0))

    return report
