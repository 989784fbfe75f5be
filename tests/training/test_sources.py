"""Several cohorts in one run: subjects stay apart, parts of an epoch follow the weights, and a card names them all."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from ecgcmr.cohort.mixture import MixedDataset, subject_offsets
from ecgcmr.cohort.simulate import simulate_cohort
from ecgcmr.cohort.splits import make_split, write_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.tables import sha256
from ecgcmr.hub.weights import load_weights
from ecgcmr.objectives.contrast import excluded_columns
from ecgcmr.training import loop
from ecgcmr.training.config import RunConfig
from ecgcmr.training.data import find_facts, open_feeds
from ecgcmr.training.loop import Feeds
from ecgcmr.training.progress import ProgressEvent
from ecgcmr.training.run import finetune, pretrain
from ecgcmr.training.signals import RunInterrupted
from ecgcmr.training.sources import open_source

MakeConfig = Callable[..., RunConfig]
LABELS = ["LVEDV", "LVM"]


@pytest.fixture(scope="session")
def ecg_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty other subjects without CMR and without the label LVM."""
    folder = simulate_cohort(tmp_path_factory.mktemp("simulated") / "ecg", n_subjects=30, seed=11, cine="none")
    schema = json.loads((folder / "cohort.json").read_text())
    schema["labels"] = [spec for spec in schema["labels"] if spec["name"] != "LVM"]
    schema["name"] = "ecg only"
    (folder / "cohort.json").write_text(json.dumps(schema))
    return folder


@pytest.fixture
def mixed(make_config: MakeConfig, tiny_cohort: Path, ecg_cohort: Path) -> MakeConfig:
    """A small run on both cohorts; `weights` gives their parts."""

    def make(weights: tuple[float, float] | None = None, **dotted: Any) -> RunConfig:
        sources = [{"cohort": str(tiny_cohort)}, {"cohort": str(ecg_cohort)}]
        for source, weight in zip(sources, weights or (), strict=False):
            source["weight"] = weight  # type: ignore[assignment]
        return make_config(**{"data.cohort": None, "data.sources": sources, **dotted})

    return make


def feeds_of(config: RunConfig, modalities: set[str]) -> Feeds:
    return open_feeds(open_source(config.data), config.data, modalities)


def test_one_source__is_the_same_run_as_the_cohort_alone(
    make_config: MakeConfig, tiny_cohort: Path, tmp_path: Path
) -> None:
    """Same samples, same numbers to the bit, same weights."""
    alone = pretrain(make_config(out=str(tmp_path / "alone"), **{"train.max_steps": 4}))
    data = {"data.cohort": None, "data.sources": [{"cohort": str(tiny_cohort), "name": "any"}]}
    listed = pretrain(make_config(out=str(tmp_path / "listed"), **data, **{"train.max_steps": 4}))
    for name in ("metrics.jsonl", "weights/model.safetensors"):
        assert (listed / name).read_bytes() == (alone / name).read_bytes()


def test_batch__holds_what_each_cohort_holds_and_keeps_subjects_apart(mixed: MakeConfig) -> None:
    config = mixed(**{"data.labels": LABELS, "data.group": "sex"})
    feeds = feeds_of(config, {"ecg", "cmr"})
    data = feeds.train
    assert isinstance(data, MixedDataset)
    picked = np.random.default_rng(0).permutation(len(data))
    batch = data.batch(picked)
    assert len(set(batch["subject"].tolist())) == len(data.unique_subjects) == sum(data.source_sizes)
    assert not set(data.unique_subjects) & set(feeds.val.unique_subjects)  # type: ignore[union-attr]
    for k, part in enumerate(data.parts):
        mine = data.source_codes[picked] == k
        own = part.batch(picked[mine] - sum(data.source_sizes[:k]))
        for key in ("ecg", "cmr", "has_ecg", "has_cmr"):
            assert torch.equal(batch[key][torch.from_numpy(mine)], own[key]), key  # type: ignore[literal-required]
        sexes = part.cohort.subjects.set_index("subject")["sex"].loc[own["subject"].numpy()]
        assert batch["group"][torch.from_numpy(mine)].tolist() == (sexes == "male").astype(int).tolist()
    of_ecg = torch.from_numpy(data.source_codes[picked] == 1)
    assert not batch["has_cmr"][of_ecg].any()
    assert batch["has_cmr"][~of_ecg].all()
    assert not batch["label_mask"][of_ecg, 1].any(), "a label that a cohort lacks is missing there"
    assert batch["label_mask"][of_ecg, 0].all()
    # The same number in both cohorts is no one subject: neither excludes the other from the negatives.
    valid = torch.ones(len(picked), dtype=torch.bool)
    excluded, _ = excluded_columns(batch["subject"], valid)
    assert not excluded.any()
    assert set(data.parts[0].subjects) & set(data.parts[1].subjects), "else the check above would be empty"


