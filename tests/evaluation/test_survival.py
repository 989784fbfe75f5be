import numpy as np
import pandas as pd
import pytest
from lifelines.utils import concordance_index
from sklearn.metrics import brier_score_loss, roc_auc_score
from survival_cases import cohort, data, plain_auc, plain_brier, plain_concordance

from ecgcmr.evaluation.bootstrap import draw_subjects
from ecgcmr.evaluation.predictions import check_predictions, group_columns, read_predictions, write_predictions
from ecgcmr.evaluation.scores import ArmKey, difference, is_better, rows
from ecgcmr.evaluation.survival import (
    Survival,
    bootstrap_survival,
    make_survival_predictions,
    score_survival,
    survival_rows,
)


def no_draws(n):
    return draw_subjects(np.arange(n), 2, np.random.default_rng(0))


def values(found):
    return {name: one.value for name, one in found.items()}


def test_harrell_c__equals_a_hand_example():
    """Times 1, 2, 3+, 4: pairs (1,2) (1,3) (1,4) (2,3) (2,4) can be compared, (3+,4) can not; two are discordant."""
    few = Survival(np.array([1.0, 2, 3, 4]), np.array([1.0, 1, 0, 1]), np.array([3.0, 1, 2, 0]), np.arange(4))
    found = bootstrap_survival(few, no_draws(4))
    assert found["harrell_c"].value == pytest.approx(4 / 5)
    # P(C >= 4) is 1/2 (of the two alive at 3 one is censored), but nobody lives beyond 4, so Uno's pairs are the same.
    assert found["uno_c"].value == pytest.approx(4 / 5)
    assert set(found) == {"harrell_c", "uno_c"}


def test_uno_c__weighs_late_events_up_in_a_hand_example():
    """Censored at 1.5 of three: events at 2 and 3 weigh (3/2)^2. Pairs: 1: 4 of 4 right; 2: 0 of 2; 3: 1 of 1."""
    time, event = np.array([1.0, 1.5, 2.0, 3.0, 4.0]), np.array([1.0, 0, 1, 1, 0])
    score = np.array([5.0, 1.0, 0.0, 2.0, 1.0])
    found = bootstrap_survival(Survival(time, event, score, np.arange(5)), no_draws(5))
    left = (4 - 1) / 4  # of the four alive at 1.5 one is censored
    assert found["harrell_c"].value == pytest.approx((4 + 0 + 1) / 7)
    assert found["uno_c"].value == pytest.approx((4 + 1 / left**2) / (4 + 3 / left**2))


