"""Splits by subject: made once, stored with the cohort, and asserted disjoint every time they are opened."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ecgcmr.cohort.store import Cohort

PARTS = ("train", "val", "test")
DEFAULT_FRACTIONS = (0.7, 0.1, 0.2)
_PURPOSE_SPLIT = 0x5B17


@dataclass(frozen=True)
class Split:
    """Disjoint sets of subjects.

    Attributes:
        name: Name; stored as splits/<name>.json.
        train: Sorted subjects (n,).
        val: Sorted subjects (n,).
        test: Sorted subjects (n,).
        how: How it was made: fractions and seed, or the folds that were mapped.
    """

    name: str
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    how: Mapping[str, Any] = field(default_factory=dict)

    def part(self, name: str) -> NDArray[np.int64]:
        """Subjects of one part."""
        if name not in PARTS:
            raise ValueError(f"a split has the parts {PARTS}, not {name!r}")
        return {"train": self.train, "val": self.val, "test": self.test}[name]

    def parts(self) -> dict[str, NDArray[np.int64]]:
        """All parts by name."""
        return {name: self.part(name) for name in PARTS}

    def part_of(self, subjects: NDArray[np.int64]) -> NDArray[np.str_]:
        """Part of each subject (n,), "" for those in none."""
        result = np.full(len(subjects), "", dtype="<U5")
        for name, members in self.parts().items():
            result[np.isin(subjects, members)] = name
        return result

    def to_json(self) -> str:
        """The text of splits/<name>.json."""
        parts = {name: [int(subject) for subject in members] for name, members in self.parts().items()}
        return json.dumps({"name": self.name, "how": dict(self.how), **parts}, sort_keys=True) + "\n"


def check_split(split: Split, known: NDArray[np.int64], where: str) -> None:
    """Assert that the parts are disjoint, without repeats, and hold only subjects of the cohort.

    Args:
        split: The split.
        known: Subjects of the cohort.
        where: File, for the message.

    Raises:
        ValueError: Names the subject and the parts.
    """
    for name, members in split.parts().items():
        found, counts = np.unique(members, return_counts=True)
        if len(found) != len(members):
            raise ValueError(
                f"{where}: part {name} names a subject twice ({name_subjects(found[counts > 1], verb=False)})"
            )
        strangers = np.setdiff1d(members, known)
        if len(strangers):
            raise ValueError(
                f"{where}: part {name} holds {name_subjects(strangers, verb=False)}, which the cohort does not have"
            )
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = np.intersect1d(split.part(first), split.part(second))
        if len(shared):
            raise ValueError(
                f"{where}: {name_subjects(shared)} in {first} and in {second} ({len(shared)} shared in all); parts "
                "must be disjoint by subject: make the split again with `ecgcmr cohort split` or make_split"
            )


def name_subjects(subjects: NDArray[np.int64], verb: bool = True) -> str:
    """Subjects by their numbers in the cohort, which are pseudonyms; the first ten of many."""
    listed = [str(int(subject)) for subject in subjects[:10]]
    more = f" and {len(subjects) - 10} more" if len(subjects) > 10 else ""
    one = len(subjects) == 1
    return f"subject{'s' * (not one)} {', '.join(listed)}{more}" + (" is" if one else " are") * verb


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise ValueError for anything but three shares that sum to 1."""
    if len(fractions) != len(PARTS) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(f"fractions must be three shares >= 0 that sum to 1, got {tuple(fractions)}")


def read_split(path: Path) -> Split:
    """Read splits/<name>.json without checking it against a cohort."""
    if not path.is_file():
        have = sorted(item.stem for item in path.parent.glob("*.json"))
        raise FileNotFoundError(f"{path} does not exist; this cohort has the splits {have}")
    try:
        data = json.loads(path.read_text())
        parts = {name: np.array(data[name], dtype=np.int64) for name in PARTS}
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"{path}: expected JSON with lists of subjects for {PARTS} ({error!r})") from error
    return Split(name=path.stem, how=data.get("how", {}), **parts)


