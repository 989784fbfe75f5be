"""Steps that are not finite: all processes skip them, nothing is left of them, and the ledger finds whose they were."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.training.config import RunConfig, load_config, save_config
from ecgcmr.training.data import open_feeds
from ecgcmr.training.progress import ProgressEvent
from ecgcmr.training.run import pretrain
from ecgcmr.training.signals import RunInterrupted
from ecgcmr.training.skipped import LEDGER
from ecgcmr.training.sources import open_source

ROOT = Path(__file__).parents[2]
MakeConfig = Callable[..., RunConfig]
ALIGN = {"name": "clip_align", "ecg_augment": "light"}


def spoil(patch: pytest.MonkeyPatch, subject: int, modality: str = "ecg", value: float = float("nan")) -> None:
    """Put a value that is not finite into the samples of each training batch that has this subject."""
    real = PairedDataset.batch

    def batch(dataset: PairedDataset, indices: Any) -> Any:
        found = real(dataset, indices)
        if len(dataset) > 5:  # not in validation
            found[modality][found["subject"] == subject, ..., ::50] = value  # type: ignore[literal-required]
        return found

    patch.setattr(PairedDataset, "batch", batch)


def a_subject(config: RunConfig) -> int:
    """One whom every epoch visits: the batches hold all training items but the last one."""
    return int(open_feeds(open_source(config.data), config.data, {"ecg"}).train.unique_subjects[3])


def ledger(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / LEDGER).read_text().splitlines()]


def test_pretrain__the_ledger_finds_the_subject_with_a_broken_ecg(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(**{"train.log_every": 1})
    subject = a_subject(config)
    spoil(monkeypatch, subject)
    folder = pretrain(config)
    rows = ledger(folder)
    assert rows
    assert len(rows) == json.loads((folder / "summary.json").read_text())["skipped_steps"] < 6
    for row in rows:
        assert row["inputs"] == {"ecg": [subject]}
        assert row["losses"] == {"mse": [subject], "ncc": [subject]}
        assert subject in row["subjects"]
        assert len(row["subjects"]) == 8
        assert (row["rank"], row["not_finite"], row["loss"], row["norm"]) == (0, "loss", None, None)
        assert row["epoch"] == row["step"] // 2
    for name in ("metrics.jsonl", "train.log", "summary.json", "weights/README.md", "weights/config.json"):
        text = (folder / name).read_text()
        assert 'subjects"' not in text.replace('train_subjects"', "").replace('val_subjects"', ""), name


def test_pretrain__a_contrastive_loss_spreads_but_its_inputs_tell(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken cine, whose step leaves the running statistics of BatchNorm as they were."""
    config = make_config(objective=ALIGN)
    subject = a_subject(config)
    spoil(monkeypatch, subject, "cmr", float("inf"))
    folder = pretrain(config)
    rows = ledger(folder)
    assert rows
    assert all(row["inputs"] == {"cmr": [subject]} for row in rows)
    assert all(len(row["losses"]["clip"]) > 1 for row in rows)
    state = load_file(folder / "checkpoints/last/model.safetensors")
    assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())
    counted = {int(value) for name, value in state.items() if name.endswith("num_batches_tracked")}
    assert counted == {6 - len(rows)}


def test_pretrain__a_gradient_that_is_not_finite_is_told_from_a_loss(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecgcmr.training import step

    real, calls = step.clip_gradients, []

    def norm(model: nn.Module, limit: float | None) -> float:
        calls.append(real(model, limit))
        return float("inf") if len(calls) == 2 else calls[-1]

    monkeypatch.setattr(step, "clip_gradients", norm)
    (row,) = ledger(pretrain(make_config()))
    assert (row["step"], row["not_finite"], row["inputs"], row["losses"]) == (1, "gradient", {}, {})
    assert row["loss"] > 0


def test_pretrain__a_run_without_skipped_steps_has_no_ledger(make_config: MakeConfig) -> None:
    assert not (pretrain(make_config(**{"train.epochs": 1})) / LEDGER).exists()


@pytest.mark.parametrize("stop", [1, 4])
def test_resume__the_ledger_is_cut_to_the_checkpoint(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    spoil(monkeypatch, a_subject(make_config()))
    whole = pretrain(make_config(out=str(tmp_path / "whole")))
    config = make_config(out=str(tmp_path / "parts"))

    def interrupt(event: ProgressEvent) -> None:
        if event.done == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(RunInterrupted):
        pretrain(config, progress=interrupt)
    with (config.folder / LEDGER).open("a") as file:
        file.write('{"step": 99, "half a ro')
    pretrain(config, resume=True)
    for name in (LEDGER, "metrics.jsonl", "weights/model.safetensors"):
        assert (config.folder / name).read_bytes() == (whole / name).read_bytes(), name


def one_of_two(rank: int, config_file: str, port: str, subject: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    torch.set_num_threads(1)
    spoil(pytest.MonkeyPatch(), subject)
    from ecgcmr.training import loop

    real = loop.Trainer.fit

    def fit(trainer: loop.Trainer, stop: Any) -> None:
        real(trainer, stop)
        assert trainer.state.ema is not None
        seen = {"weights": dict(trainer.objective.state_dict()), "ema": trainer.state.ema.state_dict()}
        torch.save(seen | {"skipped": trainer.position.skipped}, Path(config_file).with_name(f"rank{rank}.pt"))

    loop.Trainer.fit = fit  # type: ignore[method-assign]
    pretrain(load_config(config_file))
    torch.distributed.destroy_process_group()


@pytest.mark.ddp
@pytest.mark.slow
def test_pretrain__a_nan_on_one_of_two_processes_is_skipped_by_both(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With recomputed layers and an average of the weights, which is equal on both; the ledger has both batches."""
    options = {"objective": ALIGN, "train.ema_decay": 0.9, "train.grad_checkpointing": True, "train.threads": 1}
    config = make_config(**options, **{"train.batch_size": 4, "train.processes": 2})
    subject = a_subject(config)
    save_config(config, tmp_path / "two.yaml")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(ROOT)]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    torch.multiprocessing.spawn(one_of_two, (str(tmp_path / "two.yaml"), port, subject), nprocs=2)
    one, other = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    rows = ledger(config.folder)
    steps = sorted({row["step"] for row in rows})
    assert one["skipped"] == other["skipped"] == len(steps) > 0
    assert one["ema"]["updates"] == 6 - len(steps)
    assert all(torch.equal(value, other["weights"][name]) for name, value in one["weights"].items())
    assert all(torch.equal(value, other["ema"]["weights"][name]) for name, value in one["ema"]["weights"].items())
    assert all(np.isfinite(value.float()).all() for value in one["weights"].values())
    for step in steps:
        of_step = [row for row in rows if row["step"] == step]
        assert [row["rank"] for row in of_step] == [0, 1]
        assert sorted(len(row["inputs"].get("ecg", [])) for row in of_step) == [0, 1], "one rank had it"
        assert not set(of_step[0]["subjects"]) & set(of_step[1]["subjects"])
    monkeypatch.setenv("WORLD_SIZE", "1")
    spoil(monkeypatch, subject)
    alone = make_config(out=str(tmp_path / "alone"), **options, **{"train.batch_size": 8})
    weights = load_file(pretrain(alone) / "checkpoints/last/model.safetensors")
    for name, value in one["weights"].items():
        if value.is_floating_point():
            torch.testing.assert_close(value, weights[name], rtol=2e-3, atol=2e-4)
