from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcmr.cohort.label_building.codes import CodeSet, expand, normalize
from ecgcmr.cohort.label_building.fields import field_columns, id_column, parse_field


def matched(entries: dict[str, list[str]], system: str, codes: list[str]) -> list[bool]:
    return CodeSet.parse(entries).matches(system, normalize(system, pd.Series(codes))).tolist()


@pytest.mark.parametrize(
    "code", ["I21", "I219", "I21.9", " i21.4 ", "I2101", "I21.9D"[:5], "I21.4 Acute infarction", "I21†"]
)
def test_prefix__belongs_in_every_spelling(code):
    assert matched({"icd10": ["I21"]}, "icd10", [code]) == [True]


@pytest.mark.parametrize("code", ["I2", "I20", "I210000000", "12I21", "I 21", "21", "", "XI21", "I2x1.5.9.9"])
def test_prefix__what_is_no_such_code_does_not_belong(code):
    assert matched({"icd10": ["I21"]}, "icd10", [code]) == [False]


def test_coarser_code__does_not_belong_to_a_finer_entry():
    assert matched({"icd10": ["I42.1", "I42.2"]}, "icd10", ["I42", "I421", "I42.2", "I420"]) == [
        False,
        True,
        True,
        False,
    ]


def test_systems__are_never_mixed():
    # E100 is diabetes in ICD-10 and an accident in ICD-9; 410 is an infarction in ICD-9 and nothing in ICD-10.
    both = CodeSet.parse({"icd10": ["E10"], "icd9": ["410"]})
    assert both.matches("icd9", normalize("icd9", pd.Series(["E100", "41001", "4109", "V410"]))).tolist() == [
        False,
        True,
        True,
        False,
    ]
    assert both.matches("icd10", normalize("icd10", pd.Series(["E100", "41001"]))).tolist() == [True, False]


def test_range__holds_its_ends_and_nothing_beside():
    assert expand("icd10", "I20-I25") == ("I20", "I21", "I22", "I23", "I24", "I25")
    assert expand("icd9", "410-414") == ("410", "411", "412", "413", "414")
    assert matched({"icd10": ["E10-E14"]}, "icd10", ["E09", "E10", "E149", "E15"]) == [False, True, True, False]


@pytest.mark.parametrize("entry", ["I2", "I25-I20", "I20-J10", "I20.1-I25", "21", "", "I21*"])
def test_entry__that_is_no_code_is_refused_with_an_example(entry):
    with pytest.raises(ValueError, match=r"such as I21, I25\.2, I20-I25"):
        expand("icd10", entry)


@settings(deadline=None)
@given(st.lists(st.from_regex(r"[A-Z][0-9]{2}[0-9]{0,2}", fullmatch=True), min_size=1, max_size=30))
def test_matches__equals_startswith_one_by_one(codes):
    entries = ["I21", "I25.2", "A00-A09"]
    prefixes = [prefix for entry in entries for prefix in expand("icd10", entry)]
    expected = [any(code.startswith(prefix) for prefix in prefixes) for code in codes]
    assert matched({"icd10": entries}, "icd10", codes) == expected


@pytest.mark.parametrize(
    "name", ["24100-2.0", "f.24100.2.0", "X24100.2.0", "p24100_i2_a0", "n_24100_2_0", "participant.p24100_i2_a0"]
)
def test_field__is_found_in_every_spelling(name):
    column = parse_field(name)
    assert (column.field, column.instance, column.array) == (24100, 2, 0)


def test_field__without_instance_or_array():
    assert (parse_field("p31").instance, parse_field("p24100_i2").array, parse_field("p41270").array) == (0, None, None)
    assert parse_field("eid") is None
    assert parse_field("diag_icd10") is None


def test_field_columns__are_sorted_by_number_not_by_text():
    names = [f"41270-0.{k}" for k in (10, 2, 0)] + ["41280-0.0", "412701-0.0"]
    assert [column.array for column in field_columns(names, 41270)] == [0, 2, 10]


def test_id_column__has_its_spellings():
    assert id_column(["a", "f.eid"], "eid") == "f.eid"
    assert id_column(["participant.eid"], "eid") == "participant.eid"
    assert id_column(["a"], "eid") is None
