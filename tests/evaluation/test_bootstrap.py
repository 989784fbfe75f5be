import numpy as np
import pytest

from ecgcmr.evaluation.bootstrap import (
    Bootstrapped,
    bootstrap_metrics,
    draw_subjects,
    paired_difference,
    percentile_interval,
)
from ecgcmr.evaluation.metrics import compute, metrics_for


def test_draw_subjects__multinomial_counts():
    draws = draw_subjects(np.arange(50) * 7, 4000, np.random.default_rng(0))
    assert (draws.counts.sum(axis=1) == 50).all()
    assert draws.counts.mean(axis=0) == pytest.approx(1.0, abs=0.08)
    # Variance and covariance of a multinomial: 1 - 1/S and -1/S.
    covariance = np.cov(draws.counts.T.astype(float))
    assert np.diag(covariance).mean() == pytest.approx(1 - 1 / 50, abs=0.03)
    assert covariance[~np.eye(50, dtype=bool)].mean() == pytest.approx(-1 / 50, abs=0.002)


def test_draw_subjects__strata_keep_their_size():
    strata = np.array(["a"] * 12 + ["b"] * 30)
    draws = draw_subjects(np.arange(42), 200, np.random.default_rng(0), strata=strata)
    assert (draws.counts[:, :12].sum(axis=1) == 12).all()
    assert (draws.counts[:, 12:].sum(axis=1) == 30).all()


