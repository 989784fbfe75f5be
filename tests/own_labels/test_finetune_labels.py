"""From a table of labels to a weights folder: whole jobs on 40 made-up subjects."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ecgcmr
from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.validate import validate_cohort
from ecgcmr.evaluation.evaluated import headline_table
from ecgcmr.evaluation.predictions import read_predictions
from ecgcmr.evaluation.results import read_results
from ecgcmr.own_labels import FinetuneRequest, finetune_labels
from ecgcmr.own_labels import run as run_module

Ask = Callable[..., FinetuneRequest]


def stopped(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def changed(example: Path, tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    """The example's table, changed."""
    path = tmp_path / "labels.csv"
    change(pd.read_csv(example / "labels_more.csv")).to_csv(path, index=False)
    return path


def test_finetune_labels__numbers_diagnoses_and_types_at_once(ask: Ask, example: Path) -> None:
    told: list[str] = []
    result = finetune_labels(ask(label_columns=("LVM", "hypertrophy", "type"), test_share=0.3), told.append)
    cohort = Cohort.open(result.out / "cohort")
    assert not validate_cohort(cohort.path)
    assert (len(cohort), len(cohort.recordings)) == (40, 50)
    rows = pd.read_csv(example / "labels_more.csv").drop_duplicates("subject")
    assert sorted(zip(cohort.subjects["sex"], cohort.subjects["age_years"], strict=True)) == sorted(
        zip(rows["sex"], rows["age"].astype(float), strict=True)
    )
    assert headline_table(result.evaluation)[0]["age + sex"] != "–", "the baseline that the ECG has to beat"
    table = read_predictions(result.predictions)
    split = open_split(cohort, "finetune")
    assert set(table[table["split"] == "test"]["subject"]) == set(split.test)
    assert set(table["target"]) == {"LVM", "hypertrophy", "type=narrow", "type=wide", "type=inverted T"}
    types = table[table["target"].str.startswith("type=")].groupby(["subject", "item"])
    np.testing.assert_allclose(types["prediction"].sum(), 1, atol=1e-6)
    assert (types["truth"].sum() == 1).all()
    assert {"r2", "mae", "auroc"} <= set(read_results(result.results)["metric"])
    assert result.report.read_text().startswith("<!")
    model = ecgcmr.load_model(result.weights)
    predicted = model.predict(example / "ecg" / "rec0001.hea")
    assert {"LVM", "hypertrophy", "type=wide"} <= set(predicted.columns)
    card = json.loads((result.weights / "config.json").read_text())
    assert any(
        metric["name"] == "AUROC of hypertrophy" and metric["n"] == len(split.test) for metric in card["metrics"]
    )
    assert {label["name"]: label["unit"] for label in card["labels"]}["LVM"] == "g"
    written = b"".join(path.read_bytes() for path in result.out.rglob("*") if path.is_file())
    assert b"S0001" not in written, "subjects of the table stand in what was written"
    assert any(note.startswith("label 'LVM' is a number") for note in told)


