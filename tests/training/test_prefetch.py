"""Batches come in order, prepared ahead, and errors come at their place."""

from __future__ import annotations

import threading

import pytest

from ecgcmr.training.prefetch import prefetch


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