def test_draw_subjects__same_generator_same_draws():
    one, two = (draw_subjects(np.arange(30), 50, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(one.counts, two.counts)
    with pytest.raises(ValueError, match="not among the 30 subjects"):
        one.index([3, 99])


@pytest.mark.parametrize("kind", ["regression", "binary"])
def test_bootstrap_metrics__equals_a_loop_over_resampled_rows(kind):
    rng = np.random.default_rng(3)
    subjects = np.repeat(np.arange(40), 2)  # two rows each
    truth = rng.normal(size=80) if kind == "regression" else (rng.random(80) < 0.4).astype(float)
    prediction = np.round(rng.random(80) + 0.3 * truth, 1).clip(0, 1)
    draws = draw_subjects(subjects, 20, rng)
    found = bootstrap_metrics(metrics_for(kind), (truth, prediction), subjects, draws, threshold=0.5)
    found.pop("ece", None)  # its bins are those of all rows, see test_recalibration.py
    for name, result in found.items():
        assert result.value == pytest.approx(compute(name, truth, prediction, 0.5))
        for b in range(20):
            rows = np.repeat(np.arange(80), draws.counts[b][subjects])
            assert result.draws[b] == pytest.approx(compute(name, truth[rows], prediction[rows], 0.5), abs=1e-9)
        assert (result.n_subjects, result.n_items) == (40, 80)


def test_bootstrap_metrics__leaves_out_missing_truth():
    rng = np.random.default_rng(4)
    truth, prediction = rng.normal(size=60), rng.normal(size=60)
    draws = draw_subjects(np.arange(60), 50, rng)
    holes = truth.copy()
    holes[::3] = np.nan
    found = bootstrap_metrics(["mae"], (holes, prediction), np.arange(60), draws)["mae"]
    seen = ~np.isnan(holes)
    assert found.value == pytest.approx(np.abs(truth - prediction)[seen].mean())
    assert found.n_subjects == 40
    with pytest.raises(ValueError, match="every truth is NaN"):
        bootstrap_metrics(["mae"], (np.full(60, np.nan), prediction), np.arange(60), draws)
    with pytest.raises(ValueError, match="different kinds"):
        bootstrap_metrics(["mae", "auroc"], (truth, prediction), np.arange(60), draws)


def test_bootstrap_metrics__one_class_draws_are_counted_and_too_many_refused():
    rng = np.random.default_rng(5)
    score = rng.random(100)
    draws = draw_subjects(np.arange(100), 1000, rng)
    rare = np.zeros(100)
    rare[:1] = 1  # absent in a share (1 - 1/100)^100 = 0.366 of the draws
    interval = bootstrap_metrics(["auroc"], (rare, score), np.arange(100), draws)["auroc"].interval()
    assert interval.degenerate == pytest.approx(366, abs=60)
    assert np.isfinite(interval.value)
    assert np.isnan(interval.lo)
    rare[:6] = 1  # absent in 0.2 % of the draws
    interval = bootstrap_metrics(["auroc"], (rare, score), np.arange(100), draws)["auroc"].interval()
    assert interval.degenerate < 20
    assert interval.lo < interval.value < interval.hi


def test_percentile_interval__is_the_quantiles():
    interval = percentile_interval(50.0, np.arange(101.0))
    assert (interval.lo, interval.hi) == pytest.approx((2.5, 97.5))
    with pytest.raises(ValueError, match="level"):
        percentile_interval(0.0, np.arange(9.0), level=95)


def test_interval__of_a_mean_has_the_width_of_theory():
    rng = np.random.default_rng(6)
    error = rng.normal(size=400)
    draws = draw_subjects(np.arange(400), 4000, rng)
    interval = bootstrap_metrics(["bias"], (np.zeros(400), error), np.arange(400), draws)["bias"].interval()
    assert interval.hi - interval.lo == pytest.approx(2 * 1.96 * error.std() / 20, rel=0.06)


def test_interval__subject_clusters_are_wider_than_rows():
    """Five rows a subject with intraclass correlation ~0.9: the true interval is about sqrt(4.6) times wider."""
    rng = np.random.default_rng(7)
    subjects = np.repeat(np.arange(80), 5)
    error = rng.normal(size=80)[subjects] + rng.normal(0, 0.33, 400)
    widths = {}
    for name, unit in (("subject", subjects), ("row", np.arange(400))):
        draws = draw_subjects(unit, 2000, rng)
        interval = bootstrap_metrics(["bias"], (np.zeros(400), error), unit, draws)["bias"].interval()
        widths[name] = interval.hi - interval.lo
    assert 1.7 < widths["subject"] / widths["row"] < 2.6


def test_paired_difference__is_narrower_than_unpaired():
    rng = np.random.default_rng(8)
    truth = rng.normal(size=300)
    shared = truth + rng.normal(0, 0.8, 300)
    one, two = shared + rng.normal(0, 0.1, 300), shared + rng.normal(0, 0.1, 300)
    draws, other = (draw_subjects(np.arange(300), 2000, rng) for _ in range(2))
    a = bootstrap_metrics(["r2"], (truth, one), np.arange(300), draws)["r2"]
    b = bootstrap_metrics(["r2"], (truth, two), np.arange(300), draws)["r2"]
    unpaired = bootstrap_metrics(["r2"], (truth, two), np.arange(300), other)["r2"]
    paired = paired_difference(a, b).interval()
    assert paired.value == pytest.approx(a.value - b.value)
    loose = percentile_interval(paired.value, a.draws - unpaired.draws)
    assert (paired.hi - paired.lo) < 0.5 * (loose.hi - loose.lo)
    with pytest.raises(ValueError, match="not a pair"):
        paired_difference(a, Bootstrapped(0.0, b.draws[:10], 300, 300))


@pytest.mark.slow
@pytest.mark.parametrize("rows_each", [1, 6])
def test_interval__covers_the_truth_at_its_nominal_rate(rows_each):
    """Correlated rows of a subject: the subject bootstrap covers ~95 %, also with several rows."""
    rng = np.random.default_rng(9)
    subjects = np.repeat(np.arange(120), rows_each)
    hits = 0
    for _ in range(600):
        error = rng.normal(size=120)[subjects] + rng.normal(0, 0.5, subjects.size)
        draws = draw_subjects(subjects, 600, rng)
        found = bootstrap_metrics(["bias"], (np.zeros(subjects.size), error), subjects, draws)["bias"].interval()
        hits += found.lo <= 0.0 <= found.hi
    assert 0.925 <= hits / 600 <= 0.975


@pytest.mark.slow
def test_interval__of_r2_and_auroc_covers_the_population_value():
    rng = np.random.default_rng(10)
    hits = {"r2": 0, "auroc": 0}
    population = 1 - 0.5**2  # truth = signal + noise of variance 0.25, total variance 1
    from scipy.stats import norm

    separation = norm.cdf(1.0 / np.sqrt(2.0))  # two unit normals one apart
    for _ in range(400):
        signal = rng.normal(0, np.sqrt(0.75), 250)
        truth = signal + rng.normal(0, 0.5, 250)
        draws = draw_subjects(np.arange(250), 500, rng)
        found = bootstrap_metrics(["r2"], (truth, signal), np.arange(250), draws)["r2"].interval()
        hits["r2"] += found.lo <= population <= found.hi
        label = (rng.random(250) < 0.3).astype(float)
        found = bootstrap_metrics(["auroc"], (label, rng.normal(label, 1)), np.arange(250), draws)["auroc"].interval()
        hits["auroc"] += found.lo <= separation <= found.hi
    assert all(0.91 <= count / 400 <= 0.985 for count in hits.values()), hits


@pytest.mark.slow
def test_paired_difference__of_two_arms_covers_the_truth_with_clustered_rows():
    """Arms whose errors a subject shares, five rows each: the interval of the difference of their MAE covers it."""
    rng = np.random.default_rng(11)
    n, each, hits, repeats = 120, 5, 0, 400
    subjects = np.repeat(np.arange(n), each)
    truth_difference = np.sqrt(2 / np.pi) * (np.sqrt(1 + 0.5**2) - np.sqrt(1 + 0.25**2))
    for _ in range(repeats):
        shared = np.repeat(rng.normal(size=n), each)
        error = [shared + rng.normal(0, sd, n * each) for sd in (0.5, 0.25)]
        truth = np.zeros(n * each)
        draws = draw_subjects(np.arange(n), 400, rng)
        a, b = (bootstrap_metrics(["mae"], (truth, e), subjects, draws)["mae"] for e in error)
        interval = paired_difference(a, b).interval()
        hits += interval.lo <= truth_difference <= interval.hi
    assert 0.92 <= hits / repeats <= 0.97
