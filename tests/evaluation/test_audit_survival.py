"""The audit of several metrics at once, and of outcomes with follow-up."""

import numpy as np
import pandas as pd
import pytest
from survival_cases import cohort

from ecgcmr.evaluation.audit import AuditPlan, audit_groups, audit_metrics
from ecgcmr.evaluation.audit_all import _false_discovery, audit_all
from ecgcmr.evaluation.bootstrap import draw_subjects
from ecgcmr.evaluation.metrics import compute
from ecgcmr.evaluation.predictions import make_predictions
from ecgcmr.evaluation.survival import Survival, bootstrap_survival, make_survival_predictions
from ecgcmr.evaluation.survival_kernels import auc_and_brier
from ecgcmr.evaluation.targets import Target

METRICS = ("harrell_c", "observed_expected_at_4", "brier_at_4")


def follow_up(n=600, seed=0, noise=0.0, wrong=1.0):
    """Hazard 0.1 exp(score); group b has a noisier score, and its probabilities are too high by a factor."""
    time, event, score = cohort(n, seed)
    rng = np.random.default_rng([seed, 1])
    group = rng.choice(["a", "b"], n)
    told = score + np.where(group == "b", rng.normal(0, noise, n) if noise else 0.0, 0.0)
    table = make_survival_predictions(np.arange(n), ["hf"], (time, event, told), "test", groups={"site": group})
    hazard = 0.1 * np.exp(score) * np.where(group == "b", wrong, 1.0)
    risks = [table.assign(prediction=1 - np.exp(-hazard * h), horizon=h) for h in (2.0, 4.0, 6.0)]
    return pd.concat([table, *risks], ignore_index=True)


def gaps(table, seed=0):
    plan = AuditPlan("hf", "", "site", n_draws=200, n_permutations=300)
    found = audit_metrics(table, plan, METRICS, np.random.default_rng(seed))
    return found, found[found["level"] == "gap"].set_index("metric")


def test_audit_metrics__finds_planted_gaps_of_rank_and_of_calibration():
    _, none = gaps(follow_up())
    assert none["p"].min() > 0.02
    found, rank = gaps(follow_up(noise=3.0))
    assert rank.loc["harrell_c", "p"] < 0.01
    assert rank.loc["observed_expected_at_4", "p"] > 0.05
    levels = found[found["metric"] == "harrell_c"].set_index("level")
    assert levels.loc["a", "value"] > levels.loc["b", "value"] + 0.1
    assert levels.loc["a", "n_items"] == levels.loc["a", "n_subjects"]  # a horizon is no item of its own
    _, off = gaps(follow_up(wrong=3.0))
    assert off.loc["observed_expected_at_4", "p"] < 0.01
    assert off.loc["harrell_c", "p"] > 0.05


def test_audit_metrics__of_one_metric_is_audit_groups():
    rng = np.random.default_rng(0)
    y = rng.normal(size=300)
    group = rng.choice(["a", "b", "c"], 300)
    table = make_predictions(np.arange(300), ["LVM"], (y, y + rng.normal(size=300)), "test", groups={"site": group})
    plan = AuditPlan("LVM", "mae", "site", n_draws=100, n_permutations=50)
    one = audit_groups(table, plan, np.random.default_rng(1))
    many = audit_metrics(table, plan, ("r2", "mae"), np.random.default_rng(1))
    pd.testing.assert_frame_equal(one, many[many["metric"] == "mae"].reset_index(drop=True))


def test_audit_metrics__names_a_metric_that_is_not_there():
    with pytest.raises(ValueError, match="no metric 'brier_at_9' of 'hf'"):
        audit_metrics(follow_up(60), AuditPlan("hf", "", "site", n_draws=10, n_permutations=5), ("brier_at_9",),
                      np.random.default_rng(0))  # fmt: skip


