"""What the commands share in printing: progress with rate and time left, tables, lists."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ecgcmr.cli.errors import plain_console

LINE_EVERY_S = 30.0  # in a log file, where no bar can be drawn


@contextmanager
def progress_bar(words: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A callback(done, total) that draws a bar with rate and time left; in a log, one line now and then."""
    console = plain_console(error=True)
    if not console.is_terminal:
        yield _lines(console, words, unit)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(words, total=None, rate="")
        first: list[int] = []

        def update(done: int, total: int) -> None:
            first.append(done)  # what an earlier run had done does not count for the rate
            elapsed = bar.tasks[0].elapsed or 0.0
            rate = f"{(done - first[0]) / elapsed:.1f} {unit}/s" if elapsed > 0 and done > first[0] else ""
            bar.update(task, completed=done, total=total, rate=rate)

        yield update


def _lines(console: Console, words: str, unit: str) -> Callable[[int, int], None]:
    begun: list[tuple[float, int]] = []
    told = [time.monotonic()]

    def update(done: int, total: int) -> None:
        now = time.monotonic()
        begun.append((now, done)) if not begun else None
        if now - told[0] < LINE_EVERY_S:
            return
        told[0] = now
        rate = (done - begun[0][1]) / max(now - begun[0][0], 1e-9)
        left = f", {(total - done) / rate / 60:.0f} min left" if rate > 0 else ""
        console.print(f"{words}: {done} of {total} {unit}, {rate:.1f} {unit}/s{left}", markup=False)

    return update


def print_table(console: Console, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of plain values as a table; nothing when there are none."""
    if not rows:
        return
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name, no_wrap=False)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console.print(table)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def listed(counts: Mapping[str, int]) -> str:
    """Names and counts in one line."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())
