"""Counter-based normal noise: its law, its independence, and that a row needs no other row."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ecgcmr.ecg.noise import normal_rows


def test_normal_rows__has_the_normal_law() -> None:
    x = normal_rows(3, 0, (20, 30_000)).astype(np.float64)
    assert stats.kstest(x.ravel(), "norm").pvalue > 1e-3
    assert x.mean() == pytest.approx(0.0, abs=5 / np.sqrt(x.size))
    assert x.var() == pytest.approx(1.0, abs=5 * np.sqrt(2 / x.size))
    assert stats.kurtosis(x.ravel()) == pytest.approx(0.0, abs=5 * np.sqrt(24 / x.size))
    assert 4.3 < np.abs(x).max() < 5.8


@pytest.mark.parametrize("lag", [1, 2, 7, 2500, 15_000])
def test_normal_rows__positions_are_uncorrelated_in_value_and_in_size(lag: int) -> None:
    x = normal_rows(4, 0, (20, 30_000)).astype(np.float64)
    a, b = x[:, lag:], x[:, :-lag]
    assert abs((a * b).mean()) < 5 / np.sqrt(a.size)
    assert abs(((a**2 - 1) * (b**2 - 1)).mean() / 2) < 5 / np.sqrt(a.size)


def test_normal_rows__rows_and_seeds_are_uncorrelated() -> None:
    x = np.concatenate([normal_rows(seed, 0, (20, 10_000)) for seed in (0, 1, 2**40)])
    correlation = np.corrcoef(x) - np.eye(60)
    assert np.abs(correlation).max() < 5.5 / np.sqrt(10_000)


@pytest.mark.parametrize("n", [1, 2, 7, 500, 501])
def test_normal_rows__a_row_depends_on_seed_and_number_only(n: int) -> None:
    whole = normal_rows(9, 0, (12, n))
    np.testing.assert_array_equal(normal_rows(9, 5, (3, n)), whole[5:8])
    assert not np.array_equal(normal_rows(10, 5, (3, n)), whole[5:8])
    assert np.isfinite(whole).all()


def test_normal_rows__shift_and_size_are_for_each_row() -> None:
    noise = normal_rows(1, 0, (3, 400))
    shift, size = np.array([1.0, 2.0, -3.0], np.float32), np.array([0.0, 0.5, 2.0], np.float32)
    got = normal_rows(1, 0, (3, 400), shift, size)
    np.testing.assert_array_equal(got[0], 1.0)
    np.testing.assert_allclose(got, shift[:, None] + size[:, None] * noise, atol=1e-5)
