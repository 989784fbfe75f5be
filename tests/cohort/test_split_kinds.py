from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcmr.cohort.split_kinds import (
    cuts_by_fractions,
    fold_splits,
    kfold_splits,
    site_splits,
    stratified_split,
    temporal_split,
)
from ecgcmr.cohort.split_plan import SplitRequest, check_stages, draw_splits, open_family, split_cohort
from ecgcmr.cohort.splits import PARTS, Split, make_split, open_split, write_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.stratify import deal_subjects, strata_of
from ecgcmr.cohort.validate import validate_cohort


@st.composite
def populations(draw, least: int = 6):
    n = draw(st.integers(least, 80))
    seed = draw(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    subjects = rng.choice(10 * n, n, replace=False)
    strata = rng.random((n, draw(st.integers(0, 4)))) < rng.uniform(0.05, 0.6)
    groups = rng.integers(0, max(2, n // 2), n).tolist()
    return subjects, strata, groups, seed


def assert_parts(split: Split, subjects: np.ndarray) -> None:
    """Disjoint and complete."""
    members = np.concatenate(list(split.parts().values()))
    np.testing.assert_array_equal(np.sort(members), np.sort(subjects))
    for part in PARTS:
        assert (np.diff(split.part(part)) > 0).all()


@settings(deadline=None)
@given(populations(), st.sampled_from([(0.7, 0.1, 0.2), (0.5, 0.0, 0.5), (1.0, 0.0, 0.0)]))
def test_stratified__is_disjoint_complete_and_independent_of_the_order_of_rows(population, fractions):
    subjects, strata, groups, seed = population
    for together in (None, groups):
        split = stratified_split(subjects, seed, fractions, strata, together)
        assert_parts(split, subjects)
        order = np.random.default_rng(seed + 1).permutation(len(subjects))
        moved = None if together is None else [together[k] for k in order]
        again = stratified_split(subjects[order], seed, fractions, strata[order], moved)
        assert again.to_json() == split.to_json()
        for part, share in zip(PARTS, fractions, strict=True):
            assert share > 0 or not len(split.part(part))
        if together is not None:
            part_of = split.part_of(subjects)
            assert all(
                len({part_of[k] for k in np.flatnonzero(np.array(groups) == value)}) == 1 for value in set(groups)
            )


@settings(deadline=None)
@given(populations(), st.integers(2, 5))
def test_kfold__tests_everybody_once_and_shares_nobody(population, k):
    subjects, strata, groups, seed = population
    family = kfold_splits(subjects, k, seed, strata, None, val_share=0.0)
    np.testing.assert_array_equal(np.sort(np.concatenate([split.test for split in family])), np.sort(subjects))
    for split in family:
        assert_parts(split, subjects)
    assert len({split.to_json() for split in family}) == k
    if len(set(groups)) >= k:
        for split in kfold_splits(subjects, k, seed, strata, groups, val_share=0.0):
            assert_parts(split, subjects)
            tested = set(np.array(groups)[np.isin(subjects, split.test)])
            assert not tested & set(np.array(groups)[np.isin(subjects, split.train)])


@given(st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_stratified__rare_labels_are_spread_as_evenly_as_they_can_be(seed):
    rng = np.random.default_rng(seed)
    subjects = np.arange(300)
    strata = rng.random((300, 3)) < np.array([0.03, 0.2, 0.5])
    folds = deal_subjects(subjects, [0.2] * 5, rng, strata)
    counts = np.array([strata[folds == fold].sum(axis=0) for fold in range(5)])
    rarest = int(np.argmin(strata.sum(axis=0)))
    assert np.ptp(counts[:, rarest]) <= 1  # what is dealt first is dealt exactly
    assert (np.abs(counts - strata.sum(axis=0) / 5) <= 5).all()
    assert (np.abs(np.bincount(folds, minlength=5) - 60) <= 6).all()


def test_stratified__is_better_balanced_than_chance():
    rng = np.random.default_rng(0)
    subjects, strata = np.arange(400), np.random.default_rng(1).random((400, 4)) < 0.06
    whole = strata.mean(axis=0)

    def worst(folds: np.ndarray) -> float:
        return max(np.abs(strata[folds == fold].mean(axis=0) - whole).max() for fold in range(5))

    dealt = [worst(deal_subjects(subjects, [0.2] * 5, np.random.default_rng(k), strata)) for k in range(10)]
    chance = [worst(rng.permutation(np.arange(400) % 5)) for _ in range(10)]
    assert max(dealt) < 0.5 * np.mean(chance)


def test_seed__decides_the_draw():
    subjects = np.arange(60)
    draws = {stratified_split(subjects, seed, (0.5, 0.2, 0.3)).to_json() for seed in range(8)}
    assert len(draws) == 8


def test_make_split__does_not_depend_on_the_order_of_rows():
    subjects = np.array([5, 3, 9, 1, 7, 0, 2, 8, 4, 6])
    strata = (subjects % 2).tolist()
    order = np.argsort(subjects)
    one = make_split(subjects, 3, strata=strata)
    assert one.to_json() == make_split(subjects[order], 3, strata=[strata[k] for k in order]).to_json()


def test_site__leaves_each_site_out_once_and_the_unknown_out_of_all():
    subjects, sites = np.arange(9), ["a", "b", "c", "a", "b", "c", "a", "", "nan"]
    family = site_splits(subjects, sites, 0, val_share=0.2)
    assert [split.name for split in family] == ["site-a", "site-b", "site-c"]
    assert family[0].test.tolist() == [0, 3, 6]
    for split in family:
        assert_parts(split, np.arange(7))
        assert len(split.val) == 1
    with pytest.raises(ValueError, match="at least two sites"):
        site_splits(subjects, ["a"] * 9, 0)
    family = fold_splits(subjects, sites, 0, val_share=0.2, column="fold")
    assert (family[0].name, family[0].how["kind"]) == ("fold-a", "folds")


def test_temporal__trains_on_the_past_and_leaves_out_who_stands_in_both():
    subjects = np.arange(6)
    first = np.array([1.0, 2.0, 1.0, 5.0, 8.0, np.nan])
    last = np.array([1.0, 2.0, 9.0, 6.0, 8.0, np.nan])
    split = temporal_split(subjects, first, last, (4.0, 7.0), "t", "year")
    assert {part: split.part(part).tolist() for part in PARTS} == {"train": [0, 1], "val": [3], "test": [4]}
    assert split.how["left_out"] == 2
    assert last[split.train].max() < first[split.val].min() <= last[split.val].max() < first[split.test].min()
    with pytest.raises(ValueError, match="no subject falls into test"):
        temporal_split(subjects, first, last, (4.0, 100.0), "t", "year")
    with pytest.raises(ValueError, match="val must begin before test"):
        temporal_split(subjects, first, last, (7.0, 4.0), "t", "year")
    assert cuts_by_fractions(np.arange(10.0), (0.7, 0.1, 0.2)) == (7.0, 8.0)
    with pytest.raises(ValueError, match="different times"):
        cuts_by_fractions(np.zeros(4), (0.7, 0.1, 0.2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kfold_splits(np.arange(3), 4, 0), "4 folds of 3 subjects: give 2 to 3"),
        (lambda: kfold_splits(np.arange(9), 3, 0, groups=[0, 1] * 4 + [0]), "3 folds of 2 groups"),
        (lambda: kfold_splits(np.arange(9), 3, 0, groups=[0, 1, 2] * 3), "units too large for a val part"),
        (lambda: stratified_split(np.array([1, 1]), 0, (0.7, 0.1, 0.2)), "every subject must appear once"),
        (lambda: stratified_split(np.arange(3), 0, (0.7, 0.1, 0.1)), "sum to 1"),
        (lambda: kfold_splits(np.arange(9), 3, 0, val_share=1.0), "val_share must be"),
    ],
)
def test_kinds__refuse_what_cannot_be(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_split_cohort__covers_both_modalities_and_stays_valid(tiny_cohort, tmp_path):
    import shutil

    folder = shutil.copytree(tiny_cohort, tmp_path / "c")
    cohort = Cohort.open(folder)
    split_cohort(cohort, SplitRequest("kfold", "cv", k=4, by=("sex", "cad"), val_share=0.2))
    split_cohort(cohort, SplitRequest("stratified", "even", by=("sex", "LVEF")))
    split_cohort(cohort, SplitRequest("temporal", "age", column="age_years"))
    family = open_family(cohort, "cv")
    assert [split.how["fold"] for split in family] == ["0", "1", "2", "3"]
    owners = {"ecg": cohort.recordings["subject"].to_numpy(), "cmr": cohort.studies["subject"].to_numpy()}
    for split in family:
        for rows in owners.values():
            assert set(split.part_of(rows)) == set(PARTS)  # one list of subjects decides for ECG and CMR
    assert validate_cohort(folder) == []
    with pytest.raises(FileExistsError, match="has a split 'cv-0'"):
        split_cohort(cohort, SplitRequest("kfold", "cv", k=4))
    split_cohort(cohort, SplitRequest("kfold", "cv", k=4, seed=5, force=True))
    with pytest.raises(ValueError, match="'default' was written with the cohort"):
        split_cohort(cohort, SplitRequest("random", "default", force=True))
    (folder / "splits" / "cv-2.json").unlink()
    with pytest.raises(ValueError, match="has 3 of its 4 splits"):
        open_family(cohort, "cv")
    with pytest.raises(FileNotFoundError, match=r"no family of splits 'x'; it has \['cv'\]"):
        open_family(cohort, "x")


def test_strata__are_positives_quarters_values_and_missing(tiny_cohort):
    cohort = Cohort.open(tiny_cohort)
    table, titles = strata_of(cohort, ("sex", "cad", "LVEF"))
    assert titles[:2] == ["sex=female", "sex=male"]
    assert "cad=1" in titles
    assert sum(title.startswith("LVEF=quarter") for title in titles) == 4
    np.testing.assert_array_equal(table[:, titles.index("cad=1")], cohort.labels["cad"].to_numpy() == 1)
    quarters = table[:, [k for k, title in enumerate(titles) if title.startswith("LVEF")]]
    np.testing.assert_array_equal(quarters.sum(axis=1), 1)
    with pytest.raises(ValueError, match="no column or label 'nothing' of subjects; there are sex"):
        strata_of(cohort, ("nothing",))


def test_open_split__names_every_subject_that_stands_twice(new_cohort):
    path = new_cohort()
    file = path / "splits" / "default.json"
    data = json.loads(file.read_text())
    leaked = data["train"][:3]
    file.write_text(json.dumps(data | {"test": [*data["test"], *leaked]}))
    words = f"subjects {', '.join(map(str, leaked))} are in train and in test \\(3 shared in all\\)"
    with pytest.raises(ValueError, match=words):
        open_split(Cohort.open(path))


def test_open_family__a_subject_in_two_test_folds_is_named(new_cohort):
    cohort = Cohort.open(new_cohort())
    split_cohort(cohort, SplitRequest("kfold", "cv", k=2, val_share=0.0))
    file = cohort.path / "splits" / "cv-0.json"
    data = json.loads(file.read_text())
    moved = data["train"].pop()
    file.write_text(json.dumps(data | {"test": [*data["test"], moved]}))
    with pytest.raises(ValueError, match=f"subject {moved} is tested in two folds"):
        open_family(cohort, "cv")


def test_check_stages__finds_a_test_subject_that_pretraining_saw(new_cohort):
    cohort = Cohort.open(new_cohort())
    split = open_split(cohort)
    leaky = Split("leaky", split.test, split.val, split.train)
    write_split(cohort, leaky)
    with pytest.raises(ValueError, match=r"are in train of 'default' and in test of 'leaky'.*--only default:test"):
        check_stages(cohort, "default", "leaky")
    check_stages(cohort, "default", "default")
    inside = draw_splits(cohort, SplitRequest("random", "inside", fractions=(0.5, 0.0, 0.5), only="default:test,val"))[
        0
    ]
    assert set(inside.train) | set(inside.test) == set(split.test) | set(split.val)
    write_split(cohort, inside)
    check_stages(cohort, "inside", "inside")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (SplitRequest("guess", "x"), "--kind guess: there are random"),
        (SplitRequest("random", "../x"), "letters, digits"),
        (SplitRequest("stratified", "x"), "needs --by"),
        (SplitRequest("temporal", "x"), "needs --column"),
        (SplitRequest("random", "x", by=("sex",)), "--by has no meaning for --kind random"),
        (SplitRequest("kfold", "x", cuts=(1, 2)), "--cut has no meaning"),
        (SplitRequest("random", "x", only="default"), "expected NAME:PART"),
        (SplitRequest("temporal", "x", column="recordings.colour"), "recordings has no column 'colour'"),
        (SplitRequest("temporal", "x", column="recordings.visit_days"), "counts from each subject's own first visit"),
        (SplitRequest("temporal", "x", column="sex"), "neither numbers nor dates"),
        (
            SplitRequest("folds", "x", column="site", parts={"train": ("a",), "holdout": ("b",)}),
            "a split has the parts",
        ),
    ],
)
def test_request__mistakes_are_named(tiny_cohort, request_, message):
    with pytest.raises(ValueError, match=message):
        draw_splits(Cohort.open(tiny_cohort), request_)


def test_official_folds__from_a_group_column(new_cohort):
    path = new_cohort()
    table = pd.read_parquet(path / "subjects.parquet")
    cohort = Cohort.open(path)
    cohort.subjects = table.assign(
        fold=[float(k % 4) for k in range(len(table))], day=[f"201{k}-02-03" for k in range(len(table))]
    )
    parts = {"train": ("0", "1"), "val": ("2",), "test": ("3",)}
    split = draw_splits(cohort, SplitRequest("folds", "official", column="fold", parts=parts))[0]
    assert [len(split.part(part)) for part in PARTS] == [6, 2, 2]
    family = draw_splits(cohort, SplitRequest("folds", "each", column="fold", val_share=0.0))
    assert [split.name for split in family] == ["each-0", "each-1", "each-2", "each-3"]
    by_day = draw_splits(cohort, SplitRequest("temporal", "t", column="day"))[0]
    assert by_day.train.tolist() == [0, 1, 2, 3, 4, 5, 6]
