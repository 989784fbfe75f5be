"""Every value of a category label is a binary label NAME=VALUE too, of subjects and of recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecgcmr.cohort.ingest import ingest
from ecgcmr.cohort.ingest_options import IngestOptions
from ecgcmr.cohort.label_building.own_example import write_own_example
from ecgcmr.cohort.labels import add_values, categories_of, with_values
from ecgcmr.cohort.schema import LabelSpec
from ecgcmr.cohort.store import Cohort

SPECS = (LabelSpec("LVM", "regression", unit="g"), LabelSpec("type", "category", values=("A", "B"), level="recording"))


def test_with_values__each_value_is_a_binary_label_of_the_same_level() -> None:
    specs = with_values(SPECS)
    assert list(specs) == ["LVM", "type", "type=A", "type=B"]
    assert (specs["type=B"].kind, specs["type=B"].level) == ("binary", "recording")


def test_add_values__is_one_hot_where_the_category_is_known() -> None:
    table = add_values(pd.DataFrame({"LVM": [1.0, 2, 3], "type": [1.0, np.nan, 0.0]}), SPECS)
    np.testing.assert_array_equal(table["type=A"], [0, np.nan, 1])
    np.testing.assert_array_equal(table["type=B"], [1, np.nan, 0])


def test_add_values__a_column_of_that_name_stays_as_it_is() -> None:
    specs = (*SPECS, LabelSpec("type=A", "binary"))
    table = add_values(pd.DataFrame({"type": [1.0], "type=A": [1.0]}), specs)
    assert table["type=A"].tolist() == [1.0]
    assert with_values(specs)["type=A"] is specs[2]


def test_categories_of__are_those_whose_values_are_asked_for() -> None:
    assert categories_of(["LVM", "type"], SPECS) == []
    assert categories_of(["LVM", "type=B"], SPECS) == [SPECS[1]]
    assert categories_of(["type=A"], (*SPECS, LabelSpec("type=A", "binary"))) == []


def test_columns__values_of_a_category_are_those_of_the_whole_table(tmp_path: Path) -> None:
    write_own_example(tmp_path / "own", 12, np.random.default_rng(3))
    options = IngestOptions(
        out=tmp_path / "cohort", ecg=tmp_path / "own" / "ecg", labels=tmp_path / "own" / "labels_more.csv",
        item_column="recording", subject_column="subject", label_columns=("hypertrophy", "type"),
    )  # fmt: skip
    ingest(options)
    names = ["type=wide", "hypertrophy", "type=narrow"]
    few = Cohort.open(tmp_path / "cohort").columns("labels", names)
    assert list(few) == names
    pd.testing.assert_frame_equal(few, Cohort.open(tmp_path / "cohort").labels[names])
    assert set(few["type=wide"]) == {0.0, 1.0}
    with pytest.raises(ValueError, match="the column absent is missing"):
        Cohort.open(tmp_path / "cohort").columns("labels", ["type=wide", "absent"])
