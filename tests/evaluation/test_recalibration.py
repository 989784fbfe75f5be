import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ecgcmr.evaluation.bootstrap import bootstrap_metrics, draw_subjects
from ecgcmr.evaluation.metrics import compute
from ecgcmr.evaluation.recalibration import logistic_lines, logit


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cohort(n, seed=0):
    rng = np.random.default_rng(seed)
    score = rng.normal(-1, 1.5, n)
    return (rng.random(n) < sigmoid(score)).astype(float), score


def test_logistic_lines__equal_scikit_learn_in_every_draw():
    truth, score = cohort(400)
    probability = sigmoid(0.5 + 2 * score)
    draws = draw_subjects(np.arange(400), 5, np.random.default_rng(1))
    found = logistic_lines(truth, probability, np.arange(400), draws.counts)
    x = logit(probability)[:, None]
    for draw in range(5):
        # Without a penalty (C infinite) scikit-learn maximizes the same likelihood.
        model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
        model.fit(x, truth, sample_weight=draws.counts[draw])
        assert found[draw] == pytest.approx([model.coef_[0, 0], model.intercept_[0]], abs=1e-5)


def test_logistic_lines__solution_has_no_gradient_left():
    truth, score = cohort(300, 3)
    weights = np.random.default_rng(2).integers(0, 4, (20, 300)).astype(np.uint16)
    x = logit(sigmoid(score))
    for (slope, intercept), w in zip(
        logistic_lines(truth, sigmoid(score), np.arange(300), weights), weights, strict=True
    ):
        residual = w * (truth - sigmoid(intercept + slope * x))
        assert abs(residual.sum()) < 1e-6
        assert abs((residual * x).sum()) < 1e-6


def test_calibration__of_a_known_miscalibrated_model_is_recovered():
    """Logits 1 + 2 s of a true logit s: the recalibration is s = -1/2 + 1/2 (1 + 2 s)."""
    truth, score = cohort(20_000)
    draws = draw_subjects(np.arange(20_000), 200, np.random.default_rng(0))
    names = ("calibration_slope", "calibration_intercept")
    found = bootstrap_metrics(names, (truth, sigmoid(1 + 2 * score)), np.arange(20_000), draws)
    for name, expected in zip(names, (0.5, -0.5), strict=True):
        interval = found[name].interval()
        assert interval.lo < expected < interval.hi
        assert interval.hi - interval.lo < 0.15
    perfect = compute("calibration_slope", truth, sigmoid(score))
    assert perfect == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize(
    ("truth", "probability"),
    [
        ([0, 0, 0, 0], [0.1, 0.2, 0.3, 0.4]),  # one class
        ([0, 1, 0, 1], [0.3, 0.3, 0.3, 0.3]),  # one probability
        ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]),  # separable
    ],
)
def test_logistic_lines__what_has_no_line_is_nan(truth, probability):
    y, p = np.array(truth, float), np.array(probability)
    assert np.isnan(logistic_lines(y, p, np.arange(4), np.ones((2, 4)))).all()


def test_logistic_lines__extreme_probabilities_stay_finite():
    truth, score = cohort(300)
    found = logistic_lines(truth, np.round(sigmoid(4 * score), 2), np.arange(300), np.ones((1, 300)))
    assert np.isfinite(found).all()
    with pytest.raises(ValueError, match="within"):
        logistic_lines(truth, score, np.arange(300), np.ones((1, 300)))


def test_ece__equals_a_loop_over_fixed_bins_in_every_draw():
    truth, score = cohort(300, 4)
    probability = np.round(sigmoid(1.5 * score), 2)
    subjects = np.repeat(np.arange(150), 2)
    draws = draw_subjects(subjects, 10, np.random.default_rng(3))
    found = bootstrap_metrics(["ece"], (truth, probability), subjects, draws)["ece"]
    edges = np.quantile(probability, np.arange(1, 15) / 15)
    bin_of = np.array([(edges <= p).sum() for p in probability])

    def error(weights):
        gaps = 0.0
        for number in set(bin_of):
            rows = bin_of == number
            if weights[rows].sum():
                gap = np.average(truth[rows], weights=weights[rows]) - np.average(
                    probability[rows], weights=weights[rows]
                )
                gaps += weights[rows].sum() * abs(gap)
        return gaps / weights.sum()

    assert found.value == pytest.approx(error(np.ones(300)))
    assert found.draws == pytest.approx([error(draws.counts[b][subjects].astype(float)) for b in range(10)])


def test_ece__of_one_constant_risk_is_its_distance_to_the_prevalence():
    assert compute("ece", [0, 0, 0, 1], [0.6] * 4) == pytest.approx(0.35)
    assert compute("observed_expected", [0, 0, 0, 1], [0.5] * 4) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="within"):
        compute("ece", [0, 1], [-3.0, 4.0])
