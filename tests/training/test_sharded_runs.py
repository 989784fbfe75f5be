"""Whole sharded runs: interrupted and continued under DDP, on one process and sharded; the samples they see."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import BLOCKS, UNSHARDED, free_ports, spawn, world_of
from safetensors.torch import load_file
from test_processes_of_a_run import Spy

from ecgcmr.hub.weights import load_weights
from ecgcmr.training.config import RunConfig, load_config, save_config
from ecgcmr.training.progress import ProgressEvent
from ecgcmr.training.run import pretrain
from ecgcmr.training.runfolder import read_metrics
from ecgcmr.training.signals import RunInterrupted

pytestmark = [pytest.mark.slow, pytest.mark.ddp, pytest.mark.timeout(900)]

MakeConfig = Callable[..., RunConfig]
RUN = {
    "objective": {"name": "clip_align", "learn_temperature": True},
    "train.epochs": 2,
    "train.log_every": 1,
    "optim.lr": 1e-4,  # Adam turns the rounding of tiny gradients into whole steps, of this size
    "optim.clip_grad": 1.0,
}
PARTS = {"ddp then sharded": (UNSHARDED, BLOCKS), "sharded then ddp": (BLOCKS, UNSHARDED), "sharded": (BLOCKS, BLOCKS)}


def stop_at(step: int) -> Callable[[ProgressEvent], None]:
    return lambda event: os.kill(os.getpid(), signal.SIGTERM) if event.done == step else None


def interrupted(config: RunConfig, step: int) -> None:
    with pytest.raises(RunInterrupted):
        pretrain(config, progress=stop_at(step))


def one_of_two(rank: int, port: int, folder: str) -> None:
    """All runs of two processes, in one pair of processes."""
    base = load_config(Path(folder) / "two.yaml")

    def named(name: str) -> RunConfig:
        return base.with_values(out=str(Path(folder) / name))

    with world_of(2, rank, port):
        os.environ |= BLOCKS
        patch = pytest.MonkeyPatch()
        spy = Spy(patch, evaluates=True)
        pretrain(named("sharded whole"))
        patch.undo()
        torch.save(spy.seen, Path(folder) / f"seen{rank}.pt")
        for name, (first, second) in PARTS.items():
            os.environ |= first
            interrupted(named(name), 2)
            os.environ |= second
            pretrain(named(name), resume=True)
        os.environ |= BLOCKS
        interrupted(named("sharded then one"), 2)
        pretrain(named("one then sharded"), resume=True)


@pytest.fixture(scope="module")
def runs(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run of one process, those of two, and those that change between them."""
    from conftest import SMALL

    from ecgcmr.training.config import check_config

    folder = tmp_path_factory.mktemp("runs")
    tree: dict[str, Any] = json.loads(json.dumps(SMALL))
    tree["data"]["cohort"] = str(tiny_cohort)
    for key, value in RUN.items():
        *path, last = key.split(".")
        (tree[path[0]] if path else tree)[last] = value
    one = check_config({**tree, "out": str(folder / "one")}, "the test")
    patch = pytest.MonkeyPatch()
    spy = Spy(patch, evaluates=True)
    pretrain(one)
    patch.undo()
    torch.save(spy.seen, folder / "seen.pt")
    interrupted(one.with_values(out=str(folder / "one then sharded")), 2)
    save_config(one.with_values(**{"train.batch_size": 4, "train.processes": 2}), folder / "two.yaml")
    spawn(one_of_two, 2, free_ports(1)[0], str(folder))
    pretrain(one.with_values(out=str(folder / "sharded then one")), resume=True)
    return folder


@pytest.mark.parametrize("name", ["sharded whole", *PARTS, "sharded then one", "one then sharded"])
def test_run__of_any_processes_and_parts_equals_one(runs: Path, name: str) -> None:
    rows, wanted = read_metrics(runs / name), read_metrics(runs / "one")
    assert [(row["event"], row["step"]) for row in rows] == [(row["event"], row["step"]) for row in wanted]
    for row, other in zip(rows, wanted, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=3e-6 if row["step"] == 1 else 5e-4), row
    for part in ("checkpoints/last", "checkpoints/best", "weights"):
        found, expected = (load_file(runs / each / part / "model.safetensors") for each in (name, "one"))
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert found[key].shape == value.shape
            assert torch.allclose(found[key].double(), value.double(), atol=2e-3), key
    assert json.loads((runs / name / "summary.json").read_text())["parameters"] == 403_809
    assert set(load_weights(runs / name / "weights").modules) == {"ecg", "cmr", "ecg_projection", "cmr_projection"}


def test_resume__of_a_sharded_run_is_bitwise_equal_to_never_stopping(runs: Path) -> None:
    for name in ("metrics.jsonl", "checkpoints/last/model.safetensors", "weights/model.safetensors"):
        assert (runs / "sharded" / name).read_bytes() == (runs / "sharded whole" / name).read_bytes(), name
    slots, wanted = (
        torch.load(runs / name / "checkpoints/last/train_state.pt")["optimizer"]["state"]
        for name in ("sharded", "sharded whole")
    )
    for i, slot in wanted.items():
        assert all(torch.equal(value, slots[i][key]) for key, value in slot.items())


def test_run__of_two_sharded_processes_sees_the_samples_of_one(runs: Path) -> None:
    one, *two = (torch.load(runs / f"seen{which}.pt") for which in ("", 0, 1))
    training = [batch for batch in one if len(batch) == 8]  # of 17 subjects; those of validation are 2
    halves = [[batch for batch in seen if len(batch) == 4] for seen in two]
    assert len(training) == 4
    assert [first + second for first, second in zip(*halves, strict=True)] == training
