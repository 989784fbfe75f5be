"""The published recipes run, stage after stage, and say of every value where it comes from."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ecgcmr.cohort.splits import make_split, write_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.hub.weights import load_weights
from ecgcmr.training import finetune, load_config, pretrain
from ecgcmr.training.runfolder import read_metrics

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = sorted(CONFIGS.glob("*/reference/*.yaml"))
PRETRAINING = ("align", "align_from_scratch", "cmr_simclr", "ecg_mae")
FINE_TUNING = sorted(path.stem for path in RECIPES if path.stem not in PRETRAINING)
QUICK = ("classification", "linear_probe", "regression_lv")

ECG = ["model.ecg.width=32", "model.ecg.depth=1", "model.ecg.heads=2"]
CMR = ["model.cmr.name=test_resnet.r160_in1k", "data.cmr.size=32"]
PROJECTION = ["model.projection.hidden=16", "model.projection.out=8"]
DECODER = ["objective.decoder.width=16", "objective.decoder.depth=1", "objective.decoder.heads=2"]
SMALL = {
    "ecg_mae": [*ECG, *DECODER],
    "cmr_simclr": [*CMR, *PROJECTION],
    "align": [*ECG, *CMR, *PROJECTION],
    "align_from_scratch": [*ECG, *CMR, *PROJECTION],
}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe__every_value_says_where_it_comes_from(path: Path) -> None:
    """The first word of each comment is a source that the head of the file explains, or a commit or file itself."""
    text = path.read_text()
    explained = set(re.findall(r"^#   (as mmcl|\w+)  +\S", text, re.MULTILINE))
    assert {"paper", "ours"} <= explained
    values = [line for line in text.splitlines() if re.match(r"(?!name:)\s*\w+:\s*[^\s#]|\s*labels:", line)]
    assert len(values) > 30
    for line in values:
        source = re.search(r"# (as mmcl|oetu/\S+|\w+)", line)
        assert source, f"{line!r} has no source"
        assert source[1] in explained or source[1].startswith("oetu/"), f"{line!r}: {source[1]!r} is not explained"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe__says_what_it_does_not_reproduce_and_how_it_is_started(path: Path) -> None:
    head = path.read_text().split("name:")[0]
    assert "# Not reproduced: " in head
    assert f"--config configs/{path.relative_to(CONFIGS)} " in head
    config = load_config(path)
    assert config.name == f"reference_{path.stem}"
    assert config.folder == Path("runs/reference") / path.stem


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cohort(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated cohort with a split whose parts all hold subjects with and without coronary artery disease."""
    folder = tmp_path_factory.mktemp("reference") / "cohort"
    shutil.copytree(tiny_cohort, folder, ignore=shutil.ignore_patterns("cache"))
    opened = Cohort.open(folder)
    subjects = opened.subjects["subject"].to_numpy()
    split = make_split(subjects, 0, (0.6, 0.4, 0.0), strata=opened.labels.loc[subjects, "cad"].tolist(), name="both")
    assert all(opened.labels.loc[part, "cad"].nunique() == 2 for part in (split.train, split.val))
    write_split(opened, replace(split, test=np.zeros(0, np.int64)))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def run(name: str, cohort: Path, runs: Path) -> Path:
    """Two steps of a recipe, after the stages that it starts from; only sizes and places are changed."""
    if (runs / name / "summary.json").is_file():
        return runs / name
    path = next(path for path in RECIPES if path.stem == name)
    before = load_config(path).init.ecg
    overrides = [f"data.cohort={cohort}", "data.split=both", f"out={runs / name}", *SMALL.get(name, ECG)]
    overrides += ["train.max_steps=2", "train.batch_size=6", "train.save_seconds=100"]
    if before is not None:
        assert before.startswith("runs/reference/")
        assert before.endswith("/weights")
        overrides.append(f"init.ecg={run(before.split('/')[2], cohort, runs) / 'weights'}")
    config = load_config(path, overrides)
    return pretrain(config) if name in PRETRAINING else finetune(config)


@pytest.mark.parametrize(
    "name",
    [name if name in (*PRETRAINING, *QUICK) else pytest.param(name, marks=pytest.mark.slow)
     for name in (*PRETRAINING, *FINE_TUNING)],
)  # fmt: skip
def test_recipe__runs(name: str, cohort: Path, runs: Path) -> None:
    folder = run(name, cohort, runs)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("finished", 2)
    rows = read_metrics(folder)
    assert {row["event"] for row in rows} == {"train", "val"}
    assert all(np.isfinite(row["loss"]) for row in rows)
    recipe = load_config(folder / "config.yaml")
    assert recipe.train.monitor in rows[-1]
    modules = load_weights(folder / "weights").modules
    if name not in PRETRAINING:
        assert modules["head"].label_names == recipe.data.labels
        assert load_weights(folder / "weights").config["head_options"] == {"double_fc_norm": True}
