"""What the field expects of a run file, each from its config value to what a run does: rates, layers, towers, depth."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ecgcmr.models.blocks import Block
from ecgcmr.objectives.align import MAX_LOG_SCALE
from ecgcmr.training.config import RunConfig
from ecgcmr.training.run import pretrain
from ecgcmr.training.runfolder import read_metrics

MakeConfig = Callable[..., RunConfig]
ALIGN = {"name": "clip_align", "ecg_augment": "light"}


def last_state(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints/last/model.safetensors")


def test_pretrain__warm_up_cosine_and_rule_set_the_rate_of_each_step(make_config: MakeConfig) -> None:
    """Two epochs of warm-up, then a half-cycle cosine to the least rate; lr * 8 / 4 by the reference's rule."""
    options = {"optim.lr_rule": "batch_over_4", "optim.lr": 1e-4, "optim.warmup_epochs": 2, "optim.min_lr": 5e-5}
    folder = pretrain(make_config(**options, **{"train.epochs": 5, "train.log_every": 1}))
    found = [row["lr"] for row in read_metrics(folder, "train")]
    high, low = 1e-4 * 8 / 4, 5e-5
    expected = [high * step / 4 for step in range(4)]
    expected += [low + (high - low) * 0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    assert found == pytest.approx(expected)


def test_pretrain__layer_decay_scales_each_layer(make_config: MakeConfig) -> None:
    folder = pretrain(make_config(**{"optim.layer_decay": 0.5, "train.max_steps": 2}))
    groups = torch.load(folder / "checkpoints/last/train_state.pt", weights_only=True)["optimizer"]["param_groups"]
    scales = {name: group["lr_scale"] for group in groups for name in group["names"]}
    assert {name: scales[name] for name in scales if name.endswith("attn.qkv.weight") and "encoder" in name} == {
        "mae.encoder.blocks.0.attn.qkv.weight": 0.25,
        "mae.encoder.blocks.1.attn.qkv.weight": 0.5,
    }
    assert scales["mae.encoder.patch_embed.proj.weight"] == 0.125
    assert scales["mae.decoder.pred.weight"] == scales["mae.encoder.norm.weight"] == 1.0
    # The second step of a warm-up over two is at half the rate.
    assert all(group["lr"] == pytest.approx(5e-4 * group["lr_scale"]) for group in groups)


def test_pretrain__stochastic_depth_drops_branches_in_training_only(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the rate of each block, linear over depth; kept branches are scaled up by as much."""
    seen: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    real = Block.forward

    def forward(block: Block, x: torch.Tensor, keep: torch.Tensor | None = None) -> torch.Tensor:
        if keep is not None:
            seen[block.training].append(keep.detach())
        return real(block, x, keep)

    monkeypatch.setattr(Block, "forward", forward)
    pretrain(make_config(**{"model.ecg.drop_path": 0.5, "train.epochs": 10}))
    assert seen[False] == []
    first, second = torch.stack(seen[True][::2]), torch.stack(seen[True][1::2])
    assert first.unique().tolist() == [1.0]
    assert second.unique().tolist() == [0.0, 2.0]
    assert abs(float((second == 0).double().mean()) - 0.5) < 4 * 0.5 / math.sqrt(second.numel())
    for branches in seen.values():
        branches.clear()
    pretrain(make_config(**{"model.ecg.drop_path": 0.0, "train.epochs": 1, "out": str(tmp_path / "none")}))
    assert seen[True] == []


def test_pretrain__a_learned_temperature_moves_and_is_clamped(make_config: MakeConfig, tmp_path: Path) -> None:
    def log_scale(name: str, **options: Any) -> float:
        objective = {**ALIGN, **options}
        return float(last_state(pretrain(make_config(out=str(tmp_path / name), objective=objective)))["log_scale"])

    assert log_scale("fixed", temperature=0.05) == pytest.approx(math.log(20))
    learned = log_scale("learned", temperature=0.05, learn_temperature=True)
    assert 1e-4 < abs(learned - math.log(20)) < 0.1
    steep = make_config(
        out=str(tmp_path / "steep"), objective={**ALIGN, "temperature": 0.01, "learn_temperature": True},
        **{"train.log_every": 1, "optim.lr": 0.1, "optim.lr_multipliers": {"ecg": 0.0, "cmr": 0.0}},
    )  # fmt: skip
    folder = pretrain(steep)
    assert float(last_state(folder)["log_scale"]) <= MAX_LOG_SCALE
    assert all(row["temperature"] >= 0.01 * (1 - 1e-6) for row in read_metrics(folder))


@pytest.mark.parametrize(("option", "tower"), [("freeze_cmr", "cmr_encoder."), ("freeze_ecg", "ecg_encoder.")])
def test_pretrain__a_frozen_tower_keeps_weights_and_statistics(
    make_config: MakeConfig, tmp_path: Path, option: str, tower: str
) -> None:
    frozen = {**ALIGN, option: True}
    runs = [
        last_state(
            pretrain(make_config(out=str(tmp_path / str(steps)), objective=frozen, **{"train.max_steps": steps}))
        )
        for steps in (1, 4)
    ]
    assert all(torch.equal(value, runs[1][name]) for name, value in runs[0].items() if name.startswith(tower))
    moved = [name for name, value in runs[0].items() if not torch.equal(value, runs[1][name])]
    assert any(name.startswith("cmr_projection.") for name in moved)
