from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecgcmr.cohort.shuffle import shuffle_pairs
from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.validate import validate_cohort


@pytest.fixture(scope="module")
def shuffled(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return Cohort.open(shuffle_pairs(Cohort.open(tiny_cohort), tmp_path_factory.mktemp("shuffle") / "out", seed=3))


def test_shuffle_pairs__nobody_keeps_the_own_study(tiny_cohort: Path, shuffled: Cohort) -> None:
    before, after = Cohort.open(tiny_cohort).studies["subject"], shuffled.studies["subject"]
    assert not (before.to_numpy() == after.to_numpy()).any()
    assert sorted(before) == sorted(after)


def test_shuffle_pairs__studies_stay_in_their_part(tiny_cohort: Path, shuffled: Cohort) -> None:
    cohort = Cohort.open(tiny_cohort)
    split = open_split(cohort)
    before = split.part_of(cohort.studies["subject"].to_numpy())
    np.testing.assert_array_equal(before, split.part_of(shuffled.studies["subject"].to_numpy()))


def test_shuffle_pairs__the_copy_is_valid_and_the_signals_are_the_same(tiny_cohort: Path, shuffled: Cohort) -> None:
    cohort = Cohort.open(tiny_cohort)
    assert validate_cohort(shuffled.path) == []
    np.testing.assert_array_equal(cohort.recording(5).samples, shuffled.recording(5).samples)
    np.testing.assert_array_equal(cohort.cine(5).pixels, shuffled.cine(5).pixels)


def test_shuffle_pairs__never_overwrites(tiny_cohort: Path, shuffled: Cohort) -> None:
    with pytest.raises(FileExistsError, match="exists"):
        shuffle_pairs(Cohort.open(tiny_cohort), shuffled.path, seed=3)
