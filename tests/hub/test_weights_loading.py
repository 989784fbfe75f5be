"""What loads and what does not is said by key; a head is made anew only when somebody asks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_weights import edit, replace_tensors

from ecgcmr.ecg.preprocessing import named_pipeline
from ecgcmr.hub.expected import synthetic_recording
from ecgcmr.hub.load_report import LoadReport, fill_modules, fit_tensors
from ecgcmr.hub.model import load_model
from ecgcmr.hub.weights import load_weights
from ecgcmr.models.build import build_module
from ecgcmr.models.heads import PredictionHead

LABELS = [{"name": "LVEF", "kind": "regression", "unit": "%"}, {"name": "af", "kind": "binary"}]


def test_report__every_stored_tensor_is_loaded(ecg_folder: Path) -> None:
    report = load_weights(ecg_folder).report
    assert set(report.loaded) == set(load_file(ecg_folder / "model.safetensors"))
    assert report.fits
    assert str(report) == f"loaded {len(report.loaded)}, missing 0, unexpected 0, mismatched 0, reset 0"
    assert report.problems() == ""


def test_fit_tensors__sorts_the_keys() -> None:
    head = PredictionHead({"in_features": 3, "labels": LABELS})
    given = {
        "head.layers.0.weight": torch.zeros(2, 4),
        "head.layers.0.bias": torch.zeros(2, dtype=torch.float64),
        "head.mean": torch.ones(2),
        "head.more": torch.zeros(1),
    }
    report = fit_tensors({"head": head}, given)
    assert report == LoadReport(
        loaded=("head.mean",),
        missing=("head.std",),
        unexpected=("head.more",),
        mismatched=(
            "head.layers.0.weight (2, 4) instead of (2, 3)", "head.layers.0.bias float64 instead of float32",
        ),
    )  # fmt: skip
    assert not report.fits
    assert "missing: head.std; unexpected: head.more" in str(report)
    fill_modules({"head": head}, given, report)
    assert head.mean.tolist() == [1.0, 1.0]
    assert head.std.tolist() == [1.0, 1.0]


def test_fit_tensors__whole_numbers_keep_their_type() -> None:
    norm = torch.nn.BatchNorm1d(2)
    given = {f"n.{key}": value for key, value in norm.state_dict().items()}
    assert fit_tensors({"n": norm}, given).fits
    given["n.num_batches_tracked"] = torch.tensor(3.0)
    (message,) = fit_tensors({"n": norm}, given).mismatched
    assert message == "n.num_batches_tracked float32 instead of int64"


def test_load_weights__half_precision_that_is_not_declared_is_refused(ecg_folder: Path) -> None:
    tensors = load_file(ecg_folder / "model.safetensors")
    replace_tensors(ecg_folder, {key: value.half() for key, value in tensors.items()})
    with pytest.raises(ValueError, match=r"ecg\.cls_token float16 instead of float32"):
        load_weights(ecg_folder)
    edit(ecg_folder / "config.json", storage={"dtype": "int8"})
    with pytest.raises(ValueError, match=r"storage\.dtype 'int8', expected float32 or float16"):
        load_weights(ecg_folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_load_weights__numbers_that_are_not_finite_are_named(ecg_folder: Path, value: float) -> None:
    tensors = load_file(ecg_folder / "model.safetensors")
    tensors["ecg.blocks.0.mlp.fc1.weight"][3, 2] = value
    replace_tensors(ecg_folder, tensors)
    with pytest.raises(ValueError, match=r"not finite .*: ecg\.blocks\.0\.mlp\.fc1\.weight;"):
        load_weights(ecg_folder)


def test_load_weights__a_missing_backbone_is_an_error_even_with_a_new_head(ecg_folder: Path) -> None:
    tensors = load_file(ecg_folder / "model.safetensors")
    gone = [key for key in tensors if key.startswith("ecg.blocks.0.attn")]
    replace_tensors(ecg_folder, {key: value for key, value in tensors.items() if key not in gone})
    for labels in (None, LABELS):
        with pytest.raises(ValueError, match="missing: ") as caught:
            load_weights(ecg_folder, reset_head=labels)
        assert all(key in str(caught.value) for key in gone)


def test_reset_head__takes_the_place_of_the_stored_one(ecg_folder: Path) -> None:
    old = load_weights(ecg_folder)
    new = load_weights(ecg_folder, reset_head=LABELS, head_seed=5)
    assert new.config["labels"] == [LABELS[0], {"name": "af", "kind": "binary", "unit": ""}]
    assert set(new.report.reset) == {f"head.{key}" for key in new.modules["head"].state_dict()}
    assert set(new.report.loaded) == {key for key in old.report.loaded if key.startswith("ecg.")}
    for key, value in old.modules["ecg"].state_dict().items():
        assert torch.equal(new.modules["ecg"].state_dict()[key], value)
    head = new.modules["head"]
    assert isinstance(head, PredictionHead)
    assert head.mean.tolist() == [0.0, 0.0]
    assert not torch.equal(head.layers[0].weight, old.modules["head"].layers[0].weight)  # type: ignore[union-attr,index]


def test_reset_head__its_values_come_from_the_seed_alone(ecg_folder: Path) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one, same = (load_weights(ecg_folder, LABELS, head_seed=5).modules["head"].state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    other = load_weights(ecg_folder, LABELS, head_seed=6).modules["head"].state_dict()
    assert torch.equal(one["layers.0.weight"], same["layers.0.weight"])
    assert not torch.equal(one["layers.0.weight"], other["layers.0.weight"])


def test_reset_head__a_stored_head_that_does_not_fit_hinders_only_without_it(ecg_folder: Path) -> None:
    tensors = load_file(ecg_folder / "model.safetensors")
    tensors["head.layers.0.weight"] = torch.zeros(9, 9)
    replace_tensors(ecg_folder, tensors)
    with pytest.raises(ValueError, match=r"head\.layers\.0\.weight \(9, 9\)"):
        load_weights(ecg_folder)
    assert load_weights(ecg_folder, LABELS).report.fits


def test_reset_head__needs_labels_and_an_encoder(weights_folder: Path) -> None:
    with pytest.raises(ValueError, match="reset_head is empty"):
        load_weights(weights_folder, [])
    with pytest.raises(ValueError, match=r"(?s)config\.json: .*labels\.0\.kind"):
        load_weights(weights_folder, [{"name": "x", "kind": "colour"}])


def test_reset_head__on_weights_without_a_head(modules: dict[str, torch.nn.Module], tmp_path: Path) -> None:
    from ecgcmr.hub.weights import save_weights

    card = {"name": "a", "stage": "masked_ecg", "license": "MIT", "provenance": "simulated", "trained_on": "c"}
    folder = save_weights(tmp_path / "w", {"ecg": modules["ecg"]}, named_pipeline("highpass"), None, card)
    weights = load_weights(folder, LABELS)
    with torch.no_grad():
        assert weights.modules["head"](torch.zeros(1, 32)).shape == (1, 2)
    assert load_weights(folder).config["labels"] == []


def test_load_model__reads_reset_free_folders_as_before(ecg_folder: Path) -> None:
    table = load_model(ecg_folder).predict(synthetic_recording())
    assert {"LVM", "mi"} <= set(table.columns)


def test_build_module__random_state_is_left_alone_by_loading(ecg_folder: Path) -> None:
    torch.manual_seed(3)
    first = build_module({"kind": "projection_head", "in_features": 4, "hidden": 3, "out": 2}).state_dict()
    torch.manual_seed(3)
    load_weights(ecg_folder)
    second = build_module({"kind": "projection_head", "in_features": 4, "hidden": 3, "out": 2}).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
