"""The list and the index of weights say what is in the folders, and both are made without loading any."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tomllib
import zipfile
from pathlib import Path

import pytest
from test_weights import edit

import ecgcmr
from ecgcmr.hub import catalogue as catalogue_module
from ecgcmr.hub.catalogue import describe_folder, list_models
from ecgcmr.hub.expected import verify_weights
from ecgcmr.hub.index import build_index, read_index, write_index
from ecgcmr.hub.source import FILES
from ecgcmr.hub.weights import load_weights

ROOT = Path(__file__).parents[2]
RELEASED = ROOT / "weights"


def test_describe_folder__counts_what_the_modules_hold(weights_folder: Path) -> None:
    entry = describe_folder(weights_folder)
    modules = load_weights(weights_folder).modules
    assert entry.parameters == sum(value.numel() for m in modules.values() for value in m.state_dict().values())
    assert entry.bytes == sum((weights_folder / name).stat().st_size for name in FILES)
    assert entry.sha256 == hashlib.sha256((weights_folder / "model.safetensors").read_bytes()).hexdigest()
    assert entry.modules == tuple(modules)
    assert entry.labels == ("LVM", "mi")
    assert (entry.stage, entry.license, entry.provenance, entry.dtype) == ("supervised", "MIT", "simulated", "float32")
    assert entry.input == "12 leads, 2 s at 100 Hz (mV); cine 3x32x32"
    assert "32x1" in entry.architecture
    assert "test_resnet.r160_in1k" in entry.architecture


def test_list_models__is_a_table(weights_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_module, "named_folders", lambda: {"small": weights_folder})
    models = list_models()
    assert models.names == ["small"]
    lines = repr(models).splitlines()
    assert lines[0].split()[:2] == ["name", "stage"]
    assert lines[1].split()[:2] == ["small", "supervised"]
    frame = models.to_frame()
    assert frame.loc[0, "sha256"] == models[0].sha256
    assert json.loads(models.to_json())[0]["path"] == str(weights_folder)
    monkeypatch.setattr(catalogue_module, "named_folders", dict)
    assert list_models().names == []
    assert list(list_models().to_frame().columns) == list(frame.columns)


def test_released_index__holds_every_folder_and_every_hash() -> None:
    folders = sorted(path for path in RELEASED.iterdir() if path.is_dir() and not path.name.startswith("."))
    listed = {entry["name"]: entry for entry in read_index(RELEASED)["models"]}
    assert list(listed) == [folder.name for folder in folders]
    for folder in folders:
        files = {entry["name"]: entry for entry in listed[folder.name]["files"]}
        assert set(files) == set(FILES)
        for name, entry in files.items():
            data = (folder / name).read_bytes()
            assert entry["sha256"] == hashlib.sha256(data).hexdigest(), f"{folder.name}/{name}: write the index anew"
            assert math.isclose(entry["megabytes"] * 1e6, len(data), abs_tol=0.1)
        verify_weights(folder)
        assert folder.name in ecgcmr.list_models().names
    assert read_index(RELEASED) == build_index(RELEASED), "run: ecgcmr weights index weights"


def test_write_index__and_a_changed_file(ecg_folder: Path) -> None:
    place = ecg_folder.parent
    path = write_index(place)
    assert [entry["name"] for entry in read_index(place)["models"]] == ["ecg_only"]
    assert "megabytes" in path.read_text()
    verify_weights(ecg_folder)
    (ecg_folder / "README.md").write_text("something else")
    with pytest.raises(ValueError, match=r"not as .*index\.json lists it: README\.md"):
        verify_weights(ecg_folder)
    write_index(place)
    verify_weights(ecg_folder)


def test_write_index__refuses_what_it_cannot_vouch_for(ecg_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        write_index(tmp_path / "nowhere")
    place = ecg_folder.parent
    other = place / "renamed"
    shutil.copytree(ecg_folder, other)
    with pytest.raises(ValueError, match="calls it 'ecg_only'"):
        write_index(place)
    (other / "expected.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"renamed: expected\.json missing"):
        write_index(place)
    assert not (place / "index.json").exists()
    with pytest.raises(FileNotFoundError, match="there is no index; write it by: ecgcmr weights index"):
        read_index(place)
    (place / "index.json").write_text("{}")
    edit(place / "index.json", format=7)
    with pytest.raises(ValueError, match="expected format 1"):
        read_index(place)


def test_wheel__is_told_to_take_the_weights() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["only-include"] == ["ecgcmr", "weights"]
    assert wheel["sources"] == {"weights": "ecgcmr/weights"}


def test_wheel__holds_the_released_weights(tmp_path: Path) -> None:
    builder = pytest.importorskip("hatchling.builders.wheel", reason="hatchling builds the wheel; it is not installed")
    (path,) = builder.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = set(zipfile.ZipFile(path).namelist())
    for folder in (path for path in RELEASED.iterdir() if path.is_dir()):
        assert {f"ecgcmr/weights/{folder.name}/{name}" for name in FILES} <= names
    assert {"ecgcmr/weights/index.json", "ecgcmr/hub/source.py"} <= names