def test_finetune_labels__goes_on_where_it_was_killed(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    request = ask(labels=ask().labels.parent / "labels.csv")

    for step in ("finetune", "evaluate_run", "pack_run"):
        with monkeypatch.context() as patch:
            patch.setattr(run_module, step, stopped)
            with pytest.raises(KeyboardInterrupt):
                finetune_labels(request)
    times = {path: path.stat().st_mtime_ns for path in (request.out / "cohort").rglob("*") if path.is_file()}
    result = finetune_labels(request)
    weights = (result.weights / "model.safetensors").read_bytes()
    assert times == {path: path.stat().st_mtime_ns for path in times}, "the cohort was made twice"
    before = {path: path.stat().st_mtime_ns for path in result.out.rglob("*") if path.is_file()}
    finetune_labels(request)
    again = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert {path.name for path in again} <= {"recipe.yaml", "writer.lock"}, "a finished job is left as it is"
    shutil.rmtree(result.out)
    assert (finetune_labels(request).weights / "model.safetensors").read_bytes() == weights


def test_finetune_labels__a_job_may_be_changed_until_it_trains(
    ask: Ask, example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in the table is corrected and the same command repeated; no folder has to be deleted by hand."""
    wrong = changed(example, tmp_path, lambda frame: frame.assign(hypertrophy=0))
    with pytest.raises(ValueError, match="one class only"):
        finetune_labels(ask(labels=wrong, label_columns=("hypertrophy",)))
    monkeypatch.setattr(run_module, "finetune", stopped)
    for values, reads_again in (({}, True), ({"method": "mlp", "test_share": 0.3}, False), ({"seed": 1}, True)):
        request = ask(label_columns=("hypertrophy",), **values)
        before = (request.out / "cohort" / "cohort.json").stat().st_mtime_ns if (request.out / "cohort").exists() else 0
        with pytest.raises(KeyboardInterrupt):
            finetune_labels(request)
        assert ((request.out / "cohort" / "cohort.json").stat().st_mtime_ns != before) == reads_again
        test = open_split(Cohort.open(request.out / "cohort"), "finetune").test
        assert len(test) == (12 if "test_share" in values else 8)
    (request.out / "run").mkdir()
    with pytest.raises(ValueError, match=r"holds the job of other arguments \(method, seed differ\)"):
        finetune_labels(ask(label_columns=("hypertrophy",), method="mlp"))


def test_finetune_labels__a_folder_of_something_else_is_refused(ask: Ask) -> None:
    request = ask(label_columns=("hypertrophy",))
    request.out.mkdir()
    (request.out / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="is no folder of `ecgcmr finetune`"):
        finetune_labels(request)


def test_finetune_labels__folds_of_the_table_are_kept(ask: Ask, example: Path, tmp_path: Path) -> None:
    def with_folds(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(fold=table["subject"].str[1:].astype(int) % 8 + 1)

    table = changed(example, tmp_path, with_folds)
    told: list[str] = []
    result = finetune_labels(ask(labels=table, label_columns=("hypertrophy",), fold_column="fold"), told.append)
    assert "split by 'fold': train 1+2+3+4+5+6, val 7, test 8" in told
    test = read_predictions(result.predictions).query("split == 'test'")
    assert test["subject"].nunique() == 5


def test_finetune_labels__a_subject_in_two_folds_is_refused(ask: Ask, example: Path, tmp_path: Path) -> None:
    table = changed(example, tmp_path, lambda frame: frame.assign(split=["train", "test"] * (len(frame) // 2)))
    with pytest.raises(ValueError, match="parts must be disjoint by subject"):
        finetune_labels(ask(labels=table, label_columns=("hypertrophy",)))


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.9, "5 of 50 rows match no ECG file below .*90% match an ECG file.*without one: data rows"),
        (0.3, r"35 of 50 rows match no ECG file.*their keys look like 'lost0000' \(digits as 0\)"),
        (0.0, "none of its 50 rows matches one of the 50 ECGs"),
    ],
)
def test_finetune_labels__rows_without_a_file_are_counted(
    ask: Ask, example: Path, tmp_path: Path, share: float, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(frame: pd.DataFrame) -> pd.DataFrame:
        lost = np.arange(len(frame)) >= share * len(frame)
        return frame.assign(recording=np.where(lost, frame["recording"].str.replace("rec", "lost"), frame["recording"]))

    request = ask(labels=changed(example, tmp_path, lose), label_columns=("hypertrophy",))
    told: list[str] = []
    if share < 0.5:
        with pytest.raises(ValueError, match=words):
            finetune_labels(request, told.append)
        return
    monkeypatch.setattr(run_module, "finetune", stopped)
    with pytest.raises(KeyboardInterrupt):
        finetune_labels(request, told.append)
    assert any(re.search(words, note) for note in told)
    assert len(Cohort.open(request.out / "cohort").recordings) == 45


def test_finetune_labels__files_without_labels_are_left_alone(ask: Ask, example: Path, tmp_path: Path) -> None:
    from ecgcmr.own_labels.recordings import ingest_recordings
    from ecgcmr.own_labels.table import read_own_labels

    table = changed(example, tmp_path, lambda frame: frame.head(30))
    request = ask(labels=table, label_columns=("hypertrophy",))
    cohort, _ = ingest_recordings(read_own_labels(table, request), request, {}, tmp_path / "cohort", None)
    opened = Cohort.open(cohort)
    assert len(opened.recordings) == 30
    assert (opened.ledger["reason"] == "not_wanted").sum() == 20


def test_finetune_labels__unusable_files_say_why(ask: Ask, example: Path, tmp_path: Path) -> None:
    """A table of numbers without unit or rate, as exported by hand."""
    folder = tmp_path / "ecg"
    folder.mkdir()
    names = pd.read_csv(example / "labels.csv")["recording"]
    for name in names:
        np.save(folder / f"{name}.npy", np.random.default_rng(0).normal(size=(1, 12, 1000)).astype(np.float32))
    labels = pd.read_csv(example / "labels.csv").assign(recording=[f"{name}/0" for name in names])
    table = tmp_path / "labels.csv"
    labels.to_csv(table, index=False)
    with pytest.raises(ValueError, match=r"no file could be used: no_(unit|rate) 50"):
        finetune_labels(ask(labels=table, ecg=folder))


def test_finetune_labels__lost_voltage_needs_another_model(ask: Ask) -> None:
    with pytest.raises(ValueError, match=r"reads voltages .* such as ecg_nano_zscored"):
        finetune_labels(ask(unit="z", label_columns=("hypertrophy",)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"ecg": None}, "give --ecg FOLDER with ECG files, or --cohort COHORT"),
        ({"cohort": Path("c")}, "one of the two"),
        ({"task": "guess"}, "--task guess: expected one of auto"),
        ({"method": "magic"}, "--method magic: expected one of full, linear"),
        ({"test_share": 0.9}, "leave no subject to train on"),
        ({"test_share": 0.2, "fold_column": "fold"}, "--test-share has no meaning"),
        ({"labels": Path("none.csv")}, "there is no such file"),
        ({"ecg": Path("nowhere")}, "there is no such folder"),
        ({"model": "ecg_nona_aligned"}, "did you mean 'ecg_nano_aligned'"),
    ],
)
def test_finetune_labels__wrong_requests_are_refused(ask: Ask, values: dict[str, object], words: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        finetune_labels(ask(**values))
    assert not (ask().out).exists()


def test_finetune_labels__outcomes_of_a_cohort(ask: Ask, tiny_cohort: Path, tmp_path: Path) -> None:
    """Labels by subject number for a cohort that is not changed, in its own split."""
    before = sorted(path.name for path in tiny_cohort.iterdir() if path.name != "cache")
    subjects = Cohort.open(tiny_cohort).subjects["subject"].to_numpy()
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"subject": subjects, "hf_time_years": rng.exponential(4, len(subjects)).round(2)})
    frame["Site"], frame["age"] = ["north", "south"] * (len(frame) // 2), 50
    frame["hf_event"] = (np.arange(len(subjects)) % 3 != 0).astype(int)
    table = tmp_path / "outcomes.csv"
    frame.to_csv(table, index=False)
    outcome = ("hf_time_years", "hf_event")
    result = finetune_labels(
        ask(labels=table, ecg=None, cohort=tiny_cohort, label_columns=outcome, group_columns=("Site",))
    )
    cohort = Cohort.open(result.out / "cohort")
    assert not validate_cohort(cohort.path)
    for part, members in open_split(Cohort.open(tiny_cohort)).parts().items():
        np.testing.assert_array_equal(open_split(cohort, "finetune").part(part), members)
    np.testing.assert_allclose(cohort.labels["hf_time_years"].to_numpy(), frame["hf_time_years"])
    assert cohort.subjects["Site"].tolist() == frame["Site"].tolist()
    assert "Site" in cohort.schema.group_columns
    pd.testing.assert_series_equal(cohort.subjects["age_years"], Cohort.open(tiny_cohort).subjects["age_years"])
    assert "harrell_c" in set(read_results(result.results)["metric"])
    assert sorted(path.name for path in tiny_cohort.iterdir() if path.name != "cache") == before


def test_finetune_on_labels__takes_text_and_lists_and_says_which_options_there_are(
    example: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    arguments = {
        "ecg": str(example / "ecg"),
        "label_columns": ["hypertrophy"],
        "method": "linear",
        "overrides": ["train.epochs=1", "train.precision=no"],
        "evaluation": {"n_draws": 20, "n_permutations": 20},
    }
    labels, out = str(example / "labels_more.csv"), str(tmp_path / "out")
    result = ecgcmr.finetune_on_labels(labels, "ecg_nano_aligned", out, told.append, **arguments)
    assert result.notes == tuple(told[: len(result.notes)])
    assert result.cohort.is_dir()
    assert (result.evaluation / "predictions.parquet") == result.predictions
    with pytest.raises(ValueError, match=r"unknown option 'methd'; known: .*method"):
        ecgcmr.finetune_on_labels(labels, "ecg_nano_aligned", out, methd="linear")
    with pytest.raises(ValueError, match=r"label_columns='LVM': expected a list of texts"):
        ecgcmr.finetune_on_labels(labels, "ecg_nano_aligned", out, label_columns="LVM")
