"""Layers computed once more in the backward pass: the same numbers from less memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parents[1] / "objectives"))
from objective_cases import CASES, build, generator, make_batch

from ecgcmr.models import create_cmr_encoder, create_ecg_encoder
from ecgcmr.models.config import ModelConfig
from ecgcmr.models.recompute import set_grad_checkpointing
from ecgcmr.training.buffers import unchanged_buffers
from ecgcmr.training.config import RunConfig
from ecgcmr.training.losses import reduce_losses
from ecgcmr.training.run import pretrain

MakeConfig = Callable[..., RunConfig]
RESNET = {"name": "resnet10t", "timm_args": {"channels": [8, 8, 16, 16], "stem_width": 8, "drop_path_rate": 0.3}}
CINE = {"name": "cine_transformer", "cine": {"width": 16, "depth": 2, "heads": 2, "stem": 8}}


def gradients(case: str, cmr: dict[str, Any], on: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gradient of a step in float64 with dropped paths of both towers, and the buffers after it."""
    ecg = {"preset": "nano", "width": 16, "depth": 3, "heads": 2, "patch": 25, "drop_path": 0.4}
    model = ModelConfig.model_validate({"ecg": ecg, "cmr": cmr, "projection": {"hidden": 16, "out": 8}})
    objective = build(CASES[case], model).double().train()
    assert bool(set_grad_checkpointing(objective, on)) is True
    torch.manual_seed(5)
    loss, _ = reduce_losses(objective(make_batch(8, torch.float64), generator(3)), objective.loss_weights, 1)
    with unchanged_buffers(objective):
        loss.backward()
    grads = {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}
    return grads, dict(objective.named_buffers())


@pytest.mark.parametrize(
    ("case", "cmr"),
    [("masked", RESNET), ("simclr", RESNET), ("align learned", RESNET), ("align", CINE), ("supervised ecg", RESNET)],
    ids=["masked", "simclr", "align", "align cine", "supervised"],
)
def test_set_grad_checkpointing__gradient_and_statistics_are_the_same_numbers(case: str, cmr: dict[str, Any]) -> None:
    (plain, buffers), (again, buffers_again) = (gradients(case, cmr, on) for on in (False, True))
    assert plain
    assert set(plain) == set(again)
    assert all(torch.equal(value, again[name]) for name, value in plain.items())
    assert all(torch.equal(value, buffers_again[name]) for name, value in buffers.items())


def test_set_grad_checkpointing__batch_norm_counts_twice_unless_its_buffers_are_put_back() -> None:
    """What the training loop guards against."""

    def counted(guarded: bool) -> float:
        encoder = create_cmr_encoder("resnet10t", 3, timm_args=RESNET["timm_args"]).train()
        set_grad_checkpointing(encoder)
        out = encoder(torch.rand(2, 3, 32, 32)).sum()
        with unchanged_buffers(encoder, guarded):
            out.backward()
        return max(float(value) for name, value in encoder.named_buffers() if name.endswith("num_batches_tracked"))

    assert counted(guarded=False) == 2
    assert counted(guarded=True) == 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"train.micro_batches": 4},
        {"objective": {"name": "cmr_simclr"}},
        {"objective": {"name": "cmr_simclr"}, "train.micro_batches": 2, "train.micro_batch_norm": True},
    ],
    ids=["mae", "mae in pieces", "simclr", "simclr in pieces"],
)
def test_pretrain__grad_checkpointing_changes_no_bit(
    make_config: MakeConfig, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Metrics, weights and BatchNorm statistics; so a run may be resumed with or without."""
    folders = [
        pretrain(make_config(out=str(tmp_path / str(on)), **options, **{"train.grad_checkpointing": on}))
        for on in (False, True)
    ]
    for name in ("metrics.jsonl", "checkpoints/last/model.safetensors", "weights/model.safetensors"):
        one, other = ((folder / name).read_bytes() for folder in folders)
        assert one == other, name


def peak_bytes(encoder: nn.Module, batch: Tensor, on: bool) -> int:
    """Most memory that tensors of one step hold at a time, from the allocations that the profiler saw."""
    set_grad_checkpointing(encoder, on)
    encoder.zero_grad()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        encoder(batch).sum().backward()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]  # type: ignore[union-attr]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(changes))


def test_set_grad_checkpointing__needs_less_memory() -> None:
    """A transformer keeps one tensor of each block; a ResNet its stem too, which is not recomputed."""
    cases: list[tuple[nn.Module, Tensor, float]] = [
        (create_ecg_encoder("nano", 500, patch=25, width=64, depth=12, heads=4), torch.randn(8, 12, 500), 0.25),
        (create_cmr_encoder("resnet50", 3, timm_args={"channels": (16, 32, 64, 128)}), torch.rand(4, 3, 96, 96), 0.75),
    ]
    for encoder, batch, limit in cases:
        plain, recomputed = (peak_bytes(encoder.train(), batch, on) for on in (False, True))
        print(f"{type(encoder).__name__}: {plain / 2**20:.1f} MiB, recomputed {recomputed / 2**20:.1f} MiB")
        assert recomputed < limit * plain


def test_set_grad_checkpointing__what_cannot_recompute_is_named() -> None:
    with torch.device("meta"):
        encoder = create_cmr_encoder("vgg11", 3)
    with pytest.raises(ValueError, match=r"backbone cannot recompute its layers .*VGG.*model\.cmr\.name"):
        set_grad_checkpointing(encoder)
    set_grad_checkpointing(encoder, False)
    with pytest.raises(ValueError, match="no part of this model"):
        set_grad_checkpointing(nn.Linear(1, 1))
