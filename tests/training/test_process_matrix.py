"""{every objective} x {1, 2, 3 processes} x {DDP, FSDP}: loss, gradient and statistics of one process with all rows.

With augmentation, masks and stochastic depth on, BatchNorm encoders, missing modalities and labels, and subjects that
are on several processes. Three processes are started once: together they are the world of three, then two of them that
of two and the third that of one.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

sys.path.insert(0, str(Path(__file__).parents[1] / "objectives"))
from objective_cases import CASES, build, generator, make_batch, model_config
from processes import BLOCKS, LARGE, UNSHARDED, free_ports, spawn, world_of

from ecgcmr.cohort.batch import Batch
from ecgcmr.models.distributed import gather_rows, world
from ecgcmr.models.norm import convert_batch_norm
from ecgcmr.objectives import Objective
from ecgcmr.objectives.distributed import my_rows
from ecgcmr.objectives.registry import OBJECTIVES
from ecgcmr.training.distributed import start_accelerator
from ecgcmr.training.losses import reduce_losses, total_loss
from ecgcmr.training.micro_batches import MicroBatches
from ecgcmr.training.sharding import is_sharded, prepare_objective

pytestmark = [pytest.mark.slow, pytest.mark.ddp, pytest.mark.timeout(900)]

ROWS, PARTS = 12, 2
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
ONE_EACH = (
    "masked", "simclr", "align learned", "supervised cmr", "siglip", "barlow", "vicreg", "soft positives", "cox",
    "tabular", "ntxent", "phenotype weights", "relations", "two phases", "phases of beats", "two views",
)  # fmt: skip
PAIRED = ("simclr", "align learned", "siglip", "barlow", "vicreg", "soft positives", "nearest positives")
WORLDS = (1, 2, 3)
WAYS = {"ddp": UNSHARDED, "fsdp": BLOCKS, "fsdp by size": LARGE}
STEPS = [(name, torch.float64) for name in CASES] + [(name, torch.float32) for name in ONE_EACH]


def steps_of(way: str, n: int) -> list[tuple[str, torch.dtype]]:
    """Every case sharded over three; DDP of two has a test of its own (tests/objectives/test_objectives_ddp.py)."""
    if way == "ddp":
        return [(name, dtype) for name, dtype in STEPS if name in ONE_EACH and n != 2]
    if way == "fsdp by size":
        return [(name, torch.float64) for name in ("masked", "simclr", "siglip") if n == 3]
    return [(name, dtype) for name, dtype in STEPS if name in ONE_EACH or n == 3]


Results = dict[Any, dict[str, Tensor]]


def objective_of(name: str, dtype: torch.dtype, batch_norm: bool = True) -> Objective:
    norm = {"batch_norm": True} if batch_norm else {"image_norm": "groupnorm1"}
    return build(CASES[name], model_config(drop_path=0.3, **norm)).to(dtype).train()  # type: ignore[arg-type]


def global_batch(name: str, dtype: torch.dtype) -> Batch:
    batch = make_batch(ROWS, dtype, CASES[name]["name"])
    batch["subject"][11] = batch["subject"][3]  # on the first and the last process of two and of three
    return batch


def whole(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value.clone()


def facts(objective: Objective, loss: Tensor) -> dict[str, Tensor]:
    """Loss, gradients and buffers, in the shapes of one process; scalars come back as such."""
    found = {"loss": loss}
    for name, p in objective.named_parameters():
        if p.requires_grad:
            assert p.grad is not None, f"{name} got no gradient"
            found[f"grad {name}"] = whole(p.grad)
    return found | {f"buffer {name}": value.clone() for name, value in objective.named_buffers()}


def step(name: str, dtype: torch.dtype, parts: int = 1) -> dict[str, Tensor]:
    """The step of the loop, on this process's rows."""
    accelerator = start_accelerator("no", (), Path())
    objective = objective_of(name, dtype, batch_norm=parts == 1)
    if world()[1] > 1:
        convert_batch_norm(objective)
    model: nn.Module = prepare_objective(accelerator, objective)
    assert is_sharded(model) == (os.environ["ACCELERATE_USE_FSDP"] == "true")
    mine = Batch(**{key: my_rows(value) for key, value in global_batch(name, dtype).items()})  # type: ignore[typeddict-item,arg-type]
    pieces = MicroBatches(accelerator, model, objective, mine, parts, lambda part: generator(42))
    out = model(mine, generator(42)) if parts == 1 else pieces.output()
    loss, totals = reduce_losses(out, objective.loss_weights, world()[1])
    (accelerator if parts == 1 else pieces).backward(loss)
    found = facts(objective, torch.tensor(total_loss(totals, objective.loss_weights), dtype=torch.float64))
    return found | {"subjects": gather_rows(mine["subject"])}