def test_facts__are_those_of_all_training_items(mixed: MakeConfig) -> None:
    config = mixed(**{"data.labels": LABELS})
    source = open_source(config.data)
    train = open_feeds(source, config.data, {"ecg"}).train
    assert isinstance(train, MixedDataset)
    by_hand = []
    for part in train.parts:
        values = part.cohort.labels["LVEDV"].loc[part.subjects]
        by_hand.extend(values.tolist())
    facts = {fact.name: fact for fact in find_facts(source, config.data, train).labels}
    assert facts["LVEDV"].mean == pytest.approx(np.mean(by_hand))
    assert facts["LVEDV"].std == pytest.approx(np.std(by_hand))
    own = train.parts[0].cohort.labels["LVM"].loc[train.parts[0].subjects]
    assert facts["LVM"].mean == pytest.approx(own.mean()), "of the one cohort that has it"


def test_tabular__is_standardized_over_all_and_missing_where_a_cohort_has_none(mixed: MakeConfig) -> None:
    feeds = feeds_of(mixed(**{"data.tabular": ["age_years", "sex", "LVM"]}), {"ecg"})
    data, batch = feeds.train, feeds.train.batch(range(len(feeds.train)))
    assert isinstance(data, MixedDataset)
    ages = np.concatenate([part.subject_column("age_years") for part in data.parts])
    assert batch["tabular"].shape == (len(data), 4)
    np.testing.assert_allclose(batch["tabular"][:, 0].numpy(), (ages - ages.mean()) / ages.std(), atol=1e-5)
    of_ecg = torch.from_numpy(data.source_codes == 1)
    assert batch["tabular_mask"][:, :3].all()
    assert not batch["tabular_mask"][of_ecg, 3].any(), "this cohort has no LVM"
    assert batch["tabular_mask"][~of_ecg, 3].all()
    assert feeds.val is not None
    assert feeds.val.tabular_columns == data.tabular_columns, "of the training subjects"


@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 1.0), (1.0, 5.0)])
def test_weights__are_parts_of_each_epoch(mixed: MakeConfig, weights: tuple[float, float]) -> None:
    feeds = feeds_of(mixed(weights), {"ecg"})
    assert isinstance(feeds.train, MixedDataset)
    assert feeds.order is not None
    for epoch in range(5):
        order = feeds.order(3, epoch)
        assert len(order) == len(feeds.train)
        share = (feeds.train.source_codes[order] == 0).mean()
        assert abs(share - weights[0] / sum(weights)) <= 1 / len(order)
        assert np.array_equal(order, feeds.order(3, epoch)), "of seed and epoch alone"


def test_weights__left_out_count_by_size(mixed: MakeConfig) -> None:
    assert feeds_of(mixed(), {"ecg"}).order is None


def test_validation__is_of_all_sources_each_subject_once_or_of_those_that_are_named(mixed: MakeConfig) -> None:
    config = mixed()
    source = open_source(config.data)
    val = open_feeds(source, config.data, {"ecg"}).val
    assert val is not None
    assert sorted(val.subjects) == sorted(
        subject + one.offset for one in source.cohorts for subject in one.split.val.tolist()
    )
    sources = [dict(one) for one in config.model_dump(mode="json")["data"]["sources"]]
    sources[0]["val"] = False
    named = config.with_values(**{"data.sources": sources})
    only = open_feeds(open_source(named.data), named.data, {"ecg"}).val
    assert only is not None
    assert sorted(only.subjects) == sorted(source.cohorts[1].split.val + source.cohorts[1].offset)
    sources[1]["val"] = False
    neither = config.with_values(**{"data.sources": sources})
    assert open_feeds(open_source(neither.data), neither.data, {"ecg"}).val is None


