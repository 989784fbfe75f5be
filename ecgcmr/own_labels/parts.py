"""Who trains, who selects and who is tested: the given split, or a stratified one by subject."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgcmr.cohort.ingest_tables import read_text_table, tidy_key
from ecgcmr.cohort.labels import add_values
from ecgcmr.cohort.schema import LabelSpec
from ecgcmr.cohort.split_kinds import stratified_split
from ecgcmr.cohort.split_plan import SplitRequest, draw_splits
from ecgcmr.cohort.splits import PARTS, Split, open_split, write_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.stratify import strata_of
from ecgcmr.own_labels.kinds import problem_of
from ecgcmr.own_labels.request import TEST_SHARE, FinetuneRequest
from ecgcmr.own_labels.table import OwnLabels

SPLIT = "finetune"
MAX_STRATIFIED = 8
_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
          "tune": "val", "test": "test", "testing": "test", "holdout": "test"}  # fmt: skip


def with_split_file(own: OwnLabels, request: FinetuneRequest) -> OwnLabels:
    """Take the parts from another file than the labels; the rest stays.

    Raises:
        ValueError: The file lacks a column, or a subject stands in it twice with different parts.
    """
    if request.split_file is None:
        return own
    path = request.split_file
    table = read_text_table(path)
    names = [str(name) for name in table.columns]
    part = next((name for name in names if name.lower() in ("split", "part", "fold")), None)
    if part is None or len(names) < 2:
        raise ValueError(
            f"{path}: expected a column with subjects or recordings and one called split; it has {', '.join(names)}"
        )
    key = next(name for name in names if name != part)
    by_subject = key == own.subject_column and own.subjects is not None
    said: dict[str, str] = {}
    for row, (name, value) in enumerate(zip(table[key].map(tidy_key), table[part], strict=True), 1):
        if said.setdefault(name, value) != value:
            raise ValueError(f"{path}: data row {row} puts its {key!r} in {value!r}, an earlier row in {said[name]!r}")
    keys = own.subjects if by_subject and own.subjects is not None else own.keys
    folds = [said.get(key, "") for key in keys]
    if not any(folds):
        raise ValueError(f"{path}: column {key!r} names none of the keys of {own.path}")
    return replace(own, folds=folds, fold_column=part)


def parts_of_folds(
    folds: Sequence[str], given: Mapping[str, tuple[str, ...]], column: str
) -> dict[str, tuple[str, ...]]:
    """Say which folds are which part.

    Args:
        folds: Fold of each row.
        given: Part -> folds, if the user said so.
        column: Name of the column, for messages.

    Returns:
        Part -> folds: as given; else by the words train, val and test; else the last fold tests, the one before selects
        and the others train. Without val, it is drawn from train.

    Raises:
        ValueError: The column holds no folds.
    """
    if given:
        unknown = sorted({fold for values in given.values() for fold in values} - set(folds))
        if unknown or set(given) - set(PARTS):
            raise ValueError(
                f"--folds: column {column!r} holds {_few(folds)}; {unknown or sorted(given)} are not there"
            )
        return dict(given)
    found = sorted({fold for fold in folds if fold}, key=_natural)
    words = {fold: _WORDS.get(fold.lower()) for fold in found}
    if found and all(words.values()):
        named = {part: tuple(fold for fold in found if words[fold] == part) for part in PARTS}
        if not named["train"] or not named["test"]:
            raise ValueError(f"column {column!r}: expected train and test (and val, if you like), found {_few(folds)}")
        return {part: values for part, values in named.items() if values}
    if any(words.values()) or len(found) < 3 or len(found) > 100:
        raise ValueError(
            f"column {column!r} holds {_few(folds)}: expected train, val and test, or three folds and more; say which "
            "is which with --folds train=1,2,3 --folds test=4"
        )
    return {"train": tuple(found[:-2]), "val": (found[-2],), "test": (found[-1],)}


def make_parts(
    cohort: Cohort, names: Sequence[str], request: FinetuneRequest, official: bool
) -> tuple[Split, list[str]]:
    """Decide on the split, check that every part can do its job, and write it into the cohort as `finetune`.

    Args:
        cohort: The labelled cohort.
        names: Labels to learn.
        request: Shares, folds and seed.
        official: Whether the cohort's `default` split has the folds of the table.

    Raises:
        ValueError: Too few subjects, or a part in which a label has one class or value only.
    """
    labelled = _labelled(cohort, names)
    specs = [cohort.label_specs[name] for name in names]
    _check(cohort, specs, labelled, "with a usable recording")
    notes: list[str] = []
    if request.cohort is not None and request.test_share is None and not official:
        split = _given(cohort, request)
    elif official:
        split = open_split(cohort, "default")
    else:
        split = _drawn(cohort, names, request, labelled)
    parts = {part: np.intersect1d(members, labelled) for part, members in split.parts().items()}
    if not len(parts["val"]):
        share = request.val_share / (1 - (request.test_share or TEST_SHARE))
        again = _drawn(cohort, names, request, parts["train"], (1 - share, share, 0.0))
        parts |= {"train": again.train, "val": again.val}
        notes.append("the split has no subjects to select on: some of those to train on are taken")
    outside = len(labelled) - sum(map(len, parts.values()))
    if outside:
        notes.append(f"{outside} labelled subjects are in no part of the split")
    done = Split(SPLIT, **parts, how={**split.how, "of": split.name, "only": "subjects with a label"})
    for part, members in parts.items():
        if not len(members):
            raise ValueError(
                f"{cohort.path}: no subject with a label is in the part {part!r} of the split {split.name!r}"
            )
        where = {"train": "of the subjects to train on", "test": "of the subjects to test on"}.get(part)
        if where:
            _check_part(cohort, specs, members, where)
    write_split(cohort, done)
    sizes = ", ".join(f"{len(members)} {part}" for part, members in parts.items())
    notes.append(f"subjects: {sizes}")
    if len(parts["test"]) < 50:
        notes.append(f"{len(parts['test'])} subjects to test on are few: the intervals are wide, and rightly so")
    return done, notes


def _given(cohort: Cohort, request: FinetuneRequest) -> Split:
    if request.fold_column is None:
        return open_split(cohort, request.cohort_split)
    values = cohort.subjects
    if request.fold_column not in values:
        raise ValueError(f"--by-folds {request.fold_column}: {cohort.path} has {', '.join(values.columns)} of subjects")
    folds = [str(value) for value in values[request.fold_column]]
    parts = parts_of_folds(folds, request.folds, request.fold_column)
    return draw_splits(cohort, SplitRequest("folds", SPLIT, column=request.fold_column, parts=parts))[0]


def _drawn(
    cohort: Cohort,
    names: Sequence[str],
    request: FinetuneRequest,
    subjects: NDArray[np.int64],
    fractions: tuple[float, float, float] | None = None,
) -> Split:
    """Draw a split that spreads every label like the whole; of many labels the first few count."""
    table, _ = strata_of(cohort, list(names)[:MAX_STRATIFIED])
    here = np.isin(cohort.subjects["subject"].to_numpy(), subjects)
    test = request.test_share or TEST_SHARE
    shares = fractions or (1 - test - request.val_share, request.val_share, test)
    return stratified_split(subjects, request.seed, shares, table[here], None, SPLIT)


def _labelled(cohort: Cohort, names: Collection[str]) -> NDArray[np.int64]:
    """Subjects with a recording and at least one of the labels."""
    has = cohort.labels[list(names)].notna().any(axis=1)
    subjects = cohort.labels.index[has.to_numpy()].to_numpy(dtype=np.int64)
    return np.intersect1d(subjects, cohort.recordings["subject"].to_numpy(dtype=np.int64))


def _check(cohort: Cohort, specs: Sequence[LabelSpec], subjects: NDArray[np.int64], where: str) -> None:
    values = cohort.labels.loc[subjects]
    for spec in specs:
        why = problem_of(spec, values[spec.name].to_numpy(dtype=np.float64), where)
        if why:
            raise ValueError(f"label {spec.name!r}: {why}".replace(" rows ", " subjects "))


def _check_part(cohort: Cohort, specs: Sequence[LabelSpec], subjects: NDArray[np.int64], where: str) -> None:
    values = add_values(cohort.labels.loc[subjects], specs)
    for spec in specs:
        seen = values[spec.name].dropna().unique()
        if spec.kind == "event" and 1.0 not in seen:
            raise ValueError(f"label {spec.name!r}: none {where} has the event; give another split, or more subjects")
        if len(seen) < 2 and spec.kind not in ("event", "time"):
            held = f"{seen[0]:g}" if len(seen) else "missing"
            raise ValueError(
                f"label {spec.name!r}: all {len(subjects)} {where.removeprefix('of the ')} are {held}; give another "
                "split, or more subjects"
            )


def _natural(text: str) -> tuple[tuple[int, str], ...]:
    """Order 2 before 10, whatever letters are around them."""
    pieces = re.findall(r"\d+|\D+", text)
    return tuple((int(piece), "") if piece.isdigit() else (-1, piece) for piece in pieces)


def _few(values: Sequence[str]) -> str:
    found = sorted(set(values), key=_natural)
    return ", ".join(repr(value) for value in found[:10]) + (", ..." if len(found) > 10 else "")


def stored(cohort: Path) -> bool:
    """Whether the split was written already."""
    return (cohort / "splits" / f"{SPLIT}.json").is_file()


def forget_parts(cohort: Path) -> None:
    """Remove the split that was written, so that it is made anew."""
    (cohort / "splits" / f"{SPLIT}.json").unlink(missing_ok=True)
