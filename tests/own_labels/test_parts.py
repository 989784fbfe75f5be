"""Who is tested: folds and words of a column, a file of parts, and the split that weights were trained with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ecgcmr.cohort.splits import Split, open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.own_labels import FinetuneRequest
from ecgcmr.own_labels.parts import make_parts, parts_of_folds, with_split_file
from ecgcmr.own_labels.recordings import ingest_recordings
from ecgcmr.own_labels.run import _may_share
from ecgcmr.own_labels.table import read_own_labels

Ask = Callable[..., FinetuneRequest]


@pytest.mark.parametrize(
    ("folds", "given", "expected"),
    [
        (["10", "9", "2", "1", ""], {}, {"train": ("1", "2"), "val": ("9",), "test": ("10",)}),
        (["Train", "TEST", "dev"], {}, {"train": ("Train",), "val": ("dev",), "test": ("TEST",)}),
        (["train", "test"], {}, {"train": ("train",), "test": ("test",)}),
        (["a", "b"], {"train": ("a",), "test": ("b",)}, {"train": ("a",), "test": ("b",)}),
    ],
)
def test_parts_of_folds__says_which_fold_is_what(folds: list[str], given: Any, expected: Any) -> None:
    assert parts_of_folds(folds, given, "fold") == expected


@pytest.mark.parametrize(
    ("folds", "given", "words"),
    [
        (["train", "train", ""], {}, "expected train and test"),
        (["1", "2"], {}, "expected train, val and test, or three folds"),
        (["train", "5", "6"], {}, "say which is which"),
        (["1", "2", "3"], {"test": ("9",)}, "--folds: column 'fold' holds '1', '2', '3'"),
        (["1", "2", "3"], {"exam": ("1",)}, "--folds"),
    ],
)
def test_parts_of_folds__refuses_what_it_cannot_tell(folds: list[str], given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parts_of_folds(folds, given, "fold")


def test_split_file__by_subject_or_recording(ask: Ask, tmp_path: Path) -> None:
    own = read_own_labels(ask().labels, ask(label_columns=("hypertrophy",)))  # type: ignore[arg-type]
    assert own.subjects is not None
    parts = {subject: ("test" if k % 4 == 0 else "train") for k, subject in enumerate(sorted(set(own.subjects)))}
    file = tmp_path / "parts.csv"
    pd.DataFrame(parts.items(), columns=["subject", "split"]).to_csv(file, index=False)
    found = with_split_file(own, ask(split_file=file))
    assert found.folds == [parts[subject] for subject in own.subjects]
    file.write_text("recording,split\nrec0001,test\nrec0002,train\n")
    found = with_split_file(own, ask(split_file=file))
    assert found.folds is not None
    assert found.folds[:3] == ["test", "train", ""]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("subject\nS0001\n", "one called split"),
        (
            "subject,split\nS0001,test\nS0001,train\n",
            "data row 2 puts its 'subject' in 'train', an earlier row in 'test'",
        ),
        ("subject,split\nX,test\n", "names none of the keys"),
    ],
)
def test_split_file__that_says_nothing_is_refused(ask: Ask, tmp_path: Path, text: str, words: str) -> None:
    own = read_own_labels(ask().labels, ask(label_columns=("hypertrophy",)))  # type: ignore[arg-type]
    file = tmp_path / "parts.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=words):
        with_split_file(own, ask(split_file=file))


def test_make_parts__spreads_a_label_and_draws_val_from_train(ask: Ask, tmp_path: Path) -> None:
    request = ask(label_columns=("hypertrophy",))
    own = read_own_labels(request.labels, request)  # type: ignore[arg-type]
    assert own.subjects is not None
    cohort = Cohort.open(ingest_recordings(own, request, {}, tmp_path / "drawn", None)[0])
    split, _ = make_parts(cohort, ["hypertrophy"], request, official=False)
    shares = [cohort.labels.loc[members, "hypertrophy"].mean() for members in split.parts().values()]
    assert np.ptp(shares) < 0.15, "as close as whole subjects allow"
    assert [len(members) for members in split.parts().values()] == [26, 6, 8]
    tested = set(sorted(set(own.subjects))[:10])
    given = replace(own, folds=["test" if s in tested else "train" for s in own.subjects], fold_column="part")
    folds = parts_of_folds(given.folds or [], {}, "part")
    cohort = Cohort.open(ingest_recordings(given, request, folds, tmp_path / "given", None)[0])
    split, notes = make_parts(cohort, ["hypertrophy"], request, official=True)
    np.testing.assert_array_equal(split.test, open_split(cohort).test)
    assert len(split.test) == 10
    assert len(split.val) > 0
    assert "the split has no subjects to select on: some of those to train on are taken" in notes


def test_make_parts__a_part_with_one_class_is_refused(ask: Ask, tmp_path: Path) -> None:
    request = ask(label_columns=("hypertrophy",))
    own = read_own_labels(request.labels, request)  # type: ignore[arg-type]
    positive = own.values[:, 0] == 1
    by_label = replace(own, folds=["test" if one else "train" for one in positive], fold_column="part")
    folds = parts_of_folds(by_label.folds or [], {}, "part")
    cohort = Cohort.open(ingest_recordings(by_label, request, folds, tmp_path / "cohort", None)[0])
    with pytest.raises(ValueError, match=r"label 'hypertrophy': all .* subjects to (train|test) on are [01]"):
        make_parts(cohort, ["hypertrophy"], request, official=True)


def test_may_share__only_the_split_that_the_weights_were_trained_with(ask: Ask, tiny_cohort: Path) -> None:
    digest = Cohort.open(tiny_cohort).schema.files["splits/default.json"]
    none = np.zeros(0, np.int64)
    split = Split("finetune", none, none, none, how={"of": "default"})

    def start(sha: str) -> Any:
        return SimpleNamespace(weights=SimpleNamespace(config={"run": {"split_sha256": sha}}))

    request = ask(ecg=None, cohort=tiny_cohort)
    assert _may_share(request, start(digest[:16]), split)
    assert not _may_share(request, start("0" * 16), split)
    assert not _may_share(request, start(digest[:16]), replace(split, how={"of": "drawn"}))
