import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test
from survival_cases import cohort

from ecgcmr.evaluation.bootstrap import draw_subjects
from ecgcmr.evaluation.kaplan_meier import add_cox_probabilities, breslow, logrank, predicted_strata
from ecgcmr.evaluation.survival import bootstrap_survival, make_survival_predictions, survival_rows
from ecgcmr.evaluation.survival_kernels import order_by_time, survival_at


def curve(time, event, weights, grid):
    ordered = order_by_time(np.asarray(time, float), np.asarray(event, float), np.arange(len(time)))
    return survival_at(ordered.rows, ordered.time, ordered.event, np.atleast_2d(weights), np.asarray(grid, float))


@pytest.mark.parametrize("ties", [False, True])
def test_survival_at__equals_lifelines_under_weights(ties):
    time, event, _ = cohort(200, 1, ties)
    weights = np.random.default_rng(0).integers(0, 4, (3, 200)).astype(np.uint16)
    grid = [0.0, 0.5, 2.0, 5.0, 8.0]
    found, left = curve(time, event, weights, grid)
    for draw in range(3):
        used = weights[draw] > 0
        fitter = KaplanMeierFitter().fit(time[used], event[used], weights=weights[draw][used])
        assert found[draw] == pytest.approx(fitter.predict(grid).to_numpy())
        assert left[draw].tolist() == [weights[draw][time > t].sum() for t in grid]


def test_survival_at__ends_with_the_follow_up():
    found, _ = curve([1.0, 2.0, 3.0], [1, 1, 0], np.ones((1, 3)), [1.0, 3.0, 4.0])
    assert found[0].tolist() == pytest.approx([2 / 3, 1 / 3, np.nan], nan_ok=True)
    found, _ = curve([1.0, 2.0], [1, 1], np.ones((1, 2)), [5.0])
    assert found[0].tolist() == [0.0]  # everybody had the event: the curve stays at 0
    assert np.isnan(curve([1.0], [1], np.zeros((1, 1)), [0.5])[0]).all()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n_groups", [2, 4])
def test_logrank__equals_lifelines(ties, n_groups):
    time, event, _ = cohort(300, 2, ties)
    group = np.random.default_rng(1).integers(0, n_groups, 300)
    expected = multivariate_logrank_test(time, group, event)
    found = logrank(time, event, group)
    assert found.statistic == pytest.approx(expected.test_statistic)
    assert found.p == pytest.approx(expected.p_value)
    assert found.degrees == n_groups - 1
    assert np.isnan(logrank(time, np.zeros(300), group).p)
    assert np.isnan(logrank(time, event, np.zeros(300)).p)


def table(n=600, seed=3):
    time, event, score = cohort(n, seed)
    part = n // 3
    split = np.array(["train"] * part + ["val"] * part + ["test"] * (n - 2 * part))
    return make_survival_predictions(np.arange(n), ["mi"], (time, event, score), split)


def test_predicted_strata__are_cut_on_validation_subjects_and_ordered_by_risk():
    one = table()
    draws = draw_subjects(np.arange(400, 600), 300, np.random.default_rng(0))
    found = predicted_strata(one, "mi", draws, (1.0, 3.0, 6.0), 3)
    assert found.cut_on == "val"
    score = one.loc[one["split"] == "val", "prediction"]
    assert found.cuts == pytest.approx(score.quantile([1 / 3, 2 / 3]).to_numpy())
    at_three = found.curves[found.curves["time"] == 3.0]
    assert at_three["survival"].is_monotonic_decreasing
    assert (at_three["lo"] < at_three["survival"]).all()
    assert (at_three["survival"] < at_three["hi"]).all()
    assert at_three["n_subjects"].sum() == 200
    assert found.test.p < 1e-4
    test = one[one["split"] == "test"]
    lowest = test[test["prediction"] < found.cuts[0]]
    expected = KaplanMeierFitter().fit(lowest["time"], lowest["truth"]).predict([1.0, 3.0, 6.0])
    assert found.curves["survival"].to_numpy()[:3] == pytest.approx(expected.to_numpy())


def test_predicted_strata__a_subject_with_several_items_counts_once():
    one = table()
    twice = pd.concat([one, one.assign(item=1, prediction=9.0)], ignore_index=True)
    draws = draw_subjects(np.arange(400, 600), 50, np.random.default_rng(0))
    single, double = (predicted_strata(t, "mi", draws, (3.0,)) for t in (one, twice))
    pd.testing.assert_frame_equal(single.curves, double.curves)
    assert single.test == double.test


def test_predicted_strata__refuse_cuts_on_test_subjects():
    draws = draw_subjects(np.arange(400, 600), 5, np.random.default_rng(0))
    one = table()
    with pytest.raises(ValueError, match="must not decide"):
        predicted_strata(one[one["split"] == "test"], "mi", draws, (1.0,))
    with pytest.raises(ValueError, match="two strata"):
        predicted_strata(one, "mi", draws, (1.0,), 1)
    with pytest.raises(ValueError, match="rising times"):
        predicted_strata(one, "mi", draws, (2.0, 1.0))


def test_breslow__equals_lifelines():
    time, event, x = cohort(300, 4)
    fitter = CoxPHFitter().fit(pd.DataFrame({"t": time, "e": event, "x": x}), "t", "e")
    score = fitter.params_["x"] * (x - x.mean())  # lifelines centers its covariates
    baseline = fitter.baseline_cumulative_hazard_["baseline cumulative hazard"]
    grid = baseline.index.to_numpy()[[5, 50, 200]]
    assert breslow(time, event, score, grid) == pytest.approx(baseline.loc[grid].to_numpy())
    assert breslow(time, event, score + 400, grid) * np.exp(400) == pytest.approx(baseline.loc[grid].to_numpy())


def test_add_cox_probabilities__give_a_brier_score_better_than_the_average():
    both = add_cox_probabilities(table(1500), "mi", (2.0, 4.0, 6.0))
    assert len(both) == 4 * 1500
    data = survival_rows(both, "mi", "test")
    assert data.horizons == (2.0, 4.0, 6.0)
    # The planted risk is known: 1 - exp(-0.1 t exp(score)).
    assert data.risks[:, 1] == pytest.approx(1 - np.exp(-0.4 * np.exp(data.score)), abs=0.08)
    found = bootstrap_survival(data, draw_subjects(data.subjects, 100, np.random.default_rng(0)))
    assert found["ipa"].interval().lo > 0
    with pytest.raises(ValueError, match="longest train follow-up"):
        add_cox_probabilities(table(), "mi", (50.0,))
    nobody = table()
    nobody.loc[nobody["split"] == "train", "truth"] = 0.0
    with pytest.raises(ValueError, match="no train subject had the event"):
        add_cox_probabilities(nobody, "mi", (2.0,))
