"""A table of labels that cannot be used says why in one message; one that can says what it was taken for."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ecgcmr.own_labels.kinds import problem_of
from ecgcmr.own_labels.request import FinetuneRequest
from ecgcmr.own_labels.table import OwnLabels, read_own_labels

KEYS = [f"rec{k:02d}" for k in range(12)]
BINARY = [k % 2 for k in range(12)]


def read(path: Path, header: str, rows: list[str], **asked: object) -> OwnLabels:
    table = path / "labels.csv"
    table.write_text("\n".join([header, *rows]) + "\n")
    return read_own_labels(table, FinetuneRequest(out=path / "out", model="m", **asked))  # type: ignore[arg-type]


def rows(*columns: list[object]) -> list[str]:
    return [",".join(map(str, values)) for values in zip(*columns, strict=True)]


def test_read__finds_out_what_every_column_is(tmp_path: Path) -> None:
    header = "file,Patient_ID,age,Sex,split,EF [%],case,kind,mi_note"
    split = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    ef = [55.5, "NA", *range(40, 50)]
    kind = [["a", "b", "c"][k % 3] for k in range(12)]
    case = ["yes" if k % 2 else "no" for k in range(12)]
    body = rows(KEYS, [f"P{max(k, 1)}" for k in range(12)], [60] * 12, ["f"] * 12, split, ef, case, kind, [""] * 12)
    own = read(tmp_path, header, body)
    assert {spec.name: spec.kind for spec in own.specs} == {"EF": "regression", "case": "binary", "kind": "category"}
    assert own.specs[0].unit == "%"
    assert own.specs[2].values == ("a", "b", "c")
    np.testing.assert_array_equal(own.values[:, 1], BINARY)
    np.testing.assert_array_equal(own.values[:, 2], [k % 3 for k in range(12)])
    assert np.isnan(own.values[1, 0])
    assert own.subjects == [f"P{max(k, 1)}" for k in range(12)]
    assert (own.key_column, own.fold_column, own.is_subject) == ("file", "split", False)
    assert set(own.about) == {"age_years", "sex"}
    assert any("'mi_note' is left out: it is missing in all 12 rows" in note for note in own.notes)


def test_read__a_first_column_of_subjects_is_no_recording(tmp_path: Path) -> None:
    assert read(tmp_path, "subject,case", rows(KEYS, BINARY)).is_subject


def test_read__identical_rows_are_dropped_with_a_note(tmp_path: Path) -> None:
    own = read(tmp_path, "file,case", [*rows(KEYS, BINARY), "rec03,1", "rec04.0,0", "rec04,0"])
    assert own.keys == [*KEYS, "rec04.0"]
    assert "2 rows repeat an earlier one and are dropped (data rows 13, 15)" in own.notes


def test_read__contradicting_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data rows 4 and 13 differ in column 'case'"):
        read(tmp_path, "file,case", [*rows(KEYS, BINARY), "rec03,0"])


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ([0] * 12, "one class only: all 12 rows are 0"),
        ([0] * 11 + [1], "only 1 rows are 1; at least 3"),
        ([""] * 12, "missing in all 12 rows"),
        (["N/A"] * 12, "missing in all 12 rows"),
        ([4.5] * 12, "constant: all 12 rows are 4.5"),
        ([1, 0, 1, *[""] * 9], "3 rows have a value; at least 10 are needed"),
        ([*range(11), "12 ml"], "data row 12: '99 AA'.*write the unit in the header"),
        ([*range(11), "about ten"], "data row 12: 'AAAAA AAA' .* expected, a number or nothing"),
        (["x"] * 12, "all 12 rows have the one value 'x'"),
    ],
)
def test_read__a_label_that_cannot_be_learned_says_why(tmp_path: Path, column: list[object], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        read(tmp_path, "file,case", rows(KEYS, column))
    assert "labels.csv: column 'case'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_read__a_decimal_comma_is_told(tmp_path: Path) -> None:
    body = [*rows(KEYS[:11], list(range(11))), 'rec11,"5,5"']
    with pytest.raises(ValueError, match=r"data row 12: '5,5'.*decimal point, not a comma"):
        read(tmp_path, "file,EF", body)


def test_read__no_cell_with_words_is_quoted(tmp_path: Path) -> None:
    """A cell may hold the name of a person."""
    with pytest.raises(ValueError, match="data row 12") as caught:
        read(tmp_path, "file,EF", [*rows(KEYS[:11], list(range(11))), "rec11,Maria Weber"])
    assert "Maria" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "body", "asked", "words"),
    [
        ("file;case", ["a;1"], {}, "not separated by commas"),
        ("file", ["a"], {}, "expected two columns at least"),
        ("file,case", [], {}, "a header and no row"),
        ("file,case", rows(KEYS, BINARY), {"label_columns": ("cause",)}, "no column 'cause'; it has file, case"),
        ("file,case", rows(KEYS, BINARY), {"subject_column": "who"}, "no column 'who'"),
        ("file,EF", rows(KEYS, list(range(12))), {"task": "binary"}, "data row 3 and 9 more: '2'"),
        ("file,case", rows(KEYS, BINARY), {"task": "survival"}, "'case' has no partner"),
        ("file,sex", rows(KEYS, ["f"] * 12), {}, "no column is left to learn"),
        ("file,mi_time,mi_event", rows(KEYS, [1.5] * 12, [0] * 12), {}, "all 12 rows are censored: there is no event"),
        ("file,mi_time,mi_event", rows(KEYS, [-1] * 12, BINARY), {}, "data row 1 and 11 more: '-1'.*from 0 on"),
        (
            "file,subject,case",
            rows(KEYS, [k % 3 for k in range(12)], BINARY),
            {},
            "3 subjects have a value; at least 10",
        ),
        (
            "file,a_time,a_event,EF",
            rows(KEYS, [*range(12)], BINARY, [*range(12)]),
            {},
            "one run learns one or the other",
        ),
    ],
)
def test_read__a_table_of_another_shape_is_refused(
    tmp_path: Path, header: str, body: list[str], asked: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        read(tmp_path, header, body, **asked)


def test_read__plain_time_and_event_become_an_outcome(tmp_path: Path) -> None:
    for header in ("file,time [years],event", "file,Time,Event"):
        own = read(tmp_path, header, rows(KEYS, [1.5] * 12, BINARY))
        assert {spec.name: spec.kind for spec in own.specs} == {"outcome_time": "time", "outcome_event": "event"}
    own = read(tmp_path, "file,mi_time_years,mi_event", rows(KEYS, [1.5] * 12, BINARY))
    assert own.specs[0].unit == "years"


def test_read__identifiers_are_no_measurement(tmp_path: Path) -> None:
    keys = [f"r{k}" for k in range(40)]
    body = rows(keys, list(range(500, 540)), [k % 2 for k in range(40)])
    own = read(tmp_path, "file,study,case", body)
    assert [spec.name for spec in own.specs] == ["case"]
    assert any(re.search("'study' is left out: every value is another whole number", note) for note in own.notes)


def test_problem_of__enough_of_everything_is_no_problem(tmp_path: Path) -> None:
    own = read(tmp_path, "file,case,EF", rows(KEYS, BINARY, [*range(12)]))
    assert [problem_of(spec, own.values[:, k]) for k, spec in enumerate(own.specs)] == ["", ""]