@pytest.mark.parametrize("ties", [False, True])
def test_harrell_c__equals_lifelines(ties):
    time, event, score = cohort(400, 1, ties)
    found = bootstrap_survival(Survival(time, event, score, np.arange(400)), no_draws(400))
    assert found["harrell_c"].value == pytest.approx(concordance_index(time, -score, event), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_metrics__equal_plain_loops_on_all_and_on_resampled_rows(ties):
    one = data(60, 2, ties)
    draws = draw_subjects(np.arange(60), 4, np.random.default_rng(1))
    found = bootstrap_survival(one, draws)
    everyone = [np.arange(60), *(np.repeat(np.arange(60), draws.counts[b]) for b in range(4))]
    for place, chosen in enumerate(everyone):
        time, event, score = one.time[chosen], one.event[chosen], one.score[chosen]

        def value(name, place=place):
            return found[name].value if place == 0 else found[name].draws[place - 1]

        assert value("harrell_c") == pytest.approx(plain_concordance(time, event, score))
        assert value("uno_c") == pytest.approx(plain_concordance(time, event, score, 6.0, uno=True))
        briers = []
        for k, h in enumerate((2.0, 4.0, 6.0)):
            risk = one.risks[chosen, k]
            assert value(f"auc_at_{h:g}") == pytest.approx(plain_auc(time, event, risk, h))
            briers.append(plain_brier(time, event, risk, h))
            assert value(f"brier_at_{h:g}") == pytest.approx(briers[-1])
        assert value("ibs") == pytest.approx((briers[0] + 2 * briers[1] + briers[2]) / 4)


def test_metrics__without_censoring_are_those_of_a_binary_target():
    one = data(300, 3, censoring=0, horizons=(1.0, 5.0))
    complete = Survival(one.time, np.ones(300), one.score, one.subjects, one.risks, one.horizons)
    found = values(bootstrap_survival(complete, no_draws(300)))
    for k, h in enumerate((1.0, 5.0)):
        label = complete.time <= h
        assert found[f"auc_at_{h:g}"] == pytest.approx(roc_auc_score(label, complete.score))
        assert found[f"brier_at_{h:g}"] == pytest.approx(brier_score_loss(label, complete.risks[:, k]))
    no_limit = Survival(one.time, np.ones(300), one.score, one.subjects)
    found = values(bootstrap_survival(no_limit, no_draws(300)))
    assert found["uno_c"] == pytest.approx(found["harrell_c"])


def test_auc_and_brier__do_not_change_with_censoring_that_is_independent():
    """IPCW undoes the censoring: 20,000 subjects, half of them censored, give what complete follow-up gives."""
    time, event, score = cohort(20_000, 4, censoring=0)
    risks = np.stack([1 - np.exp(-0.1 * h * np.exp(score)) for h in (2.0, 6.0)], axis=1)
    complete = values(
        bootstrap_survival(Survival(time, event, score, np.arange(20_000), risks, (2.0, 6.0)), no_draws(20_000))
    )
    censored = np.random.default_rng(5).exponential(6.0, 20_000)
    seen = Survival(np.minimum(time, censored), event * (time <= censored), score, np.arange(20_000), risks, (2.0, 6.0))
    found = values(bootstrap_survival(seen, no_draws(20_000)))
    for name in ("auc_at_6", "brier_at_6", "auc_at_2", "ibs", "uno_c"):
        assert found[name] == pytest.approx(complete[name], abs=0.012), name
    # Counting the censored as free of the event instead is far off.
    naive = brier_score_loss((seen.time <= 6) & (seen.event == 1), risks[:, 1])
    assert abs(naive - complete["brier_at_6"]) > 0.02


def test_ipa__is_zero_for_the_average_risk_and_positive_for_the_truth():
    one = data(3000, 6)
    found = values(bootstrap_survival(one, no_draws(3000)))
    assert found["ipa"] > 0.1
    from lifelines import KaplanMeierFitter

    curve = KaplanMeierFitter().fit(one.time, one.event).predict([2.0, 4.0, 6.0]).to_numpy()
    average = Survival(one.time, one.event, one.score, one.subjects, np.tile(1 - curve, (3000, 1)), one.horizons)
    flat = values(bootstrap_survival(average, no_draws(3000)))
    assert flat["ipa"] == pytest.approx(0, abs=1e-9)
    assert flat["auc_at_4"] == 0.5


@pytest.mark.parametrize(
    ("time", "event", "undefined"),
    [
        ([1.0, 2.0, 3.0], [0.0, 0.0, 0.0], {"harrell_c", "uno_c", "auc_at_2"}),  # nobody had an event
        ([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], {"harrell_c", "uno_c", "auc_at_2", "brier_at_2"}),  # nobody lived longer
    ],
)
def test_metrics__what_is_not_defined_is_nan(time, event, undefined):
    few = Survival(
        np.array(time), np.array(event), np.array([0.1, 0.2, 0.3]), np.arange(3), np.full((3, 1), 0.5), (2.0,)
    )
    found = values(bootstrap_survival(few, no_draws(3)))
    assert {name for name, value in found.items() if np.isnan(value)} == undefined


def test_bootstrap_survival__random_scores_are_chance():
    time, event, _ = cohort(500, 7)
    rng = np.random.default_rng(8)
    draws = draw_subjects(np.arange(500), 300, rng)
    found = bootstrap_survival(Survival(time, event, rng.normal(size=500), np.arange(500), None, (5.0,)), draws)
    for name in ("harrell_c", "uno_c", "auc_at_5"):
        interval = found[name].interval()
        assert interval.lo < 0.5 < interval.hi
        assert interval.value == pytest.approx(0.5, abs=0.06)


def survival_table(n=200, noise=0.0, seed=0):
    time, event, score = cohort(n, 9)
    time[:5] = event[:5] = np.nan  # not at risk
    rng = np.random.default_rng(seed)
    split = np.array(["test"] * (n // 2) + ["train"] * (n // 2))
    return make_survival_predictions(np.arange(n), ["mi"], (time, event, score + noise * rng.normal(size=n)), split)


def test_make_survival_predictions__is_one_predictions_table(tmp_path):
    table = survival_table()
    again = read_predictions(write_predictions(tmp_path / "p.parquet", table))
    pd.testing.assert_frame_equal(again, table)
    assert group_columns(table) == ()
    found = survival_rows(table, "mi", "test")
    assert len(found.time) == 95
    assert found.risks is None


def test_score_survival__gives_rows_and_paired_differences():
    draws = draw_subjects(np.arange(100), 200, np.random.default_rng(1))
    arms = [
        score_survival(
            {s: survival_table(noise=noise, seed=s) for s in (1, 2)}, ["mi"], draws, ArmKey(name, "cox"), (5.0,)
        )
        for name, noise in (("good", 0.2), ("poor", 3.0))
    ]
    found = {row["metric"]: row for row in rows(arms[0]) if row["seed"] is None}
    assert set(found) == {"harrell_c", "uno_c", "auc_at_5"}
    assert found["uno_c"]["n_subjects"] == 95
    gain = {score.metric: score.interval() for score in difference(*arms)}
    assert gain["harrell_c_diff"].lo > 0
    assert is_better("harrell_c_diff", 0.1)
    assert is_better("ibs_diff", -0.1)
    assert not is_better("brier_at_5", 0.1)


def test_errors__name_what_is_wrong():
    table = survival_table()
    with pytest.raises(ValueError, match="no test rows at risk of 'hf'"):
        survival_rows(table, "hf", "test")
    with pytest.raises(ValueError, match="no column 'time'"):
        survival_rows(table.drop(columns="time"), "mi", "test")
    with pytest.raises(ValueError, match="time is -1"):
        check_predictions(table.assign(time=-1.0))
    with pytest.raises(ValueError, match="because the row has a horizon"):
        check_predictions(table.assign(horizon=1.0))
    with pytest.raises(ValueError, match="without an event"):
        make_survival_predictions([1, 2], ["mi"], ([1.0, 2.0], [1.0, np.nan], [0.1, 0.2]), "test")
    with pytest.raises(ValueError, match="event must be 1"):
        make_survival_predictions([1, 2], ["mi"], ([1.0, 2.0], [1.0, 3.0], [0.1, 0.2]), "test")
    good = (np.array([1.0, 2.0]), np.array([1.0, 0.0]), np.array([0.1, 0.2]), np.arange(2))
    with pytest.raises(ValueError, match="rising"):
        Survival(*good, None, (3.0, 2.0))
    with pytest.raises(ValueError, match="negative"):
        Survival(-good[0], *good[1:])
    with pytest.raises(ValueError, match="risks have shape"):
        Survival(*good, np.ones((2, 2)), (3.0,))
    with pytest.raises(ValueError, match="no predictions"):
        score_survival({}, ["mi"], no_draws(2), ArmKey("a", "cox"))


@pytest.mark.slow
def test_interval__of_concordance_covers_the_population_value():
    time, event, score = cohort(60_000, 10)
    whole = bootstrap_survival(Survival(time, event, score, np.arange(60_000), None, (5.0,)), no_draws(60_000))
    hits = dict.fromkeys(("harrell_c", "uno_c", "auc_at_5"), 0)
    for repetition in range(300):
        chosen = slice(repetition * 200, repetition * 200 + 200)
        draws = draw_subjects(np.arange(200), 400, np.random.default_rng(repetition))
        part = Survival(time[chosen], event[chosen], score[chosen], np.arange(200), None, (5.0,))
        found = bootstrap_survival(part, draws)
        for name in hits:
            interval = found[name].interval()
            hits[name] += interval.lo <= whole[name].value <= interval.hi
    assert all(0.91 <= count / 300 <= 0.985 for count in hits.values()), hits
