"""`ecgcmr weights`: each verb prints what was done, and its exit code says whether it worked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ecgcmr.cli.main import app
from ecgcmr.ecg.preprocessing import named_pipeline
from ecgcmr.hub.weights import save_weights
from ecgcmr.models.build import build_module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    encoder = build_module({"kind": "ecg_vit", "n_samples": 200, "width": 32, "depth": 1, "heads": 2, "patch": 50})
    card = {
        "name": "ecg_small", "stage": "masked_ecg", "license": "MIT", "provenance": "simulated",
        "trained_on": "24 subjects", "metrics": {"loss": 0.5},
    }  # fmt: skip
    return save_weights(tmp_path / "runs" / "mae" / "weights", {"ecg": encoder}, named_pipeline("highpass"), None, card)


def call(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["weights", *map(str, words)], env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_list__of_released_weights(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("ECGCMR_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "cache" / "weights"
    place.mkdir(parents=True)
    folder.rename(place / "ecg_mine")
    code, text = call("list")
    assert code == 0
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("ecg_mine ")] == ["cache"]
    code, text = call("list", "--json")
    assert next(entry for entry in json.loads(text) if entry["name"] == "ecg_mine")["stage"] == "masked_ecg"
    code, text = call("verify", "ecg_mine")
    assert code == 0, text
    code, text = call("show", "ecg_mime")
    assert code == 2
    assert "did you mean 'ecg_mine'" in text


def test_show_and_verify(folder: Path) -> None:
    code, text = call("show", folder)
    assert code == 0, text
    for part in (
        "name          ecg_small",
        "12 leads, 2 s at 100 Hz",
        "tensors       loaded ",
        "metric        loss: 0.5",
    ):
        assert part in text
    code, text = call("verify", folder, f"local-dir:{folder}")
    assert code == 0
    assert text.count("as promised (relative error ecg") == 2
    (folder / "expected.json").write_text("{}")
    code, text = call("verify", folder, folder.parent / "none")
    assert code == 2
    assert "recipe None is not known here" in text
    assert "no weights folder there" in text
    assert "2 of 2 failed" in text


def test_pack_index_and_push(folder: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.yaml"
    card.write_text("command: ecgcmr pretrain x.yaml\n")
    out = tmp_path / "weights" / "ecg_small_mae"
    code, text = call("pack", folder.parent, "--out", out, "--dtype", "float16", "--modules", "ecg", "--card", card)
    assert code == 0, text
    assert f"ecg             from {folder}" in text
    assert f"written: {out}" in text
    code, text = call("index", out.parent)
    assert code == 0
    assert json.loads((out.parent / "index.json").read_text())["models"][0]["dtype"] == "float16"
    code, text = call("push", out, "--to", "org/ecg_small_mae", "--dry-run")
    assert code == 0, text
    assert f"would go: {out} to org/ecg_small_mae" in text
    assert "model.safetensors" in text
    (out / "model.pt").write_bytes(b"\x80\x04.")
    code, text = call("push", out, "--to", "org/ecg_small_mae", "--dry-run")
    assert code == 2
    assert "problem: model.pt: a pickle" in text
    code, text = call("push", out, "--to", "org/ecg_small_mae")
    assert code == 2
    assert "is not published" in text


def test_pack__says_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    code, text = call("pack", folder, "--out", tmp_path / "o", "--modules", "head")
    assert code == 2
    assert "no source holds head" in text
    card = tmp_path / "card.yaml"
    card.write_text("licence: MIT")
    code, text = call("pack", folder, "--out", tmp_path / "o", "--card", card)
    assert code == 2
    assert "no field of a card: licence" in text
    assert not (tmp_path / "o").exists()
