"""ViTMAE under Hugging Face's names: PTACL's variant and the plain layout, equal to an independent forward pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hf_vitmae_layout as layout
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ecgcmr.ecg.preprocessing import named_pipeline
from ecgcmr.hub.convert.contract import Converted
from ecgcmr.hub.convert.registry import convert, detect
from ecgcmr.hub.expected import synthetic_recording
from ecgcmr.hub.model import load_model
from ecgcmr.hub.weights import Weights, load_weights, save_weights
from ecgcmr.models.ecg_mae import EcgMae, Masking

OPTIONS = {"heads": "4", "decoder_heads": "2"}


def written(tmp_path: Path, state: dict[str, Tensor], name: str = "model.safetensors") -> Path:
    path = tmp_path / name
    if name.endswith(".safetensors"):
        save_file(state, path)
    else:
        torch.save({"state_dict": state}, path)
    return path


def folder(converted: Converted, tmp_path: Path) -> Path:
    parts = (converted.modules, converted.ecg_pipeline, converted.cmr_pipeline, converted.card, converted.head_options)
    return save_weights(tmp_path / "weights", *parts)


def weights_of(tmp_path: Path, state: dict[str, Tensor], **options: str) -> Weights:
    return load_weights(folder(convert(written(tmp_path, state), "vitmae", {**OPTIONS, **options}), tmp_path))


def ecg(rows: int = 2, n: int = 100) -> Tensor:
    return torch.randn(rows, 12, n, generator=torch.Generator().manual_seed(5))


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.detach().double(), expected, rtol=0, atol=1e-5)


PTACL = {"biases": "qv", "scale": "lo", "cls": False, "decoder": "ptacl"}
VARIANTS: dict[str, dict[str, Any]] = {
    "ptacl": PTACL,
    "ptacl with cls": {**PTACL, "cls": True},
    "scales after attention.output": {**PTACL, "scale": "ao"},
    "plain": {"biases": "qkv", "scale": "", "cls": True, "decoder": "plain"},
    "no biases": {"biases": "", "scale": "", "cls": True, "decoder": "plain"},
    "encoder alone": {**PTACL, "decoder": ""},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_convert_vitmae__gives_embedding_and_reconstruction_of_the_original(tmp_path: Path, name: str) -> None:
    state = layout.make_state(**VARIANTS[name])
    modules = weights_of(tmp_path, state).modules
    close(modules["ecg"](ecg()), layout.embed(state, ecg(), heads=4))
    assert set(modules) == ({"ecg", "ecg_decoder"} if VARIANTS[name]["decoder"] else {"ecg"})
    if "ecg_decoder" in modules:
        everything = torch.arange(48).expand(2, -1)
        masking = Masking(everything, everything, torch.zeros(2, 48))
        found = EcgMae(modules["ecg"], modules["ecg_decoder"])(ecg(), masking).patches
        close(found, layout.reconstruct(state, ecg(), heads=4, decoder_heads=2))


@pytest.mark.parametrize("way", ["norm_mean", "cls", "mean", "pre_norm"])
def test_convert_vitmae__each_way_to_an_embedding(tmp_path: Path, way: str) -> None:
    state = layout.make_state(cls=True)
    close(weights_of(tmp_path, state, embedding=way).modules["ecg"](ecg()), layout.embed(state, ecg(), 4, way=way))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_convert_vitmae__at_the_size_of_vit_base(tmp_path: Path) -> None:
    state = layout.make_state(**PTACL, width=768, depth=12, patch=100, windows=25, decoder_width=512)
    weights = load_weights(folder(convert(written(tmp_path, state), "vitmae"), tmp_path))
    close(weights.modules["ecg"](ecg(1, 2500)), layout.embed(state, ecg(1, 2500), heads=12))


def test_convert_vitmae__from_a_recording(tmp_path: Path) -> None:
    state, recording = layout.make_state(**PTACL), synthetic_recording()
    model = load_model(folder(convert(written(tmp_path, state), "vitmae", OPTIONS), tmp_path))
    prepared = torch.from_numpy(named_pipeline("reference")(recording))[None, :, :100]
    close(torch.from_numpy(model.embed(recording)), layout.embed(state, prepared, heads=4))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_convert_vitmae__reads_the_bare_encoder_and_both_kinds_of_files(tmp_path: Path, name: str) -> None:
    state = layout.make_state(**{**PTACL, "decoder": ""})
    bare = {key.removeprefix("vit."): value for key, value in state.items()}
    encoder = convert(written(tmp_path, bare, name), "vitmae", OPTIONS).modules["ecg"]
    close(encoder(ecg()), layout.embed(state, ecg(), heads=4))


def test_convert_vitmae__eps_and_heads_come_from_the_configuration_beside_the_file(tmp_path: Path) -> None:
    state = layout.make_state(**PTACL)
    for key in state:  # small tokens, so that eps is seen
        if key.endswith(("projection.weight", "projection.bias", "position_embeddings")):
            state[key] *= 1e-2
    path = written(tmp_path, state)
    stated = {"model_type": "vit_mae", "num_attention_heads": 2, "decoder_num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps({**stated, "layer_norm_eps": 1e-3}))
    converted = convert(path, "vitmae")
    expected = layout.embed(state, ecg(), heads=2, eps=1e-3)
    close(converted.modules["ecg"](ecg()), expected)
    assert (expected - layout.embed(state, ecg(), heads=2)).abs().max() > 1e-3
    assert converted.modules["ecg_decoder"].config["heads"] == 4
    assert any("as config.json says" in note for note in converted.notes)
    close(
        convert(path, "vitmae", {**OPTIONS, "norm_eps": "1e-6"}).modules["ecg"](ecg()),
        layout.embed(state, ecg(), heads=4, eps=1e-6),
    )


def test_convert_vitmae__another_input_length_interpolates_positions_and_leaves_the_decoder_out(tmp_path: Path) -> None:
    state = layout.make_state(**PTACL)
    converted = convert(written(tmp_path, state), "vitmae", {**OPTIONS, "n_samples": "200"})
    grid = state["vit.embeddings.position_embeddings"].view(1, 12, 4, 32).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, size=(12, 8), mode="bicubic", align_corners=False)
    longer = {**state, "vit.embeddings.position_embeddings": grid.permute(0, 2, 3, 1).reshape(1, 96, 32)}
    close(converted.modules["ecg"](ecg(n=200)), layout.embed(longer, ecg(n=200), heads=4))
    assert set(converted.modules) == {"ecg"}
    assert set(converted.dropped) == {key for key in state if key.startswith("decoder.")}


def test_convert_vitmae__the_decoder_can_be_left_out(tmp_path: Path) -> None:
    state = layout.make_state(**PTACL)
    converted = convert(written(tmp_path, state), "vitmae", {**OPTIONS, "decoder": "drop"})
    assert set(converted.modules) == {"ecg"}
    assert set(converted.dropped) == {key for key in state if key.startswith("decoder.")}


def test_detect__knows_the_names(tmp_path: Path) -> None:
    assert detect(written(tmp_path, layout.make_state())) == ["vitmae"]


def rename(state: dict[str, Tensor], old: str, new: str) -> None:
    state[new] = state.pop(old)


PROJECTION = "vit.embeddings.patch_embeddings.projection.weight"
LAYER = "vit.encoder.layer"
BREAKAGES = {
    "an image model": (
        lambda s: s.update({PROJECTION: torch.zeros(32, 3, 32, 40)}), r"32 rows and 40 columns of 3 channels"
    ),
    "one channel, two leads": (lambda s: s.update({PROJECTION: torch.zeros(32, 1, 2, 25)}), r"patches of 2 rows"),
    "positions of 11 leads": (
        lambda s: s.update({"vit.embeddings.position_embeddings": torch.zeros(1, 45, 32)}), r"44 rows .*12 leads"
    ),
    "a stray cls row": (lambda s: s.pop("vit.embeddings.cls_token"), r"49 rows for patches \(there is no cls\)"),
    "missing": (lambda s: s.pop(f"{LAYER}.1.output.dense.weight"), r"missing: vit\.encoder\.layer\.1\.output\.dense"),
    "half a pair of biases": (
        lambda s: s.pop(f"{LAYER}.0.attention.attention.v_bias"), r"missing: .*layer\.0\.attention\.attention\.v_bias"
    ),
    "a bias for k": (
        lambda s: s.update({f"{LAYER}.0.attention.attention.key.bias": torch.zeros(32)}),
        r"unexpected: .*attention\.key\.bias",
    ),
    "one scale": (
        lambda s: s.pop(f"{LAYER}.0.output.layerscale.layerscale_c"), r"layer\.0 has layerscale.*, expected two"
    ),
    "a scale without a layer": (
        lambda s: s.pop(f"{LAYER}.1.layerscale.layerscale_c"), r"missing: .*layer\.1\.layerscale\.layerscale_c"
    ),
    "renamed": (
        lambda s: rename(s, "vit.layernorm.bias", "vit.layer_norm.bias"),
        r"missing: vit\.layernorm\.bias; unexpected: vit\.layer_norm\.bias",
    ),
    "shape": (
        lambda s: s.update({f"{LAYER}.0.attention.attention.key.weight": torch.zeros(32, 16)}),
        r"key\.weight \(32, 16\) instead of \(32, 32\)",
    ),
    "decoder's shape": (
        lambda s: s.update({"decoder.decoder_pred.weight": torch.zeros(24, 16)}), r"\(24, 16\) instead of \(25, 16\)"
    ),
    "two names": (
        lambda s: s.update({"decoder.decoder_pos_embed": torch.zeros(1, 49, 16)}), "the same tensor under two names"
    ),
    "a classifier": (lambda s: s.update({"classifier.weight": torch.zeros(2, 32)}), r"unexpected: classifier\.weight"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKAGES)
def test_convert_vitmae__refuses_what_does_not_fit(tmp_path: Path, name: str) -> None:
    change, message = BREAKAGES[name]
    state = layout.make_state()
    change(state)
    path = written(tmp_path, state)
    with pytest.raises(ValueError, match=message) as caught:
        convert(path, "vitmae", OPTIONS)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({**OPTIONS, "heads": "5"}, "5 heads do not divide the width 32"),
        ({**OPTIONS, "decoder_heads": "3"}, "3 heads do not divide the width 16"),
        ({**OPTIONS, "norm_eps": "0"}, "norm_eps=0: expected a positive number"),
        ({**OPTIONS, "embedding": "last"}, "embedding=last"),
        ({**OPTIONS, "embedding": "cls"}, r"there is no vit\.embeddings\.cls_token"),
        ({**OPTIONS, "pipeline": "raw"}, "unknown ECG pipeline 'raw'"),
        ({**OPTIONS, "n_samples": "20000"}, r"reads 20000 samples, pipeline 'reference' gives 5000"),
        ({**OPTIONS, "n_samples": "110"}, "110 is not a multiple of patch 25"),
    ],
)
def test_convert_vitmae__refuses_options_without_meaning(tmp_path: Path, options: dict[str, str], message: str) -> None:
    path = written(tmp_path, layout.make_state(**PTACL))
    with pytest.raises(ValueError, match=message):
        convert(path, "vitmae", options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ('{"model_type": "vit_mae", "hidden_act": "relu"}', "hidden_act is 'relu'"),
        ('{"model_type": "vit_mae", "layer_norm_eps": "small"}', "layer_norm_eps must be positive numbers"),
    ],
)
def test_convert_vitmae__refuses_a_configuration_that_it_cannot_follow(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, layout.make_state())
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        convert(path, "vitmae", OPTIONS)
    (tmp_path / "config.json").write_text('{"model_type": "bert", "layer_norm_eps": 5}')  # of another model
    assert convert(path, "vitmae", OPTIONS).modules["ecg"].config["norm_eps"] == 1e-12


def test_convert_vitmae__a_small_file_that_claims_a_huge_network_is_refused_before_it_is_built(tmp_path: Path) -> None:
    state = layout.make_state()
    state[PROJECTION] = torch.zeros(200_000, 1, 1, 1)
    path = written(tmp_path, state)
    with pytest.raises(ValueError, match="of another shape"):
        convert(path, "vitmae", OPTIONS)
