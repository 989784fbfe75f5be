import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ecgcmr.evaluation.calibration import calibrate_binary, calibrate_regression, reliability_curve


def test_calibrate_binary__recovers_planted_slope_and_intercept():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 2, 60000)
    truth = rng.random(60000) < 1 / (1 + np.exp(-(0.5 + 0.7 * x)))
    found = calibrate_binary(truth.astype(float), 1 / (1 + np.exp(-x)))
    assert found.slope == pytest.approx(0.7, abs=0.02)
    assert found.intercept == pytest.approx(0.5, abs=0.03)
    assert found.observed_expected == pytest.approx(truth.mean() / (1 / (1 + np.exp(-x))).mean())


def test_calibrate_binary__equals_unpenalised_sklearn():
    rng = np.random.default_rng(1)
    p = rng.uniform(0.02, 0.98, 300)
    truth = (rng.random(300) < p**2).astype(float)
    logit = np.log(p / (1 - p))[:, None]
    model = LogisticRegression(C=1e10, tol=1e-10, max_iter=1000).fit(logit, truth)
    found = calibrate_binary(truth, p)
    assert found.slope == pytest.approx(model.coef_[0, 0], rel=1e-4)
    assert found.intercept == pytest.approx(model.intercept_[0], rel=1e-3, abs=1e-4)


def test_ece__closed_form():
    # Two groups of equal predictions: |0.5 - 0.2| and |1.0 - 0.9| with weights 1/2.
    truth, p = np.array([0, 1, 0, 1, 1, 1, 1, 1.0]), np.array([0.2] * 4 + [0.9] * 4)
    assert calibrate_binary(truth, p).ece == pytest.approx((0.3 + 0.1) / 2)
    assert calibrate_binary(np.array([0, 1.0]), np.array([0.0, 1.0])).ece == 0


def test_calibrate_binary__separable_or_constant_is_not_estimable():
    separable = calibrate_binary([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])
    assert np.isnan(separable.slope)
    assert np.isnan(calibrate_binary([0, 1, 0, 1], [0.5] * 4).slope)
    assert np.isnan(calibrate_binary([0, 0, 0], [0.1, 0.2, 0.3]).slope)
    with pytest.raises(ValueError, match=r"within \[0, 1\]"):
        calibrate_binary([0, 1], [-0.1, 0.4])


def test_calibrate_regression__is_the_line_of_truth_on_prediction():
    prediction = np.linspace(80, 220, 50)
    found = calibrate_regression(12 + 0.8 * prediction, prediction)
    assert found.slope == pytest.approx(0.8)
    assert found.intercept == pytest.approx(12)
    assert np.isnan(calibrate_regression([1.0, 2.0], [3.0, 3.0]).slope)


def test_reliability_curve__keeps_all_rows():
    rng = np.random.default_rng(2)
    p = np.round(rng.random(500), 1)
    truth = rng.random(500)
    mean_p, mean_y, size = reliability_curve(truth, p, 10)
    assert size.sum() == 500
    assert np.average(mean_p, weights=size) == pytest.approx(p.mean())
    assert np.average(mean_y, weights=size) == pytest.approx(truth.mean())
