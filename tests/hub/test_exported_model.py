"""An exported folder behind the API: the same tables as the weights, and clear words where it cannot do as much."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="needs the extra onnx")

from ecgcmr.hub.expected import synthetic_cine, synthetic_recording
from ecgcmr.hub.exported_model import ExportedModel
from ecgcmr.hub.model import LoadedModel, load_model
from ecgcmr.hub.onnx_export import export_onnx
from ecgcmr.hub.weights import Weights


def test_load_model__of_an_export_gives_what_the_weights_give(exported: tuple[Weights, Path]) -> None:
    weights, folder = exported
    torch_model, onnx_model = LoadedModel(weights), load_model(folder)
    assert isinstance(onnx_model, ExportedModel)
    recording = synthetic_recording(seconds=20.0)
    for windows in ("first", "all"):
        ours, theirs = (model.embed(recording, windows=windows) for model in (onnx_model, torch_model))
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    ours, theirs = (model.predict([recording, recording]) for model in (onnx_model, torch_model))
    assert list(ours.columns) == list(theirs.columns)
    np.testing.assert_allclose(ours["LVM"], theirs["LVM"], rtol=1e-4)
    assert ours.attrs["units"] == theirs.attrs["units"]
    cine = synthetic_cine()
    np.testing.assert_allclose(onnx_model.embed_cmr(cine), torch_model.embed_cmr(cine), atol=1e-4)


def test_exported_model__says_what_it_cannot_do(exported: tuple[Weights, Path], tmp_path: Path) -> None:
    weights, folder = exported
    model = load_model(folder)
    with pytest.raises(ValueError, match=r"reads all twelve leads, but not there: .*V6"):
        model.embed(synthetic_recording(), only_leads=["I", "II", "V1", "V2", "V3", "V4", "V5"])
    with pytest.raises(ValueError, match=r"use backend\.project"):
        model.project(np.zeros((1, 32), np.float32))
    with pytest.raises(ValueError, match="its own head and precision"):
        load_model(folder, dtype="bfloat16")
    alone = load_model(export_onnx(weights, tmp_path / "predict", ["predict"]))
    assert len(alone.predict(synthetic_recording())) == 1
    with pytest.raises(ValueError, match="no graph 'ecg' was exported; there are predict"):
        alone.embed(synthetic_recording())
    with pytest.raises(ValueError, match="no graph 'cmr' was exported"):
        alone.embed_cmr(synthetic_cine())