def largest_saved(name: str) -> dict[str, Tensor]:
    """Size of the largest tensor that the comparison of this process's rows keeps for the backward pass."""
    objective = objective_of(name, torch.float64)
    mine = Batch(**{key: my_rows(value) for key, value in global_batch(name, torch.float64).items()})  # type: ignore[typeddict-item,arg-type]
    rows = {key: value.detach().requires_grad_() for key, value in objective(mine, generator(42), True).items()}
    sizes = [0]

    def pack(x: Tensor) -> Tensor:
        sizes.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        objective.compare(rows, mine)
    return {"numel": torch.tensor(max(sizes))}


def one_of_three(rank: int, ports: list[int], folder: str) -> None:
    for n, place in ((3, rank), (2, rank) if rank < 2 else (1, 0)):
        results: Results = {}
        with world_of(n, place, ports[n - 1]):
            results |= {("saved", name): largest_saved(name) for name in PAIRED}
            for way, environment in WAYS.items():
                os.environ |= environment
                results |= {(way, *key, 1): step(*key) for key in steps_of(way, n)}
                if way == "fsdp":
                    pieces = {(way, name, torch.float64, PARTS) for name in ONE_EACH}
                    results |= {key: step(*key[1:]) for key in sorted(pieces, key=str)}
        torch.save(results, Path(folder) / f"{n}-{place}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], Results]:
    """Results by number of processes and rank."""
    folder = tmp_path_factory.mktemp("matrix")
    spawn(one_of_three, 3, free_ports(3), str(folder))
    return {(n, rank): torch.load(folder / f"{n}-{rank}.pt", weights_only=True) for n in WORLDS for rank in range(n)}


def at_once(name: str, dtype: torch.dtype, batch_norm: bool = True) -> dict[str, Tensor]:
    """One process, all rows, and nothing of the code under test: forward, total, backward."""
    objective = objective_of(name, dtype, batch_norm)
    batch = global_batch(name, dtype)
    out = objective(batch, generator(42))
    total = sum(weight * out.losses[key][out.valid[key]].mean() for key, weight in objective.loss_weights.items())
    assert isinstance(total, Tensor)
    total.backward()
    return facts(objective, total.detach()) | {"subjects": batch["subject"]}


def check_equal(result: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float, where: str) -> None:
    assert set(result) == set(wanted)
    assert torch.equal(result["subjects"], wanted["subjects"]), "the processes' rows are the global batch in order"
    scale = math.sqrt(sum(float(v.double().square().sum()) for k, v in wanted.items() if k.startswith("grad")))
    assert scale > 0
    for key, value in wanted.items():
        size = scale if key.startswith("grad") else max(float(value.double().abs().max()), 0.1)
        error = float((result[key].double().reshape(value.shape) - value.double()).abs().max()) / size
        assert error <= tolerance, f"{where}: {key}: {error:.1e}"


def test_matrix__no_registered_objective_escapes() -> None:
    for names in (CASES, ONE_EACH):
        assert {CASES[name]["name"] for name in names} == set(OBJECTIVES)


@pytest.mark.parametrize(("name", "dtype"), STEPS, ids=lambda value: str(value).removeprefix("torch."))
def test_step__of_any_processes_equals_one_with_all_rows(
    found: dict[tuple[int, int], Results], name: str, dtype: torch.dtype
) -> None:
    wanted = at_once(name, dtype)
    for (n, rank), results in found.items():
        for way in WAYS:
            if (name, dtype) in steps_of(way, n):
                check_equal(results[way, name, dtype, 1], wanted, TOLERANCE[dtype], f"{way}, process {rank} of {n}")


@pytest.mark.parametrize("name", ONE_EACH)
def test_micro_batches__of_sharded_processes_equal_one_whole_batch(
    found: dict[tuple[int, int], Results], name: str
) -> None:
    wanted = at_once(name, torch.float64, batch_norm=False)
    for (n, rank), results in found.items():
        check_equal(results["fsdp", name, torch.float64, PARTS], wanted, 1e-9, f"process {rank} of {n}")


@pytest.mark.parametrize("name", PAIRED)
def test_memory__of_a_process_is_its_own_rows_of_the_similarities(
    found: dict[tuple[int, int], Results], name: str
) -> None:
    """(B, P*B), twice as wide where two views are compared, and not (P*B, P*B)."""
    for (n, rank), results in found.items():
        saved = int(results["saved", name]["numel"])
        assert 0 < saved <= 2 * ROWS // n * ROWS, f"process {rank} of {n}"
