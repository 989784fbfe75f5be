from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcmr.cohort.splits import make_split, open_split, split_from_folds
from ecgcmr.cohort.store import Cohort


@settings(deadline=None)
@given(n=st.integers(0, 400), seed=st.integers(0, 2**31), train=st.integers(0, 10), val=st.integers(0, 10))
def test_make_split__parts_are_disjoint_complete_and_of_the_asked_size(n, seed, train, val):
    if train + val > 10:
        return
    fractions = (train / 10, val / 10, 1 - train / 10 - val / 10)
    split = make_split(np.arange(n) * 3, seed, tuple(max(0.0, share) for share in fractions))
    members = np.concatenate(list(split.parts().values()))
    np.testing.assert_array_equal(np.sort(members), np.arange(n) * 3)
    for name, share in zip(("train", "val", "test"), fractions, strict=True):
        assert abs(len(split.part(name)) - share * n) <= 1


def test_make_split__is_fixed_by_the_seed_and_strata_are_kept():
    subjects = np.arange(100)
    strata = (subjects < 20).tolist()
    split = make_split(subjects, 1, strata=strata)
    assert [int((split.part(name) < 20).sum()) for name in ("train", "val", "test")] == [14, 2, 4]
    assert split.to_json() == make_split(subjects, 1, strata=strata).to_json()
    assert split.to_json() != make_split(subjects, 2, strata=strata).to_json()
    with pytest.raises(ValueError, match="every subject must appear once"):
        make_split(np.array([1, 1]), 0)
    with pytest.raises(ValueError, match="sum to 1"):
        make_split(subjects, 0, (0.5, 0.1, 0.1))


def test_open_split__gives_disjoint_parts(standin):
    split = open_split(Cohort.open(standin))
    assert [len(split.part(name)) for name in ("train", "val", "test")] == [7, 1, 2]
    assert split.part_of(np.array([int(split.test[0]), 99])).tolist() == ["test", ""]


def _edit(path, change):
    file = path / "splits" / "default.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))
    return Cohort.open(path)


def test_open_split__leak_raises_and_names_subject_and_parts(new_cohort):
    cohort = _edit(new_cohort(), lambda data: data.update(test=[*data["test"], data["train"][0]]))
    subject = json.loads((cohort.path / "splits" / "default.json").read_text())["train"][0]
    with pytest.raises(ValueError, match=rf"default\.json: subject {subject} is in train and in test"):
        open_split(cohort)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["val"].append(77), "part val holds subject 77, which the cohort does not have"),
        (lambda data: data["val"].append(data["val"][0]), "part val names a subject twice"),
        (lambda data: data.pop("val"), "expected JSON with lists of subjects"),
    ],
)
def test_open_split__broken_file_is_named(new_cohort, change, message):
    cohort = _edit(new_cohort(), change)
    with pytest.raises(ValueError, match=message):
        open_split(cohort)


def test_open_split__unknown_name_lists_the_known(standin):
    with pytest.raises(FileNotFoundError, match=r"has the splits \['default'\]"):
        open_split(Cohort.open(standin), "official")


def test_split_from_folds__maps_and_refuses_a_subject_in_two_parts():
    mapping = {"train": ["1", "2"], "test": ["8"]}
    split = split_from_folds({0: ["1", "2"], 1: ["8"], 2: ["5"]}, mapping, "fold")
    assert (split.train.tolist(), split.val.tolist(), split.test.tolist()) == ([0], [], [1])
    with pytest.raises(ValueError, match="subject 4 has recordings in test and train"):
        split_from_folds({4: ["1", "8"]}, mapping, "fold")
    with pytest.raises(ValueError, match="fold 1 is given to train and to test"):
        split_from_folds({}, {"train": ["1"], "test": ["1"]}, "fold")
    with pytest.raises(ValueError, match="a split has the parts"):
        split_from_folds({}, {"holdout": ["1"]}, "fold")
