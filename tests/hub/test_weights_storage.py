"""Half precision halves the bytes and moves no output by more than a thousandth, or it is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ecgcmr.cmr.preprocessing import named_pipeline as cmr_pipeline
from ecgcmr.ecg.preprocessing import named_pipeline as ecg_pipeline
from ecgcmr.hub.expected import verify_weights
from ecgcmr.hub.storage import rebuild, to_storage
from ecgcmr.hub.weights import load_weights, save_weights
from ecgcmr.models.build import build_module

CARD = {"name": "half", "stage": "supervised", "license": "MIT", "provenance": "simulated", "trained_on": "24 subjects"}


@pytest.fixture
def half(modules: dict[str, nn.Module], tmp_path: Path) -> Path:
    pipelines = ecg_pipeline("highpass"), cmr_pipeline("three_frames", size=32)
    return save_weights(tmp_path / "half", modules, *pipelines, CARD, dtype="float16")


def test_save_weights__half_is_about_half_and_computes_the_same(half: Path, weights_folder: Path) -> None:
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (half, weights_folder)]
    assert 0.45 < sizes[0] / sizes[1] < 0.65
    config = json.loads((half / "config.json").read_text())
    assert config["storage"]["dtype"] == "float16"
    assert 0 < config["storage"]["largest_change"] <= 1e-3
    assert "Stored in float16" in (half / "README.md").read_text()
    whole = json.loads((weights_folder / "expected.json").read_text())
    stated = json.loads((half / "expected.json").read_text())
    for name in ("ecg", "cmr"):
        a, b = np.array(whole["embeddings"][name]), np.array(stated["embeddings"][name])
        assert 0 < np.linalg.norm(a - b) / np.linalg.norm(a) <= 1e-3
    # expected.json is what a loader sees, so only rounding of the processor is left.
    assert max(verify_weights(half).values()) < 1e-6
    for module in load_weights(half).modules.values():
        assert {value.dtype for value in module.state_dict().values() if value.is_floating_point()} == {torch.float32}


def test_to_storage__what_must_be_exact_stays_exact(modules: dict[str, nn.Module]) -> None:
    projection = build_module({"kind": "projection_head", "in_features": 8, "hidden": 8, "out": 4, "batch_norm": True})
    stored = to_storage({**modules, "ecg_projection": projection}, "float16")
    halves = {key for key, value in stored.items() if value.dtype == torch.float16}
    assert "ecg.blocks.0.attn.qkv.weight" in halves
    assert "head.layers.0.weight" in halves
    assert any(key.startswith("cmr.backbone") and stored[key].ndim == 4 for key in halves)
    for exact in ("running_mean", "running_var", "pos_embed", "mean", "std", "bias", "norm1.weight"):
        assert not [key for key in halves if key.endswith(f".{exact}")], exact
    assert not [key for key in halves if key.startswith("ecg_projection.layers.1.")]  # its BatchNorm
    for key, value in modules["ecg"].state_dict().items():
        if f"ecg.{key}" not in halves:
            assert torch.equal(stored[f"ecg.{key}"], value)


def test_to_storage__numbers_beyond_the_range_of_half_stay_in_float32(modules: dict[str, nn.Module]) -> None:
    head = build_module(dict(modules["head"].config))  # type: ignore[arg-type]
    with torch.no_grad():
        head.layers[0].weight[0, 0] = 1e5  # type: ignore[index,union-attr]
    assert to_storage({"head": head}, "float16")["head.layers.0.weight"].dtype == torch.float32
    with pytest.raises(ValueError, match="dtype is 'int4', expected float32 or float16"):
        to_storage({"head": head}, "int4")


def test_save_weights__refuses_half_where_an_output_moves_too_far(tmp_path: Path) -> None:
    """Large weights that nearly cancel, for an embedding sums to 0: half precision loses what is left, the answer."""
    torch.manual_seed(0)
    encoder = build_module({"kind": "ecg_vit", "n_samples": 200, "width": 32, "depth": 1, "heads": 2, "patch": 50})
    labels = [{"name": "LVM", "kind": "regression", "unit": "g"}]
    head = build_module({"kind": "prediction_head", "in_features": 32, "labels": labels})
    with torch.no_grad():
        head.layers[0].weight.copy_(2000.0 + 0.3 * torch.arange(32.0))  # type: ignore[union-attr,index]
    arguments = ({"ecg": encoder, "head": head}, ecg_pipeline("highpass"), None, CARD)
    with pytest.raises(ValueError, match=r"not written: in float16 .*head 0\.\d+.*store in float32"):
        save_weights(tmp_path / "w", *arguments, dtype="float16")
    assert list(tmp_path.iterdir()) == []
    save_weights(tmp_path / "w", *arguments)
    assert load_weights(tmp_path / "w").config["storage"] == {"dtype": "float32", "largest_change": 0.0, "exact": []}
    save_weights(tmp_path / "mixed", *arguments, dtype="float16", exact=["head"])
    assert "(head in float32)" in (tmp_path / "mixed" / "README.md").read_text()
    stored = load_file(tmp_path / "mixed" / "model.safetensors")
    assert torch.equal(stored["head.layers.0.weight"], head.state_dict()["layers.0.weight"])
    assert stored["ecg.blocks.0.attn.qkv.weight"].dtype == torch.float16
    verify_weights(tmp_path / "mixed")
    with pytest.raises(ValueError, match="exact names cmr, but the modules are ecg, head"):
        save_weights(tmp_path / "none", *arguments, dtype="float16", exact=["cmr"])


def test_rebuild__modules_that_their_configuration_does_not_describe(modules: dict[str, nn.Module]) -> None:
    head = build_module(dict(modules["head"].config))  # type: ignore[arg-type]
    head.extra = nn.Linear(2, 2)  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"unexpected: head\.extra\.bias, head\.extra\.weight"):
        rebuild({"head": head}, to_storage({"head": head}, "float32"), "float32")


def test_rebuild__lower_precision_in_memory_is_stored_in_float32(modules: dict[str, nn.Module]) -> None:
    head = build_module(dict(modules["head"].config)).to(torch.bfloat16)  # type: ignore[arg-type]
    stored = to_storage({"head": head}, "float32")
    assert {value.dtype for value in stored.values()} == {torch.float32}
    again = rebuild({"head": head}, stored, "float32")["head"].state_dict()
    assert torch.equal(again["layers.0.weight"].to(torch.bfloat16), head.state_dict()["layers.0.weight"])
