"""Tabular inputs: standardized by the training subjects, missing where nothing is known, the same at inference."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.tabular import MARGINAL_STEPS, TabularColumn, encode, feature_names, fit_columns, marginals
from ecgcmr.ecg.preprocessing import named_pipeline

TRAIN = range(16)
COLUMNS = (
    TabularColumn(name="age_years", kind="number", mean=60.0, std=10.0),
    TabularColumn(name="sex", kind="category", levels=("female", "male")),
    TabularColumn(name="mi", kind="binary"),
)


@pytest.fixture
def cohort(tiny_cohort) -> Cohort:
    """Opened anew, so that a test may change a table in memory."""
    return Cohort.open(tiny_cohort)


def dataset(cohort: Cohort, subjects=TRAIN) -> PairedDataset:
    return PairedDataset(cohort, subjects, named_pipeline("highpass"))


def test_fit__learns_from_the_subjects_of_the_data_set_only(cohort):
    names = ["age_years", "sex", "bmi", "LVM", "hypertension"]
    columns = {column.name: column for column in fit_columns(dataset(cohort), names)}
    table = cohort.subjects.set_index("subject").loc[list(TRAIN)]
    assert columns["age_years"].mean == pytest.approx(table["age_years"].mean())
    assert columns["age_years"].std == pytest.approx(table["age_years"].std(ddof=0))
    assert columns["age_years"].mean != pytest.approx(cohort.subjects["age_years"].mean(), rel=1e-4)
    assert columns["sex"].levels == ("female", "male")
    assert (columns["LVM"].kind, columns["LVM"].unit) == ("number", "g")
    assert columns["LVM"].mean == pytest.approx(cohort.labels["LVM"].loc[list(TRAIN)].mean())
    assert columns["hypertension"].kind == "binary"
    assert feature_names(tuple(columns.values())) == ("age_years", "sex=female", "sex=male", *names[2:])


def test_batch__holds_standardized_values_of_its_subjects(cohort):
    cohort.subjects.loc[3, "age_years"] = np.nan
    cohort.subjects.loc[5, "sex"] = None
    data = dataset(cohort)
    assert data.batch([0, 1])["tabular"].shape == (2, 0), "of a run without, but never a missing key"
    assert data.batch([0, 1])["tabular_mask"].shape == (2, 0)
    columns = fit_columns(data, ["age_years", "sex"])
    both = data.with_tabular(columns)
    batch = both.batch(range(len(data)))
    known, ages = batch["tabular_mask"].numpy(), cohort.subjects.set_index("subject")["age_years"]
    expected = (ages.loc[data.subjects].to_numpy() - columns[0].mean) / columns[0].std
    np.testing.assert_allclose(batch["tabular"][:, 0].numpy(), np.nan_to_num(expected), atol=1e-6)
    assert known.sum() == known.size - 1 - 2, "one age, and both features of one sex"
    assert not known[data.subjects == 3, 0].any()
    assert (batch["tabular"].numpy()[~known] == 0).all()
    assert (batch["tabular"][:, 1:].sum(1).numpy() == known[:, 1:].all(1)).all()
    few = both.subset([2, 7])
    assert (few.batch([0])["tabular"] == batch["tabular"][data.subjects == 2][:1]).all(), "a subset keeps the encoding"


@given(
    ages=st.lists(st.one_of(st.none(), st.floats(20, 95)), min_size=1, max_size=20),
    sexes=st.lists(st.sampled_from(["female", "male", "unknown", None]), min_size=20, max_size=20),
)
def test_encode__is_undone_where_known_and_zero_elsewhere(ages, sexes):
    sexes = sexes[: len(ages)]
    table = {"age_years": np.array(ages, dtype=object), "sex": np.array(sexes, dtype=object), "mi": [None] * len(ages)}
    values, known = encode(COLUMNS, table)
    assert values.shape == known.shape == (len(ages), 4)
    assert (values[~known] == 0).all()
    for row, (age, sex) in enumerate(zip(ages, sexes, strict=True)):
        assert known[row, 0] == (age is not None)
        assert age is None or values[row, 0] * 10 + 60 == pytest.approx(age, rel=1e-5)
        assert known[row, 1:3].all() == known[row, 1:3].any() == (sex in ("female", "male")), (
            "an unknown level is missing"
        )
        assert values[row, 1:3].tolist() == [float(sex == "female"), float(sex == "male")]
    assert not known[:, 3].any()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"age_years": [60], "sex": ["male"]}, "columns mi are missing"),
        ({"age_years": ["old"], "sex": ["male"], "mi": [0]}, "'age_years' holds 'old', expected numbers"),
        ({"age_years": [np.inf], "sex": ["male"], "mi": [0]}, "infinite"),
        ({"age_years": [60], "sex": ["male"], "mi": [2]}, "'mi' holds 2, expected 0, 1 or nothing"),
    ],
)
def test_encode__refuses_what_was_not_so_in_training(table, message):
    with pytest.raises(ValueError, match=message):
        encode(COLUMNS, table)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shoe_size", "neither a column of subjects.parquet nor a label"),
        ("subject", "numbers the subjects"),
        ("mi_event", "label of kind 'event'"),
        ("LVEDV", "missing in all 16 training subjects"),
        ("site", "is 'one' in all training subjects"),
        ("bmi", "is 25 in all training subjects"),
        ("group", "24 different texts|16 different texts"),
        ("LVM", "has a label and a column"),
    ],
)
def test_fit__refuses_what_is_no_input(cohort, monkeypatch, name, message):
    monkeypatch.setattr("ecgcmr.cohort.tabular.MAX_LEVELS", 10)
    cohort.labels["LVEDV"] = np.nan
    cohort.subjects["site"], cohort.subjects["bmi"] = "one", 25.0
    cohort.subjects["group"] = [f"name {k}" for k in range(len(cohort.subjects))]
    if name == "LVM":
        cohort.subjects["LVM"] = 1.0
    with pytest.raises(ValueError, match=message):
        fit_columns(dataset(cohort), [name])


def test_marginals__have_the_distribution_of_each_column(cohort):
    data = dataset(cohort, range(24))
    columns = fit_columns(data, ["age_years", "sex", "hypertension"])
    table = np.array(marginals(columns, data))
    assert table.shape == (MARGINAL_STEPS, 4)
    values = data.with_tabular(columns).batch(range(len(data)))["tabular"].numpy()
    np.testing.assert_allclose(table.mean(0), values.mean(0), atol=0.06)
    np.testing.assert_allclose(table.std(0), values.std(0), atol=0.12)
    assert (table[:, 1:3].sum(1) == 1).all()
    assert set(table[:, 3]) <= {0.0, 1.0}


def test_numbers__keep_their_kind_through_a_table_of_pandas(cohort):
    """What inference is given, as a data frame, becomes what training saw."""
    data = dataset(cohort)
    columns = fit_columns(data, ["age_years", "sex", "hypertension"])
    table = cohort.subjects.merge(cohort.labels["hypertension"].reset_index(), on="subject")
    table = table.set_index("subject").loc[data.subjects]
    assert isinstance(table, pd.DataFrame)
    values, known = encode(columns, {column.name: table[column.name].to_numpy() for column in columns})
    batch = data.with_tabular(columns).batch(range(len(data)))
    np.testing.assert_array_equal(values, batch["tabular"].numpy())
    np.testing.assert_array_equal(known, batch["tabular_mask"].numpy())
