"""Cox regression against lifelines, and where there is nothing to fit."""

import numpy as np
import pandas as pd
import pytest

from ecgcmr.evaluation.cox import fit_cox


def planted(n=300, seed=0, ties=True):
    rng = np.random.default_rng(seed)
    x = np.stack([rng.normal(60, 8, n), rng.integers(0, 2, n), rng.normal(size=n)], axis=1)
    true_time = rng.exponential(10 * np.exp(-(0.05 * (x[:, 0] - 60) + 0.6 * x[:, 1])))
    censored = rng.uniform(1, 12, n)
    time = np.minimum(true_time, censored)
    return x, np.ceil(time * 2) / 2 if ties else time, (true_time <= censored).astype(float)


@pytest.mark.parametrize("ties", [False, True])
def test_fit_cox__equals_lifelines(ties):
    lifelines = pytest.importorskip("lifelines")
    x, time, event = planted(ties=ties)
    assert (len(np.unique(time[event == 1])) < event.sum()) == ties
    table = pd.DataFrame(x, columns=["age", "male", "noise"]).assign(time=time, event=event)
    theirs = lifelines.CoxPHFitter().fit(table, "time", "event", fit_options={"precision": 1e-12})
    ours = fit_cox(x, time, event)
    assert ours.coefficients == pytest.approx(theirs.params_.to_numpy(), abs=1e-6)
    expected = theirs.predict_log_partial_hazard(table).to_numpy()
    assert ours.score(x) == pytest.approx(expected, abs=1e-5)


def test_fit_cox__does_not_depend_on_order_or_unit():
    x, time, event = planted()
    shuffled = np.random.default_rng(1).permutation(len(x))
    one, two = fit_cox(x, time, event), fit_cox(x[shuffled] * [1, 1, 1000], time[shuffled], event[shuffled])
    assert two.coefficients * [1, 1, 1000] == pytest.approx(one.coefficients, abs=1e-9)


def test_fit_cox__a_prior_pulls_to_zero_and_a_constant_column_gets_nothing():
    x, time, event = planted()
    x = np.concatenate([x, np.full((len(x), 1), 3.0)], axis=1)
    free, tight = fit_cox(x, time, event), fit_cox(x, time, event, penalty=1e6)
    assert free.coefficients[3] == 0
    assert abs(free.coefficients[1]) > 0.3
    assert np.abs(tight.coefficients * x.std(axis=0)).max() < 1e-3


def test_fit_cox__says_why_there_is_no_fit():
    x, time, event = planted(60)
    with pytest.raises(ValueError, match="no event among 60 rows"):
        fit_cox(x, time, np.zeros(60))
    with pytest.raises(ValueError, match="no maximum: a covariate orders them all"):
        fit_cox(-np.arange(60.0)[:, None], np.arange(60.0), np.ones(60))
    assert np.isfinite(fit_cox(-np.arange(60.0)[:, None], np.arange(60.0), np.ones(60), penalty=1.0).coefficients).all()
    with pytest.raises(ValueError, match="must be finite"):
        fit_cox(np.full((60, 1), np.nan), time, event)
    with pytest.raises(ValueError, match=r"must be \(N, D\)"):
        fit_cox(x[:10], time, event)
