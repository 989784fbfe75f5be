"""Runs of several processes: the same samples after a change of their number, and an end when one of them dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.cohort.mixture import MixedDataset
from ecgcmr.cohort.simulate import simulate_cohort
from ecgcmr.training.config import RunConfig, load_config, save_config
from ecgcmr.training.distributed import ProcessLostError, name_lost_processes
from ecgcmr.training.progress import ProgressEvent
from ecgcmr.training.run import pretrain
from ecgcmr.training.signals import RunInterrupted

ROOT = Path(__file__).parents[2]
MakeConfig = Callable[..., RunConfig]
Steps = list[list[int]]


class Spy:
    """Notes which subjects each step sees; evaluation is left out unless `evaluates`."""

    def __init__(self, patch: pytest.MonkeyPatch, evaluates: bool = False) -> None:
        self.seen: Steps = []
        for kind in (PairedDataset, MixedDataset):
            patch.setattr(kind, "batch", self.noting(kind.batch))
        self.within = False

        def constant(objective: Any, dataset: Any, config: Any, accelerator: Any) -> dict[str, float]:
            return {"loss": 1.0}

        if not evaluates:
            patch.setattr("ecgcmr.training.loop.evaluate", constant)

    def noting(self, real: Any) -> Any:
        def batch(dataset: Any, indices: Any) -> Any:
            outermost, self.within = not self.within, True  # a mixed data set asks its parts
            try:
                if outermost:
                    self.seen.append(dataset.subjects[np.asarray(indices)].tolist())
                return real(dataset, indices)
            finally:
                self.within = not outermost

        return batch


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def rest_on_two(rank: int, config_file: str, port: str, folder: str) -> None:
    """Continue the run on this process and another one."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    spy = Spy(pytest.MonkeyPatch())
    pretrain(load_config(config_file), resume=True)
    torch.save(spy.seen, Path(folder) / f"seen{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["balanced groups", "sources by weight"])
def test_resume__on_two_processes_continues_with_the_samples_of_one(
    make_config: MakeConfig, tiny_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Interrupted in the middle of the second epoch."""
    options: dict[str, Any] = {"train.batch_size": 4, "train.epochs": 3}
    if kind == "balanced groups":
        options |= {"data.group": "sex", "data.balance": 1.0}
    else:
        other = simulate_cohort(tmp_path / "other", n_subjects=12, seed=5, cine="none")
        sources = [{"cohort": str(tiny_cohort), "weight": 1.0}, {"cohort": str(other), "weight": 2.0}]
        options |= {"data.cohort": None, "data.sources": sources}
    with monkeypatch.context() as patch:
        spy = Spy(patch)
        pretrain(make_config(out=str(tmp_path / "whole"), **options))
        whole, spy.seen = spy.seen, []
        steps = len(whole) // 3

        def interrupt(event: ProgressEvent) -> None:
            if event.done == steps + 1:
                os.kill(os.getpid(), signal.SIGTERM)

        config = make_config(out=str(tmp_path / "parts"), **options)
        with pytest.raises(RunInterrupted) as caught:
            pretrain(config, progress=interrupt)
        done = caught.value.step
        first = spy.seen[:done]  # what was only prepared in advance does not count
    assert 0 < done - steps < steps
    save_config(config.with_values(**{"train.batch_size": 2, "train.processes": 2}), tmp_path / "two.yaml")
    patch_path = os.pathsep.join([str(Path(__file__).parent), str(ROOT)])
    monkeypatch.setenv("PYTHONPATH", patch_path)
    torch.multiprocessing.spawn(rest_on_two, (str(tmp_path / "two.yaml"), free_port(), str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"seen{rank}.pt") for rank in (0, 1)]
    assert first + [a + b for a, b in zip(*ranks, strict=True)] == whole


def test_resume__another_global_batch_is_refused(make_config: MakeConfig) -> None:
    config = make_config()
    with pytest.raises(RunInterrupted):
        pretrain(config, progress=lambda event: os.kill(os.getpid(), signal.SIGTERM) if event.done == 1 else None)
    with pytest.raises(ValueError, match=r"made with 8 samples a step, this run has 4; .*batch_size times processes"):
        pretrain(make_config(**{"train.batch_size": 4}), resume=True)


@pytest.mark.ddp
@pytest.mark.slow
def test_pretrain__a_killed_process_ends_the_other_with_the_reason(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(out="run", **{"train.epochs": 4000, "train.timeout_seconds": 60, "train.threads": 1})
    save_config(config, tmp_path / "run.yaml")
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "ACCELERATE_USE_CPU": "true", "WORLD_SIZE": "2"}
    where |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "scripts/pretrain.py"), "--config", "run.yaml"],
            cwd=tmp_path,
            env=os.environ | where | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        while not (tmp_path / "run/checkpoints/previous").is_dir():
            assert all(process.poll() is None for process in processes), processes[0].communicate()[1]
            time.sleep(0.05)
        processes[1].kill()
        _, errors = processes[0].communicate(timeout=90)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert processes[0].returncode == 1, errors
    assert "error: another of the 2 processes ended" in errors
    assert "continue run with --resume" in errors
    assert "Traceback" not in errors


def test_name_lost_processes__tells_a_lost_process_from_an_error_of_the_run(tmp_path: Path) -> None:
    gloo = "[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:35361"
    with (
        pytest.raises(ProcessLostError, match=r"another of the 2 processes.*closed by peer"),
        name_lost_processes(tmp_path, 2),
    ):
        raise RuntimeError(gloo)
    with pytest.raises(ProcessLostError), name_lost_processes(tmp_path, 2):
        raise torch.distributed.DistBackendError("timed out")
    for error, n in ((RuntimeError(gloo), 1), (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), 2)):
        with pytest.raises(RuntimeError) as caught, name_lost_processes(tmp_path, n):
            raise error
        assert caught.value is error
