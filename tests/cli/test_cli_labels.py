from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from ecgcmr.cli.main import app
from ecgcmr.cohort.store import Cohort

CONFIGS = Path(__file__).parents[2] / "configs" / "labels"


@pytest.fixture
def call():
    def run(*words: str | Path) -> tuple[int, str]:
        result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    return run


def test_labels__from_example_to_cohort_to_splits(call, tmp_path):
    tables, labels, cohort = tmp_path / "tables", tmp_path / "labels.csv", tmp_path / "cohort"
    assert call("labels", "example", "--out", tables, "--subjects", 30)[0] == 0
    build = ["labels", "build", "--definitions", CONFIGS / "ukb.yaml", "--tables", tables, "--out", labels]
    code, text = call(*build)
    assert code == 2
    assert "give --censor-date" in text
    assert not labels.exists()
    code, text = call(
        *build, "--censor-date", "2022-10-31", "--include", "mi:old_mi", "--ledger", tmp_path / "aside.csv"
    )
    assert code == 0, text
    assert "LVEF: outside 2 to 95 %, set to missing" in text
    assert pd.read_csv(tmp_path / "aside.csv")["label"].tolist() == ["LVEF"]
    assert json.loads((tmp_path / "labels.specs.json").read_text())["subject_column"] == "subject"
    assert "use --force" in call(*build, "--censor-date", "2022-10-31")[1]
    assert "expected a date as YYYY-MM-DD" in call(*build, "--censor-date", "31/10/2022", "--force")[1]
    code, text = call("ingest", "--ecg", tables / "ecg", "--unit", "mV", "--labels", labels, "--out", cohort)
    assert code == 0, text
    assert "label 'mi_time_years' is time [years]" in text
    code, text = call("cohort", "split", cohort, "--kind", "kfold", "--k", "3", "--name", "cv", "--by", "cad")
    assert code == 0, text
    assert [name for name in Cohort.open(cohort).split_names if name.startswith("cv")] == ["cv-0", "cv-1", "cv-2"]
    assert call("cohort", "validate", cohort)[0] == 0
    code, text = call("cohort", "check-stages", cohort, "default", "cv-0")
    assert code == 2
    assert "in test of 'cv-0': a model that learned from them cannot be tested on them" in text
    assert call("cohort", "check-stages", cohort, "default", "default")[0] == 0


def test_labels__options_are_checked_before_anything_is_read(call, tmp_path):
    code, text = call(
        "labels", "build", "--definitions", tmp_path / "x.yaml", "--tables", "a.csv", "--out", tmp_path / "l.txt"
    )
    assert (code, "written as .csv or .parquet" in text) == (2, True)
    code, text = call(
        "labels", "build", "--definitions", tmp_path / "x.yaml", "--tables", "a.csv", "--out", tmp_path / "l.csv"
    )
    assert (code, "no such definition file" in text) == (2, True)


@pytest.mark.parametrize("name", ["ukb", "mimic", "physionet2021", "ptbxl"])
def test_show__lists_every_definition(call, name):
    code, text = call("labels", "show", CONFIGS / f"{name}.yaml", "--markdown")
    assert code == 0
    assert text.count("\n| ") >= 12
    assert call("labels", "show", CONFIGS / f"{name}.yaml")[0] == 0


def test_split__mistakes_exit_2_with_one_line(call, tiny_cohort):
    code, text = call("cohort", "split", tiny_cohort, "--kind", "random", "--name", "x", "--fractions", "a,b")
    assert (code, text.strip()) == (2, "error: --fractions a,b: expected numbers with commas between them")
    code, text = call(
        "cohort", "split", tiny_cohort, "--kind", "temporal", "--name", "x", "--column", "age_years", "--cut", "1"
    )
    assert (code, "expected two times" in text) == (2, True)
    code, text = call(
        "cohort", "split", tiny_cohort, "--kind", "folds", "--name", "x", "--column", "site", "--part", "train"
    )
    assert (code, "expected PART=FOLD" in text) == (2, True)
