"""One process with batch 2B computes what two gloo processes with batch B compute: loss, gradients and statistics.

With augmentation, random crops, masks and stochastic depth on, with missing modalities, missing labels, a subject
on both processes, and a BatchNorm image encoder.
"""

import math
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from objective_cases import CASES, build, generator, make_batch, model_config
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ecgcmr.cohort.batch import Batch
from ecgcmr.models.distributed import gather_rows, gather_with_gradient, sum_over_processes, world
from ecgcmr.models.norm import convert_batch_norm
from ecgcmr.objectives import Objective
from ecgcmr.objectives.base import finish_mean
from ecgcmr.objectives.distributed import my_rows
from ecgcmr.objectives.registry import OBJECTIVES

ROWS = 8
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
VARIANTS = {
    **{name: (fields, "mean") for name, fields in CASES.items()},
    "attention probe": (CASES["probe"], "attention"),
    "query probe": (CASES["probe"], "query"),
}


def one_step(name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Run forward and backward on this process's rows; gives the loss, all gradients and all buffers."""
    fields, pool = VARIANTS[name]
    torch.use_deterministic_algorithms(True)
    objective: Objective = build(fields, model_config(pool, drop_path=0.3, batch_norm=True)).to(dtype).train()
    _, n_processes = world()
    module: nn.Module = objective
    if n_processes > 1:
        convert_batch_norm(objective)
        module = DistributedDataParallel(objective)  # would raise or hang on a parameter without gradient
    batch = make_batch(ROWS, dtype, str(fields["name"]))
    mine = Batch(**{key: my_rows(value) for key, value in batch.items()})
    total = torch.zeros((), dtype=dtype)
    out = module(mine, generator(42))
    for loss_name, weight in objective.loss_weights.items():
        valid = out.valid[loss_name]
        total = total + weight * (out.losses[loss_name] * valid).sum() / sum_over_processes(valid.sum())
    (total * n_processes).backward()
    result = {"loss": sum_over_processes(total)}
    for key, parameter in objective.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{key} got no gradient"
            result[f"grad {key}"] = parameter.grad.clone()
    for key, mean in out.metrics.items():
        total, count = sum_over_processes(torch.stack([mean.total.to(dtype), mean.count.to(dtype)])).tolist()
        result[f"metric {key}"] = torch.tensor(finish_mean(total, count, mean.log), dtype=dtype)
    result |= {f"buffer {key}": value.clone() for key, value in objective.named_buffers()}
    return result


def two_processes(rank: int, folder: str) -> None:
    """Compute every case on two processes, and write what rank 0 holds."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        results: dict[Any, Any] = {(name, dtype): one_step(name, dtype) for name in VARIANTS for dtype in TOLERANCE}
        results["gather"] = gather_facts()
        if rank == 0:
            torch.save(results, Path(folder) / "results.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


def gather_facts() -> dict[str, Tensor]:
    """Gather a known tensor and take the gradient of a loss that each process weighs differently."""
    rank, _ = world()
    x = torch.tensor([[1.0 + rank], [2.0 + rank]], dtype=torch.float64, requires_grad=True)
    everything = gather_with_gradient(x)
    (everything.square().sum() * (rank + 1)).backward()
    return {"rows": everything.detach(), "grad": x.grad, "bools": gather_rows(torch.tensor([rank == 0]))}


@pytest.fixture(scope="module")
def parallel() -> dict[Any, Any]:
    """Results of two processes, computed once for all cases."""
    before = os.environ.get("PYTHONPATH")
    here = str(Path(__file__).parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, str(Path(__file__).parents[2]), *([before] if before else [])])
    try:
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(two_processes, (folder,), nprocs=2)
            return torch.load(Path(folder) / "results.pt", weights_only=True)
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def test_variants__no_registered_objective_escapes() -> None:
    assert {fields["name"] for fields, _ in VARIANTS.values()} == set(OBJECTIVES)


@pytest.mark.ddp
@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])
@pytest.mark.parametrize("name", VARIANTS)
def test_objective__two_processes_equal_one(parallel: dict[Any, Any], name: str, dtype: torch.dtype) -> None:
    alone, together = one_step(name, dtype), parallel[name, dtype]
    assert set(alone) == set(together)
    assert alone["loss"].isfinite()
    scale = math.sqrt(sum(float(v.square().sum()) for k, v in alone.items() if k.startswith("grad")))
    assert scale > 0
    for key, value in alone.items():
        own = float(value.double().abs().max())
        # In float64 each gradient by its own size, so that a small one cannot hide behind the others; some are 0 but
        # for rounding (a bias before BatchNorm), hence the floor. Float32 rounds too much for that.
        floor = scale if dtype is torch.float32 else 1e-3 * scale
        size = max(own, floor) if key.startswith("grad") else max(own, 0.1)
        error = float((together[key].double() - value.double()).abs().max()) / size
        assert error <= TOLERANCE[dtype], f"{key}: relative error {error:.1e}"


@pytest.mark.ddp
def test_gather_with_gradient__sums_the_gradients_of_all_processes(parallel: dict[Any, Any]) -> None:
    facts = parallel["gather"]
    assert facts["rows"].flatten().tolist() == [1.0, 2.0, 2.0, 3.0]
    assert facts["grad"].flatten().tolist() == [2 * 1.0 * (1 + 2), 2 * 2.0 * (1 + 2)]
    assert facts["bools"].tolist() == [True, False]


def test_my_rows__are_all_rows_in_one_process() -> None:
    x = torch.arange(6)
    assert torch.equal(my_rows(x), x)
    assert world() == (0, 1)
