"""`ecgcmr finetune`: what it prints at the end, and one line for what a user can mend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ecgcmr.cli.main import app
from ecgcmr.cohort.label_building.own_example import write_own_example

runner = CliRunner()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    write_own_example(folder, 30, np.random.default_rng(1))
    return folder


def finetune(own: Path, out: Path, *more: str) -> tuple[int, str]:
    files = ["--ecg", str(own / "ecg"), "--labels", str(own / "labels.csv")]
    quick = ["--method", "linear", "--draws", "20", "train.max_steps=1", "train.precision=no"]
    done = runner.invoke(app, ["finetune", *files, "--model", "ecg_nano_aligned", "--out", str(out), *quick, *more])
    return done.exit_code, done.output


def test_finetune__says_where_things_are(own: Path, tmp_path: Path) -> None:
    code, said = finetune(own, tmp_path / "out")
    assert code == 0, said
    assert "- label 'hypertrophy' is binary" in said
    for name in ("evaluation/report.html", "weights", "evaluation/predictions.parquet", "recipe.yaml"):
        assert (tmp_path / "out" / name).exists()
        assert str(tmp_path / "out" / name) in said
    weights = tmp_path / "out" / "weights"
    predict = ["predict", str(own / "ecg" / "rec0001.hea"), "--model", f"local-dir:{weights}"]
    assert runner.invoke(app, [*predict, "--out", str(tmp_path / "table.csv")]).exit_code == 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--label", "nothing"), "no column 'nothing'; it has recording, hypertrophy"),
        (("--task", "survival"), "'hypertrophy' has no partner"),
        (("--unit", "z"), "such as ecg_nano_zscored"),
        (("--folds", "train"), "expected PART=FOLD"),
        (("train.epoch=5",), "train.epochs"),
    ],
)
def test_finetune__what_a_user_can_mend_is_one_line(
    own: Path, tmp_path: Path, more: tuple[str, ...], words: str
) -> None:
    code, said = finetune(own, tmp_path / "out", *more)
    assert code == 2
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert words in errors[0]
