"""The file of labels between `labels build` and `ingest`: its meaning survives, and wrong files are refused."""

from __future__ import annotations

import json
import stat
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecgcmr.cohort.ingest import ingest
from ecgcmr.cohort.ingest_labels import LabelTable
from ecgcmr.cohort.ingest_plan import IngestOptions
from ecgcmr.cohort.label_building.build import BuildOptions, build_labels, write_ledger
from ecgcmr.cohort.label_building.example import write_example
from ecgcmr.cohort.label_file import LabelColumns, read_label_columns, specs_path, write_labels
from ecgcmr.cohort.schema import LabelSpec
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.validate import validate_cohort

CONFIGS = Path(__file__).parents[2] / "configs" / "labels"


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    folder = tmp_path_factory.mktemp("example") / "tables"
    write_example(folder, "ukb", 24, 3)
    return folder, build_labels(CONFIGS / "ukb.yaml", [str(folder)], BuildOptions(date(2022, 10, 31)))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_build_then_ingest__keeps_every_value_and_its_meaning(example, tmp_path, suffix):
    folder, built = example
    write_labels(tmp_path / f"labels{suffix}", built.table, built.columns)
    report = ingest(
        IngestOptions(out=tmp_path / "c", ecg=folder / "ecg", unit="mV", labels=tmp_path / f"labels{suffix}")
    )
    assert report.subjects == 24
    cohort = Cohort.open(tmp_path / "c")
    assert validate_cohort(tmp_path / "c") == []
    assert cohort.label_specs == {spec.name: spec for spec in built.columns.specs}
    names = list(cohort.label_specs)
    np.testing.assert_array_equal(cohort.labels[names].to_numpy(), built.table[names].to_numpy(dtype=float))
    assert cohort.subjects["sex"].tolist() == built.table["sex"].tolist()
    assert cohort.schema.group_columns == ("sex", "site")
    assert not any("P0001" in file.read_text(errors="ignore") for file in (tmp_path / "c").rglob("*.json"))


def table(tmp_path, text="subject,mi,LVEF\nx1,1,55\nx2,0,\n", specs=None) -> Path:
    file = tmp_path / "labels.csv"
    file.write_text(text)
    listed = specs or (
        LabelSpec("mi", "binary"),
        LabelSpec("LVEF", "regression", "%", "ejection", 24103, low=2, high=95),
    )
    specs_path(file).write_text(LabelColumns(listed, "subject").to_json())
    return file


def test_specs__name_the_key_and_leave_other_columns_alone(tmp_path):
    labels = LabelTable(table(tmp_path, "subject,note,mi,LVEF\nx1,1,1,55\n"))
    specs, values = labels.labels((), ())
    assert labels.subject_column == "subject"
    assert [spec.name for spec in specs] == ["mi", "LVEF"]  # "note" would be taken for a label without specs
    np.testing.assert_array_equal(values, [[1, 55]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject,mi,LVEF\nx1,2,55\n", r"column 'mi', data row 1: '2' is no binary value; expected 0, 1 or nothing"),
        ("subject,mi,LVEF\nx1,1,55\nx2,1,high\n", r"column 'LVEF', data row 2: 'high' is no regression value"),
        (
            "subject,mi,LVEF\nx1,1,0.55\n",
            r"'0\.55' is no regression value; expected a number or nothing from 2 to 95 %",
        ),
        ("subject,mi\nx1,1\n", "its specs describe the column 'LVEF', which it does not have"),
    ],
)
def test_specs__that_the_file_breaks_are_an_error(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        LabelTable(table(tmp_path, text)).labels((), ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(format_version=9), "format_version is 9"),
        (lambda data: data["specs"][0].update(kind="guess"), "kind must be one of"),
        (lambda data: data.pop("specs"), "not a description of labels"),
        (lambda data: data.update(colour=1), "not a description of labels"),
    ],
)
def test_specs__broken_file_is_named(tmp_path, change, message):
    file = table(tmp_path)
    data = json.loads(specs_path(file).read_text())
    change(data)
    specs_path(file).write_text(json.dumps(data))
    with pytest.raises(ValueError, match=message) as told:
        read_label_columns(file, ["subject", "mi", "LVEF"])
    assert "labels.specs.json" in str(told.value)


