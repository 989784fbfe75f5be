"""Files of unknown origin: whole ones give their tensors, all others are refused by name of what is wrong."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ecgcmr.hub.convert import reading
from ecgcmr.hub.convert.reading import read_checkpoint


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"a.weight": torch.randn(3, 4, generator=generator), "a.bias": torch.randn(7, generator=generator)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.pth"
    torch.save({"model": OrderedDict(tensors()), "epoch": 3}, path)
    return path


def rewritten(path: Path, change: dict[str, bytes | None], method: int = zipfile.ZIP_STORED) -> Path:
    """Write a zip file again with members replaced, or left out where None stands."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(members)).split("/")[0]
    members |= {f"{root}/{name}": data for name, data in change.items()}  # type: ignore[misc]
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(name, data)
    return path


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_read__gives_the_tensors_that_were_saved(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "any_name.bin"
    torch.save({"state_dict": tensors(), "step": 2}, path, _use_new_zipfile_serialization=zipped)
    top = read_checkpoint(path)
    assert top["step"] == 2
    for key, value in tensors().items():
        assert torch.equal(top["state_dict"][key], value)


def test_read__takes_safetensors_whatever_the_name(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "model.pth")
    assert torch.equal(read_checkpoint(tmp_path / "model.pth")["a.weight"], tensors()["a.weight"])


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_read__opens_a_namespace_as_plain_values_and_allows_it_no_longer_afterwards(
    tmp_path: Path, zipped: bool
) -> None:
    path = tmp_path / "checkpoint.pth"
    args = argparse.Namespace(input_size=[1, 12, 2500], blr=1e-5)
    torch.save({"model": tensors(), "args": args}, path, _use_new_zipfile_serialization=zipped)
    assert read_checkpoint(path)["args"] == {"input_size": [1, 12, 2500], "blr": 1e-5}
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


class Runs:
    """What a hostile file would be: opening it by pickle runs a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_read__runs_nothing_and_names_what_a_file_asks_for(tmp_path: Path, zipped: bool) -> None:
    path, marker = tmp_path / "bad.pth", tmp_path / "was_run"
    torch.save({"model": tensors(), "x": Runs(marker)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"bad\.pth: it asks for (posix|nt)\.mkdir; only tensors"):
        read_checkpoint(path)
    assert not marker.exists()


def test_read__refuses_names_hidden_in_a_namespace(tmp_path: Path) -> None:
    path, marker = tmp_path / "bad.pth", tmp_path / "was_run"
    torch.save({"model": tensors(), "args": argparse.Namespace(x=Runs(marker))}, path)
    with pytest.raises(ValueError, match="mkdir"):
        read_checkpoint(path)
    assert not marker.exists()


def test_read__names_a_class_of_another_package(tmp_path: Path) -> None:
    path = tmp_path / "bad.pth"
    torch.save({"model": tensors(), "norm": torch.nn.LayerNorm(3)}, path)
    with pytest.raises(ValueError, match=r"torch\.nn\.modules\.normalization\.LayerNorm"):
        read_checkpoint(path)


@pytest.mark.parametrize("protocol", [2, 4])
def test_read__never_opens_a_plain_pickle(tmp_path: Path, protocol: int) -> None:
    path, marker = tmp_path / "bad.pkl", tmp_path / "was_run"
    path.write_bytes(pickle.dumps({"model": Runs(marker)}, protocol=protocol))
    with pytest.raises(ValueError, match="a Python pickle"):
        read_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.99])
def test_read__refuses_what_is_cut_off(tmp_path: Path, zipped: bool, share: float) -> None:
    path = tmp_path / "cut.pth"
    torch.save({"model": {"w": torch.ones(999)}}, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"cut\.pth: .*(cut off|pickle)"):
        read_checkpoint(path)


def test_read__refuses_safetensors_that_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    save_file(tensors(), path)
    data = path.read_bytes()
    for length in (40, len(data) - 5):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"cut off|should have"):
            read_checkpoint(path)


def test_read__finds_one_changed_byte_of_a_tensor(file: Path) -> None:
    data = bytearray(file.read_bytes())
    at = data.find(tensors()["a.weight"].numpy().tobytes())
    assert at > 0
    data[at + 5] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"data/0 fails its checksum"):
        read_checkpoint(file)


def test_read__refuses_a_compressed_archive_before_unpacking(file: Path) -> None:
    rewritten(file, {"data/0": bytes(10_000_000)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"is compressed.*is not opened"):
        read_checkpoint(file)


def test_read__refuses_a_record_that_is_shorter_than_declared(file: Path) -> None:
    rewritten(file, {"data/0": b"1234"})
    with pytest.raises(ValueError, match=r"model\.a\.weight declares 48 bytes|cut off"):
        read_checkpoint(file)


def test_read__refuses_a_missing_record(file: Path) -> None:
    rewritten(file, {"data/1": None})
    with pytest.raises(ValueError, match="data/1"):
        read_checkpoint(file)


def test_read__refuses_few_values_that_pose_as_many(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    torch.save({"model": {"w": torch.zeros(1).expand(10**5, 10**5)}}, path)
    with pytest.raises(ValueError, match=r"model\.w \(100000, 100000\) repeats few values"):
        read_checkpoint(path)


def test_read__refuses_a_tensor_that_is_not_plain(tmp_path: Path) -> None:
    path = tmp_path / "sparse.pth"
    torch.save({"model": {"w": torch.eye(3).to_sparse()}}, path)
    with pytest.raises(ValueError, match="_rebuild_sparse_tensor"):
        read_checkpoint(path)


def test_read__refuses_a_pickle_larger_than_tensors_need(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_PICKLE", 10)
    with pytest.raises(ValueError, match="more than tensors need"):
        read_checkpoint(file)


def test_read__refuses_programs_and_other_archives(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "program.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"program/{name}", b"x")
    with pytest.raises(ValueError, match="TorchScript"):
        read_checkpoint(tmp_path / "program.pt")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("a.dcm", b"x")
    with pytest.raises(ValueError, match=r"0 data\.pkl inside"):
        read_checkpoint(tmp_path / "images.zip")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"hello world, no tensors", "neither"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"\x20" + bytes(7) + b"{not json at all}" + bytes(40), "no JSON"),
    ],
)
def test_read__says_what_a_wrong_file_is(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "file.pth").write_bytes(data)
    with pytest.raises(ValueError, match=said):
        read_checkpoint(tmp_path / "file.pth")


def test_read__refuses_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_checkpoint(tmp_path / "nothing.pth")
    with pytest.raises(ValueError, match="a folder"):
        read_checkpoint(tmp_path)
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(ValueError, match="not a regular file"):
        read_checkpoint(tmp_path / "pipe.pth")


@pytest.mark.parametrize("top", [torch.zeros(3), [torch.zeros(3)], 4, {3: torch.zeros(2)}], ids=str)
def test_read__refuses_a_top_level_without_names(tmp_path: Path, top: object) -> None:
    torch.save(top, tmp_path / "top.pth")
    with pytest.raises(ValueError, match="its top level"):
        read_checkpoint(tmp_path / "top.pth")


def test_read__ends_on_a_file_that_contains_itself(tmp_path: Path) -> None:
    top: dict[str, object] = {"model": tensors()}
    top["again"] = top
    torch.save(top, tmp_path / "loop.pth")
    assert set(read_checkpoint(tmp_path / "loop.pth")) == {"model", "again"}
