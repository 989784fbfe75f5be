"""Prepare the next batch in one background thread while the current one is computed."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class Waiting:
    """How long a loop waited for its data, and how long it worked with them.

    Attributes:
        waited: Time until each result was there [s]; the first of an epoch, which nothing hides, included.
        worked: Time from each result to the moment when the next one was asked for [s].
    """

    waited: float = 0.0
    worked: float = 0.0

    @property
    def share(self) -> float:
        """Waited time as a share of all time, in [0, 1]; 0 before the first step."""
        return self.waited / max(self.waited + self.worked, 1e-12)


def prefetch(
    items: Iterable[Item], load: Callable[[Item], Result], ahead: int = 1, waiting: Waiting | None = None
) -> Generator[Result, None, None]:
    """Yield `load(item)` in order, with up to `ahead` results prepared in advance.

    A thread is enough because the arrays are memory-mapped and prepared: what remains is copying, which releases the
    interpreter lock. An exception in `load` is raised at its place in the order. Closing the iterator early waits for
    the load that is under way and drops it.

    Args:
        items: What to load, in order.
        load: The loader, called in the background thread only.
        ahead: How many results may wait.
        waiting: Is told how long the caller waited and worked.

    Yields:
        The results in the order of the items.
    """
    clock = waiting if waiting is not None else Waiting()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as pool:
        queue: list[Future[Result]] = []

        def ready() -> Result:
            start = time.perf_counter()
            try:
                return queue.pop(0).result()
            finally:
                clock.waited += time.perf_counter() - start

        try:
            for item in items:
                queue.append(pool.submit(load, item))
                if len(queue) > ahead:
                    yield from _timed(ready(), clock)
            while queue:
                yield from _timed(ready(), clock)
        finally:
            for future in queue:
                future.cancel()


def _timed(result: Result, clock: Waiting) -> Generator[Result, None, None]:
    """Yield one result and count the time until the next one is asked for, or the loop ends."""
    start = time.perf_counter()
    try:
        yield result
    finally:
        clock.worked += time.perf_counter() - start
