"""Every recipe in configs/finetune/tasks runs, from a released encoder, at tiny size."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from ecgcmr.cohort.schema import LabelSpec
from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.hub.weights import load_weights
from ecgcmr.own_labels.labelled import label_cohort
from ecgcmr.own_labels.request import FinetuneRequest
from ecgcmr.own_labels.table import OwnLabels
from ecgcmr.training.config import load_config
from ecgcmr.training.run import finetune

ROOT = Path(__file__).parents[2]
TASKS = sorted((ROOT / "configs/finetune/tasks").glob("*.yaml"))
QUICK = ["train.max_steps=2", "train.epochs=1", "train.batch_size=8", "train.precision=no", "optim.warmup_epochs=0"]


@pytest.fixture(scope="module")
def labelled(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated cohort with every label that a recipe names: random ones, a third of the phenotypes missing."""
    cohort, rng = Cohort.open(tiny_cohort), np.random.default_rng(4)
    n = len(cohort)
    fields = yaml.safe_load((ROOT / "configs/labels/ukb_cmr_phenotypes.yaml").read_text())["fields"]
    specs = [LabelSpec(field["name"], "regression", unit=field["unit"]) for field in fields]
    values = np.where(rng.random((n, len(specs))) < 0.3, np.nan, rng.normal(50, 10, (n, len(specs))))
    alternate = np.zeros(n)  # within each part, so that two validation subjects differ
    for members in open_split(cohort).parts().values():
        alternate[members] = np.arange(len(members)) % 2
    for name in ("mi", "cad", "dcm", "hcm"):
        specs.append(LabelSpec(name, "binary"))
        values = np.column_stack([values, alternate])
    specs += [LabelSpec("subtype", "category", values=("A", "B", "C")), LabelSpec("mi_time_years", "time")]
    specs.append(LabelSpec("mi_event", "event"))
    values = np.column_stack(
        [values, np.searchsorted([0.6, 0.85], rng.permutation(n) / n), rng.exponential(5, n), alternate]
    )
    keys = [str(subject) for subject in cohort.subjects["subject"]]
    own = OwnLabels(
        Path("t.csv"), keys, np.arange(1, n + 1), "subject", True, "subject", None, None, None,
        pd.DataFrame(index=range(n)), tuple(specs), values,
    )  # fmt: skip
    request = FinetuneRequest(out=Path("out"), model="m")
    return label_cohort(cohort, own, request, tmp_path_factory.mktemp("tasks") / "cohort")[0]


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.stem)
def test_task__runs(path: Path, labelled: Path, tmp_path: Path) -> None:
    small = ["data.train_subjects=12"] if path.stem == "low_label" else []
    probe = ["probe.epochs=1"] if path.stem == "lp_ft" else []
    config = load_config(path, [*QUICK, *small, *probe, f"data.cohort={labelled}", f"out={tmp_path / 'run'}"])
    weights = load_weights(finetune(config) / "weights")
    head = weights.modules["head"]
    predicted = head.predict(torch.zeros(2, weights.modules["ecg"].embed_dim))
    assert predicted.isfinite().all()
    if path.stem == "phenotypes":
        assert len(head.label_names) == 82
        assert predicted.mean() > 20, "in the labels' units"
    if path.stem == "subtypes":
        torch.testing.assert_close(predicted.sum(1), torch.ones(2))
    if path.stem in ("linear_probe", "attention_probe", "mlp_head"):
        start = load_weights(config.init.ecg or "").modules["ecg"].state_dict()
        same = {name: torch.equal(value, weights.modules["ecg"].state_dict()[name]) for name, value in start.items()}
        trained = [name for name, equal in same.items() if not equal]
        assert not [name for name in trained if not name.startswith("fc_norm.")], "the encoder stays as it was"


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.stem)
def test_task__begins_with_its_command(path: Path) -> None:
    command = re.search(
        r"^#   accelerate launch scripts/finetune.py --config (\S+) data.cohort=\S+$", path.read_text(), re.M
    )
    assert command is not None
    assert ROOT / command[1] == path
    assert path.read_text().splitlines()[0].startswith("# ")


def test_balance__by_a_label_draws_rare_ones_as_often(labelled: Path) -> None:
    """The sampler against class imbalance: three values with shares of about .6, .25 and .15."""
    from ecgcmr.training.data import open_feeds
    from ecgcmr.training.sources import open_source

    config = load_config(
        ROOT / "configs/finetune/tasks/subtypes.yaml",
        [f"data.cohort={labelled}", "data.group=subtype", "data.balance=1"],
    )
    source = open_source(config.data)
    feeds = open_feeds(source, config.data, {"ecg"})
    assert feeds.order is not None
    codes = feeds.train.group_codes
    before = np.bincount(codes, minlength=3)
    drawn = np.bincount(codes[np.concatenate([feeds.order(0, epoch) for epoch in range(40)])], minlength=3)
    assert before.max() > 2 * before.min()
    assert drawn.max() - drawn.min() <= 40, "alike in every epoch, but for one"
