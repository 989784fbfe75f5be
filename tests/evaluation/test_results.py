import json

import numpy as np
import pandas as pd
import pytest

from ecgcmr.evaluation.results import ROW_KEYS, make_row, read_results, write_results

BASE = {
    "arm": "MAE",
    "protocol": "probe",
    "n_labels": 100,
    "target": "LVM",
    "metric": "r2",
    "value": 0.3,
    "n_subjects": 200,
    "seed": 1,
}


def test_write_results__is_a_plain_json_list(tmp_path):
    rows = [BASE | {"lo": 0.1, "hi": np.float64(0.4)}, BASE | {"value": float("nan"), "seed": None, "n_labels": None}]
    path = write_results(tmp_path / "results.json", rows)
    loaded = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert [list(row) for row in loaded] == [list(ROW_KEYS)] * 2
    assert loaded[1]["value"] is None
    assert loaded[1]["seed"] is None
    table = read_results(path)
    assert table["seed"].dtype == "Int64"
    assert table["value"][0] == 0.3
    assert pd.isna(table["n_labels"][1])
    assert table["compared_to"].isna().all()


def test_write_results__keeps_the_old_file_when_a_row_is_bad(tmp_path):
    path = write_results(tmp_path / "results.json", [BASE])
    before = path.read_text()
    with pytest.raises(ValueError, match="unknown field"):
        write_results(path, [BASE, BASE | {"pvalue": 0.1}])
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arm": ""}, "'arm'"),
        ({"seed": 1.5}, "whole number"),
        ({"n_subjects": None}, "n_subjects"),
        ({"metric": "r2_diff"}, "compared_to"),
        ({"compared_to": "scratch"}, "compare"),
    ],
)
def test_make_row__errors(change, words):
    with pytest.raises(ValueError, match=words):
        make_row(**(BASE | change))


def test_read_results__errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"results\.json"):
        read_results(tmp_path / "results.json")
    (tmp_path / "r.json").write_text('[{"arm": ')
    with pytest.raises(ValueError, match="not JSON"):
        read_results(tmp_path / "r.json")
    (tmp_path / "d.json").write_text('{"rows": []}')
    with pytest.raises(ValueError, match="expected a list"):
        read_results(tmp_path / "d.json")
