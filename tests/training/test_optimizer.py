"""Learning rates by closed form; groups of parameters."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ecgcmr.training.config import OptimConfig
from ecgcmr.training.optim import Schedule, absolute_lr, build_optimizer, set_lr


def test_absolute_lr__rule_of_the_reference() -> None:
    """Spec section 2.5: blr 1e-5 at batch 128 is 3.2e-4; blr 3e-6 at batch 8 is 6e-6."""
    assert absolute_lr(OptimConfig(lr=1e-5, lr_rule="batch_over_4"), 128) == pytest.approx(3.2e-4)
    assert absolute_lr(OptimConfig(lr=3e-6, lr_rule="batch_over_4"), 8) == pytest.approx(6e-6)
    assert absolute_lr(OptimConfig(lr=3e-3), 256) == 3e-3


def test_schedule__closed_form() -> None:
    schedule = Schedule(lr=2.0, min_lr=0.5, warmup_steps=10, total_steps=110)
    assert schedule.at(0) == 0.0
    assert schedule.at(5) == pytest.approx(1.0)
    assert schedule.at(10) == pytest.approx(2.0)
    assert schedule.at(60) == pytest.approx(1.25)
    assert schedule.at(85) == pytest.approx(0.5 + 1.5 * 0.5 * (1 + math.cos(math.pi * 0.75)))
    assert schedule.at(110) == schedule.at(500) == 0.5


def test_schedule__without_warmup_starts_at_the_top() -> None:
    assert Schedule(1.0, 0.0, 0, 10).at(0) == 1.0


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def test_build_optimizer__vectors_do_not_decay_unless_asked() -> None:
    groups = build_optimizer(model(), OptimConfig(weight_decay=0.1)).param_groups
    decays = {p.ndim: group["weight_decay"] for group in groups for p in group["params"]}
    assert decays == {1: 0.0, 2: 0.1}
    asked = build_optimizer(model(), OptimConfig(weight_decay=0.1, decay_all=True)).param_groups
    assert {group["weight_decay"] for group in asked} == {0.1}


def test_build_optimizer__names_choose_coupled_or_decoupled_decay() -> None:
    """With zero gradient AdamW shrinks a weight by lr * decay; Adam's L2 term moves it by about lr."""
    moved = {}
    for name in ("adamw", "adam"):
        layer = nn.Linear(2, 2, bias=False)
        nn.init.constant_(layer.weight, 2.0)
        optimizer = build_optimizer(layer, OptimConfig(name=name, lr=0.01, weight_decay=0.1))
        layer.weight.grad = torch.zeros_like(layer.weight)
        optimizer.step()
        moved[name] = 2.0 - layer.weight[0, 0].item()
    assert moved["adamw"] == pytest.approx(2.0 * 0.01 * 0.1, rel=1e-3)
    assert moved["adam"] == pytest.approx(0.01, rel=1e-3)


def test_set_lr__multiplies_the_scale_of_each_group() -> None:
    optimizer = build_optimizer(model(), OptimConfig())
    optimizer.param_groups[0]["lr_scale"] = 0.5
    set_lr(optimizer, 0.2)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.2)


def test_build_optimizer__nothing_to_train() -> None:
    with pytest.raises(ValueError, match="no parameter is left to train"):
        build_optimizer(model().requires_grad_(False), OptimConfig())
