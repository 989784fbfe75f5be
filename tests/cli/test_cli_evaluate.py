"""`ecgcmr evaluate` and scripts/evaluate.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ecgcmr.cli.main import app

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "evaluation"))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from planted_cohort import binary, regression, write_planted, write_weights

    folder = tmp_path_factory.mktemp("cli")
    cohort = write_planted(folder / "cohort", 150)
    write_weights(folder / "w", cohort, [regression("mass"), binary("one_class")])
    write_weights(folder / "hf", cohort, [regression("hf", "log hazard")])
    return folder


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def test_evaluate__prints_a_table_remarks_and_files(planted: Path) -> None:
    out = planted / "out"
    how = ("--draws", 50, "--permutations", 10, "--device", "cpu", "--groups", "sex")
    done = run("evaluate", "--weights", planted / "w", "--cohort", planted / "cohort", "--out", out, *how)
    assert done.exit_code == 0, done.output
    assert "added value" in done.output
    assert "one_class, ECG: one class only: 0 of 30 are positive" in done.output
    assert "report.html" in done.output
    assert (out / "report.html").is_file()
    about = json.loads((out / "evaluation.json").read_text())
    assert about["groups"] == ["sex"]
    assert about["settings"]["n_draws"] == 50


def test_evaluate__horizons_no_groups_no_report(planted: Path) -> None:
    out = planted / "out_hf"
    how = ("--draws", 20, "--groups", "none", "--horizons", "4,2", "--no-report", "--device", "cpu")
    done = run("evaluate", "--weights", planted / "hf", "--cohort", planted / "cohort", "--out", out, *how)
    assert done.exit_code == 0, done.output
    about = json.loads((out / "evaluation.json").read_text())
    assert about["targets"][0]["horizons"] == [2.0, 4.0]
    assert json.loads((out / "audit.json").read_text()) == []
    assert not (out / "report.html").exists()


def test_evaluate__errors_are_one_line(planted: Path) -> None:
    common = ("evaluate", "--cohort", planted / "cohort", "--out", planted / "new")
    for words, told in (
        (("--weights", planted / "nowhere"), "error:"),
        (("--weights", planted / "w", "--groups", "colour"), "no group column 'colour'"),
        (("--weights", planted / "w", "--horizons", "soon"), "expected numbers with commas"),
        (("--weights", planted / "w", "--split", "other"), "does not exist"),
    ):
        done = run(*common, *words)
        assert done.exit_code == 2, done.output
        assert told in done.output
        assert "Traceback" not in done.output
    assert not (planted / "new").exists()


def test_script__is_the_same_command() -> None:
    program = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), "--help"]
    shown = subprocess.run(program, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "--weights" in shown
    assert "--horizons" in shown
