"""Made-up ECG files with labels; one thread, so that results do not depend on the machine's load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ecgcmr.cohort.label_building.own_example import write_own_example
from ecgcmr.own_labels import FinetuneRequest

QUICK = ("train.epochs=1", "train.precision=no", "train.batch_size=16")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ECGs of 40 subjects in 50 recordings, `labels.csv` and `labels_more.csv`; treat it as read-only."""
    folder = tmp_path_factory.mktemp("own")
    write_own_example(folder, 40, np.random.default_rng(5))
    return folder


@pytest.fixture
def ask(example: Path, tmp_path: Path) -> Callable[..., FinetuneRequest]:
    """Give a quick request; values replace those of it."""

    def make(**values: object) -> FinetuneRequest:
        usual = {
            "out": tmp_path / "out",
            "model": "ecg_nano_aligned",
            "labels": example / "labels_more.csv",
            "ecg": example / "ecg",
            "method": "linear",
            "overrides": QUICK,
            "evaluation": {"n_draws": 20, "n_permutations": 20},
        }
        return FinetuneRequest(**{**usual, **values})  # type: ignore[arg-type]

    return make
