"""A demo folder belongs to one preset and one seed; presets can be run; labels are drawn once for all arms."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ecgcmr.cohort.splits import DEFAULT_FRACTIONS, open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.demo.arms import VAL_SHARE, label_draws, make_label_splits, split_name
from ecgcmr.demo.context import DIAGNOSES, MAIN, MEASUREMENTS, RIVALS, SCRATCH, DemoContext, open_context
from ecgcmr.demo.learning import recipe
from ecgcmr.demo.presets import PRESETS, DemoPreset, demo_preset

COUNTS = (8, 12, None)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)
def test_presets__have_the_subjects_that_they_ask_for(preset: DemoPreset) -> None:
    train, val, test = (int(share * preset.n_subjects) for share in DEFAULT_FRACTIONS)
    counts = [count for count in preset.label_counts if count is not None]
    assert counts == sorted(set(counts))
    assert max(counts) < train
    assert max(counts) // VAL_SHARE <= val
    assert preset.gallery <= test
    assert PRESETS[preset.name] is demo_preset(preset.name)
    assert json.loads(json.dumps(preset.to_dict())) == preset.to_dict()


def test_presets__grow() -> None:
    quick, standard, full = (PRESETS[name] for name in ("quick", "standard", "full"))
    for name in ("n_subjects", "mae_steps", "cmr_steps", "align_steps", "finetune_steps", "bootstrap_draws"):
        assert getattr(quick, name) < getattr(standard, name) <= getattr(full, name), name


def test_demo_preset__unknown_names_the_choices() -> None:
    with pytest.raises(ValueError, match=r"--preset is 'huge'; choose one of quick, standard, full"):
        demo_preset("huge")


@pytest.mark.parametrize("name", ["ecg_mae", "cmr_simclr", "align", "supervised"])
def test_recipe__reads_and_points_into_the_demo(name: str, tmp_path: Path) -> None:
    context = DemoContext(tmp_path, PRESETS["quick"], 5, 1)
    config = recipe(context, name, "some_run", train__max_steps=7)
    assert config.folder == tmp_path / "runs" / "some_run"
    assert (config.seed, config.train.max_steps, Path(config.data.cohort)) == (5, 7, tmp_path / "cohort")


def test_recipes__share_one_model_and_one_view_of_the_data(tmp_path: Path) -> None:
    """Otherwise the arms would differ in more than in what they learned from."""
    context = DemoContext(tmp_path, PRESETS["quick"], 0, 1)
    mae, simclr, align, supervised = (
        recipe(context, name, name) for name in ("ecg_mae", "cmr_simclr", "align", "supervised")
    )
    assert mae.model.ecg == align.model.ecg == supervised.model.ecg
    assert mae.data.ecg == align.data.ecg == supervised.data.ecg
    assert simclr.model.cmr == align.model.cmr
    assert simclr.data.cmr == align.data.cmr


def test_open_context__continues_the_same_demo(tmp_path: Path) -> None:
    first = open_context(tmp_path / "demo", "quick", 3, 1)
    (first.out / "cohort").mkdir()
    before = (first.out / "plan.json").read_bytes()
    assert open_context(tmp_path / "demo", "quick", 3, workers=2) == replace(first, workers=2)
    assert (first.out / "plan.json").read_bytes() == before


@pytest.mark.parametrize(("preset", "seed"), [("standard", 3), ("quick", 4)])
def test_open_context__another_preset_or_seed_is_refused(tmp_path: Path, preset: str, seed: int) -> None:
    open_context(tmp_path, "quick", 3, 1)
    with pytest.raises(ValueError, match=f"preset 'quick' and seed 3, not '{preset}' and {seed}"):
        open_context(tmp_path, preset, seed, 1)


def test_open_context__a_preset_that_has_changed_since_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_context(tmp_path, "quick", 0, 1)
    monkeypatch.setitem(PRESETS, "quick", replace(PRESETS["quick"], mae_steps=41))
    with pytest.raises(ValueError, match="choose another --out"):
        open_context(tmp_path, "quick", 0, 1)


def test_open_context__a_foreign_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="not empty and holds no demo"):
        open_context(tmp_path, "quick", 0, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_demo_command__wrong_preset_and_foreign_folder_are_one_message_and_code_2(tmp_path: Path) -> None:
    from ecgcmr.cli.main import app

    (tmp_path / "thesis.tex").write_text("precious")
    for arguments, message in ((["--preset", "huge"], "--preset is 'huge'"), (["--preset", "quick"], "holds no demo")):
        result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path), *arguments])
        assert result.exit_code == 2
        assert message in result.output.replace("\n", " ")
        assert isinstance(result.exception, SystemExit)


def test_demo_command__an_interruption_is_one_message_and_code_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecgcmr.cli.main import app
    from ecgcmr.training.signals import RunInterrupted

    def interrupted(*_: object, **__: object) -> None:
        raise RunInterrupted(tmp_path, 3)

    monkeypatch.setattr("ecgcmr.demo.run.run_stages", interrupted)
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "new"), "--preset", "quick"])
    assert result.exit_code == 130
    assert "goes on where it stopped" in result.output


def test_demo_command__help_names_the_presets() -> None:
    from ecgcmr.cli.main import app

    shown = CliRunner().invoke(app, ["demo", "--help"]).output
    assert all(name in shown for name in PRESETS)


def test_context__what_is_compared_is_there() -> None:
    for preset in PRESETS.values():
        arms = {arm.key for arm in DemoContext(Path("x"), preset, 0, 1).arms()} | {SCRATCH.key}
        assert {MAIN, *RIVALS} <= arms
        assert ("shuffled" in arms) == preset.shuffled_control


@pytest.fixture(scope="module")
def drawn(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> DemoContext:
    """A demo on a copy of the cohort of 24 subjects, with its label splits."""
    out = tmp_path_factory.mktemp("labels")
    shutil.copytree(tiny_cohort, out / "cohort", ignore=shutil.ignore_patterns("cache"))
    preset = replace(PRESETS["quick"], n_subjects=24, label_counts=COUNTS, draws=3)
    context = DemoContext(out, preset, 2, 1)
    make_label_splits(context)
    return context


def test_label_splits__are_nested_and_keep_the_held_out_subjects(drawn: DemoContext) -> None:
    cohort = Cohort.open(drawn.cohort)
    whole = open_split(cohort)
    for seed in range(3):
        few, more, everyone = (open_split(cohort, split_name(drawn, count, seed)) for count in COUNTS)
        assert (len(few.train), len(more.train)) == (8, 12)
        for part in ("train", "val"):
            assert set(few.part(part)) <= set(more.part(part)) <= set(everyone.part(part))
        np.testing.assert_array_equal(everyone.train, whole.train)
        np.testing.assert_array_equal(everyone.val, whole.val)
        for split in (few, more, everyone):
            np.testing.assert_array_equal(split.test, whole.test)


def test_label_splits__hold_every_diagnosis_that_the_training_subjects_have(drawn: DemoContext) -> None:
    cohort = Cohort.open(drawn.cohort)
    labels = cohort.labels
    for count, seed in label_draws(drawn):
        train = open_split(cohort, split_name(drawn, count, seed)).train
        for name in DIAGNOSES:
            available = labels.loc[open_split(cohort).train, name].sum()
            assert labels.loc[train, name].sum() >= min(available, 1), (name, count, seed)
        assert labels.loc[train, list(MEASUREMENTS)].notna().all(axis=None)


def test_label_splits__are_the_same_when_made_again_and_differ_between_draws(drawn: DemoContext) -> None:
    """All arms read these files, so all arms have the same labelled subjects."""
    files = sorted((drawn.cohort / "splits").glob("labels_*.json"))
    assert [path.stem for path in files] == sorted(split_name(drawn, count, seed) for count, seed in label_draws(drawn))
    before = [path.read_bytes() for path in files]
    make_label_splits(drawn)
    assert [path.read_bytes() for path in files] == before
    cohort = Cohort.open(drawn.cohort)
    draws = {tuple(open_split(cohort, split_name(drawn, 8, seed)).train) for seed in range(3)}
    assert len(draws) == 3
