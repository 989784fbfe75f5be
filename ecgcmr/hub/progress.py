"""How far a run over many recordings is: a bar on a terminal, a callback, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def counting(progress: Callable[[int, int], None] | bool, words: str) -> Iterator[Callable[[int, int], None]]:
    """Give the callback (done, total) of a run.

    Args:
        progress: A callback; True for a bar on standard error where that is a terminal; False for nothing.
        words: What is done.
    """
    if callable(progress):
        yield progress
    elif progress and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task(words)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    else:
        yield lambda done, total: None
