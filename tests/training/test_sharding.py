"""Sharded objectives: what is cut and what is not, steps and state equal to one process, settings that are refused."""

from __future__ import annotations

import copy
import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

sys.path.insert(0, str(Path(__file__).parents[1] / "objectives"))
from objective_cases import CASES, build, generator, make_batch, model_config
from processes import BLOCKS, LARGE, UNSHARDED, free_ports, spawn, world_of
from test_exact_processes import ThirteenSubjects, validation_by_hand

from ecgcmr.cohort.batch import Batch
from ecgcmr.models.distributed import world
from ecgcmr.objectives import Objective
from ecgcmr.objectives.distributed import my_rows
from ecgcmr.training import sharding
from ecgcmr.training.config import OptimConfig
from ecgcmr.training.distributed import start_accelerator
from ecgcmr.training.evaluate import evaluate
from ecgcmr.training.losses import reduce_losses
from ecgcmr.training.optim import build_optimizer
from ecgcmr.training.sharding import (
    agree_to_gather,
    clip_gradients,
    is_sharded,
    layers_to_shard,
    prepare_objective,
    sharding_asked,
)
from ecgcmr.training.whole_state import gather_state, gather_tensors, load_state, whole_objective

ROWS, STEPS, SKIPPED, LIMIT, SEED = 8, 4, 1, 0.5, 4
CASE = {"name": "siglip_align", "freeze_cmr": True}  # learns scalars, and one encoder is frozen
OPTIM = OptimConfig(lr=1e-2, weight_decay=0.1, layer_decay=0.7)
EVALUATED = ("masked", "align learned", "supervised ecg")


def fresh(dtype: torch.dtype = torch.float64, seed: int = 0) -> Objective:
    objective = build(CASE, model_config(drop_path=0.3, image_norm="groupnorm1")).to(dtype).train()
    if seed:
        with torch.no_grad():
            for p in objective.parameters():
                p.add_(seed)
    return objective


def backward(model: nn.Module, objective: Objective, step: int, accelerator: Accelerator | None = None) -> None:
    """Forward on this process's rows, and backward unless the step is skipped as the loop skips one."""
    dtype = next(objective.parameters()).dtype
    batch = Batch(**{key: my_rows(value) for key, value in make_batch(ROWS, dtype).items()})  # type: ignore[typeddict-item,arg-type]
    loss, _ = reduce_losses(model(batch, generator(step)), objective.loss_weights, world()[1])
    if step != SKIPPED:
        loss.backward()


