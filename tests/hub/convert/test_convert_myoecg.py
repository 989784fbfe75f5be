"""MyoECG: the file's embedding, head and threshold come out of the weights folder; what does not fit is refused."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import st_mem_layout as layout
import torch
from torch import Tensor

from ecgcmr.ecg.preprocessing import myoecg_pipeline
from ecgcmr.hub.convert.contract import Converted
from ecgcmr.hub.convert.registry import convert, detect
from ecgcmr.hub.expected import synthetic_recording
from ecgcmr.hub.model import load_model
from ecgcmr.hub.weights import Weights, load_weights, save_weights

SMALL = {"width": 32, "depth": 2, "patch": 75, "windows": 30}
HEADS = {"heads": "4"}


def top_level(state: dict[str, Tensor], **metrics: Any) -> dict[str, Any]:
    """The file as the training program writes it."""
    config = argparse.Namespace(lr=1e-3, epochs=100)
    return {"epoch": 17, "model": state, "optimizer": {"state": {}}, "scaler": {}, "config": config, "metrics": metrics}


def written(tmp_path: Path, content: Any, name: str = "best-auc-MyoECG.pth") -> Path:
    torch.save(content, tmp_path / name)
    return tmp_path / name


def through_a_folder(converted: Converted, tmp_path: Path) -> Weights:
    parts = (converted.modules, converted.ecg_pipeline, converted.cmr_pipeline, converted.card, converted.head_options)
    return load_weights(save_weights(tmp_path / "weights", *parts))


def ecg(rows: int = 2, n: int = 2250) -> Tensor:
    return torch.randn(rows, 12, n, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("separator_leads", [True, False])
def test_convert_myoecg__gives_the_embedding_of_the_original(tmp_path: Path, separator_leads: bool) -> None:
    state = layout.make_state(**SMALL, head=False)
    path = written(tmp_path, top_level(state, loss=0.3))
    options = {**HEADS, "separator_leads": str(separator_leads).lower()}
    weights = through_a_folder(convert(path, "myoecg", options), tmp_path)
    assert list(weights.modules) == ["ecg"]
    found = weights.modules["ecg"](ecg())
    expected = layout.embed(state, ecg(), heads=4, separator_leads=separator_leads)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    other = layout.embed(state, ecg(), heads=4, separator_leads=not separator_leads)
    assert (found - other).abs().max() > 1e-3  # the choice matters, so the test would see a wrong one


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_convert_myoecg__at_its_true_size(tmp_path: Path) -> None:
    state = layout.make_state(width=768, depth=12, patch=75, windows=30, head=True)
    weights = through_a_folder(convert(written(tmp_path, top_level(state)), "myoecg"), tmp_path)
    assert sum(p.numel() for p in weights.modules["ecg"].parameters()) == pytest.approx(85.2e6, rel=0.01)
    torch.testing.assert_close(
        weights.modules["ecg"](ecg(1)).double(), layout.embed(state, ecg(1), heads=12), rtol=0, atol=1e-5
    )


def test_convert_myoecg__head_and_threshold(tmp_path: Path) -> None:
    state = layout.make_state(**SMALL, head=True)
    path = written(tmp_path, top_level(state, optimal_threshold=0.37, auc=0.9))
    weights = through_a_folder(convert(path, "myoecg", HEADS), tmp_path)
    assert weights.config["head_options"] == {"optimal_threshold": 0.37}
    assert weights.config["labels"] == [{"name": "cardiomyopathy", "kind": "binary", "unit": ""}]
    embedding = layout.embed(state, ecg(), heads=4)
    logit = embedding @ state["head.weight"].double().T + state["head.bias"].double()
    predicted = weights.modules["head"].predict(weights.modules["ecg"](ecg()))
    torch.testing.assert_close(predicted.double(), logit.sigmoid(), rtol=0, atol=1e-5)


def test_convert_myoecg__numpy_numbers_beside_the_weights_are_read(tmp_path: Path) -> None:
    state = layout.make_state(**SMALL, head=True)
    path = written(tmp_path, top_level(state, optimal_threshold=np.float64(0.25), auc=np.float32(0.5)))
    assert convert(path, "myoecg", HEADS).head_options == {"optimal_threshold": 0.25}


def test_convert_myoecg__numbers_of_an_older_numpy_are_read(tmp_path: Path) -> None:
    content = top_level(layout.make_state(**SMALL, head=True), optimal_threshold=np.float64(0.25))
    path = tmp_path / "old.pth"
    torch.save(content, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert data.count(b"cnumpy._core.multiarray\n") == 1
    path.write_bytes(data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert convert(path, "myoecg", HEADS).head_options == {"optimal_threshold": 0.25}


def test_convert_myoecg__arrays_of_objects_beside_the_weights_are_refused(tmp_path: Path) -> None:
    content = top_level(layout.make_state(**SMALL, head=True), optimal_threshold=np.array([0.25, None]))
    with pytest.raises(ValueError, match=r"it asks for numpy.*reconstruct"):
        convert(written(tmp_path, content), "myoecg", HEADS)


def test_convert_myoecg__from_a_recording_to_the_mean_logit_of_three_crops(tmp_path: Path) -> None:
    state = layout.make_state(**SMALL, head=True)
    path, recording = written(tmp_path, top_level(state)), synthetic_recording()
    logits, expected = [], []
    for crop in ("start", "center", "end"):
        converted = convert(path, "myoecg", {**HEADS, "crop": crop})
        parts = (converted.modules, converted.ecg_pipeline, None, converted.card)
        model = load_model(save_weights(tmp_path / crop, *parts))
        logits.append(model.weights.modules["head"](torch.from_numpy(model.embed(recording))))
        prepared = torch.from_numpy(myoecg_pipeline(crop)(recording))[None]
        embedding = layout.embed(state, prepared, heads=4)
        expected.append(embedding @ state["head.weight"].double().T + state["head.bias"].double())
    mean, spread = torch.stack(logits).mean(0), torch.stack(logits).std(0)
    torch.testing.assert_close(mean.double(), torch.stack(expected).mean(0), rtol=0, atol=1e-5)
    assert spread.min() > 1e-4


def test_convert_myoecg__names_what_it_leaves_out(tmp_path: Path) -> None:
    state = {f"module.{key}": value for key, value in layout.make_state(**SMALL, head=False).items()}
    state["module.teacher.proj.weight"] = torch.zeros(3, 3)
    converted = convert(written(tmp_path, top_level(state)), "myoecg", HEADS)
    assert set(converted.dropped) == {"epoch", "optimizer", "scaler", "config", "metrics", "teacher.proj.weight"}
    assert any("average the logits" in note for note in converted.notes)


def test_detect__knows_the_layout(tmp_path: Path) -> None:
    assert detect(written(tmp_path, top_level(layout.make_state(**SMALL, head=True)))) == ["myoecg"]


def rename(state: dict[str, Tensor], old: str, new: str) -> None:
    state[new] = state.pop(old)


BREAKAGES = {
    "missing": (lambda s: s.pop("block1.ff.fn.net.3.bias"), r"missing: block1\.ff\.fn\.net\.3\.bias"),
    "no lead": (lambda s: s.pop("lead_embeddings.11"), r"lead_embeddings\.\* are 11, expected 12"),
    "a gap": (lambda s: s.pop("lead_embeddings.4"), r"missing: lead_embeddings\.4"),
    "renamed": (lambda s: rename(s, "norm.weight", "norm.gamma"), r"missing: norm\.weight; unexpected: norm\.gamma"),
    "shape": (
        lambda s: s.update({"block0.attn.fn.to_qkv.weight": torch.zeros(96, 31)}),
        r"block0\.attn\.fn\.to_qkv\.weight \(96, 31\) instead of \(96, 32\)",
    ),
    "norm's shape": (lambda s: s.update({"to_patch_embedding.1.bias": torch.zeros(74)}), r"\(74,\) instead of \(75,\)"),
    "no table": (lambda s: s.pop("pos_embedding"), r"pos_embedding is missing"),
    "short table": (lambda s: s.update({"pos_embedding": torch.zeros(1, 2, 32)}), r"pos_embedding has 2 rows"),
    "not finite": (lambda s: s["sep_embedding"].fill_(float("nan")), r"not finite: sep_embedding"),
    "another head": (lambda s: s.update({"head.weight": torch.zeros(5, 32)}), r"head\.weight \(5, 32\)"),
    "no block": (lambda s: [s.pop(k) for k in list(s) if k.startswith("block1")] and rename(
        s, "block0.ff.norm.bias", "block2.ff.norm.bias"), r"missing: block1\.\*"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKAGES)
def test_convert_myoecg__refuses_what_does_not_fit(tmp_path: Path, name: str) -> None:
    change, message = BREAKAGES[name]
    state = layout.make_state(**SMALL, head=True)
    change(state)
    path = written(tmp_path, top_level(state))
    with pytest.raises(ValueError, match=message) as caught:
        convert(path, "myoecg", HEADS)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": "5"}, r"heads=5: 5 heads do not divide the width 32"),
        ({"heads": "none"}, "heads=none: expected a positive whole number"),
        ({**HEADS, "crop": "middle"}, "crop=middle: expected one of start, center, end"),
        ({**HEADS, "separator_leads": "maybe"}, "separator_leads=maybe"),
        ({**HEADS, "chop": "start"}, "no option 'chop'; did you mean crop"),
    ],
)
def test_convert_myoecg__refuses_options_without_meaning(tmp_path: Path, options: dict[str, str], message: str) -> None:
    path = written(tmp_path, top_level(layout.make_state(**SMALL, head=False)))
    with pytest.raises(ValueError, match=message):
        convert(path, "myoecg", options)


def test_convert_myoecg__a_cut_off_file_and_a_wrong_threshold(tmp_path: Path) -> None:
    state = layout.make_state(**SMALL, head=True)
    path = written(tmp_path, top_level(state, optimal_threshold=3.0))
    with pytest.raises(ValueError, match=r"optimal_threshold is 3\.0, expected a probability"):
        convert(path, "myoecg", HEADS)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="cut off or damaged"):
        convert(path, "myoecg", HEADS)
