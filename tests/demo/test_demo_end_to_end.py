"""`ecgcmr demo` from an empty folder to the report, at the smallest size; and that a second call does nothing."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ecgcmr.cli.main import app
from ecgcmr.cohort.store import Cohort
from ecgcmr.demo.context import DIAGNOSES, MEASUREMENTS
from ecgcmr.demo.evaluating import OUTCOMES
from ecgcmr.demo.presets import PRESETS, DemoPreset
from ecgcmr.evaluation.evaluated import read_evaluation

ROW = ["arm", "protocol", "n_labels", "target", "metric", "value", "lo", "hi", "n_subjects", "seed", "compared_to"]
PROBED = ("ecg_mae", "aligned", "mae_aligned", "cmr", "shuffled")
RIVALS = ("ecg_mae", "scratch", "aligned")
RUNS = ("ecg_mae", "cmr_simclr", "mae_aligned", "aligned", "shuffled")
TINY = DemoPreset(
    "tiny",
    n_subjects=60,
    mae_steps=3,
    cmr_steps=2,
    align_steps=3,
    finetune_steps=(3, 3),
    outcome_steps=3,
    label_counts=(10, None),
    draws=2,
    gallery=12,
    bootstrap_draws=50,
    finetune_pretrained=True,
    shuffled_control=True,
)
TRAIN, TEST = 42, 12

Key = tuple[str, str, int | None, str, str, int | None, str | None]


def scored(arm: str, protocol: str, compared_to: str | None, ending: str) -> set[Key]:
    """Every target and metric at each number of labels, for both draws and their mean."""
    metrics = {
        **dict.fromkeys(MEASUREMENTS, ("r2", "mae", "pearson_r")),
        **dict.fromkeys(DIAGNOSES, ("auroc", "auprc", "brier")),
    }
    return {
        (arm, protocol, n_labels, target, metric + ending, seed, compared_to)
        for n_labels in (10, TRAIN)
        for target, names in metrics.items()
        for metric in names
        for seed in (None, 0, 1)
    }


def expected() -> set[Key]:
    result = scored("scratch", "finetune", None, "")
    for arm in PROBED:
        result |= scored(arm, "probe", None, "")
        if arm != "cmr":
            result |= scored(arm, "finetune", None, "")
    for rival in RIVALS:
        result |= scored("mae_aligned", "probe", rival, "_diff") | scored("mae_aligned", "finetune", rival, "_diff")
    for arm in ("mae_aligned", "aligned", "shuffled"):
        for direction in ("ecg_to_cmr", "cmr_to_ecg"):
            for metric in ("recall_at_1", "recall_at_5", "recall_at_10", "median_rank"):
                result.add((arm, "retrieval", None, direction, metric, None, None))
    return result


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_demo__runs_to_the_report_and_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    out = tmp_path / "demo"
    command = ["demo", "--preset", "tiny", "--seed", "1", "--workers", "1", "--out", str(out)]
    level = logging.getLogger("ecgcmr").level
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    assert logging.getLogger("ecgcmr").level == level  # quiet while it runs, and only then
    for name in ("report.html", "results.json", "runs/mae_aligned/weights"):
        assert str(out / name) in done.output
    check_results(out)
    check_report(out)
    check_evaluations(out)
    assert {path.name for path in (out / "runs").iterdir()} == {*RUNS, "finetune"}
    assert not list(out.rglob("*.partial"))
    stages = list(json.loads((out / "stages.json").read_text()))
    before = everything(out)
    again = CliRunner().invoke(app, command, catch_exceptions=False)
    assert again.exit_code == 0
    assert stages == ["simulate", "learn", "shuffled", "probe", "finetune", "tune", "evaluate", "compare", "report"]
    assert again.output.count("done before") == len(stages)
    assert everything(out) == before
    check_killed_evaluation(out, command)


def check_results(out: Path) -> None:
    rows = json.loads((out / "results.json").read_text())
    assert all(list(row) == ROW for row in rows)
    # Balanced accuracy needs both classes among the validation subjects, of which a tiny cohort has six.
    sure = [row for row in rows if not row["metric"].startswith("balanced_accuracy")]
    names = ("arm", "protocol", "n_labels", "target", "metric", "seed", "compared_to")
    keys = [tuple(row[name] for name in names) for row in sure]
    assert len(keys) == len(set(keys))
    assert set(keys) == expected()
    for row in rows:
        assert row["n_subjects"] == TEST
        if row["lo"] is not None:
            assert row["lo"] <= row["value"] + 1e-9, row
            assert row["value"] <= row["hi"] + 1e-9, row


def check_evaluations(out: Path) -> None:
    """Both runs on the held-out subjects, by what `ecgcmr evaluate` calls: all targets, all groups of the cohort."""
    columns = set(Cohort.open(out / "cohort").schema.group_columns)
    assert columns >= {"sex", "age_band", "bmi_band", "scanner", "site", "group"}
    for name, targets in (("phenotypes", (*MEASUREMENTS, *DIAGNOSES)), ("outcomes", OUTCOMES)):
        found = read_evaluation(out / "evaluation" / name)
        assert tuple(target["name"] for target in found.about["targets"]) == targets
        assert found.about["test_subjects"] == TEST
        assert found.about["covariates"]["names"] == ["age", "sex", "BMI"]
        assert found.about["settings"]["n_draws"] == TINY.bootstrap_draws
        assert {row["attribute"] for row in found.audit} | set(found.about["groups_left_out"]) == columns
        small = [row for row in found.audit if row["level"] != "gap" and row["n_subjects"] < 10]
        assert small
        assert all(row["value"] is None and row["prevalence"] is None for row in small)
    # Where the demo fine-tunes every arm, the evaluated model is that of the main arm, and no second one beside it.
    about = read_evaluation(out / "evaluation" / "phenotypes").about
    weights = json.loads((out / "runs" / "finetune" / "mae_aligned-all-0" / "weights" / "config.json").read_text())
    assert about["weights"]["sha256"] == weights["sha256"]
    assert (about["split"]["name"], about["split"]["how"]["labels"]) == ("labels_all_draw0", TRAIN)


def check_killed_evaluation(out: Path, command: list[str]) -> None:
    """Killed after the first evaluation: that one is kept, the other is made again, with the same numbers."""
    outcomes, kept = out / "evaluation" / "outcomes", out / "evaluation" / "phenotypes" / "results.json"
    before, time = (outcomes / "results.json").read_bytes(), kept.stat().st_mtime_ns
    page = (out / "report.html").read_bytes()
    marks = json.loads((out / "stages.json").read_text())
    (out / "stages.json").write_text(json.dumps({k: v for k, v in marks.items() if k not in ("evaluate", "report")}))
    for gone in (outcomes / "evaluation.json", outcomes / "results.json", out / "report.html"):
        gone.unlink()
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    assert (outcomes / "results.json").read_bytes() == before
    assert kept.stat().st_mtime_ns == time
    cost = rb"<tr><td>[a-z]+</td><td>\d+ s</td><td>[\d,]+ MiB</td></tr>"
    assert re.sub(cost, b"", (out / "report.html").read_bytes()) == re.sub(cost, b"", page)


def check_report(out: Path) -> None:
    page = (out / "report.html").read_text()
    assert len(page) < 5e6
    links = re.findall(r"""(?:src|href)=["'](?!data:|#)([^"']+)""", page)
    assert links == [f"evaluation/{name}/report.html" for name in ("phenotypes", "outcomes")]
    for link in links:
        assert "Reporting items (TRIPOD+AI)" in (out / link).read_text()
    assert "@keyframes" in page  # hearts that beat
    for words in (
        "MAE + aligned",
        "CMR encoder (ceiling)",
        "Aligned on shuffled pairs (control)",
        "LV mass [g]",
        "What the ECG adds to age, sex and BMI",
        "ECG minus age + sex + BMI",  # six validation subjects are too few to combine the two
        "Incident outcomes",
        "What the nearest hearts tell",
        "What one output rests on",
        "Label efficiency: fine-tuned encoders",
        "Limits",
    ):
        assert words in page, words
    assert "--preset tiny --seed 1" in page
