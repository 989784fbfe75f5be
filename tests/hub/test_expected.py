"""expected.json tells whether weights, preprocessing and libraries still compute the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_weights import edit, replace_tensors

from ecgcmr.cmr.preprocessing import named_pipeline as cmr_pipeline
from ecgcmr.ecg.leads import LEADS
from ecgcmr.hub.expected import TOLERANCE, synthetic_cine, synthetic_recording, verify_weights
from ecgcmr.hub.weights import load_weights, save_weights


def test_synthetic_recording__obeys_einthoven_and_is_fixed() -> None:
    recording = synthetic_recording()
    rows = dict(zip(LEADS, recording.samples, strict=True))
    assert np.allclose(rows["I"] + rows["III"], rows["II"], atol=1e-6)
    assert np.allclose(rows["aVR"] + rows["aVL"] + rows["aVF"], 0, atol=1e-6)
    assert 0.8 < recording.samples[1].max() < 1.3  # an R wave of about 1 mV
    assert np.array_equal(recording.samples, synthetic_recording().samples)


def test_synthetic_cine__contracts() -> None:
    cine = synthetic_cine()
    bright = (cine.pixels[0] > 200).sum(axis=(1, 2))
    assert bright.argmin() in range(3, 7)
    assert bright.min() < 0.7 * bright[0]


def test_verify_weights__same_weights_pass(weights_folder: Path) -> None:
    errors = verify_weights(weights_folder)
    assert set(errors) == {"ecg", "cmr", "ecg_projection", "cmr_projection", "head"}
    assert max(errors.values()) < TOLERANCE


def test_verify_weights__other_weights_fail(weights_folder: Path) -> None:
    tensors = load_file(weights_folder / "model.safetensors")
    tensors["ecg.patch_embed.proj.weight"] = tensors["ecg.patch_embed.proj.weight"] * 1.1
    replace_tensors(weights_folder, tensors)
    with pytest.raises(ValueError, match="relative error ecg 0"):
        verify_weights(weights_folder)


def test_verify_weights__other_preprocessing_fails(weights_folder: Path) -> None:
    preprocess = json.loads((weights_folder / "preprocess.json").read_text())
    step = next(step for step in preprocess["ecg"]["steps"] if step["name"] == "scale_mv")
    step["unit_mv"] = 1.0
    (weights_folder / "preprocess.json").write_text(json.dumps(preprocess))
    with pytest.raises(ValueError, match="relative error ecg"):
        verify_weights(weights_folder)


def test_verify_weights__unknown_recipe(weights_folder: Path) -> None:
    edit(weights_folder / "expected.json", recipe="other")
    with pytest.raises(ValueError, match="recipe 'other' is not known"):
        verify_weights(weights_folder)


def test_save_weights__expected_does_not_depend_on_the_mode(
    weights_folder: Path, modules: dict[str, torch.nn.Module], tmp_path: Path
) -> None:
    cmr = modules["cmr"]
    cmr.train()
    try:
        card = {"name": "a", "stage": "b", "license": "MIT", "provenance": "simulated", "trained_on": "c"}
        other = save_weights(tmp_path / "w", {"cmr": cmr}, None, cmr_pipeline("three_frames", size=32), card)
        assert cmr.training
    finally:
        cmr.eval()
    stated = [
        json.loads((folder / "expected.json").read_text())["embeddings"]["cmr"] for folder in (other, weights_folder)
    ]
    assert stated[0] == stated[1]


def test_expected__is_what_the_modules_give_for_the_prepared_recipe(weights_folder: Path) -> None:
    weights = load_weights(weights_folder)
    assert weights.ecg_pipeline is not None
    x = torch.from_numpy(weights.ecg_pipeline(synthetic_recording())[None, :, :200])
    with torch.no_grad():
        embedding = weights.modules["ecg"](x)
        head: Any = weights.modules["head"]
        raw = head.layers(embedding)[0]
        projected = weights.modules["ecg_projection"](embedding)[0]
    outputs = weights.expected["outputs"]
    assert np.allclose(outputs["head"], [raw[0] * 20 + 100, torch.sigmoid(raw[1])], rtol=1e-5)
    assert np.allclose(outputs["ecg_projection"], projected, atol=1e-6)


@pytest.mark.parametrize("name", ["head", "ecg_projection"])
def test_verify_weights__heads_and_projections_are_held_to_their_word(weights_folder: Path, name: str) -> None:
    expected = json.loads((weights_folder / "expected.json").read_text())
    expected["outputs"][name][-1] += 0.01
    (weights_folder / "expected.json").write_text(json.dumps(expected))
    with pytest.raises(ValueError, match=f"relative error {name} "):
        verify_weights(weights_folder)


def test_verify_weights__a_folder_cannot_allow_itself_more(weights_folder: Path) -> None:
    expected = json.loads((weights_folder / "expected.json").read_text())
    expected["embeddings"]["ecg"][0] += 1.0
    (weights_folder / "expected.json").write_text(json.dumps({**expected, "tolerance": 1e9}))
    with pytest.raises(ValueError, match=r"allowed 0\.001"):
        verify_weights(weights_folder)
    (weights_folder / "expected.json").write_text(json.dumps({"recipe": expected["recipe"]}))
    with pytest.raises(ValueError, match=r"expected\.json: embeddings or tolerance is missing"):
        verify_weights(weights_folder)
