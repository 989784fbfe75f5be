"""The arithmetic of the scaling page: closed forms, limits, and counts that agree with an independent one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ecgcmr.training.bench.cohort import write_noise_cohort
from ecgcmr.training.bench.count import count_work
from ecgcmr.training.bench.scaling import (
    LOGIT_BYTES,
    STATE_BYTES,
    Cluster,
    Work,
    hours,
    largest_batch,
    plan_step,
    traffic_of,
    what_breaks,
)

WORK = Work("w", 1e10, 10_000_000, 1e8, 2.5e5, 128)


def test_one_gpu__sends_nothing_and_takes_the_time_of_its_arithmetic() -> None:
    cluster = Cluster(1, peak=1e14, utilization=0.5)
    plan = plan_step(WORK, cluster, 100)
    assert (plan.traffic.ddp, plan.traffic.fsdp, plan.traffic.gather, plan.exposed_s) == (0, 0, 0, 0)
    assert plan.seconds == pytest.approx(100 * 1e10 / 5e13)
    assert hours(WORK, cluster, 100, 1e6) == pytest.approx(1e6 * 1e10 / 5e13 / 3600)
    assert plan.memory == STATE_BYTES * 10_000_000 + 100 * 1e8 + LOGIT_BYTES * 100 * 100
    assert plan.memory == plan.memory_fsdp


def test_traffic__is_that_of_the_collectives() -> None:
    two, many = traffic_of(WORK, 2, 100), traffic_of(WORK, 64, 100)
    assert two.ddp == 4 * 10_000_000  # of a ring of two: half the gradient twice
    assert many.ddp == pytest.approx(2 * 4 * 10_000_000, rel=0.02)  # at most twice the gradient, however many
    assert two.fsdp == 10_000_000 * (2 + 2 + 4) / 2
    assert two.gather == 2 * 2 * 100 * 128 * 4
    assert many.gather == 63 * two.gather  # grows with the number of processes
    assert traffic_of(replace(WORK, projection=0), 64, 100).gather == 0


def test_local_logits__grow_with_the_processes_and_whole_ones_with_their_square() -> None:
    plans = [plan_step(WORK, Cluster(gpus), 256) for gpus in (8, 64)]
    assert plans[1].logits == 8 * plans[0].logits
    assert plans[1].logits_whole == 64 * plans[0].logits_whole
    assert plans[1].logits_whole == 64 * plans[1].logits


def test_slow_links__are_exposed_and_fast_ones_hidden() -> None:
    fast = plan_step(replace(WORK, projection=0), Cluster(8), 256)
    slow = plan_step(replace(WORK, projection=0), Cluster(8, near=1e7), 256)
    assert fast.exposed_s == 0
    assert slow.exposed_s == pytest.approx(slow.traffic.ddp / 1e7 - 2 / 3 * slow.compute_s)
    assert plan_step(WORK, Cluster(16), 8).exposed_s > plan_step(WORK, Cluster(16, far=240e9), 8).exposed_s


@given(gpus=st.sampled_from([1, 2, 8, 16, 64, 512]), batch=st.integers(1, 4096))
def test_more_gpus__never_take_longer_nor_more_memory_sharded(gpus: int, batch: int) -> None:
    a, b = Cluster(gpus), Cluster(2 * gpus)
    # A second node brings a slower link, so only what stays within the same kind of link is compared.
    if a.bandwidth == b.bandwidth:
        assert hours(WORK, b, batch, 1e8) <= hours(WORK, a, batch, 1e8) * (1 + 1e-9)
    plan = plan_step(WORK, a, batch)
    assert plan.memory_fsdp <= plan.memory
    assert plan.seconds >= plan.compute_s > 0


def test_largest_batch__fits_and_its_double_does_not() -> None:
    for gpus in (1, 8, 64):
        cluster = Cluster(gpus)
        batch = largest_batch(WORK, cluster)
        assert plan_step(WORK, cluster, batch).memory <= 0.9 * cluster.memory
        assert plan_step(WORK, cluster, 2 * batch).memory > 0.9 * cluster.memory
    assert largest_batch(replace(WORK, saved_bytes=1e12), Cluster(1)) == 0


def test_what_breaks__is_named_when_it_is_planted() -> None:
    fine = Cluster(8)
    assert what_breaks(WORK, fine, 256, 40_000) == []
    assert what_breaks(WORK, fine, 256, 1e7)[-1:] == ["page cache"] or "page cache" in what_breaks(WORK, fine, 256, 1e7)
    assert "disk" in what_breaks(WORK, replace(fine, disk=1e6), 256, 1e7)
    assert "disk" not in what_breaks(WORK, replace(fine, disk=1e6), 256, 40_000)  # all of it is cached
    assert what_breaks(WORK, fine, 4096, 40_000)[0] == "activations"
    assert "all-gather" in what_breaks(replace(WORK, projection=4096), Cluster(64, far=1e9), 256, 40_000)
    assert "all-reduce" in what_breaks(WORK, Cluster(64, far=1e8), 8, 40_000)
    small = replace(WORK, saved_bytes=1e3)
    assert what_breaks(small, Cluster(512), 8192, 40_000)[0] in ("logits", "activations")


def test_counts__agree_with_closed_forms(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    cohort = write_noise_cohort(tmp_path / "noise", 16)
    work = count_work("nano", "mae", cohort)
    assert work.read_bytes == 2 * 12 * 1000  # 10 s at 100 Hz in float16
    assert work.projection == 0
    width, depth, patch = 96, 4, 50
    block = 12 * width**2 + 13 * width
    encoder = width * patch + width + width + depth * block + 2 * width
    decoder = 48
    narrow = (4 + 2 * 2) * decoder**2 + (4 + 2 + 1 + 4) * decoder
    whole = encoder + width * decoder + decoder + decoder + narrow + 2 * decoder + decoder * patch + patch
    assert work.parameters == whole
    # Six operations for each weight of a product and each token that meets it are most of a step.
    tokens, kept = 12 * 5, int(12 * 5 * (1 - 0.8))
    linear = 6 * ((kept + 1) * depth * 12 * width**2 + (tokens + 1) * (4 + 2 * 2) * decoder**2)
    assert linear < work.flops < 1.6 * linear
    # What is kept: at least one bfloat16 copy of what enters each of the four products of a block.
    assert work.saved_bytes > 2 * (kept + 1) * depth * (3 + 4) * width
    assert work.saved_bytes < 2_000_000
    pairs = count_work("nano", "align", cohort)
    assert pairs.read_bytes == work.read_bytes + 3 * 64 * 64
    assert pairs.projection == 64
