"""Fine-tuned checkpoints: the embedding after one fc_norm, the outputs after two, as the reference computes them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import vit_layout as layout
from torch import Tensor

from ecgcmr.hub.convert.contract import Converted
from ecgcmr.hub.convert.registry import convert, detect
from ecgcmr.hub.convert.writing import convert_file
from ecgcmr.hub.model import LoadedModel, load_model


def saved(folder: Path, pool: str = "attention", outputs: int = 2, **changes: Tensor) -> tuple[Path, dict[str, Tensor]]:
    state = layout.finetuned_state(384, 3, pool, outputs) | changes
    torch.save({"model": state, "epoch": 12}, folder / "checkpoint-12-auc-0.80.pth")
    return folder / "checkpoint-12-auc-0.80.pth", state


def through(path: Path, **options: str) -> tuple[Converted, LoadedModel]:
    converted = convert_file(path, "mae_finetuned", path.parent / "w", options)
    return converted, load_model(path.parent / "w")


@torch.no_grad()
@pytest.mark.parametrize("pool", ["attention", "mean", "cls"])
def test_finetuned__gives_embedding_and_probabilities(pool: str, tmp_path: Path) -> None:
    path, state = saved(tmp_path, pool)
    converted, model = through(path)
    ecg = layout.prepared()
    vector, logits = layout.finetuned(state, ecg, 6, pool)
    embedding = model.weights.modules["ecg"](ecg)
    assert (embedding - vector).abs().max() <= 1e-5
    assert (model.predict_from(embedding) - logits.softmax(-1)).abs().max() <= 1e-5
    again = model.weights.modules["ecg"].fc_norm(embedding) if pool != "cls" else embedding
    assert (model.weights.modules["head"](again) - logits).abs().max() <= 1e-5
    assert model.weights.config["head_options"] == ({} if pool == "cls" else {"double_fc_norm": True})
    if pool != "cls":  # the second norm is no formality: without it the outputs are others
        once = vector @ state["head.weight"].T + state["head.bias"]
        assert (once - logits).abs().max() > 0.01
        assert any("applied twice" in note for note in converted.notes)
    assert any("taken for a classification" in note for note in converted.notes)


@torch.no_grad()
def test_finetuned__regression_predicts_in_units_with_the_given_statistics(tmp_path: Path) -> None:
    path, state = saved(tmp_path, outputs=3)
    options = {"labels": "LVEDV:mL, LVEF:%,LVM:g", "mean": "150,60,110", "std": "30,7,25"}
    _, model = through(path, **options)
    ecg = layout.prepared()
    _, raw = layout.finetuned(state, ecg, 6, "attention")
    expected = raw * torch.tensor([30.0, 7.0, 25.0]) + torch.tensor([150.0, 60.0, 110.0])
    assert (model.predict_from(model.weights.modules["ecg"](ecg)) - expected).abs().max() <= 30 * 1e-5
    assert [(one["name"], one["unit"]) for one in model.labels] == [("LVEDV", "mL"), ("LVEF", "%"), ("LVM", "g")]


def test_finetuned__without_statistics_predictions_stay_z_scores_and_it_says_so(tmp_path: Path) -> None:
    converted = convert(saved(tmp_path, outputs=6)[0], "mae_finetuned")
    assert converted.modules["head"].config["labels"][5] == {"name": "output_5", "kind": "regression", "unit": "z"}
    assert any("z-scores" in note for note in converted.notes)


def test_finetuned__two_outputs_may_be_a_regression(tmp_path: Path) -> None:
    head = convert(saved(tmp_path)[0], "mae_finetuned", {"task": "regression"}).modules["head"]
    assert head.config["kind"] == "prediction_head"


def test_finetuned__is_told_from_its_keys(tmp_path: Path) -> None:
    assert detect(saved(tmp_path)[0]) == ["mae_finetuned"]
    assert convert(saved(tmp_path)[0], "auto").head_options == {"double_fc_norm": True}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"labels": "a"}, "expected 2 different names"),
        ({"labels": "a,a"}, "expected 2 different names"),
        ({"labels": "healthy,MI:mL"}, "classes have no unit"),
        ({"mean": "1,2"}, "this head is a classification"),
        ({"task": "regression", "mean": "1"}, "expected 2 numbers"),
        ({"task": "regression", "std": "1,x"}, "expected 2 numbers"),
        ({"task": "regression", "std": "1,0"}, "above 0"),
        ({"task": "survival"}, "classification, regression"),
    ],
)
def test_finetuned__refuses_options_that_do_not_fit_the_head(
    options: dict[str, str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        convert(saved(tmp_path)[0], "mae_finetuned", options)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"head.weight": torch.ones(2, 383)}, r"head\.weight \(2, 383\) instead of \(2, 384\)"),
        ({"head.bias": torch.ones(3)}, r"head\.bias \(3,\) instead of \(2,\)"),
        ({"attention_pool.bias_k": torch.ones(1, 1, 384)}, r"unexpected: attention_pool\.bias_k"),
        ({"fc_norm.bias": torch.full((384,), torch.nan)}, r"not finite: fc_norm\.bias"),
        ({"head.weight": torch.ones(2)}, r"head\.weight has shape \(2,\)"),
    ],
)
def test_finetuned__refuses_by_key(changes: dict[str, Tensor], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        convert(saved(tmp_path, **changes)[0], "mae_finetuned")


def test_finetuned__without_a_head_is_no_fine_tuned_file(tmp_path: Path) -> None:
    torch.save({"model": layout.encoder_state(384, 3)}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"head\.weight is missing"):
        convert(tmp_path / "a.pth", "mae_finetuned")
