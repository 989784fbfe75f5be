import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ecgcmr.evaluation.probes import ALPHAS, LogisticProbe, RidgeProbe


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(3, [1, 5, 0.1, 1, 1, 2], (90, 6))
    y = np.stack([x[:, 0] * 2 + rng.normal(size=90), x[:, 1] * 0.1 + rng.normal(0, 3, 90)], axis=1)
    return x, y


def test_ridge_probe__equals_sklearn_at_its_own_penalty(data):
    x, y = data
    probe = RidgeProbe().fit(x, y)
    for j in range(2):
        model = make_pipeline(StandardScaler(), Ridge(alpha=probe.alphas[j])).fit(x, y[:, j])
        assert probe.predict(x[:7])[:, j] == pytest.approx(model.predict(x[:7]), rel=1e-6)


def test_ridge_probe__penalty_is_the_best_of_a_slow_leave_one_out(data):
    x, y = data[0][:45], data[1][:45]
    z = StandardScaler().fit_transform(x)
    probe = RidgeProbe(candidates=ALPHAS[::6]).fit(x, y)
    for j in range(2):
        error = [
            np.mean((cross_val_predict(Ridge(alpha=a), z, y[:, j], cv=LeaveOneOut()) - y[:, j]) ** 2)
            for a in ALPHAS[::6]
        ]
        assert probe.alphas[j] == pytest.approx(ALPHAS[::6][int(np.argmin(error))])


def test_ridge_probe__missing_labels_equal_a_fit_without_these_rows(data):
    x, y = data
    holes = y.copy()
    holes[:30, 1] = np.nan
    probe = RidgeProbe().fit(x, holes)
    assert probe.predict(x)[:, 0] == pytest.approx(RidgeProbe().fit(x, y[:, 0]).predict(x)[:, 0], rel=1e-9)
    z = (x - x.mean(0)) / x.std(0)  # features stay standardised by all rows
    alone = Ridge(alpha=probe.alphas[1]).fit(z[30:], y[30:, 1])
    assert probe.predict(x)[:, 1] == pytest.approx(alone.predict(z), rel=1e-6)


def test_ridge_probe__repeated_subjects_ask_for_a_stronger_penalty():
    """Copies of a subject in and out of the fold make noise look predictable; grouping by subject does not."""
    rng = np.random.default_rng(1)
    base, noise = rng.normal(size=(40, 60)), rng.normal(size=40)
    x = np.repeat(base, 4, axis=0) + rng.normal(0, 0.01, (160, 60))
    y = np.repeat(noise, 4)
    subjects = np.repeat(np.arange(40), 4)
    assert RidgeProbe().fit(x, y, subjects).alphas[0] > 100 * RidgeProbe().fit(x, y).alphas[0]


def test_ridge_probe__constant_feature_and_constant_target(data):
    x, y = data
    x = np.concatenate([x, np.full((90, 1), 7.0)], axis=1)
    y = np.concatenate([y, np.full((90, 1), 4.0)], axis=1)
    probe = RidgeProbe().fit(x, y, names=["a", "b", "flat"])
    assert list(probe.reasons) == ["flat"]
    assert "1 value" in probe.reasons["flat"]
    assert (probe.predict(x)[:, 2] == 4.0).all()
    moved = x.copy()
    moved[:, 6] = 1e6  # a feature that never varied in training must not blow up a prediction
    assert probe.predict(moved) == pytest.approx(probe.predict(x))


def test_logistic_probe__equals_sklearn_at_its_own_penalty(data):
    x, y = data
    label = (y[:, 0] > 7).astype(float)
    probe = LogisticProbe().fit(x, label)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=probe.inverse_penalties[0], tol=1e-8, max_iter=2000))
    expected = model.fit(x, label).predict_proba(x)[:, 1]
    assert probe.predict(x)[:, 0] == pytest.approx(expected, abs=2e-4)


def test_logistic_probe__noise_gets_the_strongest_penalty_and_signal_does_not():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(200, 40))
    signal = (x[:, 0] + 0.3 * rng.normal(size=200) > 0).astype(float)
    noise = (rng.random(200) < 0.3).astype(float)
    probe = LogisticProbe().fit(x, np.stack([signal, noise], axis=1))
    assert probe.inverse_penalties[1] <= 1e-3 < probe.inverse_penalties[0]


def test_logistic_probe__one_class_is_explained_and_constant(data):
    x, _ = data
    labels = np.stack([np.zeros(90), np.r_[np.ones(1), np.zeros(89)], np.full(90, np.nan)], axis=1)
    probe = LogisticProbe().fit(x, labels, names=["none", "single", "unseen"])
    assert set(probe.reasons) == {"none", "unseen"}
    assert "one class only" in probe.reasons["none"]
    found = probe.predict(x)
    assert found[:, 0] == pytest.approx(0.5 / 91)
    assert np.isfinite(found).all()


def test_probes__are_deterministic(data):
    x, y = data
    label = (y > 3).astype(float)
    assert np.array_equal(RidgeProbe().fit(x, y).predict(x), RidgeProbe().fit(x, y).predict(x))
    assert np.array_equal(LogisticProbe().fit(x, label).predict(x), LogisticProbe().fit(x, label).predict(x))


def test_probes__errors_name_the_input(data):
    x, y = data
    with pytest.raises(ValueError, match="same rows"):
        RidgeProbe().fit(x[:5], y)
    with pytest.raises(ValueError, match="1 embeddings hold NaN"):
        RidgeProbe().fit(np.where(x == x[0, 0], np.nan, x), y)
    with pytest.raises(ValueError, match="use RidgeProbe"):
        LogisticProbe().fit(x, y)


def test_ridge__shared_penalty_is_that_of_the_summed_standardised_error() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 20))
    y = np.column_stack([x[:, 0] + rng.normal(0, 2, 60), 1000 * (x[:, 1] + rng.normal(0, 2, 60))])
    probe = RidgeProbe(candidates=(1.0, 30.0, 1000.0), share_penalty=True).fit(x, y)
    assert probe.alphas[0] == probe.alphas[1]
    z = (x - x.mean(0)) / x.std(0)
    targets = (y - y.mean(0)) / y.std(0)
    errors = {}
    for alpha in (1.0, 30.0, 1000.0):
        held = []
        for row in range(60):
            keep = np.arange(60) != row
            model = Ridge(alpha=alpha).fit(z[keep], targets[keep])
            held.append((model.predict(z[row : row + 1])[0] - targets[row]) ** 2)
        errors[alpha] = np.mean(held)
    assert probe.alphas[0] == min(errors, key=lambda alpha: errors[alpha])
    # Another unit of a target changes nothing but the unit of its prediction.
    other = RidgeProbe(candidates=(1.0, 30.0, 1000.0), share_penalty=True).fit(x, y * [1.0, 1e-3])
    np.testing.assert_allclose(other.predict(x) * [1.0, 1e3], probe.predict(x), rtol=1e-9)
