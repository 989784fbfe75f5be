"""Alignment: hand computation, symmetry, lambda, masked negatives, temperature, metrics."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from objective_cases import build, generator, make_batch, total_loss
from torch import Tensor

from ecgcmr.cohort.batch import Batch
from ecgcmr.objectives.align import ClipAlign, clip_loss
from ecgcmr.objectives.contrast import excluded_columns, potentials, ranks_of_positive, uniformity, unit_rows

SCALE = torch.tensor(10.0, dtype=torch.float64)


def pairs(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    image = unit_rows(torch.randn(n, 6, generator=random, dtype=torch.float64))
    return image, unit_rows(torch.randn(n, 6, generator=random, dtype=torch.float64))


def no_exclusion(n: int) -> tuple[Tensor, Tensor]:
    return excluded_columns(torch.arange(n), torch.ones(n, dtype=torch.bool))


def test_clip_loss__equals_a_hand_computed_two_by_two() -> None:
    # S = [[.8, .6], [0, 1]] / .5
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    ecg = torch.tensor([[0.8, 0.6], [0.0, 1.0]], dtype=torch.float64)
    loss, from_image, from_ecg = clip_loss(image, ecg, torch.tensor(2.0, dtype=torch.float64), 0.5, no_exclusion(2))
    assert from_image.tolist() == [[1.6, 0.0], [1.2, 2.0]]
    assert from_ecg.tolist() == [[1.6, 1.2], [0.0, 2.0]]
    rows = [math.log(1 + math.exp(-1.6)), math.log(1 + math.exp(-0.8))]
    columns = [math.log(1 + math.exp(-0.4)), math.log(1 + math.exp(-2.0))]
    assert loss.tolist() == pytest.approx([(rows[i] + columns[i]) / 2 for i in range(2)], abs=1e-12)


@given(st.integers(2, 12), st.integers(0, 1000))
def test_clip_loss__is_symmetric_in_the_modalities_at_one_half(n: int, seed: int) -> None:
    image, ecg = pairs(n, seed)
    forward, backward = (clip_loss(a, b, SCALE, 0.5, no_exclusion(n))[0] for a, b in ((image, ecg), (ecg, image)))
    torch.testing.assert_close(forward, backward)


def test_clip_loss__lambda_one_is_image_to_ecg_only() -> None:
    image, ecg = pairs(5)
    loss = clip_loss(image, ecg, SCALE, 1.0, no_exclusion(5))[0]
    logits = 10 * image @ ecg.T
    torch.testing.assert_close(loss, logits.logsumexp(1) - logits.diagonal())
    reverse = clip_loss(image, ecg, SCALE, 0.0, no_exclusion(5))[0]
    torch.testing.assert_close(reverse, logits.logsumexp(0) - logits.diagonal())


def test_clip_loss__permutes_with_the_batch() -> None:
    image, ecg = pairs(7)
    order = torch.randperm(7, generator=generator(0))
    loss = clip_loss(image, ecg, SCALE, 0.5, no_exclusion(7))[0]
    torch.testing.assert_close(clip_loss(image[order], ecg[order], SCALE, 0.5, no_exclusion(7))[0], loss[order])


def test_excluded_columns__drop_repeats_and_missing_but_never_the_own_pair() -> None:
    subject = torch.tensor([4, 7, 4, 9])
    valid = torch.tensor([True, True, True, False])
    excluded, own = excluded_columns(subject, valid)
    assert own.tolist() == [0, 1, 2, 3]
    assert excluded.int().tolist() == [[0, 0, 1, 1], [0, 0, 0, 1], [1, 0, 0, 1], [0, 0, 0, 0]]


def test_clip_loss__a_repeated_subject_is_no_negative() -> None:
    image, ecg = pairs(4)
    exclusion = excluded_columns(torch.tensor([1, 2, 1, 3]), torch.ones(4, dtype=torch.bool))
    loss = clip_loss(image, ecg, SCALE, 0.5, exclusion)[0]
    without = clip_loss(image[[0, 1, 3]], ecg[[0, 1, 3]], SCALE, 0.5, no_exclusion(3))[0]
    torch.testing.assert_close(loss[0], without[0])
    assert loss[1] > without[1]  # for subject 2 both recordings of subject 1 are negatives


def test_ranks_of_positive__counts_ties_against_the_model() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [5.0, 4.0, 4.5], [1.0, 1.0, 1.0]])
    assert ranks_of_positive(logits, torch.arange(3)).tolist() == [0, 2, 2]


def uniformity_of(points: Tensor, valid: list[bool]) -> float:
    mask = torch.tensor(valid)
    return uniformity(potentials(points, points, torch.arange(len(points)), mask), mask).value


def test_uniformity__of_two_opposite_points() -> None:
    assert uniformity_of(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), [True, True]) == pytest.approx(-8.0)
    assert math.isnan(uniformity_of(torch.ones(1, 1), [True]))


@given(st.integers(2, 9), st.integers(0, 99))
def test_uniformity__is_the_mean_over_pairs_that_are_valid(n: int, seed: int) -> None:
    points, _ = pairs(n, seed)
    valid = [i % 4 != 1 or n < 4 for i in range(n)]
    potential = torch.pdist(points[torch.tensor(valid)]).square().mul(-2).exp().mean().log()
    assert uniformity_of(points, valid) == pytest.approx(potential.item(), rel=1e-9)


@given(st.integers(2, 9), st.integers(0, 99))
def test_clip_loss__each_row_may_bring_its_own_scale(n: int, seed: int) -> None:
    image, ecg = pairs(n, seed)
    one = clip_loss(image, ecg, SCALE, 0.3, no_exclusion(n))[0]
    torch.testing.assert_close(clip_loss(image, ecg, SCALE.expand(n)[:, None], 0.3, no_exclusion(n))[0], one)


def test_clip_align__a_missing_modality_neither_counts_nor_disturbs() -> None:
    objective = build({"name": "clip_align"}).double().eval()
    batch = make_batch(8, torch.float64)
    out = objective(batch)
    valid = out.valid["clip"]
    assert valid.tolist() == [True, False, False, True, True, True, True, True]
    noisy = {**batch, "ecg": batch["ecg"].clone(), "cmr": batch["cmr"].clone()}
    noisy["ecg"][1] = 3.0
    noisy["cmr"][2] = 0.9
    torch.testing.assert_close(objective(noisy).losses["clip"], out.losses["clip"])
    assert out.losses["clip"][~valid].abs().max() == 0


def test_clip_align__learned_temperature_is_clamped_at_one_hundred() -> None:
    objective = build({"name": "clip_align", "learn_temperature": True})
    assert isinstance(objective, ClipAlign)
    assert objective.log_scale.exp().item() == pytest.approx(10.0)
    with torch.no_grad():
        objective.log_scale.fill_(9.0)
    objective.after_step()
    assert objective.log_scale.exp().item() == pytest.approx(100.0)
    fixed = build({"name": "clip_align"})
    assert "log_scale" not in dict(fixed.named_parameters())


def test_clip_align__a_frozen_encoder_stays_as_it_is() -> None:
    objective = build({"name": "clip_align", "freeze_cmr": True}).train()
    before = {name: value.clone() for name, value in objective.cmr_encoder.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], 0.1)
    total_loss(objective, objective(make_batch(8), generator(0))).backward()
    optimizer.step()
    for name, value in objective.cmr_encoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert objective.ecg_encoder.blocks[0].attn.qkv.weight.grad.abs().max() > 0


def two_sights_of_one_heart(n: int, seed: int, shuffled: bool) -> Batch:
    """ECG lead levels and image halves that show the same two hidden numbers, unless the pairs are shuffled."""
    random = generator(seed)
    hidden = 2 * torch.rand(n, 2, generator=random) - 1
    batch = make_batch(n)
    batch["has_ecg"][:] = batch["has_cmr"][:] = True
    batch["subject"] = torch.arange(n)
    batch["ecg"] = hidden.repeat(1, 6)[..., None] + 0.1 * torch.randn(n, 12, 100, generator=random)
    halves = 0.5 + 0.4 * hidden.repeat_interleave(16, dim=1)[:, None, None]
    batch["cmr"] = halves.expand(n, 3, 32, 32) + 0.02 * torch.randn(n, 3, 32, 32, generator=random)
    if shuffled:
        batch["cmr"] = batch["cmr"][torch.randperm(n, generator=random)]
    return batch


@pytest.mark.parametrize("shuffled", [False, True])
def test_clip_align__matches_held_out_pairs_unless_training_pairs_were_shuffled(shuffled: bool) -> None:
    objective = build({"name": "clip_align", "ecg_augment": "none", "cmr_augment": "none"})
    optimizer = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], 3e-3)
    for step in range(40):
        batch = two_sights_of_one_heart(24, step, shuffled)
        optimizer.zero_grad()
        total_loss(objective, objective(batch, generator(step))).backward()
        optimizer.step()
    held_out = objective(two_sights_of_one_heart(40, 1000, shuffled=False), generator(0))
    top5 = held_out.metrics["ecg_to_cmr_top5"].value
    assert top5 < 0.3 if shuffled else top5 > 0.5  # chance is .125
