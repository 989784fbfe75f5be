"""Small runs on the cohort of 24 subjects; one thread, so that results do not depend on the machine's load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ecgcmr.training.config import RunConfig, check_config

MakeConfig = Callable[..., RunConfig]

SMALL: dict[str, Any] = {
    "name": "small",
    "seed": 3,
    "data": {"ecg": {"pipeline": "highpass", "crop_samples": 200}, "cmr": {"size": 32}},
    "model": {
        "ecg": {"width": 32, "depth": 2, "heads": 2, "patch": 50, "drop_path": 0.2},
        "cmr": {"name": "test_resnet.r160_in1k", "channels_last": False},
        "projection": {"hidden": 16, "out": 8},
        "head": {"hidden": 8},
    },
    "objective": {"name": "masked_ecg", "decoder": {"width": 16, "depth": 1, "heads": 2}},
    "optim": {"lr": 1e-3, "warmup_epochs": 1},
    "train": {"epochs": 3, "batch_size": 8, "precision": "no", "save_seconds": 0},
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_config(tiny_cohort: Path, tmp_path: Path) -> MakeConfig:
    """Give a small run; dotted values replace those of `SMALL`."""

    def make(**dotted: Any) -> RunConfig:
        tree = {key: dict(value) if isinstance(value, dict) else value for key, value in SMALL.items()}
        tree["data"] = {**SMALL["data"], "cohort": str(tiny_cohort)}
        tree["out"] = str(tmp_path / "run")
        for key, value in dotted.items():
            *path, last = key.split(".")
            node = tree
            for part in path:
                node[part] = dict(node.get(part, {}))
                node = node[part]
            node[last] = value
        return check_config(tree, "the test")

    return make