@pytest.fixture
def arrays(tmp_path) -> Path:
    (tmp_path / "ecg").mkdir()
    wave = np.sin(np.arange(500) / 9) * 1000
    ecg = np.broadcast_to(wave, (4, 12, 500)).astype(np.int16)
    np.savez(tmp_path / "ecg" / "all.npz", ecg=ecg, scale=0.001, fs=100, ecg_id=[f"rec{k}" for k in range(4)])
    return tmp_path / "ecg"


def test_ingest__label_table_with_unknown_ids_tells_how_many(tmp_path, arrays):
    file = tmp_path / "labels.csv"
    file.write_text("record,MI\nrec0,1\nrec1,0\nstranger7,1\nstranger8,1\n")
    report = ingest(IngestOptions(out=tmp_path / "c", ecg=arrays, unit="mV", labels=file))
    assert "2 of 4 rows of the labels table belong to no file: not used" in report.statements
    assert "2 of 4 items have no row in the labels table" in report.statements
    assert Cohort.open(tmp_path / "c").labels["MI"].isna().sum() == 2
    assert "stranger" not in " ".join(report.statements)


def test_ingest__label_table_of_other_ids_is_refused_by_their_look(tmp_path, arrays):
    file = tmp_path / "labels.csv"
    file.write_text("record,MI\n10023,1\n10024,0\n")
    with pytest.raises(
        ValueError, match=r"none of its 2 rows belongs to any of the 4 items.*values like '99999'"
    ) as told:
        ingest(IngestOptions(out=tmp_path / "c", ecg=arrays, unit="mV", labels=file))
    assert "10023" not in str(told.value)
    assert not (tmp_path / "c").exists()


def test_ingest__rows_of_other_visits_of_a_subject_are_no_strangers(tmp_path, arrays):
    file = tmp_path / "labels.csv"
    file.write_text("record,who,MI\nrec0,a,1\nrec9,a,0\nrec8,b,0\n")
    report = ingest(
        IngestOptions(tmp_path / "c", arrays, unit="mV", labels=file, subject_column="who", item_column="record")
    )
    assert "1 of 3 rows of the labels table belong to no file: not used" in report.statements


def test_write_labels__whole_or_not_at_all(tmp_path):
    with pytest.raises(ValueError, match=r"written as \.csv or \.parquet"):
        write_labels(tmp_path / "labels.xlsx", pd.DataFrame(), LabelColumns(()))
    assert list(tmp_path.iterdir()) == []
    write_ledger(tmp_path / "ledger.csv", pd.DataFrame({"subject": ["a"]}))
    assert stat.S_IMODE((tmp_path / "ledger.csv").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.csv"]


@pytest.mark.shared
def test_real_headers__become_labels_of_a_cohort(shared_data, tmp_path):
    records = shared_data / "cinc2021" / "records"
    built = build_labels(CONFIGS / "physionet2021.yaml", [str(records)])
    write_labels(tmp_path / "labels.csv", built.table, built.columns)
    report = ingest(IngestOptions(out=tmp_path / "c", ecg=records, labels=tmp_path / "labels.csv"))
    cohort = Cohort.open(tmp_path / "c")
    assert report.kept["ecg"] >= 28
    assert not any("belong to no file" in statement for statement in report.statements)
    assert validate_cohort(tmp_path / "c") == []
    kept = cohort.ledger[cohort.ledger["status"] == "kept"]
    rows = built.table.set_index("item")
    for item, row in zip(kept["item"], kept["row"], strict=True):
        subject = int(cohort.recordings["subject"].iloc[row])
        name = Path(str(item)).stem
        np.testing.assert_array_equal(
            cohort.labels.loc[subject].to_numpy(), rows.loc[name, list(cohort.labels.columns)].to_numpy(dtype=float)
        )
        assert cohort.subjects["sex"].iloc[subject] == rows.loc[name, "sex"]
