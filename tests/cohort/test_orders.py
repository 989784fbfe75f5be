"""Orders by weight and by group: shares are exact, samples come equally often, and (seed, epoch) decides all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcmr.cohort.orders import GroupedOrder, WeightedOrder, balanced_shares
from ecgcmr.cohort.sampler import BatchSampler

WEIGHTS = st.lists(st.floats(0, 100), min_size=1, max_size=60).filter(lambda w: sum(w) > 1e-3)
GROUPS = st.lists(st.integers(-2, 3), min_size=1, max_size=80)


@given(weights=WEIGHTS, seed=st.integers(0, 99), epoch=st.integers(0, 99))
def test_weighted_order__each_sample_comes_as_often_as_its_weight_says(weights, seed, epoch):
    order = WeightedOrder(weights)(seed, epoch)
    counts = np.bincount(order, minlength=len(weights))
    expected = len(weights) * np.asarray(weights) / np.sum(weights)
    assert len(order) == len(counts) == len(weights)
    assert np.all(np.abs(counts - expected) < 1 + 1e-6)
    assert np.all(counts[np.asarray(weights) == 0] == 0)


def test_weighted_order__has_the_right_mean_over_epochs():
    weights = np.array([1.0, 2.0, 3.0, 0.5])
    counts = sum(np.bincount(WeightedOrder(weights)(5, epoch), minlength=4) for epoch in range(3000)) / 3000
    np.testing.assert_allclose(counts, 4 * weights / weights.sum(), atol=0.04)


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1.0, -2.0], "weight of item 1 is -2"), ([np.nan], "item 0 is nan"), ([0.0, 0.0], "all 2 weights are 0")],
)
def test_weighted_order__refuses_what_is_no_weight(weights, message):
    with pytest.raises(ValueError, match=message):
        WeightedOrder(weights)


@given(groups=GROUPS, seed=st.integers(0, 99), epoch=st.integers(0, 30))
def test_grouped_order__groups_alike_have_equal_parts_of_each_epoch(groups, seed, epoch):
    found = GroupedOrder(groups)(seed, epoch)
    parts = np.unique(np.asarray(groups)[found], return_counts=True)[1]
    assert len(found) == len(groups)
    assert parts.max() - (parts.min() if len(parts) == len(set(groups)) else 0) <= 1


@settings(max_examples=30)
@given(groups=GROUPS, balance=st.sampled_from([0.0, 0.5, 1.0]), seed=st.integers(0, 9))
def test_grouped_order__within_a_group_all_come_equally_often(groups, balance, seed):
    order = GroupedOrder(groups, balanced_shares(groups, balance))
    counts = np.zeros(len(groups), int)
    for epoch in range(7):
        counts += np.bincount(order(seed, epoch), minlength=len(groups))
        for group in set(groups):
            own = counts[np.asarray(groups) == group]
            assert own.max() - own.min() <= 1, "nobody comes again before all others of the group did"


@given(groups=GROUPS, seed=st.integers(0, 9), epoch=st.integers(0, 5))
def test_grouped_order__with_the_shares_of_the_data_is_a_permutation(groups, seed, epoch):
    found = GroupedOrder(groups, balanced_shares(groups, 0.0))(seed, epoch)
    assert sorted(found.tolist()) == list(range(len(groups)))


def test_balanced_shares__between_the_data_and_equality():
    groups = [0] * 90 + [1] * 10
    assert balanced_shares(groups, 0.0) == pytest.approx({0: 0.9, 1: 0.1})
    assert balanced_shares(groups, 0.5) == pytest.approx({0: 0.75, 1: 0.25})
    assert balanced_shares(groups, 1.0) == pytest.approx({0: 0.5, 1: 0.5})


def test_grouped_order__needs_a_share_for_each_group():
    with pytest.raises(ValueError, match=r"each of the groups \(0, 1\), got \{0: 1\.0\}"):
        GroupedOrder([0, 1, 0], {0: 1.0})


def test_orders__are_the_same_on_every_machine():
    assert GroupedOrder([0, 0, 0, 0, 1, 1])(0, 1).tolist() == [5, 2, 4, 5, 1, 0]
    assert WeightedOrder([1, 2, 3, 4, 0, 2])(0, 1).tolist() == [5, 2, 3, 3, 2, 1]


@pytest.mark.parametrize("order", [GroupedOrder([0, 0, 0, 0, 0, 1, 1, 2]), WeightedOrder([1, 2, 3, 4, 0, 2, 7, 1])])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_batches__of_any_order_are_independent_of_world_size(order, world):
    whole = [batch.tolist() for epoch in range(3) for batch in _epoch(BatchSampler(8, 4, 3, order=order), epoch)]
    ranks = [BatchSampler(8, 4 // world, 3, rank, world, order) for rank in range(world)]
    steps = [zip(*(_epoch(sampler, epoch) for sampler in ranks), strict=True) for epoch in range(3)]
    assert [np.concatenate(step).tolist() for epoch in steps for step in epoch] == whole


def test_state__in_the_middle_of_an_epoch_continues_with_another_number_of_processes():
    order = GroupedOrder([0] * 15 + [1] * 5)
    whole = [batch.tolist() for epoch in range(2) for batch in _epoch(BatchSampler(20, 4, 3, order=order), epoch)]
    first = BatchSampler(20, 4, 3, order=order)
    seen = [batch.tolist() for _, batch in zip(range(3), first, strict=False)]
    ranks = [BatchSampler(20, 2, 3, rank, 2, order) for rank in (0, 1)]
    for sampler in ranks:
        sampler.load_state_dict(first.state_dict())
    for _ in range(2):
        seen += [np.concatenate(step).tolist() for step in zip(*ranks, strict=True)]
    assert seen == whole


def _epoch(sampler, epoch):
    sampler.set_epoch(epoch)
    return list(sampler)
