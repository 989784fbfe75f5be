"""`ecgcmr weights export`: what it prints, and one clear line for what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ecgcmr.cli.main import app
from ecgcmr.ecg.preprocessing import named_pipeline
from ecgcmr.hub.weights import save_weights
from ecgcmr.models.build import build_module

CARD = {"name": "line", "stage": "supervised", "license": "MIT", "provenance": "simulated", "trained_on": "nobody"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    ecg = build_module({"kind": "ecg_vit", "n_samples": 100, "width": 16, "depth": 1, "heads": 2, "patch": 50})
    return save_weights(tmp_path / "weights", {"ecg": ecg}, named_pipeline("highpass"), None, CARD)


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["weights", "export", *map(str, words)])
    return done.exit_code, done.output


def test_export__onnx_with_int8(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs the extra onnx")
    code, told = run(folder, "--out", tmp_path / "onnx", "--int8", "--what", "ecg")
    assert code == 0, told
    assert "ecg.onnx" in told
    assert "ecg.int8.onnx" in told
    assert "int8, not exact: max abs difference" in told
    assert {path.name for path in (tmp_path / "onnx").glob("*.onnx")} == {"ecg.onnx", "ecg.int8.onnx"}


def test_export__program_and_what_cannot_be(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "program"
    code, told = run(folder, "--out", out, "--format", "program")
    assert code == 0, told
    assert (out / "ecg.pt2").is_file()
    code, told = run(folder, "--out", out, "--format", "program")
    assert code == 2
    assert "earlier export" in told.replace("\n", " ")
    code, told = run(folder, "--out", tmp_path / "other", "--format", "program", "--what", "predict")
    assert code == 2
    assert "they offer ecg" in told.replace("\n", " ")
    code, told = run(folder, "--out", tmp_path / "other", "--format", "coreml")
    assert code == 2
    assert "expected one of onnx, program" in told.replace("\n", " ")
    assert not (tmp_path / "other").exists()
