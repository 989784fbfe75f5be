import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from ecgcmr.evaluation.metrics import (
    METRICS,
    choose_threshold,
    compute,
    get_metric,
    metrics_for,
    threshold_at_specificity,
)


@pytest.fixture
def measured():
    rng = np.random.default_rng(1)
    truth = rng.normal(150, 30, 300)
    return truth, truth * 0.5 + rng.normal(80, 20, 300), rng.integers(0, 4, 300)


@pytest.fixture
def diagnosed():
    rng = np.random.default_rng(2)
    score = np.round(rng.random(400), 1)  # many ties
    return (rng.random(400) < score * 0.4).astype(float), score, rng.integers(0, 4, 400)


@pytest.mark.parametrize("weighted", [False, True])
def test_compute__regression_equals_sklearn(measured, weighted):
    truth, prediction, counts = measured
    w = counts if weighted else None
    assert compute("r2", truth, prediction, weights=w) == pytest.approx(sk.r2_score(truth, prediction, sample_weight=w))
    expected = sk.mean_absolute_error(truth, prediction, sample_weight=w)
    assert compute("mae", truth, prediction, weights=w) == pytest.approx(expected)
    expected = sk.root_mean_squared_error(truth, prediction, sample_weight=w)
    assert compute("rmse", truth, prediction, weights=w) == pytest.approx(expected)
    expected = np.average(prediction - truth, weights=w)
    assert compute("bias", truth, prediction, weights=w) == pytest.approx(expected)
    rows = np.repeat(np.arange(300), counts) if weighted else np.arange(300)
    expected = np.corrcoef(truth[rows], prediction[rows])[0, 1]
    assert compute("pearson_r", truth, prediction, weights=w) == pytest.approx(expected)
    error = (prediction - truth)[rows]
    for name, side in (("loa_lower", -1.96), ("loa_upper", 1.96)):
        expected = error.mean() + side * error.std(ddof=1)
        assert compute(name, truth, prediction, weights=w) == pytest.approx(expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_compute__binary_with_ties_equals_sklearn(diagnosed, weighted):
    truth, score, counts = diagnosed
    w = counts if weighted else None
    called = score >= 0.55
    expected = {
        "auroc": sk.roc_auc_score(truth, score, sample_weight=w),
        "auprc": sk.average_precision_score(truth, score, sample_weight=w),
        "brier": sk.brier_score_loss(truth, score, sample_weight=w),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, called, sample_weight=w),
        "sensitivity": sk.recall_score(truth, called, sample_weight=w),
        "specificity": sk.recall_score(1 - truth, ~called, sample_weight=w),
        "f1": sk.f1_score(truth, called, sample_weight=w),
    }
    expected |= {
        "sensitivity_at_spec90": expected["sensitivity"],  # the same share, at a threshold that is chosen otherwise
        "specificity_at_spec90": expected["specificity"],
        "observed_expected": np.average(truth, weights=w) / np.average(score, weights=w),
    }
    iterated = {"calibration_slope", "calibration_intercept", "ece"}  # see test_recalibration.py
    assert set(expected) | iterated == set(metrics_for("binary"))
    for name, value in expected.items():
        assert compute(name, truth, score, 0.55, w) == pytest.approx(value, abs=1e-12), name


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40))
def test_compute__auroc_is_the_share_of_ordered_pairs(rows):
    truth = np.array([float(a) for a, _ in rows])
    score = np.array([float(b) for _, b in rows])
    found = compute("auroc", truth, score)
    if truth.min() == truth.max():
        assert np.isnan(found)
        return
    higher = score[truth == 1][:, None] - score[truth == 0][None]
    assert found == pytest.approx(np.mean((higher > 0) + 0.5 * (higher == 0)))


def test_compute__constant_score_is_chance():
    truth = np.array([0, 0, 0, 1.0])
    assert compute("auroc", truth, np.full(4, 0.3)) == 0.5
    assert compute("auprc", truth, np.full(4, 0.3)) == 0.25


def test_compute__r2_of_the_mean_is_zero_and_of_the_truth_is_one(measured):
    truth = measured[0]
    assert compute("r2", truth, np.full_like(truth, truth.mean())) == pytest.approx(0, abs=1e-12)
    assert compute("r2", truth, truth) == 1.0


def test_compute__r2_survives_a_large_offset(measured):
    truth, prediction, _ = measured
    plain = compute("r2", truth, prediction)
    assert compute("r2", truth + 1e7, prediction + 1e7) == pytest.approx(plain, rel=1e-6)


def test_compute__undefined_is_nan_not_a_number():
    assert np.isnan(compute("r2", [5.0, 5.0, 5.0], [4.0, 5.0, 6.0]))
    assert np.isnan(compute("pearson_r", [1.0, 2.0, 3.0], [7.0, 7.0, 7.0]))
    assert np.isnan(compute("auprc", [0.0, 0.0], [0.1, 0.9]))
    assert np.isnan(compute("sensitivity", [0.0, 0.0], [0.1, 0.9], 0.5))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: get_metric("accuracy"), "unknown metric 'accuracy'"),
        (lambda: compute("f1", [0, 1], [0.1, 0.9]), "choose_threshold"),
        (lambda: compute("auroc", [0, 2], [0.1, 0.9]), "0 or 1"),
        (lambda: compute("r2", [np.nan, 2], [0.1, 0.9]), "finite"),
        (lambda: compute("r2", [1.0, 2], [0.1]), "equal"),
        (lambda: metrics_for("ordinal"), "kind"),
        (lambda: choose_threshold([0, 1], [0.1, 0.9], "test"), "'val' or 'train'"),
        (lambda: choose_threshold([1, 1], [0.1, 0.9], "val"), "class 1"),
    ],
)
def test_errors__name_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=3, max_size=30))
def test_choose_threshold__no_cut_is_better(rows):
    truth = np.array([float(a) for a, _ in rows])
    score = np.array([b / 8 for _, b in rows])
    if truth.min() == truth.max():
        return
    best = compute("balanced_accuracy", truth, score, choose_threshold(truth, score, "val"))
    every = [compute("balanced_accuracy", truth, score, cut) for cut in np.arange(-1, 18) / 16]
    assert best >= max(every) - 1e-12


def test_metrics__every_one_belongs_to_a_kind():
    assert {m.kind for m in METRICS.values()} == {"regression", "binary"}
    for metric in METRICS.values():
        ways = (metric.terms is not None, metric.rank_column is not None, metric.line_column is not None)
        assert sum(ways) == 1, metric.name


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=3, max_size=30))
def test_threshold_at_specificity__is_the_smallest_that_reaches_it(rows):
    truth = np.array([float(a) for a, _ in rows])
    score = np.array([b / 8 for _, b in rows])
    if truth.min() == truth.max():
        return
    found = threshold_at_specificity(truth, score, "val", 0.75)
    assert compute("specificity", truth, score, found) >= 0.75
    lower = [cut for cut in np.arange(-1, 18) / 16 if cut < found]
    # A lower cut between other scores calls more negatives; only cuts in the same gap are as good.
    for cut in lower:
        same_calls = ((score >= cut) == (score >= found)).all()
        assert same_calls or compute("specificity", truth, score, cut) < 0.75


def test_threshold_at_specificity__refuses_test_rows_and_shares_outside_one():
    with pytest.raises(ValueError, match="'val' or 'train'"):
        threshold_at_specificity([0, 1], [0.1, 0.9], "test")
    with pytest.raises(ValueError, match="specificity must lie"):
        threshold_at_specificity([0, 1], [0.1, 0.9], "val", 1.0)
