"""Slower and frozen towers: factors of the learning rate by part, over layer decay, and 0 that freezes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "objectives"))
from objective_cases import build, generator, make_batch, model_config
from safetensors.torch import load_file

from ecgcmr.objectives.groups import multiplier_of, parameter_groups
from ecgcmr.training.config import OptimConfig, RunConfig
from ecgcmr.training.losses import reduce_losses
from ecgcmr.training.optim import build_optimizer, set_lr
from ecgcmr.training.run import pretrain

MakeConfig = Callable[..., RunConfig]
ALIGN = {"name": "clip_align", "learn_temperature": True}


def scales(multipliers: dict[str, float], layer_decay: float = 1.0) -> dict[str, float]:
    groups = parameter_groups(build(ALIGN), 2.0, 0.1, layer_decay, multipliers=multipliers)
    assert all(group["lr"] == 2.0 * group["lr_scale"] for group in groups)
    return {name: group["lr_scale"] for group in groups for name in group["names"]}


def test_parameter_groups__a_multiplier_composes_with_layer_decay() -> None:
    plain, slow = scales({}, 0.5), scales({"cmr": 0.1, "ecg_projection": 3.0}, 0.5)
    assert set(plain) == set(slow)
    for name, scale in plain.items():
        factor = {"cmr_encoder": 0.1, "ecg_projection": 3.0}.get(name.partition(".")[0], 1.0)
        assert slow[name] == pytest.approx(factor * scale)
    assert len(set(slow.values())) > 5


def test_parameter_groups__the_longest_name_decides_and_ends_at_a_dot() -> None:
    found = scales({"ecg": 0.5, "ecg_encoder.blocks.1": 0.25, "log_scale": 4.0})
    assert found["ecg_encoder.blocks.0.attn.qkv.weight"] == found["ecg_encoder.patch_embed.proj.weight"] == 0.5
    assert found["ecg_encoder.blocks.1.attn.qkv.weight"] == 0.25
    assert found["log_scale"] == 4.0
    assert found["ecg_projection.layers.0.weight"] == 1.0, "ecg is no beginning of ecg_projection"


@pytest.mark.parametrize(
    ("fields", "multipliers", "message"),
    [
        (ALIGN, {"mri": 0.1}, r"lr_multipliers: 'mri' names no part.*cmr, cmr_encoder, .*ecg_projection, log_scale"),
        (ALIGN, {"mri": 0.0}, "'mri' names no part"),
        (ALIGN, {"ecg_enc": 0.1}, "'ecg_enc' names no part"),
        ({**ALIGN, "freeze_cmr": True}, {"cmr": 0.1}, "'cmr' is frozen by another option"),
    ],
)
def test_multiplier_of__a_name_that_does_nothing_is_refused(
    fields: dict[str, Any], multipliers: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        multiplier_of(build(fields), multipliers)


def test_build_optimizer__what_an_objective_trains_by_itself_cannot_be_frozen_by_zero() -> None:
    probe = build({"name": "supervised", "freeze_encoder": True}, model_config("attention"))
    with pytest.raises(ValueError, match=r"encoder\.attention_pool.*cannot be frozen by 0"):
        build_optimizer(probe, OptimConfig(lr_multipliers={"ecg": 0.0}))
    with pytest.raises(ValueError, match="no parameter is left to train"):
        build_optimizer(build({"name": "supervised"}), OptimConfig(lr_multipliers={"ecg": 0, "head": 0}))


def test_optim_config__a_negative_multiplier_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        OptimConfig(lr_multipliers={"ecg": -1.0})


def one_step(multipliers: dict[str, float]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights before and after one step of AdamW with much decay."""
    objective = build(ALIGN).train()
    optimizer = build_optimizer(objective, OptimConfig(weight_decay=0.5, lr_multipliers=multipliers))
    before = {name: p.detach().clone() for name, p in objective.named_parameters()}
    set_lr(optimizer, 0.01)
    loss, _ = reduce_losses(objective(make_batch(8), generator(0)), objective.loss_weights, 1)
    loss.backward()
    optimizer.step()
    return before, {name: p.detach() for name, p in objective.named_parameters()}


def test_build_optimizer__a_slow_tower_moves_by_its_factor_and_a_frozen_one_not_at_all() -> None:
    before, plain = one_step({})
    _, slow = one_step({"cmr": 0.1, "ecg": 0.0})
    for name, start in before.items():
        part = name.partition(".")[0]
        factor = {"cmr_encoder": 0.1, "ecg_encoder": 0.0}.get(part, 1.0)
        torch.testing.assert_close(slow[name] - start, factor * (plain[name] - start), rtol=1e-3, atol=1e-7)
        if not factor:
            assert torch.equal(slow[name], start), "neither a step nor decay"


def test_pretrain__locked_image_tower(make_config: MakeConfig, tmp_path: Path) -> None:
    """The weights of the tower stay bit for bit those of the start; without it they do not."""

    def tower(out: str, **options: Any) -> dict[str, torch.Tensor]:
        folder = pretrain(make_config(out=str(tmp_path / out), objective=ALIGN, **{"train.epochs": 1, **options}))
        state = load_file(folder / "checkpoints/last/model.safetensors")
        return {key: value for key, value in state.items() if key.startswith("cmr_encoder.") and "running" not in key}

    start = tower("start", **{"train.max_steps": 1})  # the first step of the warm-up has rate 0
    locked = tower("locked", **{"optim.lr_multipliers": {"cmr": 0}, "optim.weight_decay": 0.5, "train.ema_decay": 0.9})
    free = tower("free")
    weights = [name for name in start if name.endswith("weight")]
    assert all(torch.equal(start[name], locked[name]) for name in weights)
    assert not any(torch.equal(start[name], free[name]) for name in weights if start[name].ndim > 1)
