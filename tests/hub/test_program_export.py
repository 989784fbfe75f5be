"""Programs of torch.export: they load with torch alone and compute what the weights compute."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

import ecgcmr
from ecgcmr.cmr.preprocessing import named_pipeline as cmr_pipeline
from ecgcmr.ecg.preprocessing import named_pipeline as ecg_pipeline
from ecgcmr.hub.exporting import export_weights
from ecgcmr.hub.program_export import export_program
from ecgcmr.hub.weights import Weights, load_weights, save_weights

CARD = {"name": "program", "stage": "supervised", "license": "MIT", "provenance": "simulated", "trained_on": "nobody"}


@pytest.fixture(scope="module")
def written(modules: dict[str, nn.Module], tmp_path_factory: pytest.TempPathFactory) -> tuple[Weights, Path]:
    place = tmp_path_factory.mktemp("program")
    pipelines = ecg_pipeline("highpass"), cmr_pipeline("three_frames", size=32)
    weights = load_weights(save_weights(place / "weights", modules, *pipelines, CARD))
    for module in weights.modules.values():
        module.train()
    return weights, export_program(weights, place / "program", ["cmr_projection", "predict"])


@torch.no_grad()
def test_program__equals_the_modules_for_any_batch(written: tuple[Weights, Path]) -> None:
    weights, folder = written
    assert all(module.training for module in weights.modules.values()), "the user's modules stay as they were"
    modules = {name: module.eval() for name, module in weights.modules.items()}
    predict = torch.export.load(folder / "predict.pt2").module()
    project = torch.export.load(folder / "cmr_projection.pt2").module()
    random = torch.Generator().manual_seed(1)
    for batch in (1, 4, 9):
        ecg, cmr = torch.randn(batch, 12, 200, generator=random), torch.rand(batch, 3, 32, 32, generator=random)
        expected = modules["head"].predict(modules["ecg"](ecg))  # type: ignore[operator]
        scale = torch.tensor([20.0, 1.0])  # g, probability
        assert ((predict(ecg) - expected) / scale).abs().max() < 1e-6
        shared = modules["cmr_projection"](modules["cmr"](cmr))
        assert (project(cmr) - shared / shared.norm(dim=1, keepdim=True)).abs().max() < 1e-6


def test_program__names_no_machine_and_says_what_it_is(written: tuple[Weights, Path]) -> None:
    folder = written[1]
    root = Path(ecgcmr.__file__).parents[1]
    places = [str(root), str(Path.home()), str(Path(torch.__file__).parent), "site-packages", ".py"]
    for path in folder.glob("*.pt2"):
        archive = zipfile.ZipFile(path)
        for name in archive.namelist():
            data = archive.read(name)
            assert not [place for place in places if len(place) > 1 and place.encode() in data], f"{path.name}: {name}"
    extra = {"license": "", "notice": "", "name": ""}
    torch.export.load(io.BytesIO((folder / "predict.pt2").read_bytes()), extra_files=extra)
    told = {key: value.decode() if isinstance(value, bytes) else value for key, value in extra.items()}
    assert (told["license"], told["name"]) == ("MIT", "program")
    assert "not a medical device" in told["notice"]


def test_export_weights__lines_and_refusals(written: tuple[Weights, Path], tmp_path: Path) -> None:
    weights, _ = written
    done = export_weights(weights.folder, tmp_path / "one", "program", ["ecg"])
    assert done.about["format"] == "ecgcmr-export-program"
    assert done.about["graphs"]["ecg"]["parity"]["max_abs_difference"] < 1e-6
    assert done.lines()[0].startswith("ecg ")
    assert done.lines()[-1] == f"written: {tmp_path / 'one'}"
    with pytest.raises(ValueError, match="format is 'tflite', expected one of onnx, program"):
        export_weights(weights.folder, tmp_path / "two", "tflite")
    with pytest.raises(ValueError, match="int8 is offered for the format onnx only"):
        export_weights(weights.folder, tmp_path / "two", "program", int8=True)
    with pytest.raises(FileExistsError, match="--force"):
        export_weights(weights.folder, tmp_path / "one", "program", ["ecg"])
    assert not (tmp_path / "two").exists()
