"""CARDIAC-FM: ECG tower, both heads and the temperature of the two-tower file, equal to an independent forward pass."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import two_tower_layout as layout
from torch import Tensor

from ecgcmr.hub.convert.contract import Converted
from ecgcmr.hub.convert.registry import convert, detect
from ecgcmr.hub.expected import synthetic_recording, verify_weights
from ecgcmr.hub.model import LoadedModel, load_model
from ecgcmr.hub.weights import save_weights

OPTIONS = {"heads": "4", "n_samples": "1000"}


def top_level(state: dict[str, Tensor], scale: float = 1 / 0.07) -> dict[str, Any]:
    """The file as the training program writes it: the temperature is the log of the factor of the cosines."""
    return {
        "epoch": 9, "model": state, "optimizer": {"state": {}}, "temperature": torch.tensor(math.log(scale)),
        "val_loss": 1.5,
    }  # fmt: skip


def written(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "stage1_cinema_m75.pth"
    torch.save(content, path)
    return path


def model_of(converted: Converted, tmp_path: Path) -> LoadedModel:
    parts = (converted.modules, converted.ecg_pipeline, converted.cmr_pipeline, converted.card, converted.head_options)
    return load_model(save_weights(tmp_path / "weights", *parts))


def ecg(rows: int = 2, n: int = 1000) -> Tensor:
    return torch.randn(rows, 12, n, generator=torch.Generator().manual_seed(5))


def close(found: Any, expected: Tensor) -> None:
    torch.testing.assert_close(torch.as_tensor(found).double(), expected, rtol=0, atol=1e-5)


def test_convert_cardiac_fm__gives_embedding_and_projections_of_the_original(tmp_path: Path) -> None:
    state = layout.make_state()
    model = model_of(convert(written(tmp_path, top_level(state)), "cardiac_fm", OPTIONS), tmp_path)
    assert list(model.weights.modules) == ["ecg", "ecg_projection", "cmr_projection"]
    expected = layout.embed(state, ecg(), heads=4, groups=4)
    found = model.weights.modules["ecg"](ecg()).detach()
    close(found, expected)
    close(model.project(found.numpy()), layout.project(state, "ecg", expected))
    of_cmr = torch.randn(3, 96, generator=torch.Generator().manual_seed(1))
    close(model.project(of_cmr.numpy(), "cmr"), layout.project(state, "mri", of_cmr))
    assert verify_weights(model.weights.folder)["ecg"] < 1e-5


@pytest.mark.parametrize("kernel", [7, 8])
def test_convert_cardiac_fm__odd_and_even_kernels_of_positions(tmp_path: Path, kernel: int) -> None:
    state = layout.make_state(kernel=kernel, groups=2)
    model = model_of(convert(written(tmp_path, top_level(state)), "cardiac_fm", OPTIONS), tmp_path)
    close(model.weights.modules["ecg"](ecg()).detach(), layout.embed(state, ecg(), heads=4, groups=2))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_convert_cardiac_fm__at_its_true_size(tmp_path: Path) -> None:
    state = layout.make_state(width=768, depth=12, hidden=3072, channels=256, kernel=128, groups=16, out=512)
    model = model_of(convert(written(tmp_path, top_level(state)), "cardiac_fm"), tmp_path)
    found = model.weights.modules["ecg"](ecg(1, 5000)).detach()
    close(found, layout.embed(state, ecg(1, 5000), heads=12, groups=16))
    assert model.weights.modules["ecg"].tokens == 312


def test_convert_cardiac_fm__from_a_recording(tmp_path: Path) -> None:
    state, recording = layout.make_state(), synthetic_recording()
    converted = convert(written(tmp_path, top_level(state)), "cardiac_fm", {**OPTIONS, "baseline": "none"})
    model = model_of(converted, tmp_path)
    middle = recording.samples[:, 2000:3000] / 0.005  # the two seconds in the middle, in steps of 5 uV
    expected = layout.embed(state, torch.from_numpy(middle.astype(np.float32))[None], heads=4, groups=4)
    close(model.embed(recording), expected)


@pytest.mark.parametrize("form", ["parametrized", "wrapped", "flat"])
def test_convert_cardiac_fm__forms_in_which_the_same_file_is_written(tmp_path: Path, form: str) -> None:
    plain = layout.make_state()
    state, content = dict(plain), top_level(plain)
    if form == "parametrized":
        for i, letter in enumerate("gv"):
            new = f"{layout.POSITIONS}parametrizations.weight.original{i}"
            state[new] = state.pop(f"{layout.POSITIONS}weight_{letter}")
        content = top_level(state)
    elif form == "wrapped":
        content = top_level({f"module.{key}": value for key, value in state.items()})
    else:
        content = {**state, "temperature": torch.tensor([2.0])}
    model = model_of(convert(written(tmp_path, content), "cardiac_fm", OPTIONS), tmp_path)
    close(model.weights.modules["ecg"](ecg()).detach(), layout.embed(plain, ecg(), heads=4, groups=4))


@pytest.mark.parametrize(("scale", "temperature"), [(1 / 0.07, 0.07), (40.0, 0.025), (250.0, 0.01)])
def test_convert_cardiac_fm__temperature_in_plain_numbers(tmp_path: Path, scale: float, temperature: float) -> None:
    converted = convert(written(tmp_path, top_level(layout.make_state(), scale)), "cardiac_fm", OPTIONS)
    assert converted.card.run["temperature"] == pytest.approx(temperature, rel=1e-6)


def test_convert_cardiac_fm__names_what_it_leaves_out_and_why(tmp_path: Path) -> None:
    state = layout.make_state()
    converted = convert(written(tmp_path, top_level(state)), "cardiac_fm", OPTIONS)
    held = {key for key in state if key.startswith(("ecg_encoder.", "ecg_projection.", "mri_projection."))}
    pretraining = {key for key in held if any(word in key for word in ("mask_emb", "quantizer", "final_proj"))}
    others = {"epoch", "optimizer", "val_loss"}
    assert set(converted.dropped) == (set(state) - held) | pretraining | others
    assert "three views" in converted.dropped["mri_encoder.mae.cls_token"]
    assert any("mri_encoder.* is left out" in note for note in converted.notes)


def test_convert_cardiac_fm__the_order_of_leads_and_every_sample_count(tmp_path: Path) -> None:
    state = layout.make_state()
    encoder = convert(written(tmp_path, top_level(state)), "cardiac_fm", OPTIONS).modules["ecg"]
    swapped = ecg()[:, [1, 0, *range(2, 12)]]
    assert (encoder(ecg()) - encoder(swapped)).abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"expected \(B, 12, 1000\)"):
        encoder(ecg(n=2000))


def test_detect__knows_the_two_towers(tmp_path: Path) -> None:
    assert detect(written(tmp_path, top_level(layout.make_state()))) == ["cardiac_fm"]


def rename(state: dict[str, Tensor], old: str, new: str) -> None:
    state[new] = state.pop(old)


LAYER = "ecg_encoder.encoder.layers"
BREAKAGES = {
    "missing": (lambda s: s.pop(f"{LAYER}.1.self_attn.k_proj.bias"), r"missing: encoder\.layers\.1\.self_attn\.k_proj"),
    "renamed": (
        lambda s: rename(s, f"{LAYER}.0.fc2.weight", f"{LAYER}.0.fc3.weight"),
        r"missing: encoder\.layers\.0\.fc2\.weight; unexpected: encoder\.layers\.0\.fc3\.weight",
    ),
    "shape": (
        lambda s: s.update({f"{LAYER}.0.self_attn.v_proj.weight": torch.zeros(32, 16)}),
        r"v_proj\.weight \(32, 16\) instead of \(32, 32\)",
    ),
    "other norms": (
        lambda s: s.update({"ecg_encoder.feature_extractor.conv_layers.1.2.1.weight": torch.ones(16)}),
        r"unexpected: feature_extractor\.conv_layers\.1\.2\.1\.weight",
    ),
    "biased": (
        lambda s: s.update({"ecg_encoder.feature_extractor.conv_layers.0.0.bias": torch.ones(16)}),
        r"unexpected: feature_extractor\.conv_layers\.0\.0\.bias",
    ),
    "one lead": (
        lambda s: s.update({"ecg_encoder.feature_extractor.conv_layers.0.0.weight": torch.zeros(16, 1, 2)}),
        "reads 1 leads, expected 12",
    ),
    "no ECG tower": (
        lambda s: [s.pop(key) for key in list(s) if key.startswith("ecg_encoder.")],
        r"no key begins with 'ecg_encoder\.'",
    ),
    "no head": (lambda s: s.pop("mri_projection.2.weight"), r"mri_projection\.2\.weight is missing"),
    "foreign head": (lambda s: s.update({"ecg_projection.2.weight": torch.zeros(8, 31)}), "reads 31 features"),
    "two spaces": (
        lambda s: s.update({"mri_projection.2.weight": torch.zeros(9, 96)}),
        r"\(9, 96\) instead of \(8, 96\)",
    ),
    "a third tower": (lambda s: s.update({"text_encoder.weight": torch.zeros(2)}), r"unexpected: text_encoder\.weight"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKAGES)
def test_convert_cardiac_fm__refuses_what_does_not_fit(tmp_path: Path, name: str) -> None:
    change, message = BREAKAGES[name]
    state = layout.make_state()
    change(state)
    path = written(tmp_path, top_level(state))
    with pytest.raises(ValueError, match=message) as caught:
        convert(path, "cardiac_fm", OPTIONS)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({**OPTIONS, "heads": "3"}, "3 heads do not divide the width 32"),
        ({**OPTIONS, "n_samples": "8"}, "leave no token"),
        ({**OPTIONS, "n_samples": "-5"}, "n_samples=-5"),
        ({**OPTIONS, "unit_mv": "inf"}, "unit_mv=inf: expected a positive number"),
        ({**OPTIONS, "baseline": "lowess"}, "baseline=lowess: expected one of highpass, none"),
    ],
)
def test_convert_cardiac_fm__refuses_options_without_meaning(
    tmp_path: Path, options: dict[str, str], message: str
) -> None:
    path = written(tmp_path, top_level(layout.make_state()))
    with pytest.raises(ValueError, match=message):
        convert(path, "cardiac_fm", options)


@pytest.mark.parametrize("value", [None, torch.tensor([1.0, 2.0]), torch.tensor(math.nan), "warm"])
def test_convert_cardiac_fm__needs_a_temperature(tmp_path: Path, value: Any) -> None:
    content = {**top_level(layout.make_state()), "temperature": value}
    with pytest.raises(ValueError, match="temperature is missing or no number"):
        convert(written(tmp_path, content), "cardiac_fm", OPTIONS)


def test_convert_cardiac_fm__a_small_file_that_claims_a_huge_network_is_refused_before_it_is_built(
    tmp_path: Path,
) -> None:
    state = layout.make_state()
    state["ecg_encoder.encoder.layers.0.fc1.weight"] = torch.zeros(1, 200_000)
    state["ecg_encoder.encoder.layers.0.fc1.bias"] = torch.zeros(1)
    path = written(tmp_path, top_level(state))
    with pytest.raises(ValueError, match="of another shape"):
        convert(path, "cardiac_fm", OPTIONS)
