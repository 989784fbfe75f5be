"""The total loss is the weighted mean over valid samples of all processes."""

from __future__ import annotations

import math
import os
import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ecgcmr.objectives.base import Mean, ObjectiveOutput
from ecgcmr.training.losses import Meter, Totals, reduce_losses, total_loss

WEIGHTS = {"a": 0.75, "b": 2.0}


def output(a: Tensor, b: Tensor, valid_a: list[bool], valid_b: list[bool]) -> ObjectiveOutput:
    valid = {"a": torch.tensor(valid_a), "b": torch.tensor(valid_b)}
    return ObjectiveOutput({"a": a, "b": b}, valid, {"m": Mean.over(a, torch.ones_like(a).bool())})


def test_reduce_losses__equals_a_hand_computation() -> None:
    out = output(
        torch.tensor([1.0, 3.0, 100.0]), torch.tensor([5.0, 7.0, 9.0]), [True, True, False], [False, True, False]
    )
    loss, totals = reduce_losses(out, WEIGHTS, 1)
    assert loss.item() == pytest.approx(0.75 * 2.0 + 2.0 * 7.0)
    assert total_loss(totals, WEIGHTS) == pytest.approx(loss.item())
    assert totals.counts == {"a": 2.0, "b": 1.0}


def test_reduce_losses__nothing_valid_gives_zero_with_a_graph() -> None:
    a = torch.ones(2, requires_grad=True)
    loss, totals = reduce_losses(output(a, a * 2, [False, False], [False, False]), WEIGHTS, 1)
    loss.backward()
    assert loss.item() == 0.0
    assert a.grad is not None
    assert a.grad.abs().sum() == 0
    assert total_loss(totals, WEIGHTS) == 0.0


def test_reduce_losses__a_value_that_is_not_finite_shows() -> None:
    out = output(torch.tensor([math.nan, 1.0]), torch.ones(2), [True, True], [True, True])
    assert not math.isfinite(total_loss(reduce_losses(out, WEIGHTS, 1)[1], WEIGHTS))


def test_reduce_losses__names_must_agree() -> None:
    with pytest.raises(ValueError, match=r"gave the losses \['a', 'b'\] but weighs \['a'\]"):
        reduce_losses(output(torch.ones(1), torch.ones(1), [True], [True]), {"a": 1.0}, 1)


@given(st.lists(st.lists(st.tuples(st.floats(-10, 10), st.booleans()), min_size=1, max_size=5), min_size=1, max_size=5))
def test_meter__equals_the_mean_over_all_samples(batches: list[list[tuple[float, bool]]]) -> None:
    meter = Meter()
    for batch in batches:
        values = torch.tensor([value for value, _ in batch], dtype=torch.float64)
        valid = torch.tensor([ok for _, ok in batch])
        _, totals = reduce_losses(ObjectiveOutput({"a": values}, {"a": valid}), {"a": 2.0}, 1)
        meter.add(totals, len(batch))
        meter = Meter.from_state(meter.state_dict())
    kept = [value for batch in batches for value, ok in batch if ok]
    mean = math.fsum(kept) / max(len(kept), 1)
    assert meter.row({"a": 2.0})["loss"] == pytest.approx(2.0 * mean, abs=1e-9)


@given(st.lists(st.lists(st.floats(0.1, 10), max_size=5), min_size=1, max_size=5), st.booleans())
def test_meter__metrics_are_means_over_values_not_over_batches(batches: list[list[float]], log: bool) -> None:
    meter = Meter()
    for batch in batches:
        meter.add(Totals({"a": 1.0}, {"a": 1.0}, {"m": (math.fsum(batch), len(batch), log)}, False), samples=7)
        meter = Meter.from_state(meter.state_dict())
    values = [value for batch in batches for value in batch]
    row = meter.row({"a": 1.0})
    if not values:
        assert "m" not in row, "no value is no zero"
    else:
        mean = math.fsum(values) / len(values)
        assert row["m"] == pytest.approx(math.log(mean) if log else mean, abs=1e-9)
    assert Meter().row({"a": 1.0}) == {}


def test_meter__weighs_extra_values_by_samples() -> None:
    meter = Meter()
    meter.add(Totals({"a": 1.0}, {"a": 1.0}, {}, False), samples=3, grad_norm=1.0)
    meter.add(Totals({"a": 1.0}, {"a": 1.0}, {}, False), samples=1, grad_norm=5.0)
    assert meter.row({"a": 1.0})["grad_norm"] == 2.0


def _one_of_two(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.set_num_threads(1)
    x, valid = _data()
    rows = slice(4 * rank, 4 * rank + 4)
    weight = torch.full((3,), 0.5, dtype=torch.float64, requires_grad=True)
    losses = (x[rows] @ weight).square()
    out = ObjectiveOutput({"a": losses}, {"a": valid[rows]}, {"m": Mean.over(losses, valid[rows])})
    loss, totals = reduce_losses(out, {"a": 3.0}, 2, stop=rank == 1)
    loss.backward()
    assert weight.grad is not None
    torch.distributed.all_reduce(weight.grad)  # DistributedDataParallel averages
    bad = losses.detach().clone()
    bad[0] = math.nan if rank == 1 else 1.0
    _, bad_totals = reduce_losses(ObjectiveOutput({"a": bad}, {"a": valid[rows]}), {"a": 3.0}, 2)
    result = {
        "total": total_loss(totals, {"a": 3.0}),
        "grad": weight.grad / 2,
        "stop": totals.stop,
        "bad": total_loss(bad_totals, {"a": 3.0}),
        "metric": totals.metrics["m"],
    }
    torch.save(result, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def _data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 3, generator=generator, dtype=torch.float64), torch.tensor(
        [True, False] + [True] * 5 + [False]
    )


@pytest.mark.ddp
@pytest.mark.slow
def test_reduce_losses__two_processes_equal_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_one_of_two, args=(port, str(tmp_path)), nprocs=2)
    x, valid = _data()
    weight = torch.full((3,), 0.5, dtype=torch.float64, requires_grad=True)
    losses = (x @ weight).square()
    loss, _ = reduce_losses(ObjectiveOutput({"a": losses}, {"a": valid}), {"a": 3.0}, 1)
    loss.backward()
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found["total"] == pytest.approx(loss.item(), rel=1e-12)
        assert torch.allclose(found["grad"], weight.grad, rtol=1e-12, atol=0)
        total, count, _ = found["metric"]
        assert total / count == pytest.approx(losses[valid].mean().item(), rel=1e-12), "not the mean of two means"
        assert found["stop"], "one process was asked to stop: all must know"
        assert not math.isfinite(found["bad"]), "one process's loss is NaN: all must see it"
