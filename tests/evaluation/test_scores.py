import numpy as np
import pytest

from ecgcmr.evaluation.bootstrap import draw_subjects
from ecgcmr.evaluation.predictions import make_predictions
from ecgcmr.evaluation.retrieval import retrieve
from ecgcmr.evaluation.scores import (
    ArmKey,
    Score,
    difference,
    is_better,
    rows,
    score_predictions,
    score_retrieval,
)

KINDS = {"LVEDV": "regression", "MI": "binary"}


def table(noise, seed, n=240):
    truth_rng, rng = np.random.default_rng(0), np.random.default_rng(seed)
    volume = truth_rng.normal(150, 30, n)
    infarct = (truth_rng.random(n) < 0.3).astype(float)
    volume[:5] = np.nan
    truth = np.stack([volume, infarct], axis=1)
    guess = np.stack(
        [np.nan_to_num(volume, nan=150) + rng.normal(0, noise, n), 1 / (1 + np.exp(-infarct + rng.normal(size=n)))], 1
    )
    split = ["test"] * (n // 2) + ["val"] * (n // 2)
    return make_predictions(np.arange(n), list(KINDS), (truth, guess), split)


@pytest.fixture(scope="module")
def draws():
    return draw_subjects(np.arange(120), 400, np.random.default_rng(1))


@pytest.fixture(scope="module")
def arms(draws):
    return {
        name: score_predictions(
            {seed: table(noise, 10 * seed + bias) for seed in (0, 1, 2)}, KINDS, draws, ArmKey(name, "probe", 100)
        )
        for name, noise, bias in (("good", 15, 1), ("poor", 25, 2))
    }


def test_score_predictions__has_all_metrics_on_test_subjects_only(arms):
    names = {(s.target, s.metric) for s in arms["good"]}
    assert {("LVEDV", "r2"), ("LVEDV", "mae"), ("MI", "auroc"), ("MI", "balanced_accuracy")} <= names
    by_target = {s.target: s.n_subjects for s in arms["good"]}
    assert by_target == {"LVEDV": 115, "MI": 120}


def test_score_predictions__threshold_comes_from_validation_rows(draws):
    plain = table(15, 1)
    only_test = plain[plain["split"] == "test"]
    names = {s.metric for s in score_predictions({0: only_test}, {"MI": "binary"}, draws, ArmKey("a", "p"))}
    assert "auroc" in names
    assert "balanced_accuracy" not in names
    # Flipping the validation labels changes the threshold and with it the test result; the test labels stay.
    flipped = plain.copy()
    val = (flipped["split"] == "val") & (flipped["target"] == "MI")
    flipped.loc[val, "truth"] = 1 - flipped.loc[val, "truth"]
    one, two = (
        score_predictions({0: t}, {"MI": "binary"}, draws, ArmKey("a", "p"), ["balanced_accuracy"])[0]
        for t in (plain, flipped)
    )
    assert one.values[0] > two.values[0]


def test_score_predictions__sensitivity_is_at_a_specificity_of_validation_rows(draws):
    plain = table(15, 1)
    names = ["sensitivity_at_spec90", "specificity_at_spec90", "sensitivity", "auroc"]
    found = {
        s.metric: s.values[0] for s in score_predictions({0: plain}, {"MI": "binary"}, draws, ArmKey("a", "p"), names)
    }
    rows_of = {part: plain[(plain["split"] == part) & (plain["target"] == "MI")] for part in ("val", "test")}
    negatives = np.sort(rows_of["val"].loc[rows_of["val"]["truth"] == 0, "prediction"].to_numpy())
    above = negatives[int(np.ceil(0.9 * len(negatives) - 1e-9)) - 1]  # 90 % of the validation negatives are not above
    scores = rows_of["val"]["prediction"]
    called = rows_of["test"]["prediction"] >= (above + scores[scores > above].min()) / 2
    positive = rows_of["test"]["truth"] == 1
    assert found["sensitivity_at_spec90"] == pytest.approx(called[positive].mean())
    assert found["specificity_at_spec90"] == pytest.approx(1 - called[~positive].mean())
    assert found["sensitivity_at_spec90"] < found["sensitivity"]
    assert set(found) == set(names)


def test_rows__mean_over_seeds_and_single_seeds(arms):
    found = [r for r in rows(arms["good"]) if r["target"] == "LVEDV" and r["metric"] == "r2"]
    assert [r["seed"] for r in found] == [None, 0, 1, 2]
    assert found[0]["value"] == pytest.approx(np.mean([r["value"] for r in found[1:]]))
    assert found[0]["lo"] < found[0]["value"] < found[0]["hi"]
    assert all(r["compared_to"] is None and r["n_labels"] == 100 for r in found)


def test_difference__is_paired_and_signed(arms):
    forward = {(s.target, s.metric): s for s in difference(arms["good"], arms["poor"])}
    backward = {(s.target, s.metric): s for s in difference(arms["poor"], arms["good"])}
    a, b = forward["LVEDV", "r2_diff"].interval(), backward["LVEDV", "r2_diff"].interval()
    assert a.value > 0
    assert a.lo == pytest.approx(-b.hi)
    assert a.lo > 0
    assert rows([forward["LVEDV", "r2_diff"]])[0]["compared_to"] == "poor"
    same = difference(arms["good"], arms["good"])
    assert all(s.interval()[:3] == (0, 0, 0) for s in same if np.isfinite(s.values).all())


def test_difference__equals_the_difference_of_the_arms_draws(arms):
    """The resampled seeds are the same for both arms, so combining and subtracting commute."""
    from ecgcmr.evaluation.scores import _combined_draws

    good, poor = (next(s for s in arms[n] if s.metric == "r2") for n in ("good", "poor"))
    diff = next(s for s in difference(arms["good"], arms["poor"]) if s.metric == "r2_diff")
    expected = _combined_draws(good.values, good.draws, True) - _combined_draws(poor.values, poor.draws, True)
    assert _combined_draws(diff.values, diff.draws, True) == pytest.approx(expected)


def test_interval__holds_the_label_draw():
    """Draws without subject noise: the variance left is that of the mean over seeds, s^2/R."""
    values = np.array([0.1, 0.4, 0.5, 0.2])
    score = Score(ArmKey("a", "p"), "t", "r2", (0, 1, 2, 3), values, np.repeat(values[:, None], 20000, 1), 10)
    from ecgcmr.evaluation.scores import _combined_draws

    combined = _combined_draws(score.values, score.draws, True)
    assert combined.var() == pytest.approx(values.var(ddof=1) / 4, rel=0.05)
    assert combined.mean() == pytest.approx(values.mean(), abs=0.003)
    flat = score.interval(label_draws=False)
    assert (flat.lo, flat.hi) == pytest.approx((0.3, 0.3))


@pytest.mark.slow
def test_interval__covers_the_mean_of_all_label_draws():
    """Subjects and label draws both random: leaving out the label draw covers too little, holding both does not."""
    rng = np.random.default_rng(3)
    hits = {True: 0, False: 0}
    for _ in range(500):
        subject = rng.normal(0, 1, 100)
        seeds = rng.normal(0, 0.15, 5)
        counts = rng.multinomial(100, np.full(100, 0.01), 500)
        draws = seeds[:, None] + (counts @ subject / 100)[None]
        score = Score(ArmKey("a", "p"), "t", "r2", tuple(range(5)), seeds + subject.mean(), draws, 100)
        for both in hits:
            found = score.interval(label_draws=both)
            hits[both] += found.lo <= 0 <= found.hi
    assert hits[False] / 500 < 0.91
    assert 0.915 <= hits[True] / 500 <= 0.98


def test_difference__refuses_what_is_no_pair(arms, draws):
    other = score_predictions({0: table(15, 1)}, KINDS, draws, ArmKey("single", "probe", 100))
    with pytest.raises(ValueError, match="no pair"):
        difference(arms["good"], other)


def test_score_predictions__errors(draws):
    with pytest.raises(ValueError, match="no test rows of target 'RVEF'"):
        score_predictions({0: table(15, 1)}, {"RVEF": "regression"}, draws, ArmKey("a", "p"))
    with pytest.raises(ValueError, match="no predictions"):
        score_predictions({}, KINDS, draws, ArmKey("a", "p"))


def test_is_better__by_metric():
    assert is_better("r2_diff", 0.1)
    assert not is_better("mae_diff", 0.1)
    assert is_better("median_rank_diff", -3)
    assert is_better("recall_at_10", 0.1)
    with pytest.raises(ValueError, match="best at zero"):
        is_better("bias_diff", 0.1)


def test_score_retrieval__gives_rows_and_paired_differences():
    rng = np.random.default_rng(4)
    ecg = rng.normal(size=(80, 6))
    draws = draw_subjects(np.arange(80), 300, rng)
    arms = {}
    for noise in (0.2, 3.0):
        seed = {0: retrieve(ecg, ecg + rng.normal(0, noise, ecg.shape), np.arange(80))}
        arms[noise] = score_retrieval(seed, draws, ArmKey(str(noise), "retrieval"))
    found = {r["metric"]: r for r in rows(arms[0.2]) if r["seed"] is None}
    assert set(found) == {"recall_at_1", "recall_at_5", "recall_at_10", "median_rank"}
    assert found["recall_at_10"]["target"] == "ecg_to_cmr"
    gain = {s.metric: s.interval() for s in difference(arms[0.2], arms[3.0])}
    assert gain["recall_at_10_diff"].lo > 0
    assert gain["median_rank_diff"].hi < 0
    with pytest.raises(ValueError, match="one direction"):
        score_retrieval({}, draws, ArmKey("a", "retrieval"))
