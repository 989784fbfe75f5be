import numpy as np
import pytest

from ecgcmr.evaluation.label_draws import draw_labels


@pytest.fixture
def cohort():
    rng = np.random.default_rng(0)
    subjects = rng.permutation(1000) + 50
    return subjects, {"MI": rng.random(1000) < 0.3, "HCM": rng.random(1000) < 0.01, "NORM": rng.random(1000) < 0.98}


def test_draw_labels__nested_and_complete(cohort):
    subjects, positive = cohort
    draw = draw_labels(subjects, positive, (100, 400), np.random.default_rng(1))
    assert set(draw.subjects(100)) <= set(draw.subjects(400)) <= set(subjects)
    assert len(np.unique(draw.subjects())) == 1000
    with pytest.raises(ValueError, match="1001 labelled"):
        draw.subjects(1001)


def test_draw_labels__enough_of_the_rarer_class(cohort):
    subjects, positive = cohort
    enough, natural = [], []
    for seed in range(20):
        draw = draw_labels(subjects, positive, (100,), np.random.default_rng(seed))
        chosen = np.isin(subjects, draw.subjects(100))
        assert draw.positives[100] == {name: int(column[chosen].sum()) for name, column in positive.items()}
        enough.append(draw.positives[100]["HCM"] >= 5 and 100 - draw.positives[100]["NORM"] >= 5)
        plain = draw_labels(subjects, positive, (100,), np.random.default_rng(seed), min_positives=0)
        assert plain.swapped[100] == 0
        natural.append(plain.positives[100]["HCM"])
    assert all(enough)
    assert np.mean(natural) < 2.5
    common = [draw_labels(subjects, positive, (100,), np.random.default_rng(s)).positives[100]["MI"] for s in range(40)]
    assert np.mean(common) == pytest.approx(30, abs=4)  # a common target stays near its prevalence


def test_draw_labels__a_larger_size_does_not_touch_the_smaller(cohort):
    subjects, positive = cohort
    small = draw_labels(subjects, positive, (100,), np.random.default_rng(3)).subjects(100)
    both = draw_labels(subjects, positive, (100, 400), np.random.default_rng(3)).subjects(100)
    assert np.array_equal(small, both)


def test_draw_labels__depends_on_the_seed_and_not_on_row_order(cohort):
    subjects, positive = cohort
    back = np.argsort(subjects)
    one = draw_labels(subjects, positive, (100,), np.random.default_rng(4))
    two = draw_labels(subjects[back], {k: v[back] for k, v in positive.items()}, (100,), np.random.default_rng(4))
    other = draw_labels(subjects, positive, (100,), np.random.default_rng(5))
    assert np.array_equal(one.order, two.order)
    assert not np.array_equal(one.order, other.order)


def test_draw_labels__errors(cohort):
    subjects, positive = cohort
    with pytest.raises(ValueError, match="repeat"):
        draw_labels([1, 1], {}, (1,), np.random.default_rng(0))
    with pytest.raises(ValueError, match="sizes"):
        draw_labels(subjects, positive, (2000,), np.random.default_rng(0))
    with pytest.raises(ValueError, match="'EF' must be 0, 1 or NaN"):
        draw_labels([1, 2], {"EF": [55, 60]}, (1,), np.random.default_rng(0))
