"""`ecgcmr embed` and `ecgcmr predict`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner, Result

from ecgcmr.cli.main import app
from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.preprocessing import named_pipeline
from ecgcmr.hub.expected import synthetic_recording
from ecgcmr.hub.model import load_model
from ecgcmr.hub.weights import save_weights
from ecgcmr.models.build import build_module

CARD = {"name": "tiny", "stage": "supervised", "license": "MIT", "provenance": "simulated", "trained_on": "none"}
SAID = ("--unit", "uV", "--rate", "500", "--leads", ",".join(LEADS))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    encoder = build_module({"kind": "ecg_vit", "n_samples": 200, "width": 16, "depth": 1, "heads": 2, "patch": 50})
    labels = [{"name": "lvef", "kind": "regression", "unit": "%"}]
    head = build_module({"kind": "prediction_head", "in_features": 16, "labels": labels})
    modules = {"ecg": encoder, "head": head}
    return save_weights(tmp_path_factory.mktemp("w") / "tiny", modules, named_pipeline("highpass"), None, CARD)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "ecg"
    folder.mkdir()
    for i in (1, 2):
        np.save(folder / f"{i}.npy", synthetic_recording(seconds=20).samples * 1000 * i)
    (folder / "broken.xml").write_text("<html></html>")
    return folder


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_embed__a_folder_to_a_table(weights: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.parquet"
    done = run("embed", folder, "--model", f"local-dir:{weights}", "--out", out, *SAID, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "2 rows; written" in done.output
    assert "unsupported_format" in done.output
    table = pd.read_parquet(out)
    model = load_model(weights, device="cpu")
    expected = model.embed([folder / "1.npy", folder / "2.npy"], 500, LEADS, "uV")
    assert np.allclose(table.filter(regex=r"^e\d").to_numpy(), expected, atol=1e-5)
    assert list(table["item"]) == [str(folder / "1.npy"), str(folder / "2.npy")]
    assert pd.read_csv(f"{out}.failed.csv")["item"].tolist() == [str(folder / "broken.xml")]


def test_predict__windows_and_leads_from_the_command_line(weights: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "y.csv"
    options = ("--windows", "all", "--aggregate", "none", "--only-leads", "V1,I", "--batch-size", 3)
    done = run("predict", folder / "1.npy", "--model", weights, "--out", out, *SAID, *options)
    assert done.exit_code == 0, done.output
    table = pd.read_csv(out)
    assert list(table["window"]) == list(range(10))
    assert set(table["leads"]) == {"I,V1"}
    assert "10 of 10 rows come from fewer than twelve leads" in done.output


def test_exit_codes__tell_what_happened(weights: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.csv"
    nothing = run("embed", folder / "broken.xml", "--model", weights, "--out", out)
    assert nothing.exit_code == 1
    assert "nothing written but" in nothing.output
    assert not out.exists()
    for wrong, words in (
        (("--windows", "some"), "windows is 'some'"),
        (("--dtype", "int8"), "dtype is 'int8'"),
        (("--aggregate", "max"), "aggregate is 'max'"),
        (("--device", "gpu"), "device is 'gpu'"),
    ):
        refused = run("embed", folder, "--model", weights, "--out", out, *wrong)
        assert refused.exit_code == 2
        assert words in refused.output
    missing = run("embed", folder, "--model", tmp_path / "nowhere", "--out", out)
    assert missing.exit_code == 2
    assert "no weights folder" in missing.output
