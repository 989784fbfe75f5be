from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from ecgcmr.cohort.info import summarize
from ecgcmr.cohort.tables import sha256
from ecgcmr.cohort.validate import validate_cohort


def change_table(path, name, change):
    """Change a table and its hash, so that only the content is wrong."""
    file = path / f"{name}.parquet"
    table = change(pd.read_parquet(file))
    table.to_parquet(file, index=False)
    schema = json.loads((path / "cohort.json").read_text())
    schema["files"][f"{name}.parquet"] = sha256(file)
    (path / "cohort.json").write_text(json.dumps(schema))


def set_cell(row, column, value):
    def change(table):
        table[column] = table[column].astype(object)
        table.at[row, column] = value
        return table.infer_objects()

    return change


def found(path, **kwargs):
    return [(item.file, item.row, item.field) for item in validate_cohort(path, **kwargs)]


@pytest.mark.parametrize("ragged", [False, True])
def test_validate__clean_cohort_has_no_problem(new_cohort, ragged):
    assert validate_cohort(new_cohort(ragged=ragged), deep=True) == []


@pytest.mark.parametrize(
    ("table", "row", "column", "value", "message"),
    [
        ("recordings", 3, "subject", 99, "subject 99 is not in subjects.parquet"),
        ("recordings", 3, "rate_hz", -1.0, "-1.0 is not positive"),
        ("recordings", 3, "rate_hz", np.inf, "inf is not positive and finite"),
        ("recordings", 3, "scale_per_unit", np.inf, "inf is not positive and finite"),
        ("recordings", 3, "offset", 0, "offset 0 lies within the elements of another row"),
        ("studies", 5, "offset", 0, "offset 0 lies within the elements of another row"),
        ("recordings", 3, "unit", "uV", "'uV' is neither mV nor z"),
        ("recordings", 3, "offset", 60000, "lies outside the 60000 elements"),
        ("recordings", 3, "offset", -6, "lies outside the 60000 elements"),
        ("recordings", 3, "leads", "I,II", "does not have n_leads names"),
        ("recordings", 3, "recording", 2, "2 is there twice"),
        ("studies", 5, "view", "short", "'short' is none of"),
        ("studies", 5, "spacing_row_mm", 0.0, "no plausible pixel spacing"),
        ("studies", 5, "frame_times_ms", [0.0, 100.0], "2 times for 3 frames"),
        ("studies", 5, "frame_times_ms", [0.0, 100.0, 50.0], "times do not increase"),
        ("studies", 5, "affine", [1.0], "expected 16 finite numbers"),
        ("studies", 5, "mask_offset", 10**9, "lies outside"),
        ("labels", 6, "MI", 0.5, "0.5 is no binary value; expected 0, 1 or NaN"),
        ("labels", 6, "LVEDV", 1500.0, "1500.0 ml lies outside the plausible 20 to 600 ml"),
        ("labels", 6, "LVEDV", np.inf, "inf is not finite"),
        ("labels", 6, "MI_time", -1.0, "lies outside the plausible 0"),
        ("labels", 6, "rhythm", 2.0, "2.0 is no code of ['SR', 'AF']"),
        ("labels", 6, "subject", 5, "5 is there twice"),
        ("ledger", 2, "reason", "because", None),
        ("ledger", 2, "row", 77, "77 is no row of"),
        ("subjects", 2, "subject", 11, "11 is not the row number"),
    ],
)
def test_validate__names_file_row_and_field(new_cohort, table, row, column, value, message):
    path = new_cohort()
    change_table(path, table, set_cell(row, column, value))
    if message is None:  # a reason matters only for what was dropped
        assert validate_cohort(path) == []
        change_table(path, table, set_cell(row, "status", "dropped"))
        message = "'because' is no known reason code"
    matching = [item for item in validate_cohort(path) if message in item.message]
    assert [(item.file, item.row, item.field) for item in matching] == [(f"{table}.parquet", row, column)]
    assert f"{table}.parquet, row {row}, {column}: " in str(matching[0])


def test_validate__label_of_the_wrong_type(new_cohort):
    path = new_cohort()
    change_table(path, "labels", lambda table: table.assign(LVEDV=table["LVEDV"].map(lambda value: f"{value} ml")))
    assert [str(item) for item in validate_cohort(path)] == [
        "labels.parquet, LVEDV: a regression label must hold numbers, the column is object"
    ]


def test_validate__columns_and_specs_must_agree(new_cohort):
    path = new_cohort()
    change_table(path, "labels", lambda table: table.rename(columns={"MI": "infarct"}))
    change_table(path, "subjects", lambda table: table.drop(columns="scanner"))
    assert found(path) == [
        ("subjects.parquet", None, "scanner"),
        ("labels.parquet", None, "infarct"),
        ("labels.parquet", None, "MI"),
    ]


def test_validate__empty_lead_is_named(new_cohort):
    path = new_cohort()
    codes = np.memmap(path / "arrays" / "ecg.bin", dtype="<i2", mode="r+").reshape(-1, 12, 500)
    codes[4, 3] = -32768
    codes[5, 3, :499] = -32768  # one sample is left: not an empty lead
    codes.flush()
    (problem,) = validate_cohort(path)
    assert (problem.file, problem.row, problem.field) == ("recordings.parquet", 4, "samples")
    assert "'aVR' holds no sample" in problem.message


