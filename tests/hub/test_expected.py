"""expected.json tells whether weights, preprocessing and libraries still compute the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_weights import edit, replace_tensors

from ecgcmr.ecg.leads import LEADS
from ecgcmr.hub.expected import TOLERANCE, synthetic_cine, synthetic_recording, verify_weights


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
    assert set(errors) == {"ecg", "cmr"}
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


def test_save_weights__expected_does_not_depend_on_the_mode(modules: dict[str, torch.nn.Module]) -> None:
    from ecgcmr.hub.expected import _embed

    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    encoder = modules["cmr"]
    encoder.train()
    trained = _embed(encoder, x)
    assert encoder.training
    encoder.eval()
    assert trained == _embed(encoder, x)
