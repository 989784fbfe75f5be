"""The average of the weights: closed form, what it leaves alone, and a run that evaluates and exports it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ecgcmr.hub.weights import load_weights
from ecgcmr.training import loop
from ecgcmr.training.config import RunConfig
from ecgcmr.training.ema import WeightAverage
from ecgcmr.training.progress import ProgressEvent
from ecgcmr.training.run import pretrain
from ecgcmr.training.signals import RunInterrupted

MakeConfig = Callable[..., RunConfig]


def walk(module: nn.Module, steps: int) -> list[torch.Tensor]:
    """Move the weights at random; gives them after each step, in float64."""
    random, seen = torch.Generator().manual_seed(1), []
    for _ in range(steps):
        with torch.no_grad():
            module.weight.add_(torch.randn(module.weight.shape, generator=random).to(module.weight.dtype))  # type: ignore[union-attr,operator,arg-type]
        seen.append(module.weight.detach().double().clone())  # type: ignore[union-attr,operator]
    return seen


@pytest.mark.parametrize("warmup", [True, False])
def test_update__is_the_weighted_sum_of_all_weights(warmup: bool) -> None:
    """sum_i (1 - d_i) prod_{j > i} d_j w_i, with the initial weights weighed by prod_j d_j."""
    layer, n = nn.Linear(3, 2, bias=False), 60
    start = layer.weight.detach().double().clone()
    average = WeightAverage(layer, 0.8, warmup)
    decays = [min(0.8, (1 + t) / (10 + t)) if warmup else 0.8 for t in range(n)]
    weights = []
    for _ in range(n):
        weights += walk(layer, 1)
        average.update()
    expected, rest = torch.zeros_like(start), 1.0
    for weight, d in zip(reversed(weights), reversed(decays), strict=True):
        expected, rest = expected + rest * (1 - d) * weight, rest * d
    expected += rest * start
    torch.testing.assert_close(average.weights["weight"].double(), expected, rtol=1e-6, atol=1e-6)
    if warmup:
        assert [average.decay_at(t) for t in (0, 1, 34, 35, 10_000)] == pytest.approx([0.1, 2 / 11, 35 / 44, 0.8, 0.8])


def test_update__of_bfloat16_weights_does_not_round_small_steps_away() -> None:
    layer = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    nn.init.ones_(layer.weight)
    average = WeightAverage(layer, 0.999, warmup=False)
    nn.init.constant_(layer.weight, 1.0078125)
    for _ in range(100):
        average.update()
    assert average.weights["weight"].dtype == torch.float32
    assert average.weights["weight"].item() == pytest.approx(1 + 0.0078125 * (1 - 0.999**100), rel=1e-6)


def test_applied__gives_the_own_weights_back_even_after_an_error() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    module[0].bias.requires_grad_(False)
    average = WeightAverage(module, 0.5)
    assert set(average.weights) == {"0.weight", "1.weight", "1.bias"}, "what is frozen needs no average"
    walk(module[0], 3)
    module(torch.randn(8, 4))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with average.applied():
        assert torch.equal(module[0].weight, average.weights["0.weight"])
        assert torch.equal(module[1].running_mean, before["1.running_mean"]), "buffers are those of the live module"
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with pytest.raises(RuntimeError), average.applied():
        module(torch.randn(8, 5))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with pytest.raises(ValueError, match="of other parameters"):
        average.load_state_dict({"updates": 1, "weights": {"0.weight": before["0.weight"]}})
    with pytest.raises(ValueError, match="expected a number between 0 and 1"):
        WeightAverage(module, 1.0)


def interrupt_at(step: int) -> Callable[[ProgressEvent], None]:
    return lambda event: os.kill(os.getpid(), signal.SIGTERM) if event.done == step else None


def test_pretrain__evaluates_keeps_and_exports_the_average(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal to an average taken by hand of the weights after each step; the weights themselves train as without it."""
    after_steps: list[dict[str, torch.Tensor]] = []
    seen: list[dict[str, torch.Tensor]] = []
    real = loop.evaluate

    def look(objective: Any, *args: Any) -> dict[str, float]:
        seen.append({name: p.detach().clone() for name, p in objective.named_parameters()})
        return {**real(objective, *args), "loss": -float(len(seen))}

    take = loop.Stepper.take

    def count(self: Any, *args: Any) -> Any:
        if not after_steps:
            after_steps.append({name: p.detach().clone() for name, p in self.objective.named_parameters()})
        result = take(self, *args)
        after_steps.append({name: p.detach().clone() for name, p in self.objective.named_parameters()})
        return result

    monkeypatch.setattr(loop, "evaluate", look)
    monkeypatch.setattr(loop.Stepper, "take", count)
    folder = pretrain(make_config(out=str(tmp_path / "with"), **{"train.ema_decay": 0.7, "train.ema_warmup": False}))
    expected = after_steps[0]
    for weights in after_steps[1:]:
        expected = {name: 0.7 * value + 0.3 * weights[name] for name, value in expected.items()}
    name = "mae.encoder.blocks.0.attn.qkv.weight"
    torch.testing.assert_close(seen[-1][name], expected[name], rtol=1e-5, atol=1e-7)
    best, last = (load_file(folder / f"checkpoints/{which}/model.safetensors") for which in ("best", "last"))
    assert torch.equal(best[name], seen[-1][name])
    assert torch.equal(last[name], after_steps[-1][name])
    assert torch.equal(load_weights(folder / "weights").modules["ecg"].blocks[0].attn.qkv.weight, best[name])  # type: ignore[union-attr,index]
    plain = pretrain(make_config(out=str(tmp_path / "without")))
    assert torch.equal(load_file(plain / "checkpoints/last/model.safetensors")[name], last[name])


def test_pretrain__without_validation_exports_the_average(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecgcmr.training import data, run

    monkeypatch.setattr(run, "open_feeds", lambda *args: data.Feeds(data.open_feeds(*args).train, None))
    folder = pretrain(make_config(**{"train.ema_decay": 0.9, "train.epochs": 1}))
    average = torch.load(folder / "checkpoints/last/train_state.pt", weights_only=True)["ema"]
    exported = load_weights(folder / "weights").modules["ecg"].state_dict()
    assert average["updates"] == 2
    for name, value in exported.items():
        if f"mae.encoder.{name}" in average["weights"]:
            assert torch.equal(value, average["weights"][f"mae.encoder.{name}"])


def test_resume__the_average_goes_on_bit_for_bit(make_config: MakeConfig, tmp_path: Path) -> None:
    options = {"train.ema_decay": 0.9, "objective": {"name": "cmr_simclr"}}
    whole = pretrain(make_config(out=str(tmp_path / "whole"), **options))
    config = make_config(out=str(tmp_path / "parts"), **options)
    with pytest.raises(RunInterrupted):
        pretrain(config, progress=interrupt_at(3))
    parts = pretrain(config, resume=True)
    for name in ("metrics.jsonl", "checkpoints/best/model.safetensors", "weights/model.safetensors"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
    one, other = (torch.load(f / "checkpoints/last/train_state.pt", weights_only=True)["ema"] for f in (whole, parts))
    assert one["updates"] == other["updates"] == 6
    assert all(torch.equal(value, other["weights"][name]) for name, value in one["weights"].items())