def test_validate__missing_truncated_and_changed_files(new_cohort):
    path = new_cohort()
    (path / "arrays" / "masks.bin").unlink()
    ecg = path / "arrays" / "ecg.bin"
    ecg.write_bytes(ecg.read_bytes()[:-5000])
    (path / "studies.parquet").unlink()
    text = (path / "splits" / "default.json").read_text()
    (path / "splits" / "default.json").write_text(text.replace('"seed": 0', '"seed": 1'))
    assert set(found(path)) == {
        ("arrays/masks.bin", None, ""),
        ("arrays/ecg.bin", None, "bytes"),
        ("recordings.parquet", 9, "offset"),
        ("studies.parquet", None, ""),
        ("splits/default.json", None, ""),
    }


def test_validate__split_leak_names_the_subject(new_cohort):
    path = new_cohort()
    file = path / "splits" / "default.json"
    data = json.loads(file.read_text())
    data["test"].append(data["train"][0])
    file.write_text(json.dumps(data))
    messages = [item.message for item in validate_cohort(path)]
    assert any(f"subject {data['train'][0]} is in train and in test" in message for message in messages)


def test_validate__deep_finds_a_mask_without_a_name(new_cohort):
    path = new_cohort()
    codes = np.memmap(path / "arrays" / "masks.bin", dtype=np.uint8, mode="r+")
    codes[-1] = 9
    codes.flush()
    assert validate_cohort(path) == []
    assert found(path, deep=True) == [("studies.parquet", 19, "mask_labels")]


def test_validate__many_problems_of_one_kind_are_counted(tmp_path):
    from cohort_standin import write_cohort

    path = write_cohort(tmp_path / "c", n=40)
    change_table(path, "labels", lambda table: table.assign(MI=2.0))
    problems = validate_cohort(path)
    assert len(problems) == 21
    assert problems[-1].message == "20 more rows with the same problem"


def test_validate__unreadable_schema_is_one_problem(new_cohort):
    path = new_cohort()
    (path / "cohort.json").write_text("{}")
    (problem,) = validate_cohort(path)
    assert problem.file == "cohort.json"
    with pytest.raises(FileNotFoundError):
        validate_cohort(path / "nothing")


def test_summarize__counts_what_was_written(standin):
    summary = summarize(standin)
    assert summary.facts["subjects"] == "10 (10 with ECG and CMR)"
    assert summary.ecg == [
        {"rate_hz": 100.0, "n_samples": 500, "n_leads": 12, "unit": "mV", "source": "generated", "count": 10}
    ]
    assert [(row["view"], row["count"]) for row in summary.cmr] == [("4ch", 10), ("sax", 10)]
    assert summary.splits == [{"split": "default", "train": 7, "val": 1, "test": 2}]
    lvedv = next(row for row in summary.labels if row["label"] == "LVEDV")
    assert (lvedv["observed"], lvedv["mean"], lvedv["unit"]) == (8, 104.0, "ml")
    assert summary.groups == {"sex": {"F": 5, "M": 5}, "scanner": {"s1": 10}}
    assert summary.dropped == {"ecg": {}, "cmr": {}}


def change_schema(path, change):
    file = path / "cohort.json"
    schema = json.loads(file.read_text())
    change(schema)
    file.write_text(json.dumps(schema))


@pytest.mark.parametrize("field", ["arrays", "files", "group_columns", "origin", "labels", "name", "provenance"])
def test_schema__a_field_of_another_type_is_named(new_cohort, field):
    path = new_cohort()
    change_schema(path, lambda schema: schema.update({field: 5}))
    (problem,) = validate_cohort(path)
    assert f"field {field} is a int, expected a" in problem.message
    with pytest.raises(ValueError, match=f"field {field} is a int"):
        summarize(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["arrays"]["cine"].update(dtype="float64"), "arrays.cine.dtype is 'float64'"),
        (lambda s: s["arrays"]["ecg"].update(file="../elsewhere.bin"), "arrays.ecg.file is '../elsewhere.bin'"),
        (lambda s: s["arrays"]["ecg"].update(elements=-1), "arrays.ecg.elements is -1"),
        (lambda s: s["arrays"].update(ecg=[]), "arrays.ecg is a list"),
        (lambda s: s["arrays"].update(other={}), "arrays.other.dtype"),
        (lambda s: s["labels"][0].update(low="a"), "low must be a number or absent, got 'a'"),
        (lambda s: s["labels"].append(7), "field labels"),
        (lambda s: s["files"].pop("labels.parquet"), "nothing tells whether it was changed"),
    ],
)
def test_schema__a_wrong_value_is_named(new_cohort, change, message):
    path = new_cohort()
    change_schema(path, change)
    assert any(message in problem.message and problem.file == "cohort.json" for problem in validate_cohort(path))


@pytest.mark.parametrize(("table", "column"), [("recordings", "rate_hz"), ("labels", "LVEDV"), ("ledger", "reason")])
def test_summarize__a_missing_column_is_named(new_cohort, table, column):
    path = new_cohort()
    change_table(path, table, lambda frame: frame.drop(columns=[column]))
    with pytest.raises(ValueError, match=rf"{table}\.parquet: the column {column} is missing"):
        summarize(path)


def test_validate__an_unfinished_run_is_called_by_its_name(tmp_path):
    (tmp_path / "c.partial").mkdir()
    for asked in ("c", "c.partial"):
        with pytest.raises(FileNotFoundError, match=r"; c\.partial is an unfinished run"):
            validate_cohort(tmp_path / asked)
