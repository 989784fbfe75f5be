"""A checkpoint is the old one or the new one, whole, whatever happens while it is written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ecgcmr.hub import folder as folder_module
from ecgcmr.training.checkpoint import load_checkpoint, save_checkpoint
from ecgcmr.training.losses import Meter, Totals

ROOT = Path(__file__).parents[2]


def save(folder: Path, value: float) -> None:
    model = {"weight": torch.full((4, 3), value)}
    train = {"optimizer": {"state": {0: {"step": torch.tensor(value)}}}, "list": [1, 2.5, "three", None]}
    save_checkpoint(folder, model, train, {"step": int(value)})


def test_load_checkpoint__gives_what_was_saved(tmp_path: Path) -> None:
    save(tmp_path / "c" / "last", 1.0)
    found = load_checkpoint(tmp_path / "c" / "last")
    assert torch.equal(found.model["weight"], torch.ones(4, 3))
    assert found.train["list"] == [1, 2.5, "three", None]
    assert found.meta["step"] == 1
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["last"]
    assert sorted(p.name for p in (tmp_path / "c/last").iterdir()) == [
        "meta.json",
        "model.safetensors",
        "train_state.pt",
    ]


def test_save_checkpoint__tied_and_strided_tensors(tmp_path: Path) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    save_checkpoint(tmp_path / "last", {"a": weight, "tied": weight, "view": weight.T, "row": weight[1]}, {}, {})
    model = load_checkpoint(tmp_path / "last").model
    assert torch.equal(model["tied"], weight)
    assert torch.equal(model["view"], weight.T)
    assert torch.equal(model["row"], weight[1])


@pytest.mark.parametrize("failing", ["model.safetensors", "train_state.pt", "meta.json"])
def test_save_checkpoint__full_disk_keeps_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    last = tmp_path / "last"
    save(last, 1.0)
    real = folder_module.write_synced

    def full(path: Path, data: bytes) -> None:
        if path.name == failing:
            path.write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, data)

    monkeypatch.setattr(folder_module, "write_synced", full)
    with pytest.raises(OSError, match=r"the disk is full.*intact.*--resume") as caught:
        save(last, 2.0)
    assert caught.value.errno == errno.ENOSPC
    assert [p.name for p in tmp_path.iterdir()] == ["last"]
    assert load_checkpoint(last).meta["step"] == 1
    monkeypatch.undo()
    save(last, 3.0)
    assert load_checkpoint(last).meta["step"] == 3


def test_save_checkpoint__other_errors_are_not_called_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise PermissionError(errno.EACCES, "not allowed", str(path))

    monkeypatch.setattr(folder_module, "write_synced", refuse)
    with pytest.raises(PermissionError, match="not allowed"):
        save(tmp_path / "last", 1.0)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys, torch
from pathlib import Path
from ecgcmr.training.checkpoint import save_checkpoint
last, step = Path(sys.argv[1]), 0
while True:
    step += 1
    save_checkpoint(last, {"weight": torch.full((300, 1000), float(step))}, {"step": step}, {"step": step})
    print(step, flush=True)
"""


def test_save_checkpoint__killed_process_leaves_a_whole_one(tmp_path: Path) -> None:
    last = tmp_path / "last"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(last)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    time.sleep(0.011)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = load_checkpoint(last)
    step = found.meta["step"]
    assert step >= 3
    assert found.train == {"step": step}
    assert torch.equal(found.model["weight"], torch.full((300, 1000), float(step)))
    assert [p.name for p in tmp_path.iterdir()] == ["last"]


def test_load_checkpoint__killed_between_the_renames(tmp_path: Path) -> None:
    last = tmp_path / "last"
    save(last, 1.0)
    last.rename(tmp_path / ".last.old")
    (tmp_path / ".last.partial").mkdir()
    assert load_checkpoint(last).meta["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last"]


@pytest.mark.parametrize("name", ["model.safetensors", "train_state.pt"])
def test_load_checkpoint__one_flipped_bit_is_refused_by_name(tmp_path: Path, name: str) -> None:
    save(tmp_path / "last", 1.0)
    path = tmp_path / "last" / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"{name}: corrupt"):
        load_checkpoint(tmp_path / "last")


def test_load_checkpoint__missing_parts_are_named(tmp_path: Path) -> None:
    last = tmp_path / "last"
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_checkpoint(last)
    save(last, 1.0)
    (last / "train_state.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"train_state\.pt: missing"):
        load_checkpoint(last)
    (last / "meta.json").write_text("{}")
    with pytest.raises(ValueError, match=r"meta\.json: not what"):
        load_checkpoint(last)
    (last / "meta.json").write_text(json.dumps({"format_version": 99, "sha256": {}}))
    with pytest.raises(ValueError, match="format_version is 99"):
        load_checkpoint(last)


def test_load_checkpoint__of_the_first_version_is_still_read(tmp_path: Path) -> None:
    save(tmp_path / "last", 1.0)
    path = tmp_path / "last/meta.json"
    meta = json.loads(path.read_text())
    del meta["meta_sha256"]
    path.write_text(json.dumps(meta))
    with pytest.raises(ValueError, match=r"meta\.json: corrupt"):
        load_checkpoint(tmp_path / "last")
    path.write_text(json.dumps({**meta, "format_version": 1}))
    assert load_checkpoint(tmp_path / "last").meta["step"] == 1
    old = Meter.from_state({"sums": {"a": 4.0}, "counts": {"a": 2.0}, "extra": {"m": 9.0}, "samples": 3.0})
    old.add(Totals({"a": 2.0}, {"a": 1.0}, {"m": (1.0, 2.0, False)}, False), samples=1, grad_norm=5.0)
    assert old.row({"a": 1.0}) == {"loss": 2.0, "loss_a": 2.0, "m": 0.5, "grad_norm": 5.0}
