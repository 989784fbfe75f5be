"""Which checkpoints stay, and what is offered when the last one is broken."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from ecgcmr.training.checkpoint import load_checkpoint
from ecgcmr.training.keeper import Keeper, load_for_resume, recover_all


def save(keeper: Keeper, epoch: int, step: int) -> None:
    model = {"weight": torch.full((3,), float(step))}
    keeper.save(model, {"optimizer": {}, "step": step}, {"position": {"step": step}}, epoch)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_keeper__keeps_the_one_before_the_last_and_the_newest_epochs(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, 0.0, keep_every=2, keep=2)
    for epoch in range(1, 10):
        save(keeper, epoch, 10 * epoch)
    assert names(tmp_path) == ["epoch-00006", "epoch-00008", "last", "previous"]
    for name, step in (("last", 90), ("previous", 80), ("epoch-00006", 60)):
        found, best = load_for_resume(tmp_path, name)
        assert found is not None
        assert (found.train["step"], found.model["weight"][0].item(), best) == (step, step, None)
    keeper.finish()
    assert names(tmp_path) == ["epoch-00006", "epoch-00008", "last"]


def test_keeper__writes_when_it_is_time(tmp_path: Path) -> None:
    assert Keeper(tmp_path, 0.0).is_due(1)
    assert not Keeper(tmp_path, 0.0).is_due(None), "0 s means after each evaluation, not after each step"
    seldom = Keeper(tmp_path, 1e6, keep_every=3)
    assert [epoch for epoch in range(1, 8) if seldom.is_due(epoch)] == [3, 6]
    assert not seldom.is_due(None)


@pytest.mark.parametrize("name", ["model.safetensors", "train_state.pt", "meta.json"])
def test_load_for_resume__a_flipped_byte_is_refused_and_the_one_before_is_offered(tmp_path: Path, name: str) -> None:
    keeper = Keeper(tmp_path, 0.0)
    for epoch in (1, 2):
        save(keeper, epoch, 10 * epoch)
    path = tmp_path / "last" / name
    data = path.read_bytes()
    # In meta.json the step itself: still JSON, still a number, another place in the run.
    broken = data.replace(b'"step": 20', b'"step": 21') if name == "meta.json" else data[:-1] + bytes([data[-1] ^ 1])
    assert broken != data
    path.write_bytes(broken)
    with pytest.raises(
        ValueError, match=rf"last/{name}: corrupt.*previous \(step 10\) is whole.*--resume-from previous"
    ):
        load_for_resume(tmp_path)
    found, _ = load_for_resume(tmp_path, "previous")
    assert found is not None
    assert found.train["step"] == 10


def test_load_for_resume__offers_the_newest_that_is_whole(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, 0.0, keep_every=1)
    for epoch in (1, 2, 3):
        save(keeper, epoch, 10 * epoch)
    shutil.rmtree(tmp_path / "last")
    (tmp_path / "epoch-00003" / "train_state.pt").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"last: no checkpoint there; .*(previous|epoch-00002) \(step 20\)"):
        load_for_resume(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"epoch-00009: no checkpoint there; .*\(step 20\) is whole"):
        load_for_resume(tmp_path, "epoch-00009")
    for path in tmp_path.glob("*/meta.json"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="no other checkpoint of this run is whole: start anew"):
        load_for_resume(tmp_path, "previous")


def test_load_for_resume__a_run_that_wrote_none_begins(tmp_path: Path) -> None:
    assert load_for_resume(tmp_path / "checkpoints") == (None, None)


def test_load_for_resume__a_broken_best_is_named(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, 0.0)
    save(keeper, 1, 10)
    keeper.save_best({"weight": torch.ones(3)}, {"position": {"step": 10}})
    (tmp_path / "best/model.safetensors").write_bytes(b"?")
    with pytest.raises(ValueError, match=r"best/model\.safetensors: corrupt.*remove .*best to continue without it"):
        load_for_resume(tmp_path)
    keeper.save_best({"weight": torch.ones(3)}, {"position": {"step": 10}})
    with pytest.raises(ValueError, match=r"best: holds weights only.*last \(step 10\) is whole.*--resume$"):
        load_for_resume(tmp_path, "best")


@pytest.mark.parametrize("name", ["last", "epoch-00001"])
def test_recover_all__what_was_half_written_is_gone_and_the_old_one_back(tmp_path: Path, name: str) -> None:
    keeper = Keeper(tmp_path, 0.0, keep_every=1)
    save(keeper, 1, 10)
    (tmp_path / ".epoch-00002.partial").mkdir()
    (tmp_path / name).rename(tmp_path / f".{name}.old")
    (tmp_path / f".{name}.partial").mkdir()
    recover_all(tmp_path)
    assert names(tmp_path) == ["epoch-00001", "last"]
    assert load_checkpoint(tmp_path / name).meta["position"]["step"] == 10
