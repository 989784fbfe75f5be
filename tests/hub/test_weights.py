"""A weights folder is complete, or it does not load."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ecgcmr.cmr.preprocessing import named_pipeline as cmr_pipeline
from ecgcmr.ecg.preprocessing import named_pipeline as ecg_pipeline
from ecgcmr.hub import folder as folder_module
from ecgcmr.hub.weights import FILES, load_weights, save_weights


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def replace_tensors(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write other tensors with the right hash, as somebody who edits a folder by hand would."""
    save_file(tensors, folder / "model.safetensors")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    edit(folder / "config.json", sha256=digest)


def test_save_weights__writes_exactly(weights_folder: Path) -> None:
    assert sorted(path.name for path in weights_folder.iterdir()) == list(FILES)
    assert [path.name for path in weights_folder.parent.iterdir()] == ["weights"]
    keys = set(load_file(weights_folder / "model.safetensors"))
    assert {key.split(".")[0] for key in keys} == {"ecg", "cmr", "ecg_projection", "cmr_projection", "head"}


@pytest.mark.parametrize("prefix", ["local-dir:", ""])
def test_load_weights__round_trip(weights_folder: Path, modules: dict[str, nn.Module], prefix: str) -> None:
    weights = load_weights(f"{prefix}{weights_folder}")
    assert set(weights.modules) == set(modules)
    for name, module in modules.items():
        for key, value in module.state_dict().items():
            assert torch.equal(weights.modules[name].state_dict()[key], value), key
        assert not weights.modules[name].training
    assert weights.ecg_pipeline == ecg_pipeline("highpass")
    assert weights.cmr_pipeline == cmr_pipeline("three_frames", size=32)
    assert weights.config["ecg"]["n_samples"] == 200
    assert weights.config["labels"][0] == {"name": "LVM", "kind": "regression", "unit": "g"}


@pytest.mark.parametrize("name", FILES)
def test_load_weights__each_file_is_obligatory(weights_folder: Path, name: str) -> None:
    (weights_folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} missing"):
        load_weights(weights_folder)


def test_load_weights__cut_off_file(weights_folder: Path) -> None:
    path = weights_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors: cannot be read, probably cut off"):
        load_weights(weights_folder)


def test_load_weights__changed_number(weights_folder: Path) -> None:
    path = weights_folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"not the tensors that config\.json describes"):
        load_weights(weights_folder)


def test_load_weights__keys_and_shapes_are_listed(weights_folder: Path) -> None:
    tensors = load_file(weights_folder / "model.safetensors")
    del tensors["ecg.cls_token"]
    tensors["ecg.extra"] = torch.zeros(2)
    tensors["head.mean"] = torch.zeros(5)
    replace_tensors(weights_folder, tensors)
    with pytest.raises(ValueError, match=r"do not fit config\.json") as caught:
        load_weights(weights_folder)
    for part in ("missing: ecg.cls_token", "unexpected: ecg.extra", "head.mean (5,) instead of (2,)"):
        assert part in str(caught.value)


def test_load_weights__module_without_its_pipeline(weights_folder: Path) -> None:
    edit(weights_folder / "preprocess.json", ecg=None)
    with pytest.raises(ValueError, match=r"preprocess\.json: no 'ecg' pipeline"):
        load_weights(weights_folder)


def test_load_weights__broken_or_newer(weights_folder: Path) -> None:
    edit(weights_folder / "config.json", format_version=3)
    with pytest.raises(ValueError, match=r"format_version is 3.*update ecgcmr"):
        load_weights(weights_folder)
    (weights_folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not JSON"):
        load_weights(weights_folder)


def test_load_weights__places(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no weights folder"):
        load_weights(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"expected hf-hub:ORG/NAME"):
        load_weights("hf-hub:nowhere")


def test_save_weights__needs_pipeline_and_card(modules: dict[str, nn.Module], tmp_path: Path) -> None:
    card = {"name": "a", "stage": "b", "license": "MIT", "provenance": "simulated", "trained_on": "c"}
    with pytest.raises(ValueError, match="without its ecg_pipeline"):
        save_weights(tmp_path / "w", {"ecg": modules["ecg"]}, None, None, card)
    del card["license"]
    with pytest.raises(ValueError, match="license"):
        save_weights(tmp_path / "w", {"ecg": modules["ecg"]}, ecg_pipeline("highpass"), None, card)
    assert list(tmp_path.iterdir()) == []


def test_save_weights__full_disk_keeps_the_old_folder(
    weights_folder: Path, modules: dict[str, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(folder_module, "write_synced", full)
    config = json.loads((weights_folder / "config.json").read_text())
    card = {key: config[key] for key in ("name", "stage", "license", "provenance", "trained_on")}
    with pytest.raises(OSError, match="the disk is full"):
        save_weights(weights_folder, {"ecg": modules["ecg"]}, ecg_pipeline("highpass"), None, card)
    assert set(load_weights(weights_folder).modules) == set(modules)
    assert [path.name for path in weights_folder.parent.iterdir()] == ["weights"]


def test_card__says_what_must_be_said(weights_folder: Path) -> None:
    text = (weights_folder / "README.md").read_text()
    for part in (
        "not a medical device",
        "Trained on simulated data",
        "license: mit",
        "24 subjects",
        "| LVM |",
        "| r | 0.5 |",
    ):
        assert part in text
    assert "Limits" in text
