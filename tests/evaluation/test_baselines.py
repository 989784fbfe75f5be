"""Covariates alone, the combination with a model, and what they are fitted on."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeCV

from ecgcmr.evaluation.baselines import NotFitted, Rows, covariate_scores, stacked_scores
from ecgcmr.evaluation.covariates import Covariates, read_covariates
from ecgcmr.evaluation.cox import fit_cox
from ecgcmr.evaluation.metrics import compute
from ecgcmr.evaluation.probes import ALPHAS, INVERSE_PENALTIES
from ecgcmr.evaluation.stacking import PRIOR_SD, fit_stack

N = 600


class FakeCohort:
    """The parts of a cohort that covariates are read from."""

    def __init__(self, **columns):
        n = len(next(iter(columns.values())))
        self.subjects = pd.DataFrame({"subject": np.arange(n), **columns})
        self.labels = pd.DataFrame(index=pd.Index(np.arange(n), name="subject"))
        self.label_specs: dict = {}


def made(kind, seed=0, n=N):
    rng = np.random.default_rng(seed)
    age, sex = rng.uniform(40, 80, n), rng.choice(["female", "male"], n)
    z = rng.normal(size=n)
    linear = 0.05 * (age - 60) + 0.8 * (sex == "male") + z
    split = np.array(["train", "val", "test"])[np.digitize(np.arange(n) / n, [0.5, 0.8])]
    time = np.full(n, np.nan)
    if kind == "regression":
        truth = 100 + 10 * linear + rng.normal(0, 5, n)
    elif kind == "binary":
        truth = (rng.random(n) < 1 / (1 + np.exp(-linear))).astype(float)
    else:
        years, lost = rng.exponential(8 * np.exp(-linear)), rng.uniform(2, 12, n)
        time, truth = np.minimum(years, lost), (years <= lost).astype(float)
    truth[3] = np.nan
    covariates = read_covariates(FakeCohort(age_years=age, sex=sex))
    return Rows("target", kind, np.arange(n), split, truth, time), covariates, z


@pytest.mark.parametrize("kind", ["regression", "binary", "survival"])
def test_covariate_scores__equal_a_plain_fit_on_training_subjects(kind):
    rows, covariates, _ = made(kind)
    found = covariate_scores(rows, covariates)
    x, train = covariates.values.to_numpy(), rows.seen("train")
    z = (x - x[train].mean(axis=0)) / x[train].std(axis=0)
    if kind == "regression":
        expected = RidgeCV(ALPHAS).fit(z[train], rows.truth[train]).predict(z)
        plain = LinearRegression().fit(x[train], rows.truth[train]).predict(x)
        assert found == pytest.approx(plain, rel=0.01)
    elif kind == "binary":
        models = [LogisticRegression(C=c, tol=1e-8).fit(z[train], rows.truth[train]) for c in INVERSE_PENALTIES]
        expected = min((m.predict_proba(z)[:, 1] for m in models), key=lambda p: np.abs(p - found).max())
        assert models[-1].predict_proba(z)[:, 1] == pytest.approx(found, abs=0.05)
    else:
        lifelines = pytest.importorskip("lifelines")
        table = pd.DataFrame(x[train], columns=["age", "male"]).assign(t=rows.time[train], e=rows.truth[train])
        theirs = lifelines.CoxPHFitter().fit(table, "t", "e").params_.to_numpy()
        assert fit_cox(x[train], rows.time[train], rows.truth[train]).coefficients == pytest.approx(theirs, abs=1e-6)
        expected = fit_cox(x[train], rows.time[train], rows.truth[train], 1.0).score(x)
        assert np.corrcoef(expected, x @ theirs)[0, 1] > 0.9999
    assert found == pytest.approx(expected, abs=1e-4, rel=1e-5)


@pytest.mark.parametrize("kind", ["regression", "binary", "survival"])
def test_baselines__do_not_see_the_labels_that_they_are_tested_on(kind):
    rows, covariates, z = made(kind)
    model = {"regression": 100 + 10 * z, "binary": 1 / (1 + np.exp(-z)), "survival": z}[kind]
    other = rows.truth.copy()
    test = rows.split == "test"
    other[test] = other[test][::-1]
    changed = Rows(rows.name, kind, rows.subjects, rows.split, other, rows.time)
    base = covariate_scores(rows, covariates)
    assert np.array_equal(base, covariate_scores(changed, covariates))
    both, stack = stacked_scores(rows, model, base)
    assert np.array_equal(both, stacked_scores(changed, model, base)[0])
    assert stack.model > 0.4
    # On the test subjects the combination knows more than the covariates alone.
    error = {"regression": lambda p: np.mean((p - rows.truth)[test] ** 2),
             "binary": lambda p: np.mean((p - rows.truth)[test] ** 2),
             "survival": lambda p: -np.corrcoef(p[test], z[test])[0, 1]}[kind]  # fmt: skip
    assert error(both) < error(base)


def test_stack__with_many_subjects_is_the_unpenalized_fit_and_with_few_stays_with_the_covariates():
    rng = np.random.default_rng(0)
    base, model = rng.normal(size=(2, 20000))
    y = 3 + 0.7 * base + 1.3 * model + rng.normal(size=20000)
    found = fit_stack("regression", (base, model), y, y)
    plain = LinearRegression().fit(np.stack([base, model], axis=1), y)
    assert (found.covariates, found.model) == pytest.approx(tuple(plain.coef_), abs=2e-3)
    assert found.combine(base, model) == pytest.approx(plain.predict(np.stack([base, model], axis=1)), abs=1e-2)
    label = (rng.random(20000) < 1 / (1 + np.exp(-(0.7 * base + 1.3 * model - 1)))).astype(float)
    found = fit_stack("binary", (base, model), label, label)
    plain = LogisticRegression(C=np.inf, tol=1e-10).fit(np.stack([base, model], axis=1), label)
    assert (*found[1:], found.intercept) == pytest.approx((*plain.coef_[0], plain.intercept_[0]), abs=0.01)
    few = fit_stack("binary", (base[:8], 0.01 * model[:8]), label[:8], label[:8])
    assert abs(few.covariates - 1) < PRIOR_SD[0]
    assert few.model < 0.1  # outputs that hardly vary are not blown up


def test_stack__never_turns_a_prediction_upside_down():
    rng = np.random.default_rng(1)
    base, model = rng.normal(size=(2, 500))
    for kind, y in (("regression", base - 2 * model), ("binary", (base - 2 * model > 0) * 1.0)):
        assert fit_stack(kind, (base, model), y, y).model == pytest.approx(0, abs=1e-9)
    time = rng.exponential(np.exp(-(base - 2 * model)))
    found = fit_stack("survival", (base, model), np.ones(500), time)
    assert found.model == pytest.approx(0, abs=1e-9)
    assert found.intercept == 0
    assert found.covariates > 0


@pytest.mark.parametrize(
    ("kind", "truth", "why"),
    [
        ("regression", np.full(N, np.nan), "no training subject has a label"),
        ("regression", np.full(N, 5.0), "1 value"),
        ("binary", np.zeros(N), "one class only"),
        ("survival", np.zeros(N), "no event among"),
    ],
)
def test_covariate_scores__say_why_they_cannot_be_fitted(kind, truth, why):
    rows, covariates, _ = made("survival")
    rows = Rows("target", kind, rows.subjects, rows.split, truth, rows.time)
    with pytest.raises(NotFitted, match=why):
        covariate_scores(rows, covariates)


def test_stacked_scores__want_enough_validation_subjects():
    rows, covariates, z = made("binary")
    truth = np.where(rows.split == "val", 0.0, rows.truth)
    few = Rows("target", "binary", rows.subjects, rows.split, truth, rows.time)
    with pytest.raises(NotFitted, match="0 labels of the rarer class among the validation subjects, fewer than 5"):
        stacked_scores(few, 1 / (1 + np.exp(-z)), covariate_scores(few, covariates))


def test_covariates__unknown_values_take_the_training_mean_and_are_marked():
    age = np.array([50.0, 60.0, np.nan, 70.0, np.nan])
    found = read_covariates(FakeCohort(age_years=age, sex=["f", "m", None, "m", ""], bmi=[25.0] * 5))
    assert found.names == ("age", "sex")  # the same BMI in all is no covariate
    assert found.title == "age + sex"
    x = found.matrix(np.array([0, 2, 4]), np.array([0, 1, 2]))
    assert x[:, 0].tolist() == [50.0, 55.0, 55.0]
    assert x[:, 1].tolist() == [0.0, 0.5, 0.5]
    assert x[:, 2:].tolist() == [[0, 0], [1, 1], [1, 1]]
    assert found.missing(np.arange(5)) == {"age": 2, "sex": 2}


def test_covariates__three_levels_of_sex_and_the_target_itself():
    found = read_covariates(FakeCohort(age_years=np.arange(4.0), sex=["a", "b", "c", "a"]))
    assert found.parts["sex"] == ("sex b", "sex c")
    assert found.for_target("age_years").names == ("sex",)
    assert found.for_target("SEX").names == ("age",)
    assert found.for_target("LVEDV") == found
    nobody = Covariates(pd.DataFrame(index=np.arange(N)), {}, {})
    rows = made("regression")[0]
    with pytest.raises(NotFitted, match="no covariates"):
        covariate_scores(rows, nobody)


def test_random_labels__are_predicted_by_nobody():
    """The leakage probe: labels without any relation give an AUROC of 0.5 to all three arms."""
    rng = np.random.default_rng(5)
    n = 6000
    truth = rng.integers(0, 2, n).astype(float)
    covariates = read_covariates(FakeCohort(age_years=rng.uniform(40, 80, n), sex=rng.choice(["f", "m"], n)))
    split = rng.choice(["train", "val", "test"], n, p=[0.3, 0.1, 0.6])
    rows = Rows("coin", "binary", np.arange(n), split, truth, np.full(n, np.nan))
    model = rng.random(n)
    base = covariate_scores(rows, covariates)
    both, _ = stacked_scores(rows, model, base)
    test = split == "test"
    for scores in (model, base, both):
        assert compute("auroc", truth[test], scores[test]) == pytest.approx(0.5, abs=0.05)
