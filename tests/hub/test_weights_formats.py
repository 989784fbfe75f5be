"""Folders of older formats open as if they were of today's, and stay as they are on the disk."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from test_weights import edit
from torch import nn

from ecgcmr.ecg.preprocessing import named_pipeline
from ecgcmr.hub.expected import synthetic_recording, verify_weights
from ecgcmr.hub.migrate import FORMAT_VERSION, STEPS, migrate, migrate_1_to_2
from ecgcmr.hub.weights import load_weights


@pytest.fixture
def version_1(modules: dict[str, nn.Module], tmp_path: Path) -> Path:
    """What ecgcmr wrote as format 1, written out: no storage, no whole card, metrics by name, embeddings only."""
    folder, pipeline = tmp_path / "old", named_pipeline("highpass")
    folder.mkdir()
    encoder, head = modules["ecg"], modules["head"]
    state = {f"ecg.{k}": v for k, v in encoder.state_dict().items()}
    state |= {f"head.{k}": v for k, v in head.state_dict().items()}
    data = save(state)
    leads = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
    labels = [{"name": "LVM", "kind": "regression", "unit": "g"}, {"name": "mi", "kind": "binary", "unit": ""}]
    config = {
        "format_version": 1, "name": "old", "stage": "supervised",
        "modules": {"ecg": encoder.config, "head": head.config},
        "ecg": {
            "pipeline": "highpass", "leads": leads, "rate_hz": 100.0, "n_samples": 200, "window": "start", "unit": "mV",
        },
        "cmr": None, "labels": labels, "license": "MIT", "provenance": "simulated", "trained_on": "24 subjects",
        "metrics": {"validation loss": 0.25}, "run": {"seed": 3}, "ecgcmr_version": "0.1.0", "head_options": {},
        "sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip
    with torch.no_grad():
        embedding = encoder(torch.from_numpy(pipeline(synthetic_recording()))[None, :, :200])[0].tolist()
    expected = {"recipe": "beats_and_ring_v1", "tolerance": 1e-3, "embeddings": {"ecg": embedding}}
    (folder / "model.safetensors").write_bytes(data)
    (folder / "README.md").write_text("# old\n")
    for name, content in (
        ("config", config),
        ("expected", expected),
        ("preprocess", {"ecg": pipeline.to_dict(), "cmr": None}),
    ):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_load_weights__opens_format_1_and_leaves_it_alone(version_1: Path, modules: dict[str, nn.Module]) -> None:
    before = {path.name: path.read_bytes() for path in version_1.iterdir()}
    weights = load_weights(version_1)
    assert weights.config["format_version"] == FORMAT_VERSION
    assert weights.config["storage"] == {"dtype": "float32", "largest_change": 0.0, "exact": []}
    (metric,) = weights.card.metrics
    assert (metric.name, metric.value, metric.lo, metric.where) == (
        "validation loss", 0.25, None, "validation subjects of the run",
    )  # fmt: skip
    assert weights.card.command == ""
    assert "Research" in weights.card.intended_use
    for key, value in modules["ecg"].state_dict().items():
        assert torch.equal(weights.modules["ecg"].state_dict()[key], value)
    assert set(verify_weights(version_1)) == {"ecg"}
    assert {path.name: path.read_bytes() for path in version_1.iterdir()} == before


def test_steps__lead_from_every_version_to_the_newest() -> None:
    assert sorted(STEPS) == list(range(1, FORMAT_VERSION))


def test_migrate_1_to_2__changes_a_copy() -> None:
    old = {"format_version": 1, "metrics": {"loss": 1.0}}
    new = migrate_1_to_2(old)
    assert old == {"format_version": 1, "metrics": {"loss": 1.0}}
    assert new["format_version"] == 2
    assert new["metrics"] == [{"name": "loss", "value": 1.0, "where": "validation subjects of the run"}]


@pytest.mark.parametrize("version", [0, 3, "1", None, True, 1.5, [1]])
def test_migrate__unknown_versions_are_named(version: object) -> None:
    with pytest.raises(ValueError, match=r"config\.json: format_version is .*reads 1 to 2"):
        migrate({"format_version": version}, Path("config.json"))


@pytest.mark.parametrize("field", ["modules", "labels", "run", "sha256", "head_options", "ecg"])
def test_load_weights__fields_of_a_wrong_type_are_named(ecg_folder: Path, field: str) -> None:
    edit(ecg_folder / "config.json", **{field: 7})
    with pytest.raises(ValueError, match=f"config.json: {field} missing, or not of the type"):
        load_weights(ecg_folder)
