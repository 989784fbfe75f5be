"""One way to show how far a run is: a bar in a terminal, a callback for a caller, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO


@dataclass(frozen=True)
class ProgressEvent:
    """Where a run stands.

    Attributes:
        name: Name of the run.
        done: Optimizer steps done, over all epochs and earlier parts of a resumed run.
        total: Optimizer steps planned; early stopping may end sooner.
        message: What to show beside the bar, for instance the loss.
    """

    name: str
    done: int
    total: int
    message: str = ""


ProgressCallback = Callable[[ProgressEvent], None]


def _silent(event: ProgressEvent) -> None:
    """Show nothing."""


@contextmanager
def show_progress(show: ProgressCallback | bool, stream: TextIO | None = None) -> Iterator[ProgressCallback]:
    """Give the callback that a run reports to.

    Args:
        show: A callback that gets every `ProgressEvent`; True for a bar with the time left, where the stream is a
            terminal (a log file gets no bar: one line for each epoch is logged anyway); False for nothing.
        stream: Where the bar goes; standard error by default.

    Yields:
        The callback.
    """
    stream = stream or sys.stderr
    if callable(show):
        yield show
    elif show and stream.isatty():
        with _rich_bar(stream) as callback:
            yield callback
    else:
        yield _silent


@contextmanager
def _rich_bar(stream: TextIO) -> Iterator[ProgressCallback]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[message]}"),
    )
    with Progress(*columns, console=Console(file=stream), refresh_per_second=4) as bar:
        tasks: dict[str, TaskID] = {}

        def update(event: ProgressEvent) -> None:
            if event.name not in tasks:
                tasks[event.name] = bar.add_task(event.name, total=event.total, completed=event.done, message="")
            bar.update(tasks[event.name], completed=event.done, total=event.total, message=event.message)

        yield update
