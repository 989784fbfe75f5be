import numpy as np
import pytest

from ecgcmr.evaluation.bootstrap import draw_subjects
from ecgcmr.evaluation.retrieval import retrieve, retrieve_both_ways, top_matches


def test_retrieve__perfect_pairs():
    z = np.random.default_rng(0).normal(size=(50, 8))
    found = retrieve(z, 3 * z, np.arange(50))
    assert (found.ranks == 1).all()
    assert found.hits[1].mean() == 1.0


def test_retrieve__ranks_by_hand():
    queries = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    candidates = np.array([[1.0, 0.1], [1.0, 0.0], [0.9, 1.0]])
    # Query 1 (0, 1): similarities 0.0995, 0, 0.743, so its own (0) is third.
    found = retrieve(queries, candidates, [4, 5, 6], ks=(1, 2))
    assert list(found.ranks) == [2, 3, 1]
    assert list(found.hits[1]) == [0, 0, 1]
    assert list(found.hits[2]) == [1, 0, 1]


def test_retrieve__random_embeddings_are_at_chance():
    rng = np.random.default_rng(1)
    ecg, cmr = rng.normal(size=(2000, 32)), rng.normal(size=(2000, 32))
    for found in retrieve_both_ways(ecg, cmr, np.arange(2000), gallery=200):
        assert found.hits[10].mean() == pytest.approx(found.chance(10), abs=0.02)
        assert found.chance(10) == 0.05
        assert np.median(found.ranks) == pytest.approx(found.chance_median_rank, rel=0.06)
        intervals = found.summarise(draw_subjects(np.arange(2000), 500, rng))
        lo, hi = intervals["recall_at_10"].interval()[1:3]
        assert lo - 0.01 < 0.05 < hi + 0.01


def test_retrieve__collapsed_embedding_is_exactly_chance():
    """All studies look alike: a rank that resolves ties in favor of the truth would report perfect retrieval."""
    ones = np.ones((40, 4))
    found = retrieve(ones, ones, np.arange(40), ks=(1, 10))
    assert found.hits[1] == pytest.approx(1 / 40)
    assert found.hits[10] == pytest.approx(10 / 40)
    assert found.ranks == pytest.approx(20.5)


def test_retrieve__closed_form_gallery_equals_drawn_galleries():
    rng = np.random.default_rng(2)
    ecg = rng.normal(size=(30, 3))
    cmr = ecg + rng.normal(size=(30, 3))
    exact = retrieve(ecg, cmr, np.arange(30), gallery=8, ks=(1, 3))
    total = {1: np.zeros(30), 3: np.zeros(30)}
    seen = np.zeros(30)
    for _ in range(2500):
        rows = rng.permutation(30)[:8]
        drawn = retrieve(ecg[rows], cmr[rows], rows, ks=(1, 3))
        seen[rows] += 1
        for k in total:
            total[k][rows] += drawn.hits[k]
    for k in total:
        assert exact.hits[k] == pytest.approx(total[k] / seen, abs=0.07)


def test_retrieve__direction_matters_and_scale_does_not():
    rng = np.random.default_rng(3)
    ecg = rng.normal(size=(60, 4))
    cmr = ecg + rng.normal(size=(60, 4))
    forward, backward = retrieve_both_ways(ecg, cmr, np.arange(60))
    assert not np.array_equal(forward.ranks, backward.ranks)
    scaled = retrieve(ecg * rng.uniform(0.1, 9, (60, 1)), cmr * 5, np.arange(60))
    assert np.array_equal(scaled.ranks, forward.ranks)


def test_summarise__equals_a_loop_over_draws():
    rng = np.random.default_rng(4)
    ecg = rng.normal(size=(25, 4))
    found = retrieve(ecg, ecg + rng.normal(size=(25, 4)), np.arange(25) + 100, ks=(5,))
    draws = draw_subjects(found.subjects, 40, rng)
    summary = found.summarise(draws)
    for b in range(40):
        rows = np.repeat(np.arange(25), draws.counts[b])
        assert summary["recall_at_5"].draws[b] == pytest.approx(found.hits[5][rows].mean())
        assert summary["median_rank"].draws[b] == pytest.approx(np.median(found.ranks[rows]))


def test_top_matches__best_first():
    candidates = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    assert list(top_matches([1.0, 0.2], candidates, 2)) == [1, 2]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"subjects": [1, 1, 2]}, "appears twice"),
        ({"gallery": 9}, "gallery of 9"),
        ({"candidates": np.ones((2, 2))}, "do not form pairs"),
        ({"queries": np.zeros((3, 2))}, "queries: 3 embedding"),
        ({"ks": (0,)}, "at least 1"),
    ],
)
def test_retrieve__errors(change, words):
    arguments = {
        "queries": np.eye(3)[:, :2] + 0.1,
        "candidates": np.eye(3)[:, :2] + 0.1,
        "subjects": [1, 2, 3],
    } | change
    with pytest.raises(ValueError, match=words):
        retrieve(**arguments)
