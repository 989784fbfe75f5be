"""The head of another folder, and intervals that travel with a head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ecgcmr.ecg.preprocessing import named_pipeline
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.hub.expected import synthetic_recording
from ecgcmr.hub.model import load_model
from ecgcmr.hub.weights import save_weights
from ecgcmr.models.build import build_module

CARD = {"name": "borrowed", "stage": "supervised", "license": "MIT", "provenance": "simulated", "trained_on": "none"}
LABELS = [{"name": "lvef", "kind": "regression", "unit": "%"}, {"name": "mi", "kind": "binary", "unit": ""}]
INTERVAL = {"level": 0.9, "half_width": {"lvef": 7.5}, "n": {"lvef": 200}, "windows": "first"}


def head_of(width: int) -> nn.Module:
    torch.manual_seed(1)
    head = build_module({"kind": "prediction_head", "in_features": width, "labels": LABELS})
    head.set_statistics([60.0, 0.0], [8.0, 1.0])  # type: ignore[operator]
    return head


def folder_of(folder: Path, modules: dict[str, nn.Module], **options: object) -> Path:
    return save_weights(folder, modules, named_pipeline("highpass"), None, CARD, options)


def test_head__gives_the_labels_of_its_folder_from_this_encoder(
    weights_folder: Path, modules: dict[str, nn.Module], tmp_path: Path
) -> None:
    head = head_of(32)
    other = folder_of(tmp_path / "head", {"ecg": modules["ecg"], "head": head}, interval=INTERVAL)
    model = load_model(weights_folder, head=other)
    table = model.predict(synthetic_recording())
    embedding = torch.from_numpy(model.embed(synthetic_recording()))
    assert table["lvef"][0] == pytest.approx(float(head.predict(embedding)[0, 0].detach()), rel=1e-5)  # type: ignore[operator]
    assert list(table.columns[3:]) == ["lvef", "lvef_lo", "lvef_hi", "mi"]
    assert table["lvef_hi"][0] - table["lvef"][0] == pytest.approx(7.5, abs=1e-4)
    assert table.attrs["units"] == {"lvef": "%", "mi": "probability", "lvef_lo": "%", "lvef_hi": "%"}
    assert table.attrs["interval"] == INTERVAL
    assert table.attrs["head_from"]["name"] == "borrowed"


def test_head__intervals_hold_for_what_they_were_made_for(modules: dict[str, nn.Module], tmp_path: Path) -> None:
    model = load_model(
        folder_of(tmp_path / "w", {"ecg": modules["ecg"], "head": head_of(32)}, interval=INTERVAL), device="cpu"
    )
    recording = synthetic_recording(seconds=20)
    assert model.predict(recording, windows=1)["lvef_lo"].notna().all()
    assert model.predict(recording, windows="all")["lvef_lo"].isna().all()
    assert model.predict(recording, windows=1, aggregate="none")["lvef_lo"].isna().all()
    with pytest.warns(UserWarning, match="fewer than twelve leads"):
        reduced = model.predict(EcgRecording(recording.samples[:7], 500.0, recording.leads[:7]))
    assert reduced["lvef_lo"].isna().all()
    assert np.isfinite(reduced["lvef"]).all()


def test_head__must_fit_the_width(weights_folder: Path, tmp_path: Path) -> None:
    encoder = build_module({"kind": "ecg_vit", "n_samples": 200, "width": 16, "depth": 1, "heads": 2, "patch": 50})
    other = folder_of(tmp_path / "narrow", {"ecg": encoder, "head": head_of(16)})
    with pytest.raises(ValueError, match=r"narrow reads embeddings of width 16, the encoder of .* gives 32"):
        load_model(weights_folder, head=other)


def test_head__of_another_encoder_warns_and_a_folder_without_one_is_refused(
    weights_folder: Path, modules: dict[str, nn.Module], tmp_path: Path
) -> None:
    torch.manual_seed(9)
    stranger = build_module(dict(modules["ecg"].config))
    other = folder_of(tmp_path / "stranger", {"ecg": stranger, "head": head_of(32)})
    with pytest.warns(UserWarning, match="which is not the one of"):
        load_model(weights_folder, head=other)
    with pytest.raises(ValueError, match="have no 'head'"):
        load_model(weights_folder, head=folder_of(tmp_path / "bare", {"ecg": stranger}))


def test_interval__that_speaks_of_no_label_is_refused(modules: dict[str, nn.Module], tmp_path: Path) -> None:
    wrong = {"level": 0.9, "half_width": {"lvm": 5.0}}
    folder = folder_of(tmp_path / "w", {"ecg": modules["ecg"], "head": head_of(32)}, interval=wrong)
    with pytest.raises(ValueError, match="about 'lvm', which is no regression label"):
        load_model(folder)
