"""ECCL and CardiacNets: the ECG tower gives the original's embedding; what is not converted is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import vit_layout as layout
from torch import Tensor

from ecgcmr.ecg.steps import STEPS
from ecgcmr.hub.convert.registry import convert, detect
from ecgcmr.hub.convert.vit import DING_SIZES, VitSize, choose_heads
from ecgcmr.hub.convert.writing import convert_file, report
from ecgcmr.hub.weights import load_weights

OTHERS = {
    "CMR_encoder1.layers.0.blocks.0.attn.qkv.weight": torch.ones(3),
    "CMR_encoder1.layers.0.blocks.1.attn.qkv.weight": torch.ones(3),
    "CMR_encoder2.patch_embed.proj.weight": torch.ones(3),
    "mask_model1.decoder.weight": torch.ones(2),
    "temperature": torch.ones(1),
    "ECG_encoder.head.weight": torch.ones(256, 4),
}


def saved(folder: Path, state: dict[str, Tensor], **more: Tensor) -> Path:
    tower = {f"ECG_encoder.{key}": value for key, value in state.items()}
    torch.save({"model": tower | OTHERS | more}, folder / "checkpoint.pth")
    return folder / "checkpoint.pth"


@torch.no_grad()
@pytest.mark.parametrize(
    ("d", "depth", "heads"),
    [
        (128, 2, 2),
        pytest.param(768, 12, 12, marks=pytest.mark.slow),
        pytest.param(1024, 3, 16, marks=pytest.mark.slow),
    ],
)
def test_eccl__gives_the_embedding_of_the_ecg_tower(d: int, depth: int, heads: int, tmp_path: Path) -> None:
    state = layout.encoder_state(d, depth, n_samples=5000, learned=True)
    assert state["pos_embed"].shape == (1, 601, d)
    converted = convert_file(saved(tmp_path, state), "eccl", tmp_path / "w")
    weights, ecg = load_weights(tmp_path / "w"), layout.prepared(1, n_samples=5000).clamp(-1, 1)
    assert (weights.modules["ecg"](ecg) - layout.embed(state, ecg, heads, "cls")).abs().max() <= 1e-5
    assert set(converted.dropped) == set(OTHERS)
    text = "\n".join(report(converted))
    assert "CMR_encoder1.layers.*.blocks.*.attn.qkv.weight (2), CMR_encoder2.patch_embed.proj.weight" in text
    assert "ECG_encoder.head.weight: head of the ECG tower" in text
    assert weights.ecg_pipeline is not None
    assert weights.ecg_pipeline.name == "eccl"
    assert weights.config["license"].startswith("unknown")


def test_eccl__large_tower_has_the_published_heads() -> None:
    """The whole of ViT-L would take several GB here; its width is tried above, its depth adds nothing but time."""
    size = VitSize(width=1024, depth=24, hidden=4096, patch=100, tokens=600)
    assert choose_heads(size, DING_SIZES, {"heads": "auto"}, Path("a.pth"))[0] == 16
    assert len(size.shapes()) == 4 + 24 * 12 + 2
    assert size.n_samples == 5000


def test_eccl__is_told_from_its_keys(tmp_path: Path) -> None:
    assert detect(saved(tmp_path, layout.encoder_state(64, 1))) == ["eccl"]


@torch.no_grad()
def test_eccl__takes_fc_norm_where_the_tower_has_one(tmp_path: Path) -> None:
    state, ecg = layout.encoder_state(64, 1), layout.prepared()
    weight, bias = torch.linspace(0.5, 2, 64), torch.linspace(-1, 1, 64)
    path = saved(tmp_path, {**state, "fc_norm.weight": weight, "fc_norm.bias": bias})
    found = convert(path, "eccl", {"embedding": "mean"}).modules["ecg"](ecg)
    pooled = layout.tokens(state, ecg, 1)[:, 1:].mean(1)
    assert (found - layout.layer_norm(pooled, weight, bias)).abs().max() <= 1e-5
    assert "not used by the embedding 'cls'" in convert(path, "eccl").dropped["ECG_encoder.fc_norm.bias"]


def test_eccl__refuses_a_tower_with_covariates(tmp_path: Path) -> None:
    state = layout.encoder_state(64, 1) | {"films.0.linear.weight": torch.ones(128, 24)}
    with pytest.raises(ValueError, match=r"ECG_encoder\.films\.0\.linear\.weight.*covariates"):
        convert(saved(tmp_path, state), "eccl")


def test_eccl__refuses_by_key(tmp_path: Path) -> None:
    state = layout.encoder_state(64, 2)
    del state["blocks.1.norm2.bias"]
    with pytest.raises(ValueError, match=r"missing: blocks\.1\.norm2\.bias"):
        convert(saved(tmp_path, state), "eccl")
    torch.save({"model": OTHERS}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="cls_token is missing"):
        convert(tmp_path / "a.pth", "eccl")
    torch.save({"model": layout.encoder_state(64, 1)}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"no key begins with 'ECG_encoder\.'"):
        convert(tmp_path / "b.pth", "eccl")


def beats(period: int, n: int = 5000) -> np.ndarray:
    """A periodic rhythm in 12 leads with an offset of their own."""
    t = np.arange(n) % period
    one = np.exp(-0.5 * ((t - 0.4 * period) / 5.0) ** 2) + 0.2 * np.exp(-0.5 * ((t - 0.7 * period) / 25.0) ** 2)
    return np.outer(np.linspace(0.5, 2.0, 12), one) + np.arange(12)[:, None]


@pytest.mark.parametrize("period", [400, 433])
def test_beat_trend__of_a_periodic_rhythm_is_its_mean_over_a_beat(period: int) -> None:
    samples = beats(period)
    out, rate = STEPS["beat_trend"](samples, 500.0)
    inside = slice(period, -period)
    expected = samples - samples[:, :period].mean(axis=1, keepdims=True)
    assert rate == 500.0
    # The beat is found to a bin of 10 ms, so that the window may be some samples off.
    assert np.abs(out[:, inside] - expected[:, inside]).max() < 0.02 * np.ptp(samples[11])


def test_beat_trend__keeps_a_slope_out_and_a_flat_recording_flat() -> None:
    slope = np.linspace(0.0, 3.0, 5000)[None] * np.ones((12, 1))
    drift = STEPS["beat_trend"](beats(400) + slope, 500.0)[0] - STEPS["beat_trend"](beats(400), 500.0)[0]
    assert np.abs(drift[:, 300:-300]).max() < 1e-9
    assert np.abs(STEPS["beat_trend"](np.full((12, 5000), 2.0), 500.0)[0]).max() < 1e-12
    assert np.abs(STEPS["beat_trend"](np.ones((12, 3)), 500.0)[0]).max() < 1e-12


def test_lead_minmax__maps_each_lead_to_minus_one_and_one() -> None:
    samples = np.random.default_rng(0).normal(size=(12, 100)) * np.arange(12)[:, None]
    out, _ = STEPS["lead_minmax"](samples, 500.0)
    assert np.array_equal(out[0], np.zeros(100))
    assert np.allclose(out[1:].min(axis=1), -1)
    assert np.allclose(out[1:].max(axis=1), 1)
    assert np.allclose(STEPS["lead_minmax"](3.0 * samples + 7.0, 500.0)[0], out)
