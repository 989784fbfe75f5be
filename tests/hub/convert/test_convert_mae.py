"""Masked autoencoders of all published sizes give the embedding of the original; wrong files are refused by key."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import vit_layout as layout
from torch import Tensor

from ecgcmr.hub.convert.contract import Converted
from ecgcmr.hub.convert.registry import convert
from ecgcmr.hub.convert.writing import convert_file, report
from ecgcmr.hub.expected import synthetic_recording
from ecgcmr.hub.model import load_model
from ecgcmr.hub.weights import Weights, load_weights
from ecgcmr.models.ecg_mae import EcgMae, Masking

QUICK = ("pluto", "tiny")
SIZES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in layout.MAE_SIZES]


def checkpoint(path: Path, state: dict[str, Tensor], **top: object) -> Path:
    """A file as the training program of the reference writes it, an argparse.Namespace among its content."""
    args = argparse.Namespace(model="mae_vit", input_size=(1, 12, 2500), mask_ratio=0.8)
    rest = {"optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}, "scaler": {"scale": 1.0}}
    torch.save({"model": OrderedDict(state), "epoch": 399, "args": args, **rest, **top}, path)
    return path


def tiny(**changes: object) -> dict[str, Tensor]:
    return {**layout.encoder_state(384, 3), **changes}  # type: ignore[dict-item]


def through(path: Path, name: str, **options: str) -> tuple[Converted, Weights]:
    """File, conversion, folder, loading: the whole way that a user goes."""
    converted = convert_file(path, name, path.parent / "weights", options)
    return converted, load_weights(path.parent / "weights")


@torch.no_grad()
@pytest.mark.parametrize("size", SIZES)
def test_mae__gives_embedding_and_reconstruction_of_every_size(size: str, tmp_path: Path) -> None:
    d, depth, heads, width, decoder_depth, decoder_heads = layout.MAE_SIZES[size]
    state = layout.encoder_state(d, depth) | layout.decoder_state(d, width, decoder_depth) | layout.siamese_state(d)
    converted, weights = through(checkpoint(tmp_path / "checkpoint-399-ncc-0.98.pth", state), "mae")

    ecg = layout.prepared()
    found = weights.modules["ecg"](ecg)
    assert (found - layout.embed(state, ecg, heads, "norm_mean")).abs().max() <= 1e-5

    order = torch.stack([torch.randperm(300, generator=torch.Generator().manual_seed(i)) for i in range(2)])
    keep, hidden = order[:, :59], torch.ones(2, 300)
    mae = EcgMae(weights.modules["ecg"], weights.modules["ecg_decoder"])  # type: ignore[arg-type]
    out = mae(ecg, Masking(keep, order.argsort(1), hidden.scatter(1, keep, 0.0))).patches
    visible = layout.layer_norm(layout.tokens(state, ecg, heads, keep), state["norm.weight"], state["norm.bias"])
    assert (out - layout.decode(state, visible, keep, decoder_heads)).abs().max() <= 1e-5

    assert {key.split(".")[0] for key in converted.dropped} == {
        "args", "epoch", "optimizer", "predictor", "projector", "scaler",
    }  # fmt: skip
    assert all("siamese" in why for key, why in converted.dropped.items() if key.startswith("pr"))


@torch.no_grad()
@pytest.mark.parametrize("how", ["norm_mean", "cls", "mean", "pre_norm"])
@pytest.mark.parametrize("name", ["mae", "signal_encoder_mdm"])
def test_mae__gives_each_embedding_that_the_file_allows(name: str, how: str, tmp_path: Path) -> None:
    state, ecg = tiny(), layout.prepared()
    converted, weights = through(checkpoint(tmp_path / "a.pth", state), name, embedding=how)
    assert (weights.modules["ecg"](ecg) - layout.embed(state, ecg, 6, how)).abs().max() <= 1e-5
    assert "ecg_decoder" not in weights.modules
    assert any(note.startswith("Embedding: ") for note in converted.notes)


@torch.no_grad()
def test_mdm__embeds_a_recording_from_its_start_after_the_reference_chain(tmp_path: Path) -> None:
    state = tiny()
    convert_file(checkpoint(tmp_path / "signal_encoder_mdm.pth", state), "signal_encoder_mdm", tmp_path / "w")
    model = load_model(tmp_path / "w")
    assert model.weights.ecg_pipeline is not None
    assert model.weights.ecg_pipeline.name == "reference"
    recording = synthetic_recording()
    array = torch.from_numpy(model.weights.ecg_pipeline(recording))[None, :, :2500]
    expected = layout.embed(state, array, 6, "norm_mean")
    assert (torch.from_numpy(model.embed(recording)) - expected).abs().max() <= 1e-5


@torch.no_grad()
def test_mae__at_5000_samples_interpolates_positions_along_time_only(tmp_path: Path) -> None:
    state = tiny() | layout.decoder_state(384, 256, 2)
    converted, weights = through(checkpoint(tmp_path / "a.pth", state), "mae", n_samples="5000")
    grid = state["pos_embed"][:, 1:].reshape(1, 12, 25, 384).permute(0, 3, 1, 2)
    lead_by_lead = [  # each lead by itself: cubic along time
        torch.nn.functional.interpolate(grid[:, :, lead : lead + 1], (1, 50), mode="bicubic", align_corners=False)
        for lead in range(12)
    ]
    rows = torch.cat(lead_by_lead, dim=2).permute(0, 2, 3, 1).reshape(1, 600, 384)
    longer = {**state, "pos_embed": torch.cat([state["pos_embed"][:, :1], rows], dim=1)}
    ecg = layout.prepared(n_samples=5000)
    assert (weights.modules["ecg"](ecg) - layout.embed(longer, ecg, 6, "norm_mean")).abs().max() <= 1e-5
    assert "2500 samples and not for 5000" in converted.dropped["decoder_norm.weight"]
    assert any("2500 to 5000 samples" in note for note in converted.notes)


def test_mae__drops_the_decoder_only_when_told(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.pth", tiny() | layout.decoder_state(384, 256, 2))
    assert "ecg_decoder" in convert(path, "mae").modules
    dropped = convert(path, "mae", {"decoder": "drop"}).dropped
    assert "as the option says" in dropped["decoder_pred.weight"]
    assert "mask_token" in dropped


def test_mae__takes_half_precision_and_wrapped_and_legacy_files(tmp_path: Path) -> None:
    state = {f"module.{key}": value.half() for key, value in tiny().items()}
    torch.save({"state_dict": state}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    encoder = convert(tmp_path / "a.pth", "mae").modules["ecg"]
    assert torch.equal(encoder.state_dict()["norm.bias"], state["module.norm.bias"].float())


def test_mae__refuses_an_unknown_width_without_heads(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.pth", layout.encoder_state(48, 1))
    with pytest.raises(ValueError, match=r"width 48, depth 1 is no published size.*heads=N"):
        convert(path, "mae")
    assert convert(path, "mae", {"heads": "4"}).modules["ecg"].config["heads"] == 4
    with pytest.raises(ValueError, match="heads=5 does not divide the width 48"):
        convert(path, "mae", {"heads": "5"})


def shuffled_table(kind: str) -> Tensor:
    table = layout.sincos(25, 384)
    if kind == "halves":
        return torch.cat([table[..., 192:], table[..., :192]], dim=-1)
    if kind == "time":
        rows = table[:, 1:].reshape(12, 25, 384).transpose(0, 1).reshape(1, 300, 384)
        return torch.cat([table[:, :1], rows], dim=1)
    if kind == "trained":
        return table + 0.01 * torch.randn(table.shape, generator=torch.Generator().manual_seed(0))
    return table[:, torch.randperm(301, generator=torch.Generator().manual_seed(0))]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("halves", "time and lead are exchanged"),
        ("time", "rows go by time"),
        ("trained", "signal_encoder_mmcl"),
        ("shuffled", "exchanged"),
    ],
)
def test_mae__refuses_a_position_table_that_is_not_sin_cos(kind: str, said: str, tmp_path: Path) -> None:
    table = shuffled_table(kind)
    path = checkpoint(tmp_path / "a.pth", tiny(pos_embed=table))
    for name in ("mae", "signal_encoder_mdm"):
        with pytest.raises(ValueError, match=rf"a\.pth: pos_embed is up to .*{said}.*positions=keep"):
            convert(path, name)
    kept = convert(path, "mae", {"positions": "keep"})
    assert torch.equal(kept.modules["ecg"].state_dict()["pos_embed"], table)
    assert any("is kept as the option says" in note for note in kept.notes)


def test_mae__takes_a_table_with_rounding_as_it_is_and_says_so(tmp_path: Path) -> None:
    table = layout.sincos(25, 384) + 3e-6
    converted = convert(checkpoint(tmp_path / "a.pth", tiny(pos_embed=table)), "mae")
    assert torch.equal(converted.modules["ecg"].state_dict()["pos_embed"], table)
    assert any("as rounding would" in note for note in converted.notes)


def test_mae__finds_a_decoder_whose_positions_were_exchanged(tmp_path: Path) -> None:
    decoder = layout.decoder_state(384, 256, 2)
    decoder["decoder_pos_embed"] = decoder["decoder_pos_embed"].flip(1)
    with pytest.raises(ValueError, match="decoder_pos_embed is up to"):
        convert(checkpoint(tmp_path / "a.pth", tiny() | decoder), "mae")


def renamed(state: dict[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {key.replace(old, new): value for key, value in state.items()}


WRONG = {
    "missing": (
        lambda s: {k: v for k, v in s.items() if k != "blocks.1.attn.proj.bias"},
        r"blocks\.1\.attn\.proj\.bias",
    ),
    "no cls": (lambda s: {k: v for k, v in s.items() if k != "cls_token"}, "cls_token is missing"),
    "a block": (lambda s: {k: v for k, v in s.items() if not k.startswith("blocks.1.")}, r"missing: blocks\.1\.\*"),
    "unexpected": (lambda s: {**s, "extra.weight": torch.ones(2)}, r"unexpected: extra\.weight"),
    "renamed": (lambda s: renamed(s, "attn.qkv", "attn.to_qkv"), r"missing: blocks\.0\.attn\.qkv.*unexpected:.*to_qkv"),
    "shape": (
        lambda s: {**s, "blocks.2.attn.qkv.weight": torch.ones(384, 1152)},
        r"blocks\.2\.attn\.qkv\.weight \(384, 1152\) instead of \(1152, 384\)",
    ),
    "transposed patches": (
        lambda s: {**s, "patch_embed.proj.weight": torch.ones(384, 1, 100, 1)},
        r"patch_embed\.proj\.weight has shape \(384, 1, 100, 1\)",
    ),
    "positions": (
        lambda s: {**s, "pos_embed": torch.zeros(1, 300, 384)},
        "299 rows beside that of cls, no multiple of 12",
    ),
    "nan": (lambda s: {**s, "norm.bias": torch.full((384,), torch.nan)}, r"not finite: norm\.bias"),
    "half a decoder": (
        lambda s: {**s, "mask_token": torch.zeros(1, 1, 256)},
        r"no key like decoder_blocks\.0\.\*",
    ),
    "fine-tuned": (lambda s: {**s, "head.weight": torch.ones(2, 384), "head.bias": torch.ones(2)}, "mae_finetuned"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_mae__refuses_by_key(kind: str, tmp_path: Path) -> None:
    change, said = WRONG[kind]
    path = checkpoint(tmp_path / "wrong.pth", change(tiny()))
    with pytest.raises(ValueError, match=said) as caught:
        convert_file(path, "mae", tmp_path / "weights")
    assert "wrong.pth" in str(caught.value)
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_samples": "2550"}, "no multiple of the patch of 100"),
        ({"n_samples": "-5"}, "positive whole number"),
        ({"n_samples": "6000"}, "gives 5000"),
        ({"pipeline": "refrence"}, "unknown ECG pipeline"),
        ({"rate_hz": "fast"}, "positive number"),
        ({"embedding": "max"}, "norm_mean, cls, mean, pre_norm"),
        ({"positions": "ignore"}, "check, keep"),
        ({"decoder": "yes"}, "auto, drop"),
        ({"head": "3"}, "did you mean heads"),
    ],
)
def test_mae__refuses_options_by_name_and_value(options: dict[str, str], said: str, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.pth", layout.encoder_state(64, 1) | layout.decoder_state(64, 128, 2))
    with pytest.raises(ValueError, match=said):
        convert(path, "mae", options)


def test_mae__another_rate_changes_the_step_that_resamples(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.pth", layout.encoder_state(64, 1))
    pipeline = convert(path, "mae", {"rate_hz": "250"}).ecg_pipeline
    assert pipeline is not None
    assert (pipeline.rate_hz, pipeline.n_samples, pipeline.name) == (250.0, 2500, "reference_250hz")


def test_mae__card_says_whose_weights_they_are(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.pth", layout.encoder_state(64, 1) | layout.siamese_state(64))
    converted, weights = through(path, "mae")
    text = (weights.folder / "README.md").read_text()
    assert "Third-party weights" in text
    assert weights.config["license"] == "CC-BY-NC-4.0"
    assert weights.config["provenance"].startswith("unknown")
    assert "a.pth (third-party weights; sha256 " in text
    assert "projector.*.weight (2)" in text
    stated = {"license": "MIT", "provenance": "public: PTB-XL"}
    assert convert(path, "mae", stated).card.provenance == "public: PTB-XL"
    lines = report(converted)
    assert lines[0].startswith("loaded   ecg: EcgViT, 18 tensors")
    assert any(line.startswith("dropped  projector") and "siamese" in line for line in lines)
