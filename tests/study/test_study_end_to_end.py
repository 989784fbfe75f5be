"""A small study from its file to the table: numbers against their own computation, killed, repeated, extended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from study_cases import write_study
from typer.testing import CliRunner

from ecgcmr.cli.main import app
from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.evaluation.predictions import read_predictions
from ecgcmr.evaluation.results import read_results
from ecgcmr.study.config import load_study
from ecgcmr.study.plan import make_plan
from ecgcmr.study.table import markdown, study_table

ROOT = Path(__file__).parents[2]


def run(file: Path, out: Path, *more: str) -> Any:
    return CliRunner().invoke(app, ["study", "--config", str(file), "--out", str(out), *more])


def everything(folder: Path) -> dict[str, int]:
    names = ("results.json", "table.md", "report.html", "stages.json", ".lock")
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in names)
    return {str(path): path.stat().st_mtime_ns for path in files if "locks" not in path.parts}


def value(results: pd.DataFrame, **where: object) -> pd.Series:
    for column, wanted in where.items():
        results = results[results[column].isna() if wanted is None else results[column] == wanted]
    assert len(results) == 1, where
    return results.iloc[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_study__from_its_file_to_the_table(study_tree: dict[str, Any], tmp_path: Path, tiny_cohort: Path) -> None:
    file, out = write_study(study_tree, tmp_path / "study.yaml"), tmp_path / "out"
    done = run(file, out)
    assert done.exit_code == 0, done.output
    plan, results = make_plan(load_study(file), file, out), read_results(out / "results.json")
    split = open_split(Cohort.open(tiny_cohort))
    n_all = len(split.train)
    # Labelled subjects and test rows are the same for every arm; r2 is that of the predictions.
    for count, n_labels in ((8, 8), (None, n_all)):
        for seed in (0, 1, 2):
            tables = {
                arm: read_predictions(plan.evaluations(arm)[seed].folder / f"{count or 'all'}_labels.parquet")
                for arm in plan.study.arms
            }
            for arm, table in tables.items():
                assert set(table["subject"]) == set(split.test)
                lvm = table[table["target"] == "LVM"]
                rest = lvm["truth"] - lvm["prediction"]
                r2 = 1 - (rest**2).sum() / ((lvm["truth"] - lvm["truth"].mean()) ** 2).sum()
                found = value(results, arm=arm, n_labels=n_labels, target="LVM", metric="r2", seed=seed)
                assert found["value"] == pytest.approx(r2)
    for arm in ("mae", "barlow"):
        for metric in ("r2", "pearson_r"):
            where = {"n_labels": 8, "target": "LVEDV", "seed": None}
            pair = [value(results, arm=one, metric=metric, compared_to=None, **where)["value"] for one in (arm, "clip")]
            shown = value(results, arm=arm, metric=f"{metric}_diff", compared_to="clip", **where)
            assert shown["value"] == pytest.approx(pair[0] - pair[1])
            assert shown["lo"] <= shown["value"] <= shown["hi"]
        both = [
            value(results, arm=arm, n_labels=8, target=target, metric="r2", seed=None)["value"]
            for target in ("LVEDV", "LVM")
        ]
        macro = value(results, arm=arm, n_labels=8, target="macro", metric="r2", seed=None)
        assert macro["value"] == pytest.approx(np.mean(both))
    assert set(results.loc[results["protocol"] == "retrieval", "arm"]) == {"clip", "barlow"}
    table = (out / "table.md").read_text()
    assert table.count("\n") == 2 + len(plan.study.arms)
    page = (out / "report.html").read_text()
    assert "simulated" in page
    assert str(tmp_path) not in page
    # Once more: nothing is trained or embedded again, and a new arm is all that is added.
    before = everything(out)
    assert run(file, out).exit_code == 0
    assert everything(out) == before
    study_tree["arms"]["simclr"] = {**study_tree["arms"]["clip"], "title": "Again", "values": {"seed": 9}}
    study_tree["arms"]["simclr"]["values"] = {"objective": {"temperature": 0.2}}
    assert run(write_study(study_tree, file), out).exit_code == 0
    after = everything(out)
    assert {name: after[name] for name in before} == before
    assert all("simclr" in name for name in set(after) - set(before))
    assert "| Again |" in (out / "table.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_study__killed_and_repeated_gives_the_same_numbers(study_tree: dict[str, Any], tmp_path: Path) -> None:
    del study_tree["arms"]["barlow"]
    file = write_study(study_tree, tmp_path / "study.yaml")
    assert run(file, tmp_path / "whole", "--workers", "1").exit_code == 0
    parts = tmp_path / "parts"
    command = [sys.executable, "-m", "ecgcmr.cli.main", "study", "--config", str(file), "--out", str(parts)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for number in (signal.SIGKILL, signal.SIGINT):
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        )  # fmt: skip
        seen = len(list(parts.glob("*/*/done.json")))
        for _ in range(6000):
            if process.poll() is not None or len(list(parts.glob("*/*/done.json"))) > seen:
                break
            time.sleep(0.02)
        process.send_signal(number)
        shown, _ = process.communicate(timeout=120)
        assert process.returncode in (-signal.SIGKILL, 130), shown
        assert "Traceback" not in shown, shown
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    for name in ("results.json", "table.md"):
        assert (parts / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("section", "change", "words"),
    [
        ("evaluate", {"labels": ["LVEDV", "LVMM"]}, "has no label 'LVMM'"),
        ("evaluate", {"labels": ["mi_time_years"]}, "of kind 'time'; probes predict"),
        ("evaluate", {"counts": [5000]}, "5000 labelled subjects of"),
        ("cohort", {"path": "nowhere"}, "nowhere is not a cohort"),
    ],
)
def test_study__what_the_cohort_cannot_answer_is_one_message(
    section: str, change: dict[str, Any], words: str, study_tree: dict[str, Any], tmp_path: Path
) -> None:
    study_tree[section].update(change)
    done = run(write_study(study_tree, tmp_path / "study.yaml"), tmp_path / "out")
    assert done.exit_code == 2
    assert words in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "out").exists(), "nothing was begun"


def test_study_table__marks_what_excludes_zero_and_leaves_gaps_open() -> None:
    def row(arm: str, **fields: Any) -> dict[str, Any]:
        base = {"arm": arm, "protocol": "probe", "n_labels": 100, "target": "macro", "metric": "r2", "seed": None}
        return {**base, "n_subjects": 9, "compared_to": None, "value": 0.5, "lo": 0.25, "hi": 0.75, **fields}

    difference = {"metric": "r2_diff", "compared_to": "a"}
    rows = [row("a"), row("b"), row("c", value=-0.1, lo=None, hi=None)]
    rows += [row("b", **difference, value=-0.1, lo=-0.2, hi=-0.05), row("c", **difference, value=0.1, lo=-0.1, hi=0.2)]
    rows += [row("a", protocol="retrieval", n_labels=None, target="ecg_to_cmr", metric="recall_at_10")]
    from ecgcmr.evaluation.results import results_table

    columns, cells = study_table(results_table(rows), {"a": "A", "b": "B", "c": "C"}, "a")
    assert columns == [
        "arm", "mean R², 100 labels", "minus A", "R@10, ECG → CMR", "R@10, CMR → ECG",
    ]  # fmt: skip
    assert cells == [
        ["A", "0.500 [0.250, 0.750]", "–", "0.500 [0.250, 0.750]", "–"],
        ["B", "0.500 [0.250, 0.750]", "−0.100 [−0.200, −0.050] *", "–", "–"],
        ["C", "−0.100", "+0.100 [−0.100, 0.200]", "–", "–"],
    ]
    assert markdown(columns, cells).splitlines()[1] == "| --- | --- | --- | --- | --- |"


def test_labelled_subjects__are_nested_and_differ_by_seed(study_tree: dict[str, Any], tmp_path: Path) -> None:
    from ecgcmr.cohort.splits import Split
    from ecgcmr.evaluation.embeddings import Embeddings
    from ecgcmr.study.config import EvaluateConfig
    from ecgcmr.study.work import labelled_subjects

    subjects = np.repeat(np.arange(60), 2)  # two recordings each
    labels = np.stack([subjects / 10.0, (subjects % 7 == 0).astype(float)], 1)
    found = Embeddings(np.zeros((120, 2), np.float32), subjects, np.arange(120), labels)
    split = Split("s", np.arange(40), np.arange(40, 50), np.arange(50, 60))
    evaluate = EvaluateConfig(labels=("m", "d"), counts=(10, 20, None))
    kinds = {"m": "regression", "d": "binary"}
    ten, twenty, everyone = (labelled_subjects(evaluate, found, split, kinds, 0, count) for count in (10, 20, None))
    assert (len(ten), len(twenty)) == (10, 20)
    assert set(ten) <= set(twenty) <= set(everyone)
    assert set(everyone) == set(range(40))
    assert any(subject % 7 == 0 for subject in ten)
    assert set(ten) != set(labelled_subjects(evaluate, found, split, kinds, 1, 10))
    assert json.loads(json.dumps([int(s) for s in ten])) == sorted(int(s) for s in ten)
