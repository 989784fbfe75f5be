"""Every value of a category label is a binary label NAME=VALUE too, of subjects and of recordings."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ecgcmr.cohort.labels import add_values, with_values
from ecgcmr.cohort.schema import LabelSpec

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