def test_draws__are_of_all_sources_together(mixed: MakeConfig) -> None:
    few = feeds_of(mixed(**{"data.train_subjects": 9}), {"ecg"}).train
    more = feeds_of(mixed(**{"data.train_subjects": 20}), {"ecg"}).train
    assert len(few.unique_subjects) == 9
    assert set(few.unique_subjects) < set(more.unique_subjects)
    assert isinstance(few, MixedDataset)
    assert set(few.names) == {"tiny", "ecg only"}
    with pytest.raises(ValueError, match="none of its training subjects was drawn"):
        feeds_of(mixed((1.0, 1.0), **{"data.train_subjects": 1}), {"ecg"})
    both = feeds_of(mixed(**{"data.undersample": "hypertension"}), {"ecg"}).train
    values = both.label_values("hypertension")
    assert 0 < values.sum() == len(values) / 2


def test_align__learns_from_the_pairs_beside_a_cohort_without_cmr(mixed: MakeConfig) -> None:
    config = mixed((1.0, 1.0), objective={"name": "clip_align"}, **{"train.epochs": 2})
    folder = pretrain(config)
    row = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["event"] == "val"
    assert np.isfinite(row["loss_clip"])
    weights = load_weights(folder / "weights")
    assert weights.config["provenance"] == "simulated"
    assert weights.config["license"] == "MIT"
    assert "cohorts 'tiny' (" in weights.config["trained_on"]
    assert "and 'ecg only' (" in weights.config["trained_on"]
    assert [one["cohort"] for one in weights.config["run"]["sources"]] == ["tiny", "ecg only"]
    assert weights.config["run"]["cohort"] == "tiny + ecg only"


