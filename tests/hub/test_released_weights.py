"""Every folder under weights/ loads, gives the embedding that it promises, and says what it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ecgcmr
from ecgcmr.hub import verify_weights

WEIGHTS = Path(__file__).parents[2] / "weights"
FOLDERS = sorted(path for path in WEIGHTS.iterdir() if path.is_dir())


def test_there_are_released_weights_and_the_list_names_them() -> None:
    assert FOLDERS
    listed = (WEIGHTS / "README.md").read_text()
    assert all(f"`{folder.name}`" in listed for folder in FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_released_weights__give_what_they_promise(folder: Path) -> None:
    found = verify_weights(folder)
    assert set(found) >= {"ecg"}
    assert max(found.values()) < 1e-3
    card = (folder / "README.md").read_text()
    for words in (
        "not a medical device",
        "simulated",
        "## Intended use",
        "## Limits",
        "95 % interval",
        "release_weights.sh",
    ):
        assert words in card, words
    assert "license: mit" in card or ("license: cc-by-4.0" in card and "PTB-XL" in card)
    leads = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    noise = np.random.default_rng(0).normal(0.0, 0.2, (12, 5000)).astype(np.float32)
    model = ecgcmr.load_model(f"local-dir:{folder}")
    embedding = model.embed(ecgcmr.EcgRecording(noise, 500.0, leads))
    assert np.isfinite(np.asarray(embedding)).all()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 20e6


def test_released_weights__are_small_together() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < 60e6


def test_released_weights__of_every_size_and_stage_are_there() -> None:
    assert {folder.name for folder in FOLDERS} == {
        f"ecg_{size}_{stage}" for size in ("nano", "tiny") for stage in ("mae", "aligned", "zscored")
    }
