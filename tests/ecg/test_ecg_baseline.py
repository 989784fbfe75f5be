"""Asymmetric least squares against independent computations and closed forms."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcmr.ecg.baseline import LANES, als_baseline, als_detrended


def _dense(y: np.ndarray, lam: float, p: float, n_iter: int) -> np.ndarray:
    """The definition, with dense matrices."""
    n = len(y)
    second = np.diff(np.eye(n), n=2, axis=0)
    w = np.ones(n)
    for _ in range(n_iter):
        z = np.linalg.solve(np.diag(w) + lam * second.T @ second, w * y)
        w = np.where(y > z, p, np.where(y < z, 1.0 - p, 0.0))
    return z


def _signal(rows: int, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.normal(0, 0.1, (rows, n)), axis=1) + rng.normal(0, 0.3, (rows, n))


@pytest.mark.parametrize("n_iter", [1, 2, 5])
def test_als_baseline__equals_a_dense_solve(n_iter: int) -> None:
    x = _signal(3, 64)
    expected = np.stack([_dense(row, 1e3, 0.3, n_iter) for row in x])
    np.testing.assert_allclose(als_baseline(x, 1e3, 0.3, n_iter), expected, atol=1e-9)


def test_als_baseline__equals_a_dense_solve_at_the_reference_parameters() -> None:
    x = _signal(2, 64, seed=1)
    expected = np.stack([_dense(row, 1e7, 0.3, 5) for row in x])
    np.testing.assert_allclose(als_baseline(x), expected, atol=1e-6)


@pytest.mark.parametrize("n", [4, 5, 6])
def test_als_baseline__shortest_signals(n: int) -> None:
    x = _signal(1, n)
    np.testing.assert_allclose(als_baseline(x, 10.0, 0.2, 3)[0], _dense(x[0], 10.0, 0.2, 3), atol=1e-10)


@settings(deadline=None, max_examples=20)
@given(st.floats(1e-3, 1e3), st.integers(0, 100))
def test_als_baseline__is_linear_in_gain(gain: float, seed: int) -> None:
    x = _signal(2, 200, seed)
    np.testing.assert_allclose(als_baseline(gain * x, 1e4), gain * als_baseline(x, 1e4), rtol=1e-7, atol=1e-7 * gain)


@pytest.mark.parametrize("rows", [1, LANES - 1, LANES, LANES + 1, 2 * LANES + 5])
def test_als_baseline__a_row_does_not_depend_on_its_neighbours(rows: int) -> None:
    x = _signal(rows, 150)
    together = als_baseline(x)
    alone = np.stack([als_baseline(row) for row in x])
    np.testing.assert_array_equal(together, alone)


def test_als_baseline__infinite_smoothness_gives_the_weighted_straight_line() -> None:
    y = _signal(1, 60)[0]
    t = np.vander(np.arange(60.0), 2)
    w = np.ones(60)
    for _ in range(4):
        line = t @ np.linalg.solve(t.T @ (w[:, None] * t), t.T @ (w * y))
        w = np.where(y > line, 0.3, 0.7)
    np.testing.assert_allclose(als_baseline(y, 1e9, 0.3, 4), line, atol=2e-4)


def test_als_baseline__a_straight_line_is_its_own_baseline() -> None:
    line = np.linspace(-3, 5, 500)
    np.testing.assert_allclose(als_baseline(line), line, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.7, -3e3])
def test_als_baseline__a_constant_lead_is_its_own_baseline_and_harms_no_neighbour(value: float) -> None:
    x = _signal(3, 5000)
    expected = als_baseline(x)
    x[1] = value
    got = als_baseline(x)
    np.testing.assert_array_equal(got[1], value)
    np.testing.assert_array_equal(got[[0, 2]], expected[[0, 2]])


def test_als_baseline__low_p_goes_below_high_p() -> None:
    x = _signal(4, 400)
    assert (als_baseline(x, p=0.1) < als_baseline(x, p=0.9)).mean() > 0.95


def test_als_baseline__takes_any_shape_and_integers() -> None:
    x = (100 * _signal(6, 80)).astype(np.int16).reshape(2, 3, 80)
    got = als_baseline(x)
    assert got.shape == x.shape
    np.testing.assert_array_equal(got[1, 2], als_baseline(x[1, 2].astype(np.float64)))


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [({"lam": 0.0}, "lam"), ({"lam": np.inf}, "lam"), ({"p": 1.0}, "p must"), ({"n_iter": 0}, "n_iter")],
)
def test_als_baseline__refuses_parameters_out_of_range(kwargs: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        als_baseline(np.zeros((2, 50)), **kwargs)
    with pytest.raises(ValueError, match="at least 4 samples"):
        als_baseline(np.zeros((2, 3)))


@pytest.mark.parametrize("rows", [1, LANES, LANES + 3])
def test_als_detrended__is_the_difference_to_the_bit(rows: int) -> None:
    x = _signal(rows, 400)
    x[0] = 2.0
    before = x.copy()
    np.testing.assert_array_equal(als_detrended(x, 1e5), x - als_baseline(x, 1e5))
    np.testing.assert_array_equal(x, before)


def test_als_baseline__does_not_depend_on_what_was_computed_before() -> None:
    x = _signal(LANES, 300)
    expected = als_baseline(x)
    als_baseline(np.full((LANES, 2000), 1e12) * np.random.default_rng(0).normal(size=(LANES, 2000)))
    np.testing.assert_array_equal(als_baseline(x), expected)
    als_baseline(np.full((LANES, 300), np.nan))
    np.testing.assert_array_equal(als_baseline(x), expected)


def test_als_baseline__threads_do_not_share_their_memory() -> None:
    inputs = [_signal(LANES, 500 + 37 * k, seed=k) for k in range(8)]
    expected = [als_baseline(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for got, want in zip(pool.map(als_baseline, inputs), expected, strict=True):
                np.testing.assert_array_equal(got, want)
