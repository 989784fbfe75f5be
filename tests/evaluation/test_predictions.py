import numpy as np
import pytest

from ecgcmr.evaluation.predictions import (
    check_predictions,
    group_columns,
    make_predictions,
    read_predictions,
    write_predictions,
)


@pytest.fixture
def table():
    truth = np.array([[1.0, np.nan], [2.0, 0.0], [3.0, 1.0]])
    prediction = np.arange(6.0).reshape(3, 2)
    return make_predictions([5, 5, 9], ["LVEDV", "MI"], (truth, prediction), "test", groups={"sex": ["f", "f", "m"]})


def test_make_predictions__long_format(table):
    assert list(table["target"]) == ["LVEDV"] * 3 + ["MI"] * 3
    assert list(table["subject"]) == [5, 5, 9] * 2
    assert list(table["item"]) == [0, 1, 0] * 2
    assert list(table["prediction"]) == [0, 2, 4, 1, 3, 5]
    assert np.isnan(table["truth"][3])
    assert group_columns(table) == ("sex",)
    assert list(table["sex"]) == ["f", "f", "m"] * 2


def test_write_predictions__round_trip_without_leftovers(table, tmp_path):
    path = write_predictions(tmp_path / "deep" / "p.parquet", table)
    assert read_predictions(path).equals(table)
    assert [p.name for p in path.parent.iterdir()] == ["p.parquet"]


def test_write_predictions__a_bad_table_leaves_the_old_file(table, tmp_path):
    path = write_predictions(tmp_path / "p.parquet", table)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="prediction is nan"):
        write_predictions(path, table.assign(prediction=np.nan))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="item"), r"missing column\(s\) \['item'\]"),
        (lambda t: t.assign(subject=0.5), "'subject' is float64, expected integers"),
        (lambda t: t.assign(split="holdout"), "row 0 .*split is 'holdout'"),
        (lambda t: t.assign(truth=np.inf), "truth is .*inf"),
        (lambda t: t.assign(item=0), r"row 1 \(subject 5, item 0, target LVEDV\)"),
        (lambda t: t.assign(split=["train", "test", "test"] * 2), "subject 5 stands in several splits"),
    ],
)
def test_check_predictions__names_column_and_row(table, change, words):
    with pytest.raises(ValueError, match=words):
        check_predictions(change(table))


def test_make_predictions__shapes_are_checked():
    with pytest.raises(ValueError, match="truth has shape"):
        make_predictions([1, 2], ["a"], (np.zeros((2, 2)), np.zeros((2, 1))), "test")
    with pytest.raises(ValueError, match="rename"):
        make_predictions([1], ["a"], ([0.0], [0.0]), "test", groups={"split": ["x"]})


def test_read_predictions__missing_and_broken_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.parquet"):
        read_predictions(tmp_path / "none.parquet")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 not really")
    with pytest.raises(ValueError, match="not a readable parquet"):
        read_predictions(broken)