def test_init__another_split_of_any_of_the_cohorts_is_refused(
    mixed: MakeConfig, make_config: MakeConfig, ecg_cohort: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    folder = pretrain(mixed(out=str(tmp_path / "mae"), **{"train.max_steps": 1}))
    init = {"ecg": str(folder / "weights")}
    tuned = {"objective": {"name": "supervised"}, "data.labels": ["LVEDV"], "train.max_steps": 1, "init": init}
    finetune(make_config(out=str(tmp_path / "same"), **tuned))
    copy = shutil.copytree(ecg_cohort, tmp_path / "copy", ignore=shutil.ignore_patterns("cache"))
    cohort = Cohort.open(copy)
    path = write_split(cohort, make_split(cohort.subjects["subject"].to_numpy(), seed=99, name="other"))
    schema = json.loads((copy / "cohort.json").read_text())
    schema["files"]["splits/other.json"] = sha256(path)
    (copy / "cohort.json").write_text(json.dumps(schema))
    other = {"data.cohort": None, "data.sources": [{"cohort": str(tiny_cohort)}, {"cohort": str(copy)}]}
    other["data.sources"][1]["split"] = "other"  # type: ignore[index]
    with pytest.raises(ValueError, match=r"another split \('default'\) of the cohort 'ecg only'.*'other'"):
        finetune(make_config(out=str(tmp_path / "other"), **{**tuned, **other}))
    allowed = {**tuned, **other, "init": {**init, "allow_other_split": True}}
    finetune(make_config(out=str(tmp_path / "allowed"), **allowed))
    both = [{"cohort": str(ecg_cohort)}, {"cohort": str(copy), "name": "b", "split": "other"}]
    twice = make_config(out=str(tmp_path / "twice"), **{"data.cohort": None, "data.sources": both})
    with pytest.raises(ValueError, match=r"are one cohort; name it once"):
        pretrain(twice)


def changed_label(cohort: Path, out: Path, **fields: Any) -> Path:
    """A cohort of other subjects whose label LVEDV means something else."""
    shutil.copytree(cohort, out, ignore=shutil.ignore_patterns("cache"))
    schema = json.loads((out / "cohort.json").read_text())
    next(spec for spec in schema["labels"] if spec["name"] == "LVEDV").update(fields)
    (out / "cohort.json").write_text(json.dumps(schema))
    return out


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"data.sources": []}, "cohort is missing: name a folder"),
        ({"data.cohort": "both"}, "leave cohort and split out"),
        ({"data.split": "mine"}, "leave cohort and split out"),
        ({"data.sources": [{"cohort": "a", "weight": 1.0}, {"cohort": "b"}]}, "for all of them, or for none"),
        ({"data.sources": [{"cohort": "a", "weight": 0.0}]}, r"data\.sources\.0\.weight is 0\.0.*greater than 0"),
        ({"data.sources": [{"cohort": "a", "wieght": 2.0}]}, r"unknown key 'data\.sources\.0\.wieght'.*weight"),
        ({"data.sources": [{"cohort": "a", "weight": 1.0}], "data.weight": "age_years"}, "do not go together with"),
    ],
)
def test_config__what_contradicts_itself_is_refused(mixed: MakeConfig, data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixed(**data)


@pytest.mark.parametrize(("what", "value"), [("unit", "l"), ("kind", "binary")])
def test_labels__that_differ_in_meaning_are_refused(
    mixed: MakeConfig, tiny_cohort: Path, ecg_cohort: Path, tmp_path: Path, what: str, value: str
) -> None:
    other = changed_label(ecg_cohort, tmp_path / "other", **{what: value})
    sources = [{"cohort": str(tiny_cohort)}, {"cohort": str(other)}]
    with pytest.raises(ValueError, match=f"label 'LVEDV' has {what} '{value}' in .*other but"):
        pretrain(mixed(**{"data.sources": sources}))


def test_names__that_are_alike_must_be_told_apart(mixed: MakeConfig, tiny_cohort: Path, ecg_cohort: Path) -> None:
    sources = [{"cohort": str(tiny_cohort)}, {"cohort": str(ecg_cohort), "name": "tiny"}]
    with pytest.raises(ValueError, match="two cohorts are called 'tiny'; set the name of each"):
        pretrain(mixed(**{"data.sources": sources}))
    with pytest.raises(ValueError, match="no label 'LVX'"):
        pretrain(mixed(**{"data.labels": ["LVX"]}))
    with pytest.raises(ValueError, match="no group column 'shoe_size'"):
        feeds_of(mixed(**{"data.group": "shoe_size"}), {"ecg"})


def test_subject_offsets__give_ranges_that_do_not_meet(tiny_cohort: Path, ecg_cohort: Path) -> None:
    cohorts = [Cohort.open(path) for path in (tiny_cohort, ecg_cohort, tiny_cohort)]
    cohorts[1].subjects["subject"] -= 7  # a cohort may number its subjects as it likes
    offsets = subject_offsets(cohorts)
    assert offsets[0] == 0, "one cohort keeps its numbers"
    moved = [cohort.subjects["subject"] + offset for cohort, offset in zip(cohorts, offsets, strict=True)]
    counts = Counter(subject for subjects in moved for subject in subjects)
    assert max(counts.values()) == 1


@pytest.mark.parametrize("step", [2, 6])
def test_resume__is_bitwise_equal_to_never_stopping(mixed: MakeConfig, tmp_path: Path, step: int) -> None:
    """Stopped in the first and in the second epoch."""
    weights = (2.0, 1.0)
    whole = pretrain(mixed(weights, out=str(tmp_path / "whole"), **{"train.epochs": 2}))
    config = mixed(weights, out=str(tmp_path / "parts"), **{"train.epochs": 2})

    def interrupt(event: ProgressEvent) -> None:
        if event.done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(RunInterrupted):
        pretrain(config, progress=interrupt)
    parts = pretrain(config, resume=True)
    for name in ("metrics.jsonl", "checkpoints/last/model.safetensors", "weights/model.safetensors"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name


def test_validation_loss__is_that_of_both_cohorts_evaluated_apart(mixed: MakeConfig, tmp_path: Path) -> None:
    """A mean over samples does not care how they are grouped, where no draw is made."""
    seen: dict[str, float] = {}
    real = loop.evaluate

    def spy(objective: Any, dataset: Any, config: Any, accelerator: Any) -> dict[str, float]:
        row = real(objective, dataset, config, accelerator)
        apart = [real(objective, part, config, accelerator)["loss_regression"] for part in dataset.parts]
        seen["whole"] = row["loss_regression"]
        seen["apart"] = float(np.average(apart, weights=[len(part) for part in dataset.parts]))
        return row

    with pytest.MonkeyPatch().context() as patch:
        patch.setattr(loop, "evaluate", spy)
        options = {"data.labels": ["LVEDV"], "train.label_metrics": False, "train.max_steps": 1, "train.epochs": 1}
        finetune(mixed(out=str(tmp_path / "run"), objective={"name": "supervised"}, **options))
    assert_close(seen["whole"], seen["apart"], rtol=1e-5, atol=0.0)