def train(model: nn.Module, objective: Objective, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    norms = []
    for step in steps:
        backward(model, objective, step)
        if step != SKIPPED:
            norms.append(clip_gradients(model, LIMIT))
            optimizer.step()
            objective.after_step()
        optimizer.zero_grad(set_to_none=True)
    return norms


def local_share(tensors: list[Tensor]) -> float:
    cut = [value for value in tensors if isinstance(value, DTensor)]
    return sum(value.to_local().numel() for value in cut) / sum(value.numel() for value in cut)


def sharded_steps() -> dict[str, Any]:
    accelerator = start_accelerator("no", (), Path())
    objective = fresh(seed=world()[0])  # only the first process has the right weights
    model = prepare_objective(accelerator, objective)
    optimizer = accelerator.prepare_optimizer(build_optimizer(objective, OPTIM))
    result: dict[str, Any] = {"norms": train(model, objective, optimizer, range(STEPS - 1))}
    slots = [value for slot in optimizer.state.values() for value in slot.values() if value.ndim]
    result["cut"] = all(isinstance(value, DTensor) for value in (*objective.parameters(), *slots))
    result["shares"] = [local_share(list(objective.parameters())), local_share(slots)]
    result["places"] = {name: p.placements[0].dim for name, p in objective.named_parameters()}  # type: ignore[attr-defined]
    result["state"], result["optimizer"] = gather_state(objective, optimizer)
    other = fresh()
    again = prepare_objective(accelerator, other)
    other_optimizer = accelerator.prepare_optimizer(build_optimizer(other, OPTIM))
    state = [result["state"], result["optimizer"]]
    torch.distributed.broadcast_object_list(state)  # as each process reads the checkpoint
    load_state(other, state[0], other_optimizer, state[1])
    result["reloaded"] = gather_state(other, other_optimizer)
    for each, its_model, its_optimizer in ((objective, model, optimizer), (other, again, other_optimizer)):
        train(its_model, each, its_optimizer, range(STEPS - 1, STEPS))
    result["end"], result["end of reloaded"] = gather_state(objective)[0], gather_state(other)[0]
    result["average"] = gather_tensors(objective, {name: p.detach() * 2 for name, p in objective.named_parameters()})
    with torch.no_grad():
        objective.log_scale.fill_(9.0)  # type: ignore[operator,union-attr]
    objective.after_step()
    result["clamped"] = gather_state(objective)[0].get("log_scale")
    if result["end"]:
        plain = whole_objective(objective, result["end"]).train()
        result["exported"] = dict(plain.state_dict())
        result["plain"] = not is_sharded(plain) and not any(isinstance(p, DTensor) for p in plain.parameters())
    return result


def broken_gradient() -> list[float]:
    """One process has a gradient that is not finite."""
    accelerator, objective = start_accelerator("no", (), Path()), fresh()
    model = prepare_objective(accelerator, objective)
    backward(model, objective, 0)
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    if world()[0] == 1:
        next(grad for grad in grads if grad.ndim > 1).to_local().fill_(math.nan)  # type: ignore[attr-defined]
    return [clip_gradients(model, LIMIT)]


def gradients(precision: str) -> dict[str, Tensor]:
    accelerator, objective = start_accelerator(precision, (), Path()), fresh(torch.float32)
    backward(prepare_objective(accelerator, objective), objective, 0)
    found = {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}
    assert all(grad.dtype == torch.float32 for grad in found.values())
    return {name: grad.full_tensor() if isinstance(grad, DTensor) else grad for name, grad in found.items()}


def validation_row(name: str) -> dict[str, float]:
    accelerator = start_accelerator("no", (), Path())
    objective = build(CASES[name], model_config(drop_path=0.3, image_norm="groupnorm1")).double().train()
    prepare_objective(accelerator, objective)
    config: Any = SimpleNamespace(seed=SEED, train=SimpleNamespace(eval_batch_size=3, batch_size=1, label_metrics=True))
    return evaluate(objective, ThirteenSubjects(name), config, accelerator)  # type: ignore[arg-type]


def one_of_two(rank: int, port: int, folder: str) -> None:
    with world_of(2, rank, port):
        os.environ |= BLOCKS
        results: dict[str, Any] = {"steps": sharded_steps(), "broken": broken_gradient(), "bf16": gradients("bf16")}
        results |= {f"validation {name}": validation_row(name) for name in EVALUATED}
        results["due"] = [agree_to_gather(prepared(), rank == 0), agree_to_gather(prepared(), False)]
        os.environ |= UNSHARDED
        results |= {"ddp bf16": gradients("bf16"), "ddp no": gradients("no")}
        results["due of ddp"] = [agree_to_gather(prepared(), rank == 0)]
        torch.save(results, Path(folder) / f"{rank}.pt")


def prepared() -> nn.Module:
    return prepare_objective(start_accelerator("no", (), Path()), fresh())


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("sharded")
    spawn(one_of_two, 2, free_ports(1)[0], str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """The same steps in one process, with torch's own clipping."""
    objective = fresh()
    optimizer = build_optimizer(objective, OPTIM)
    result: dict[str, Any] = {"norms": []}
    for step in range(STEPS):
        if step == STEPS - 1:
            result["optimizer"] = copy.deepcopy(optimizer.state_dict())
            result["state"] = {name: value.clone() for name, value in objective.state_dict().items()}
        if step != SKIPPED:
            backward(objective, objective, step)
            norm = torch.nn.utils.clip_grad_norm_(objective.parameters(), LIMIT)
            result["norms"].append(float(norm))
            optimizer.step()
            objective.after_step()
            optimizer.zero_grad()
    return result | {"end": objective.state_dict()}


def close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-8, atol=1e-10)


@pytest.mark.ddp
def test_steps__equal_those_of_one_process(both: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    """Clipped, with one skipped after its forward pass, layer-wise rates and a clamp; first weights from process 0."""
    assert min(alone["norms"]) > LIMIT, "the limit acts"
    for results in both:
        assert results["steps"]["norms"] == pytest.approx(alone["norms"][: STEPS - 2], rel=1e-10)
    close(both[0]["steps"]["end"], alone["end"])
    assert float(both[0]["steps"]["clamped"]) == pytest.approx(math.log(100))


@pytest.mark.ddp
def test_state__is_that_of_plain_torch(both: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    """Names, numbers, shapes, groups and values, those of a learned scalar too; on the main process only."""
    steps = both[0]["steps"]
    close(steps["state"], alone["state"])
    assert steps["optimizer"]["param_groups"] == alone["optimizer"]["param_groups"]
    assert steps["optimizer"]["state"].keys() == alone["optimizer"]["state"].keys()
    for i, slot in alone["optimizer"]["state"].items():
        close(steps["optimizer"]["state"][i], slot)
    assert both[1]["steps"]["state"] == both[1]["steps"]["optimizer"] == {}
    for name, value in steps["average"].items():
        assert torch.equal(value, 2 * steps["end"][name])


@pytest.mark.ddp
def test_state__goes_back_bit_for_bit(both: list[dict[str, Any]]) -> None:
    steps = both[0]["steps"]
    model, optimizer = steps["reloaded"]
    for name, value in steps["state"].items():
        assert torch.equal(model[name], value), name
        assert torch.equal(steps["end of reloaded"][name], steps["end"][name]), name
    for i, slot in steps["optimizer"]["state"].items():
        for key, value in slot.items():
            assert torch.equal(optimizer["state"][i][key], value), (i, key)


@pytest.mark.ddp
def test_state__continues_in_one_process(both: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    objective = fresh(seed=1)
    optimizer = build_optimizer(objective, OPTIM)
    load_state(objective, both[0]["steps"]["state"], optimizer, both[0]["steps"]["optimizer"])
    train(objective, objective, optimizer, range(STEPS - 1, STEPS))
    close(objective.state_dict(), alone["end"])


@pytest.mark.ddp
def test_export__is_whole_and_plain(both: list[dict[str, Any]]) -> None:
    steps = both[0]["steps"]
    assert steps["plain"]
    for name, value in steps["end"].items():
        assert torch.equal(steps["exported"][name], value), name


@pytest.mark.ddp
def test_parameters__of_which_each_process_holds_its_half(both: list[dict[str, Any]]) -> None:
    """Parameters, frozen ones too, and the optimizer's state; what has one row is cut along another dimension."""
    for results in both:
        assert results["steps"]["cut"]
        assert results["steps"]["shares"] == pytest.approx([0.5, 0.5], abs=0.005)
    places = both[0]["steps"]["places"]
    assert places["ecg_encoder.cls_token"] == 2
    assert places["ecg_encoder.pos_embed"] > 0
    assert places["ecg_encoder.blocks.0.mlp.fc1.weight"] == 0


@pytest.mark.ddp
def test_norm__that_is_not_finite_on_one_process_is_so_on_all(both: list[dict[str, Any]]) -> None:
    assert all(math.isnan(results["broken"][0]) for results in both)


@pytest.mark.ddp
def test_bf16__computes_what_ddp_computes(both: list[dict[str, Any]]) -> None:
    """Autocast over float32 parameters and float32 reduction: the same arithmetic, far within bfloat16's rounding."""
    for results in both:
        sharded, ddp, exact = results["bf16"], results["ddp bf16"], results["ddp no"]
        assert sharded.keys() == ddp.keys()
        scale = math.sqrt(sum(float(grad.square().sum()) for grad in exact.values()))

        def distance(a: dict[str, Tensor], b: dict[str, Tensor], scale: float = scale) -> float:
            return math.sqrt(sum(float((a[name] - b[name]).square().sum()) for name in a)) / scale

        assert distance(sharded, ddp) < 1e-5
        assert 1e-4 < distance(ddp, exact) < 0.1, "it was bfloat16"


@pytest.mark.ddp
@pytest.mark.parametrize("name", EVALUATED)
def test_evaluate__of_a_sharded_objective_equals_one_batch(both: list[dict[str, Any]], name: str) -> None:
    for results in both:
        assert results[f"validation {name}"] == pytest.approx(validation_by_hand(name), rel=1e-9, abs=1e-12)


@pytest.mark.ddp
def test_agree_to_gather__all_processes_save_when_the_main_one_does(both: list[dict[str, Any]]) -> None:
    assert [results["due"] for results in both] == [[True, False]] * 2
    assert [results["due of ddp"] for results in both] == [[True], [False]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment as the launcher makes it for fsdp_cpu_2.yaml."""
    for key, value in BLOCKS.items():
        monkeypatch.setenv(key, value)
    return BLOCKS


def test_sharding_asked__only_by_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_USE_FSDP", raising=False)
    assert sharding_asked() is None
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    assert sharding_asked() is None


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("FSDP_VERSION", "1", r"fsdp_version: 1; only fsdp_version: 2"),
        ("FSDP_OFFLOAD_PARAMS", "true", r"has fsdp_offload_params, which"),
        ("FSDP_ACTIVATION_CHECKPOINTING", "true", r"has fsdp_activation_checkpointing"),
        ("FSDP_IGNORED_MODULES", "encoder", r"has fsdp_ignored_modules"),
        ("FSDP_TRANSFORMER_CLS_TO_WRAP", "LlamaBlock", r"names LlamaBlock, but .*are .*BasicBlock, .*Block, "),
    ],
)
def test_settings__that_cannot_be_followed_are_refused_by_name(
    asked: dict[str, str], monkeypatch: pytest.MonkeyPatch, setting: str, value: str, message: str
) -> None:
    monkeypatch.setenv(setting, value)
    with pytest.raises(ValueError, match=message):
        layers_to_shard(build(CASES["align"]), sharding_asked())  # type: ignore[arg-type]


def names_of(objective: Objective, layers: list[nn.Module]) -> list[str]:
    names = {id(module): name for name, module in objective.named_modules()}
    return [names[id(layer)] for layer in layers]


def test_layers__by_class_are_the_blocks_of_all_encoders(asked: dict[str, str]) -> None:
    objective = build(CASES["align"])
    plugin = sharding_asked()
    assert plugin is not None
    blocks = [f"ecg_encoder.blocks.{i}" for i in range(2)]
    stages = [f"cmr_encoder.backbone.layer{i}.0" for i in range(1, 5)]
    assert names_of(objective, layers_to_shard(objective, plugin)) == blocks + stages


def test_layers__by_size_are_the_outermost_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in LARGE.items():
        monkeypatch.setenv(key, value)
    objective = build(CASES["align"])
    plugin = sharding_asked()
    assert plugin is not None
    layers = layers_to_shard(objective, plugin)
    assert all(sum(p.numel() for p in layer.parameters()) >= 1000 for layer in layers)
    assert set(names_of(objective, layers)) >= {"ecg_encoder.blocks.0", "cmr_encoder.backbone.layer4.0"}
    inside = [part for layer in layers for part in list(layer.modules())[1:]]
    assert not {id(layer) for layer in layers} & {id(part) for part in inside}, "no unit within a unit"
    monkeypatch.setenv("FSDP_AUTO_WRAP_POLICY", "NO_WRAP")
    assert layers_to_shard(objective, sharding_asked()) == []  # type: ignore[arg-type]


def test_placement__prefers_rows_and_takes_what_is_even() -> None:
    def place(shape: tuple[int, ...], n: int) -> Shard | None:
        return sharding._placement(nn.Parameter(torch.empty(shape)), n)

    assert place((7, 4), 3) is None
    assert place((1, 601, 192), 8) == Shard(2)
    assert place((1, 600, 192), 8) == Shard(1)
    assert place((1, 1, 5), 2) is None


def test_prepare__without_processes_is_no_sharding(asked: dict[str, str]) -> None:
    objective = build(CASES["masked"])
    assert not is_sharded(prepare_objective(start_accelerator("no", (), Path()), objective))
    state, _ = gather_state(objective)
    with torch.no_grad():
        next(p for p in objective.parameters() if p.requires_grad).add_(1)
    changed = objective.state_dict()
    assert any(not torch.equal(value, changed[name]) for name, value in state.items()), "a copy, not a reference"


def test_load_state__of_another_objective_names_what_differs() -> None:
    state, _ = gather_state(build(CASES["masked"]))
    with pytest.raises(RuntimeError, match="ecg_encoder"):
        load_state(build(CASES["align"]), state)
