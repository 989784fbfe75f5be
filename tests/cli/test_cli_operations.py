"""`ecgcmr bench` and `ecgcmr runs`: what a user types, what is printed, what is written."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from ecgcmr.cli.main import app
from ecgcmr.training.bench.report import BenchReport
from ecgcmr.training.config import check_config
from ecgcmr.training.run import pretrain

SMALL = ["--preset", "nano", "--stages", "embed,load", "--seconds", "0.01", "--batch-size", "2", "--threads", "1"]


def test_bench__prints_a_table_and_writes_json(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    result = CliRunner().invoke(app, ["bench", *SMALL, "--precision", "fp32", "--json", str(out)])
    assert result.exit_code == 0, result.output
    report = BenchReport.read(out)
    assert [found.stage for found in report.stages] == ["embed", "load"]
    for words in ("GFLOP/s", "1 threads", "Preset nano", "embed", str(out)):
        assert words in result.output


def test_bench__wrong_input_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    for words, expected in (
        (["--preset", "huge"], "choose one of"),
        (["--stages", "walk"], "choose among"),
        (["--precision", "fp8"], "choose fp32"),
        (["--cohort", str(tmp_path / "none"), *SMALL], "none"),
    ):
        result = CliRunner().invoke(app, ["bench", *words])
        assert result.exit_code == 2, result.output
        assert expected in result.output
        assert "Traceback" not in result.output


def test_runs__lists_as_table_and_as_json(tiny_cohort: Path, tmp_path: Path) -> None:
    tree = {
        "name": "listed",
        "out": str(tmp_path / "runs" / "sweep" / "a"),
        "data": {"cohort": str(tiny_cohort), "ecg": {"crop_samples": 200}},
        "model": {"ecg": {"width": 16, "depth": 1, "heads": 2, "patch": 50}},
        "objective": {"name": "masked_ecg", "decoder": {"width": 16, "depth": 1, "heads": 2}},
        "train": {"batch_size": 8, "max_steps": 1, "precision": "no"},
    }
    pretrain(check_config(tree, "the test"))
    table = CliRunner().invoke(app, ["runs", str(tmp_path / "runs")], env={"COLUMNS": "200"})
    assert table.exit_code == 0, table.output
    for words in ("listed", "masked_ecg", "finished", "1 of 1", "loss"):
        assert words in table.output
    listed = CliRunner().invoke(app, ["runs", str(tmp_path / "runs"), "--json"])
    (row,) = json.loads(listed.output)
    assert (row["name"], row["state"], row["step"], row["total"]) == ("listed", "finished", 1, 1)
    assert Path(row["folder"]) == tmp_path / "runs" / "sweep" / "a"


def test_runs__of_nothing(tmp_path: Path) -> None:
    assert "no run in" in CliRunner().invoke(app, ["runs", str(tmp_path)]).output
    assert CliRunner().invoke(app, ["runs", str(tmp_path / "nowhere")]).exit_code == 2
