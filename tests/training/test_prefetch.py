"""Batches come in order, prepared ahead, and errors come at their place."""

from __future__ import annotations

import threading
import time

import pytest

from ecgcmr.training.prefetch import Waiting, prefetch


def test_prefetch__keeps_the_order() -> None:
    assert list(prefetch(range(20), lambda i: i * i)) == [i * i for i in range(20)]
    assert list(prefetch([], lambda i: i)) == []


def test_prefetch__prepares_the_next_while_the_current_is_used() -> None:
    second = threading.Event()

    def load(i: int) -> int:
        if i == 1:
            second.set()
        return i

    results = prefetch(range(3), load)
    assert next(results) == 0
    assert second.wait(5), "the second item must be loaded before it is asked for"
    results.close()


def test_prefetch__raises_where_the_item_stands() -> None:
    def load(i: int) -> int:
        if i == 2:
            raise ValueError("item 2")
        return i

    results = prefetch(range(5), load)
    assert next(results) == 0
    assert next(results) == 1
    with pytest.raises(ValueError, match="item 2"):
        next(results)


def test_prefetch__closing_early_leaves_no_thread() -> None:
    before = threading.active_count()
    results = prefetch(range(1000), lambda i: i)
    next(results)
    results.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(("load_s", "step_s", "low", "high"), [(0.03, 0.0, 0.7, 1.0), (0.0, 0.03, 0.0, 0.3)])
def test_waiting__is_the_share_of_time_without_data(load_s: float, step_s: float, low: float, high: float) -> None:
    """A slow loader is waited for nearly all of the time; a slow step hides the loader but for the first item."""
    waiting = Waiting()
    start = time.perf_counter()
    for _ in prefetch(range(10), lambda i: time.sleep(load_s), waiting=waiting):
        time.sleep(step_s)
    whole = time.perf_counter() - start
    assert low <= waiting.share <= high
    # No equality: on a busy machine the thread itself takes time to start and to end.
    assert 0.8 * 10 * max(load_s, step_s) <= waiting.waited + waiting.worked <= whole


def test_waiting__adds_up_over_epochs_and_counts_a_step_that_is_left_early() -> None:
    waiting, start = Waiting(), time.perf_counter()
    assert waiting.share == 0.0
    for _ in range(2):
        results = prefetch(range(5), lambda i: i, waiting=waiting)
        next(results)
        time.sleep(0.02)
        results.close()
    assert waiting.waited > 0
    assert 0.04 <= waiting.worked <= time.perf_counter() - start