def test_audit_all__suppresses_small_groups_and_has_no_nan():
    table = follow_up(200)
    table.loc[table["subject"] < 4, "site"] = "tiny"
    target = Target("hf", "survival", "years")
    rows = audit_all(table, [target], {"hf": (2.0, 4.0, 6.0)}, {}, ["site"], (100, 50), np.random.default_rng(0))
    assert {row["metric"] for row in rows} == {"harrell_c", "observed_expected_at_4"}
    tiny = [row for row in rows if row["level"] == "tiny"]
    assert len(tiny) == 2
    assert all(row["value"] is None and "not reported" in row["flags"] for row in tiny)
    assert all(not (isinstance(v, float) and np.isnan(v)) for row in rows for v in row.values())
    gap = [row for row in rows if row["level"] == "gap"]
    assert all(row["q"] >= row["p"] for row in gap)


def test_audit_all__is_audit_metrics_for_every_target_whoever_shares_its_draws():
    rng = np.random.default_rng(0)
    n = 200
    truth = rng.normal(size=(n, 3))
    truth[:40, 1] = np.nan  # the first and the last target are observed in the same subjects
    groups = {"sex": rng.choice(["f", "m"], n), "site": rng.choice(["a", "b", "c"], n)}
    names = ["first", "second", "last"]
    table = make_predictions(np.arange(n), names, (truth, rng.normal(size=(n, 3))), "test", groups=groups)
    rows = audit_all(table, [Target(name, "regression") for name in names], {}, {}, ["sex", "site"], (60, 40), rng)
    assert [*dict.fromkeys(row["target"] for row in rows)] == names
    for row in rows:
        if row["level"] != "gap":
            part = table[(table["target"] == row["target"]) & (table[row["attribute"]] == row["level"])].dropna()
            assert row["value"] == pytest.approx(compute(row["metric"], part["truth"], part["prediction"]))
            assert row["lo"] < row["value"] < row["hi"]
    # A shuffle of the sexes in which nothing is planted reaches the gap now and then.
    assert all(0 < row["p"] <= 1 for row in rows if row["level"] == "gap")


def test_false_discovery__equals_scipy():
    from scipy.stats import false_discovery_control

    p = [0.01, 0.04, None, 0.03, 0.5, 0.02]
    found = _false_discovery(p)
    known = [v for v in p if v is not None]
    assert [v for v in found if v is not None] == pytest.approx(list(false_discovery_control(known)))
    assert found[2] is None
    assert _false_discovery([None]) == [None]


def test_observed_expected__without_censoring_is_a_ratio_of_means():
    time, event, score = cohort(300, censoring=0.0)
    risks = np.stack([1 - np.exp(-0.1 * h * np.exp(score)) for h in (2.0, 4.0)], axis=1)
    data = Survival(time, event, score, np.arange(300), risks, (2.0, 4.0))
    draws = draw_subjects(np.arange(300), 50, np.random.default_rng(0))
    found = bootstrap_survival(data, draws)
    for k, h in enumerate((2.0, 4.0)):
        one = found[f"observed_expected_at_{h:g}"]
        happened = (time <= h) & (event == 1)
        assert one.value == pytest.approx(happened.mean() / risks[:, k].mean())
        w = draws.counts[7].astype(float)
        assert one.draws[7] == pytest.approx((w @ happened) / (w @ risks[:, k]))
    only = bootstrap_survival(data, draws, ("observed_expected_at_2",))
    assert list(only) == ["observed_expected_at_2"]
    assert np.array_equal(only["observed_expected_at_2"].draws, found["observed_expected_at_2"].draws)


def test_auc_and_brier__rows_without_weight_behind_the_last_one_do_not_matter():
    """Everybody with weight is censored before the event of somebody without: nothing is divided by 0."""
    time, event = np.array([1.0, 2.0, 3.0]), np.array([False, False, True])
    rows, risks = np.arange(3), np.array([[0.2, 0.3, 0.4]])
    falling = np.argsort(-risks, axis=1).astype(np.int64)
    found = auc_and_brier(rows, time, event, risks, falling, np.array([3.5]), np.array([[1, 1, 0]], np.uint16))
    assert np.isnan(found).all()
