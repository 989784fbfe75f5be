"""Prepare the next batch in one background thread while the current one is computed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(items: Iterable[Item], load: Callable[[Item], Result], ahead: int = 1) -> Generator[Result, None, None]:
    """Yield `load(item)` in order, with up to `ahead` results prepared in advance.

    A thread is enough because the arrays are memory-mapped and prepared: what remains is copying, which releases the
    interpreter lock. An exception in `load` is raised at its place in the order. Closing the iterator early waits for
    the load that is under way and drops it.

    Args:
        items: What to load, in order.
        load: The loader, called in the background thread only.
        ahead: How many results may wait.

    Yields:
        The results in the order of the items.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as pool:
        waiting: list[Future[Result]] = []
        try:
            for item in items:
                waiting.append(pool.submit(load, item))
                if len(waiting) > ahead:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()
