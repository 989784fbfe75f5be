from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcmr.cohort.sampler import BatchSampler, epoch_order, sequential_batches


@given(n=st.integers(0, 300), seed=st.integers(0, 2**40), epoch=st.integers(0, 1000))
def test_epoch_order__is_a_permutation_fixed_by_seed_and_epoch(n, seed, epoch):
    order = epoch_order(n, seed, epoch)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    np.testing.assert_array_equal(order, epoch_order(n, seed, epoch))


def test_epoch_order__differs_between_epochs_and_seeds():
    orders = {epoch_order(50, seed, epoch).tobytes() for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_epoch_order__is_the_same_on_every_machine():
    assert epoch_order(8, 0, 0).tolist() == [6, 3, 5, 0, 2, 4, 1, 7]
    assert epoch_order(8, 1, 5).tolist() == [5, 4, 7, 1, 3, 0, 2, 6]


def test_epoch_order__every_place_is_equally_likely():
    first = np.bincount([epoch_order(5, 3, epoch)[0] for epoch in range(2000)], minlength=5)
    assert np.all(np.abs(first - 400) < 5 * np.sqrt(2000 * 0.2 * 0.8))


@settings(max_examples=40)
@given(
    n=st.integers(4, 200),
    global_batch=st.sampled_from([4, 8, 12]),
    world=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 99),
)
def test_batches__independent_of_world_size(n, global_batch, world, seed):
    if n < global_batch:
        return
    one = list(BatchSampler(n, global_batch, seed))
    ranks = [list(BatchSampler(n, global_batch // world, seed, rank, world)) for rank in range(world)]
    assert {len(batches) for batches in ranks} == {len(one)} == {n // global_batch}
    for step, batch in enumerate(one):
        np.testing.assert_array_equal(np.concatenate([batches[step] for batches in ranks]), batch)


@settings(max_examples=40)
@given(n=st.integers(2, 120), batch_size=st.integers(1, 30), world=st.sampled_from([1, 2]), stop=st.integers(0, 20))
def test_state__resumes_with_the_same_batches(n, batch_size, world, stop):
    def take(sampler, count):
        taken = []
        while len(taken) < count:
            for batch in sampler:
                taken.append(batch.tolist())
                if len(taken) == count:
                    break
        return taken

    whole = take(BatchSampler(n, batch_size, 5, 0, world), stop + 7)
    first = BatchSampler(n, batch_size, 5, 0, world)
    head = take(first, stop)
    second = BatchSampler(n, batch_size, 5, 0, world)
    second.load_state_dict(first.state_dict())
    assert head + take(second, 7) == whole


def test_batch__the_only_partial_one_is_kept():
    sampler = BatchSampler(5, 32, 0)
    assert [sorted(batch) for batch in sampler] == [[0, 1, 2, 3, 4]]
    assert (len(sampler), sampler.epoch) == (1, 1)
    halves = [next(iter(BatchSampler(5, 32, 0, rank, 2))) for rank in (0, 1)]
    assert [len(half) for half in halves] == [2, 2]
    assert not set(halves[0]) & set(halves[1])


def test_state__of_another_run_is_refused():
    sampler = BatchSampler(10, 4, 0)
    with pytest.raises(ValueError, match="n is 11 in the checkpoint but 10 now"):
        sampler.load_state_dict({"epoch": 0, "position": 0, "n": 11, "seed": 0})
    with pytest.raises(ValueError, match="position 6 is no multiple of the global batch 4"):
        sampler.load_state_dict({"epoch": 0, "position": 6, "n": 10, "seed": 0})
    with pytest.raises(ValueError, match="1 samples cannot feed 2 processes"):
        BatchSampler(1, 4, 0, 0, 2)


def test_sequential_batches__cover_everything_once():
    batches = list(sequential_batches(10, 4))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert np.concatenate(batches).tolist() == list(range(10))
