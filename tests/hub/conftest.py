"""Small modules of every kind, and a weights folder made of them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ecgcmr.cmr.preprocessing import named_pipeline as cmr_pipeline
from ecgcmr.ecg.preprocessing import named_pipeline as ecg_pipeline
from ecgcmr.hub.weights import Weights, load_weights, save_weights
from ecgcmr.models.build import build_module

CARD = {
    "name": "small", "stage": "supervised", "license": "MIT", "provenance": "simulated",
    "trained_on": "24 subjects", "metrics": {"r": 0.5}, "run": {"seed": 3},
}  # fmt: skip


@pytest.fixture(scope="session")
def modules() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    labels = [{"name": "LVM", "kind": "regression", "unit": "g"}, {"name": "mi", "kind": "binary", "unit": ""}]
    ecg = {"kind": "ecg_vit", "n_samples": 200, "width": 32, "depth": 1, "heads": 2, "patch": 50}
    cmr = {"kind": "cmr_encoder", "name": "test_resnet.r160_in1k", "in_channels": 3}
    built = {"ecg": build_module(ecg), "cmr": build_module(cmr)}
    for name in ("ecg", "cmr"):
        width = built[name].embed_dim
        projection = {"kind": "projection_head", "in_features": width, "hidden": 16, "out": 8}
        built[f"{name}_projection"] = build_module(projection)
    built["head"] = build_module({"kind": "prediction_head", "in_features": 32, "labels": labels})
    built["head"].set_statistics([100.0, 0.0], [20.0, 1.0])  # type: ignore[operator]
    return built


@pytest.fixture
def weights_folder(modules: dict[str, nn.Module], tmp_path: Path) -> Path:
    return save_weights(
        tmp_path / "weights", modules, ecg_pipeline("highpass"), cmr_pipeline("three_frames", size=32), CARD
    )


@pytest.fixture(scope="session")
def exported(modules: dict[str, nn.Module], tmp_path_factory: pytest.TempPathFactory) -> tuple[Weights, Path]:
    """Weights with every kind of graph, and their ONNX folder with int8 files; not to be written to."""
    pytest.importorskip("onnx", reason="needs the extra onnx")
    from ecgcmr.hub.onnx_export import export_onnx

    place = tmp_path_factory.mktemp("export")
    pipelines = ecg_pipeline("highpass"), cmr_pipeline("three_frames", size=32)
    weights = load_weights(save_weights(place / "weights", modules, *pipelines, CARD))
    return weights, export_onnx(weights, place / "onnx", int8=True)


@pytest.fixture
def ecg_folder(modules: dict[str, nn.Module], tmp_path: Path) -> Path:
    """The ECG encoder and its head alone."""
    chosen = {name: modules[name] for name in ("ecg", "head")}
    return save_weights(tmp_path / "ecg_only", chosen, ecg_pipeline("highpass"), None, {**CARD, "name": "ecg_only"})


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Blocks every connection; what was tried stands in the list."""
    tried: list[str] = []

    def blocked(name: str) -> Callable[..., Any]:
        def refuse(*args: Any, **kwargs: Any) -> Any:
            tried.append(name)
            raise OSError("the network is blocked in this test")

        return refuse

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, blocked(name))
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, blocked(name))
    return tried
