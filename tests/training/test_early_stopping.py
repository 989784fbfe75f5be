"""`max_delta` is a tolerance: the reference's semantics, not the usual minimum gain."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgcmr.training.early_stopping import EarlyStopping


def test_update__worse_within_the_tolerance_is_not_bad() -> None:
    stopping = EarlyStopping("max", patience=0, max_delta=0.25)
    assert stopping.update(1.0)
    for value in (0.75, 0.9, 1.0):
        assert not stopping.update(value)
        assert stopping.bad == 0
    assert not stopping.update(0.74)
    assert stopping.should_stop


def test_should_stop__at_the_26th_bad_evaluation_in_a_row() -> None:
    stopping = EarlyStopping("max", patience=25, max_delta=0.0)
    stopping.update(1.0)
    stops = []
    for _ in range(26):
        stopping.update(0.5)
        stops.append(stopping.should_stop)
    assert stops == [False] * 25 + [True]


def test_should_stop__a_value_that_is_not_bad_starts_the_count_again() -> None:
    stopping = EarlyStopping("min", patience=1)
    for value in (1.0, 2.0, 1.0, 2.0, 1.0, 2.0):
        stopping.update(value)
        assert not stopping.should_stop
    stopping.update(2.0)
    assert stopping.should_stop


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_update__a_value_that_is_not_finite_is_bad_and_never_best(value: float) -> None:
    stopping = EarlyStopping("min", patience=0)
    assert not stopping.update(value)
    assert stopping.best is None
    assert stopping.should_stop


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.sampled_from(["min", "max"]), st.integers(0, 29))
def test_state_dict__continues_as_if_never_interrupted(values: list[float], mode: str, cut: int) -> None:
    whole, first, second = (EarlyStopping(mode, 3, 0.5) for _ in range(3))  # type: ignore[arg-type]
    for value in values:
        whole.update(value)
    for value in values[:cut]:
        first.update(value)
    second.load_state_dict(first.state_dict())
    for value in values[cut:]:
        second.update(value)
    assert (second.best, second.bad, second.should_stop) == (whole.best, whole.bad, whole.should_stop)
    assert whole.best == (max(values) if mode == "max" else min(values))
