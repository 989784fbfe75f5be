"""Split conformal half-widths: the rank, the coverage, and what they are not made for."""

from __future__ import annotations

import numpy as np
import pytest

from ecgcmr.hub.intervals import checked_interval, half_width, interval_options, with_bounds

LABELS = [{"name": "lvef", "kind": "regression", "unit": "%"}, {"name": "mi", "kind": "binary", "unit": ""}]


def test_half_width__is_the_residual_of_that_rank() -> None:
    residuals = -np.arange(1, 20)  # sizes 1 to 19: the rank of 0.9 is 0.9 * 20 = 18
    assert half_width(residuals, 0.9) == 18
    assert half_width(np.random.default_rng(0).permutation(residuals), 0.5) == 10
    assert half_width([*residuals, np.nan, np.nan], 0.9) == 18


def test_half_width__too_few_bound_nothing() -> None:
    assert half_width(np.arange(9), 0.9) == 8
    with pytest.raises(ValueError, match=r"8 residuals bound no interval of level 0\.9; at least 9"):
        half_width(np.arange(8), 0.9)
    with pytest.raises(ValueError, match=r"at least 19"):
        half_width([], 0.95)
    with pytest.raises(ValueError, match="level"):
        half_width(np.arange(9), 90)


@pytest.mark.parametrize("n", [19, 99])
def test_half_width__covers_what_it_promises_and_little_more(n: int) -> None:
    """Over draws of calibration sets the coverage of one more subject is ceil((n + 1) level) / (n + 1), exactly."""
    rng = np.random.default_rng(n)
    residuals = rng.standard_t(3, (20_000, n + 1)) * np.exp(rng.normal(size=(20_000, 1)))  # heavy tails
    covered = [abs(row[-1]) <= half_width(row[:-1], 0.9) for row in residuals]
    assert np.mean(covered) == pytest.approx(0.9, abs=4 * np.sqrt(0.9 * 0.1 / 20_000))


def test_interval_options__one_width_for_each_regression_label() -> None:
    rng = np.random.default_rng(1)
    predicted = np.stack([rng.normal(60, 5, 50), rng.uniform(size=50)], axis=1)
    truth = predicted + np.stack([rng.normal(0, 4, 50), np.zeros(50)], axis=1)
    truth[:10, 0] = np.nan
    found = interval_options(truth, predicted, LABELS)
    assert found["half_width"] == {"lvef": half_width((truth - predicted)[10:, 0])}
    assert (found["n"], found["level"], found["windows"]) == ({"lvef": 40}, 0.9, "first")
    assert checked_interval({"interval": found}, LABELS, "here") == found
    with pytest.raises(ValueError, match="label 'lvef': 0 residuals"):
        interval_options(truth[:5], predicted[:5], LABELS)
    with pytest.raises(ValueError, match=r"expected \(subjects, 2\)"):
        interval_options(truth[:, :1], predicted[:, :1], LABELS)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"level": 0.9}, "needs level and half_width"),
        ({"level": 0.9, "half_width": {}, "alpha": 1}, "needs level and half_width"),
        ({"level": 0.9, "half_width": {"mi": 0.1}}, "no regression label"),
        ({"level": 0.9, "half_width": {"lvef": -1}}, "expected a size"),
        ({"level": 9, "half_width": {"lvef": 1}}, "between 0 and 1"),
    ],
)
def test_checked_interval__names_what_is_wrong(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        checked_interval({"interval": wrong}, LABELS, "folder")
    assert checked_interval({}, LABELS, "folder") == {}


def test_with_bounds__only_where_they_hold() -> None:
    values = np.array([[60, 0.2], [50, 0.4]], np.float32)
    columns = with_bounds(values, ["lvef", "mi"], {"lvef": 8.0}, np.array([True, False]))
    assert list(columns) == ["lvef", "lvef_lo", "lvef_hi", "mi"]
    assert (columns["lvef_lo"][0], columns["lvef_hi"][0]) == (52, 68)
    assert np.isnan([columns["lvef_lo"][1], columns["lvef_hi"][1]]).all()
