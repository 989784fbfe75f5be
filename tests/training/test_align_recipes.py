"""Every alignment recipe trains, exports weights that load, and leaves a shared space of ECG and CMR."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.cohort.simulate import simulate_cohort
from ecgcmr.cohort.store import Cohort
from ecgcmr.evaluation.embeddings import embed, window_options
from ecgcmr.hub import load_weights, verify_weights
from ecgcmr.training.config import load_config
from ecgcmr.training.run import pretrain
from ecgcmr.training.runfolder import read_metrics

RECIPES = sorted((Path(__file__).parents[2] / "configs/pretrain").glob("align*.yaml"))
SMALL = [
    "model.ecg.preset=nano", "model.ecg.width=16", "model.ecg.depth=1", "model.ecg.heads=2", "train.precision=no",
    "data.ecg.crop_samples=200", "train.threads=1", "optim.warmup_epochs=0", "data.cmr.size=32", "train.batch_size=8",
    "train.max_steps=1", "model.projection.hidden=16", "model.projection.out=8",
]  # fmt: skip
TIMM = ["model.cmr.name=test_resnet.r160_in1k", "model.cmr.channels_last=false"]
CINE = ["model.cmr.cine.width=16", "model.cmr.cine.depth=1", "model.cmr.cine.heads=2", "model.cmr.cine.stem=8"]


@pytest.fixture(scope="module")
def mid_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty subjects with all frames of the middle slice and a four-chamber view."""
    return simulate_cohort(tmp_path_factory.mktemp("mid") / "mid", n_subjects=20, seed=3, cine="mid")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_align_recipe__trains_and_leaves_a_shared_space(path: Path, mid_cohort: Path, tmp_path: Path) -> None:
    assert f"--config configs/pretrain/{path.name} " in path.read_text(), "begins with the command"
    own = CINE if path.stem == "align_temporal" else TIMM
    config = load_config(path, [*SMALL, *own, f"data.cohort={mid_cohort}", f"out={tmp_path / 'run'}"])
    assert config.name == path.stem
    pretrain(config)
    assert np.isfinite(read_metrics(tmp_path / "run", "val")[-1]["loss"])
    assert all(error < 1e-4 for error in verify_weights(tmp_path / "run/weights").values())
    weights, cohort = load_weights(tmp_path / "run/weights"), Cohort.open(mid_cohort)
    for modality in ("ecg", "cmr"):
        pipelines = (weights.ecg_pipeline, None) if modality == "ecg" else (None, weights.cmr_pipeline)
        dataset = PairedDataset(cohort, np.arange(20), *pipelines)
        options = window_options(weights, modality, dataset.ecg_shape[-1])
        found = embed(weights, dataset, modality, options=options, projection=weights.modules[f"{modality}_projection"])
        assert found.values.shape == (20, 8)
        assert torch.from_numpy(found.values).std(0).max() > 0
