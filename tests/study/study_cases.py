"""A study of a few seconds: two trained arms and a stage as it is, on the cohort of 24 subjects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

RECIPES = Path(__file__).parents[2] / "configs/pretrain"


def small_study(cohort: Path) -> dict[str, Any]:
    """Values of a study file; run files are named by absolute paths."""
    return {
        "name": "small",
        "title": "A small study",
        "cohort": {"path": str(cohort)},
        "seeds": [0, 1, 2],
        "base": {
            "data": {"ecg": {"crop_samples": 200}, "cmr": {"size": 32}},
            "model": {
                "ecg": {"preset": "nano", "width": 16, "depth": 1, "heads": 2},
                "cmr": {"name": "test_resnet.r160_in1k", "channels_last": False},
                "projection": {"hidden": 16, "out": 8},
            },
            "optim": {"warmup_epochs": 0},
            "train": {"batch_size": 8, "max_steps": 2, "precision": "no", "save_seconds": 0},
        },
        "stages": {
            "ecg_mae": {
                "recipe": str(RECIPES / "ecg_mae.yaml"),
                "values": {"objective": {"decoder": {"width": 16, "depth": 1, "heads": 2}}},
            }
        },
        "arms": {
            "mae": {"title": "Not aligned", "stage": "ecg_mae"},
            "clip": {"title": "CLIP", "recipe": str(RECIPES / "align.yaml"), "start": {"ecg": "ecg_mae"}},
            "barlow": {"title": "Barlow", "recipe": str(RECIPES / "align_barlow.yaml")},
        },
        "compare_to": "clip",
        "evaluate": {"labels": ["LVEDV", "LVM"], "counts": [8, None], "windows": 2, "bootstrap_draws": 40},
    }


def write_study(tree: dict[str, Any], path: Path) -> Path:
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path
