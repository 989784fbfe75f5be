from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from ecgcmr.cli import data
from ecgcmr.cohort.store import Cohort


@pytest.fixture
def call(tmp_path):
    """Run a command line; gives (exit code, output)."""
    app = typer.Typer()
    data.register(app)

    def run(*words: str | Path) -> tuple[int, str]:
        result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    return run


@pytest.fixture
def arrays(tmp_path) -> Path:
    folder = tmp_path / "ecg"
    folder.mkdir()
    spikes = (np.arange(500) % 100 == 50) * 1000
    ecg = np.broadcast_to(spikes, (6, 12, 500)).astype(np.int16).copy()
    ecg[:, :, ::7] += 30
    np.savez(folder / "all.npz", ecg=ecg, scale=0.001, fs=100, ecg_id=np.arange(6))
    (folder / "bad.hea").write_text("nonsense")
    (tmp_path / "labels.csv").write_text("ecg_id,fold,MI\n" + "".join(f"{k},{k},{k % 2}\n" for k in range(6)))
    return folder


def test_ingest__prints_what_was_read_kept_dropped_and_written(call, arrays, tmp_path):
    out = tmp_path / "cohort"
    words = ["--split-column", "fold", "--split", "train=0,1,2", "--split", "val=3", "--split", "test=4,5"]
    code, text = call(
        "ingest", "--ecg", arrays, "--unit", "mV", "--labels", tmp_path / "labels.csv", *words, "--out", out
    )
    assert code == 0, text
    assert "label 'MI' is binary (prevalence 0.500)" in text
    assert "bad.hea: unreadable" in text
    assert f"6 subjects (train 3, val 1, test 2) written to {out}" in text
    assert len(Cohort.open(out)) == 6
    code, text = call("cohort", "info", out)
    assert code == 0
    assert "subjects: 6 (0 with ECG and CMR)" in text
    assert "dropped ecg: unreadable 1" in text
    assert call("cohort", "validate", out) == (0, f"{out}: no problem found\n")
    code, text = call("ingest", "--ecg", arrays, "--unit", "mV", "--out", out)
    assert (code, "use --force" in text) == (2, True)


def test_ingest__empty_folder_exits_1_and_writes_nothing(call, tmp_path):
    (tmp_path / "empty").mkdir()
    code, text = call("ingest", "--ecg", tmp_path / "empty", "--out", tmp_path / "cohort")
    assert code == 1
    assert "nothing was kept, so nothing was written" in text
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_ingest__bad_options_exit_2_with_one_line(call, arrays, tmp_path):
    code, text = call("ingest", "--ecg", arrays, "--out", tmp_path / "c", "--split", "train")
    assert (code, text.strip()) == (2, "error: --split train: expected PART=FOLD,FOLD,... such as train=1,2,3")
    code, text = call("ingest", "--ecg", tmp_path / "gone", "--out", tmp_path / "c")
    assert code == 2
    assert text.startswith("error: --ecg ")


def test_validate__broken_cohort_exits_1_and_names_the_place(call, arrays, tmp_path):
    out = tmp_path / "cohort"
    call("ingest", "--ecg", arrays, "--unit", "mV", "--out", out)
    file = out / "arrays" / "ecg.bin"
    file.write_bytes(file.read_bytes()[:-2])
    code, text = call("cohort", "validate", out)
    assert code == 1
    assert "arrays/ecg.bin, bytes: 71998 bytes, cohort.json says 72000" in text
    assert "recordings.parquet, row 5, offset" in text
    code, text = call("cohort", "info", out)
    assert (code, "copy is not whole" in text) == (2, True)
    assert call("cohort", "validate", tmp_path / "nothing")[0] == 2


def test_simulate__needs_something_to_do_and_a_known_design(call, tmp_path):
    assert call("simulate")[0] == 2
    (tmp_path / "design.yaml").write_text("prevalence_mo: 0.5\n")
    code, text = call("simulate", "--out", tmp_path / "c", "--design", tmp_path / "design.yaml")
    assert code == 2
    assert "design.yaml: unknown fields ['prevalence_mo']" in text
    code, text = call("simulate", "--out", tmp_path / "c", "--cine", "movie")
    assert (code, "cine must be one of" in text) == (2, True)
    assert not (tmp_path / "c").exists()


def test_simulate__writes_a_valid_cohort(call, tmp_path):
    (tmp_path / "design.yaml").write_text("male_share: 1.0\n")
    out = tmp_path / "c"
    code, text = call(
        "simulate", "--out", out, "--subjects", 3, "--cine", "none", "--design", tmp_path / "design.yaml", "--seed", 4
    )
    assert code == 0, text
    assert f"3 subjects written to {out}" in text
    assert Cohort.open(out).subjects["sex"].tolist() == ["male"] * 3
    assert call("cohort", "validate", out)[0] == 0


def test_ingest__by_recipe_in_parts_that_are_merged(call, arrays, tmp_path):
    recipe = tmp_path / "mine.yaml"
    lines = ["name: mine", "ecg: {folder: ecg, unit: uV}", "table: {file: labels.csv, item: ecg_id, labels: [MI]}"]
    recipe.write_text("\n".join(lines))
    common = ["ingest", "--recipe", recipe, "--root", tmp_path, "ecg.unit=mV"]
    parts = [tmp_path / f"part{k}" for k in (1, 2)]
    for k, part in enumerate(parts, 1):
        code, text = call(*common, "--chunk", f"{k}/2", "--out", part)
        assert code == 0, text
        assert f"part {k} of 2: merge all parts" in text
    code, text = call("cohort", "merge", *parts, "--out", tmp_path / "merged")
    assert code == 0, text
    assert "6 subjects" in text
    assert Cohort.open(tmp_path / "merged").schema.origin["recipe"] == "mine"
    code, text = call("cohort", "merge", parts[0], "--out", tmp_path / "again")
    assert (code, text.strip()) == (2, "error: part 2/2 is missing")
    code, text = call(*common, "ecg.rats=5", "--out", tmp_path / "x")
    assert code == 2
    assert "the command line: unknown key 'ecg.rats'; the nearest valid name is 'ecg.rate_hz'" in text
    code, text = call("ingest", "--ecg", arrays, "ecg.unit=mV", "--out", tmp_path / "x")
    assert (code, "give --recipe FILE" in text) == (2, True)
    code, text = call(*common, "--chunk", "one", "--out", tmp_path / "x")
    assert (code, text.strip()) == (2, "error: --chunk one: expected i/n such as 3/20")