def open_split(cohort: Cohort, name: str = "default") -> Split:
    """Open a stored split; a leak cannot get past this function.

    Raises:
        FileNotFoundError: No such split; names those that exist.
        ValueError: A shared, repeated or unknown subject; names the subject and the parts.
    """
    path = cohort.path / "splits" / f"{name}.json"
    split = read_split(path)
    check_split(split, cohort.subjects["subject"].to_numpy(), str(path))
    return split


def write_split(cohort: Cohort, split: Split) -> Path:
    """Add a split to a cohort, or replace the one of that name; checked first, then written whole or not at all.

    Raises:
        ValueError: As `open_split`.
    """
    path = cohort.path / "splits" / f"{split.name}.json"
    check_split(split, cohort.subjects["subject"].to_numpy(), str(path))
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(split.to_json())
    partial.replace(path)
    return path


def make_split(
    subjects: NDArray[np.int64],
    seed: int,
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    strata: Sequence[Hashable] | None = None,
    name: str = "default",
) -> Split:
    """Draw a split by subject.

    Args:
        subjects: Subjects (n,), each once.
        seed: Seed of the draw.
        fractions: Shares of train, val and test; their sum must be 1.
        strata: A value for each subject; every stratum is then divided in the same shares.
        name: Name of the split.

    Returns:
        The split; part sizes are exact to one subject (per stratum).
    """
    check_fractions(fractions)
    subjects = np.asarray(subjects, dtype=np.int64)
    if len(np.unique(subjects)) != len(subjects):
        raise ValueError("make_split: every subject must appear once; pass unique subjects, not one per recording")
    order = np.argsort(subjects, kind="stable")  # the draw must not depend on the order of the rows
    values = list(strata) if strata is not None else [0] * len(subjects)
    subjects, values = subjects[order], [values[position] for position in order]
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(_PURPOSE_SPLIT,))))
    groups: dict[Hashable, list[int]] = {}
    for position, value in enumerate(values):
        groups.setdefault(value, []).append(position)
    chosen: dict[str, list[NDArray[np.int64]]] = {part: [] for part in PARTS}
    for value in sorted(groups, key=str):
        shuffled = subjects[np.array(groups[value])][rng.permutation(len(groups[value]))]
        cuts = np.rint(np.cumsum(fractions)[:-1] * len(shuffled)).astype(int)
        for part, members in zip(PARTS, np.split(shuffled, cuts), strict=True):
            chosen[part].append(members)
    parts = {part: np.sort(np.concatenate([np.zeros(0, np.int64), *members])) for part, members in chosen.items()}
    how = {"seed": int(seed), "fractions": [float(share) for share in fractions], "stratified": strata is not None}
    return Split(name=name, how=how, **parts)


def split_from_folds(
    folds: Mapping[int, Sequence[str]], mapping: Mapping[str, Sequence[str]], column: str, name: str = "default"
) -> Split:
    """Official folds -> split.

    Args:
        folds: Subject -> fold values of all its rows (as text).
        mapping: Part -> fold values, for instance {"train": ["1", "2"], "test": ["8"]}.
        column: Column of the folds, for messages and for `how`.
        name: Name of the split.

    Raises:
        ValueError: A fold mapped to two parts, an unknown part, or a subject whose rows lie in two parts.
    """
    part_of: dict[str, str] = {}
    for part, values in mapping.items():
        if part not in PARTS:
            raise ValueError(f"--split {part}=...: a split has the parts {PARTS}")
        for value in values:
            if part_of.setdefault(str(value), part) != part:
                raise ValueError(f"--split: fold {value} is given to {part_of[str(value)]} and to {part}")
    members: dict[str, list[int]] = {part: [] for part in PARTS}
    for subject, values in folds.items():
        parts = {part_of[value] for value in values if value in part_of}
        if len(parts) > 1:
            raise ValueError(
                f"column {column}: subject {subject} has recordings in {' and '.join(sorted(parts))}; "
                "parts must be disjoint by subject: map those folds to one part"
            )
        for part in parts:
            members[part].append(subject)
    arrays = {part: np.array(sorted(found), dtype=np.int64) for part, found in members.items()}
    how = {"column": column, "mapping": {part: list(values) for part, values in mapping.items()}}
    return Split(name=name, how=how, **arrays)
