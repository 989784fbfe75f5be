"""Folders from strangers: refused with the file and the reason, and nothing in them is run, fetched or followed."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_weights import edit, replace_tensors

from ecgcmr.hub.about import about_weights
from ecgcmr.hub.catalogue import describe_folder
from ecgcmr.hub.reading import LARGEST_JSON, check_place, read_json, tensor_header
from ecgcmr.hub.weights import load_weights


class Trap:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("sprung"),)


@pytest.mark.parametrize("protocol", [2, 4, "zip"])
def test_pickles_under_the_name_of_tensors_are_never_opened(
    ecg_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int | str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = ecg_folder / "model.safetensors"
    if protocol == "zip":
        torch.save({"trap": Trap()}, path)
    else:
        path.write_bytes(pickle.dumps({"trap": Trap()}, protocol=int(protocol)))
    for attempt in (load_weights, describe_folder):
        with pytest.raises(ValueError, match=r"model\.safetensors: this is a .*never opened here.*weights convert"):
            attempt(ecg_folder)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "README.md"])
def test_links_out_of_the_folder_are_refused(ecg_folder: Path, tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret"
    (ecg_folder / name).rename(secret)
    (ecg_folder / name).symlink_to(secret)
    with pytest.raises(ValueError, match=r"a link that leads out of the folder \(to .*secret\)"):
        load_weights(ecg_folder)


def test_links_inside_and_to_the_folder_are_fine(ecg_folder: Path, tmp_path: Path) -> None:
    (ecg_folder / "README.md").rename(ecg_folder / "page.md")
    (ecg_folder / "README.md").symlink_to("page.md")
    (tmp_path / "alias").symlink_to(ecg_folder)
    assert load_weights(tmp_path / "alias").config["name"] == "ecg_only"


def test_links_of_a_snapshot_lead_only_into_its_own_blobs(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--a--b" / "blobs").mkdir()
    for target, good in (("models--a--b/blobs/x", True), ("models--a--c/blobs/x", False)):
        path = snapshot / "config.json"
        path.unlink(missing_ok=True)
        path.symlink_to(tmp_path / target)
        if good:
            check_place(snapshot, ["config.json"])
        else:
            with pytest.raises(ValueError, match="leads out"):
                check_place(snapshot, ["config.json"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the name 'c' stands twice"),
        ('{"a": NaN}', "NaN is not a number"),
        ('{"a": [-Infinity]}', "-Infinity is not a number"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "expected an object, found list"),
        ("", "not JSON"),
        ('{"a": ' + "9" * 10_000 + "}", "not JSON"),
    ],
)
def test_read_json__is_strict(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_json(path)
    assert "config.json" in str(caught.value)
    assert len(str(caught.value)) < 500


def test_read_json__huge_or_not_text(tmp_path: Path) -> None:
    path = tmp_path / "expected.json"
    with path.open("wb") as file:
        file.truncate(LARGEST_JSON + 1)
    with pytest.raises(ValueError, match="8 MiB, expected at most 8"):
        read_json(path)
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match="not JSON"):
        read_json(path)


@pytest.mark.parametrize("name", ["config.json", "preprocess.json", "expected.json"])
def test_load_weights__names_written_twice(ecg_folder: Path, name: str) -> None:
    text = (ecg_folder / name).read_text().strip()
    (ecg_folder / name).write_text(text[:-1] + ', "sha256": "a", "sha256": "b"}')
    with pytest.raises(ValueError, match=f"{name}: not JSON .*'sha256' stands twice"):
        load_weights(ecg_folder)


def _header(content: object, length: int | None = None, data: bytes = b"\0" * 8) -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0" * 7, b"\0" * 64,
        _header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, length=2**62),
        _header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, length=9),
        _header({"a": {"dtype": "F32", "shape": [2]}}),
        _header({"a": 7}), _header([1, 2]),
    ],
)  # fmt: skip
def test_safetensors__broken_headers(ecg_folder: Path, data: bytes) -> None:
    path = ecg_folder / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"model\.safetensors: (cannot be read|not a safetensors file)"):
        tensor_header(path)
    with pytest.raises(ValueError, match=r"model\.safetensors: cannot be read"):
        load_weights(ecg_folder)


def test_safetensors__a_length_that_looks_like_a_pickle_is_read(ecg_folder: Path) -> None:
    """A header of 0x...80 bytes begins with the byte of a pickle."""
    text = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    path = ecg_folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 0x80) + text.ljust(0x80).encode() + b"\0" * 4)
    assert tensor_header(path)["a"]["shape"] == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "os.system"}, "module config has kind 'os.system'"),
        ({"width": 31}, r"(?s)config\.json: .*width 31"),
        ({"width": "wide"}, r"(?s)config\.json: .*width"),
        ({"surprise": 1}, r"(?s)config\.json: .*surprise"),
        ({"timm_args": {"checkpoint_path": "x.pth"}}, "timm_args must not set checkpoint_path"),
        ({"timm_args": {"pretrained_cfg": {"url": "http://x"}}}, "timm_args must not set pretrained_cfg"),
    ],
)
def test_load_weights__module_settings(ecg_folder: Path, change: dict[str, Any], message: str) -> None:
    modules = json.loads((ecg_folder / "config.json").read_text())["modules"]
    edit(ecg_folder / "config.json", modules={**modules, "ecg": {**modules["ecg"], **change}})
    with pytest.raises(ValueError, match=message):
        load_weights(ecg_folder)
    edit(ecg_folder / "config.json", modules={"ecg": [1]})
    with pytest.raises(ValueError, match="module 'ecg' is list"):
        load_weights(ecg_folder)


@pytest.mark.parametrize("settings", [{"ecg": 7}, {"ecg": {"kind": "ecg"}}, {"ecg": {"steps": [{"name": "no_step"}]}}])
def test_load_weights__preprocessing_settings(ecg_folder: Path, settings: dict[str, Any]) -> None:
    edit(ecg_folder / "preprocess.json", **settings)
    with pytest.raises(ValueError, match=r"preprocess\.json: "):
        load_weights(ecg_folder)


def test_renamed_modules_are_missing_and_unexpected(ecg_folder: Path) -> None:
    tensors = load_file(ecg_folder / "model.safetensors")
    replace_tensors(ecg_folder, {key.replace("ecg.", "module.ecg."): value for key, value in tensors.items()})
    with pytest.raises(
        ValueError, match=r"missing: ecg\.cls_token.*unexpected: module\.ecg\.blocks.*module\.ecg\.cls_token"
    ):
        load_weights(ecg_folder)


def test_about_weights__says_why_a_folder_does_not_load(ecg_folder: Path) -> None:
    about = about_weights(ecg_folder)
    assert about.problem == ""
    assert any(line.startswith("tensors       loaded ") for line in about.lines())
    (ecg_folder / "preprocess.json").unlink()
    about = about_weights(ecg_folder)
    assert "preprocess.json missing" in about.problem
    assert any(line.startswith("does not load") for line in about.lines())
    assert about.entry.stage == "supervised"
    with pytest.raises(FileNotFoundError, match="no weights folder"):
        about_weights(ecg_folder / "none")
