"""Kinds of splits by subject: stratified, k-fold, by official fold, by time, by site; fixed by the seed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgcmr.cohort.splits import PARTS, Split, check_fractions
from ecgcmr.cohort.stratify import deal_subjects

VAL_SHARE = 0.125  # of what is not tested: a tenth of all subjects in five folds
_PURPOSE_KIND = 0x5B18
Subjects = NDArray[np.int64]


def stratified_split(
    subjects: Subjects,
    seed: int,
    fractions: Sequence[float],
    strata: NDArray[np.bool_] | None = None,
    groups: Sequence[Hashable] | None = None,
    name: str = "default",
) -> Split:
    """One split whose parts hold the strata in the same shares.

    Args:
        subjects: Subjects (n,), each once.
        seed: Seed of the draw.
        fractions: Shares of train, val and test.
        strata: Membership in each stratum (n, K).
        groups: Subjects of one value stay together.
        name: Name of the split.

    Raises:
        ValueError: Fractions do not sum to 1, or a subject stands twice.
    """
    check_fractions(fractions)
    bins = deal_subjects(subjects, fractions, _rng(seed), strata, groups)
    how = {"kind": "stratified", "seed": int(seed), "fractions": [float(share) for share in fractions]}
    return _split(name, {part: subjects[bins == k] for k, part in enumerate(PARTS)}, how)


def kfold_splits(
    subjects: Subjects,
    k: int,
    seed: int,
    strata: NDArray[np.bool_] | None = None,
    groups: Sequence[Hashable] | None = None,
    val_share: float = VAL_SHARE,
    name: str = "cv",
) -> list[Split]:
    """A family of k splits: every subject is in the test part of exactly one of them.

    Args:
        subjects: Subjects (n,), each once.
        k: Number of folds.
        seed: Seed of the draw.
        strata: Membership in each stratum (n, K).
        groups: Subjects of one value stay together, in test and in val.
        val_share: Share of the subjects outside of the test fold that validate.
        name: Name of the family; the splits are called NAME-0, NAME-1, ...

    Raises:
        ValueError: Too few folds, or fewer subjects (groups) than folds.
    """
    units = len(set(groups)) if groups is not None else len(subjects)
    if k < 2 or units < k:
        raise ValueError(f"{k} folds of {units} {'groups' if groups is not None else 'subjects'}: give 2 to {units}")
    folds = deal_subjects(subjects, [1 / k] * k, _rng(seed), strata, groups)
    how = {"kind": "kfold", "seed": int(seed)}
    return _family(subjects, folds, list(range(k)), seed, strata, groups, val_share, name, how)


def site_splits(
    subjects: Subjects,
    sites: Sequence[str],
    seed: int,
    strata: NDArray[np.bool_] | None = None,
    val_share: float = VAL_SHARE,
    name: str = "site",
    column: str = "site",
) -> list[Split]:
    """A family with one split for each site, which is its test part; subjects without a site are in no part.

    Raises:
        ValueError: Fewer than two sites.
    """
    values = np.array([str(site).strip() for site in sites])
    known = sorted(set(values) - {"", "nan", "None"})
    if len(known) < 2:
        raise ValueError(f"column {column!r}: leaving a site out needs at least two sites, found {known}")
    here = np.isin(values, known)
    folds = np.array([known.index(value) for value in values[here]], dtype=np.int64)
    how = {"kind": "site", "seed": int(seed), "column": column}
    chosen = strata[here] if strata is not None else None
    return _family(subjects[here], folds, known, seed, chosen, None, val_share, name, how)


def fold_splits(
    subjects: Subjects,
    values: Sequence[str],
    seed: int,
    val_share: float = VAL_SHARE,
    name: str = "fold",
    column: str = "",
) -> list[Split]:
    """A family with one split for each official fold; errors as `site_splits`."""
    splits = site_splits(subjects, values, seed, None, val_share, name, column)
    return [replace(split, how={**split.how, "kind": "folds"}) for split in splits]


def temporal_split(
    subjects: Subjects,
    first: NDArray[np.float64],
    last: NDArray[np.float64],
    cuts: tuple[float, float],
    name: str,
    column: str,
) -> Split:
    """The past trains, the future tests: train ends before the first cut, test begins at the second.

    Subjects with items on both sides of a cut, or without a time, are in no part: in train they would carry the future
    into the past, in test the past into the future.

    Args:
        subjects: Subjects (n,), each once.
        first: Time of the first item of each subject (n,).
        last: Time of its last item (n,).
        cuts: Beginning of val and of test; equal cuts leave val empty.
        name: Name of the split.
        column: Where the times come from, for `how` and messages.

    Raises:
        ValueError: The cuts run backward, or train or test is empty.
    """
    start_val, start_test = cuts
    if not start_val <= start_test:
        raise ValueError(f"cuts {cuts}: val must begin before test")
    parts = {
        "train": subjects[last < start_val],
        "val": subjects[(first >= start_val) & (last < start_test)],
        "test": subjects[first >= start_test],
    }
    for part in ("train", "test"):
        if not len(parts[part]):
            raise ValueError(
                f"column {column!r}: no subject falls into {part} with cuts {start_val:g} and {start_test:g}; its "
                f"values run from {np.nanmin(first):g} to {np.nanmax(last):g}"
            )
    how = {"kind": "temporal", "column": column, "cuts": [float(start_val), float(start_test)]}
    return _split(name, parts, {**how, "left_out": len(subjects) - sum(map(len, parts.values()))})


def cuts_by_fractions(first: NDArray[np.float64], fractions: Sequence[float]) -> tuple[float, float]:
    """Cuts at which the asked shares of subjects have begun.

    Raises:
        ValueError: Fractions do not sum to 1, no subject has a time, or all times are the same.
    """
    check_fractions(fractions)
    seen = np.sort(first[~np.isnan(first)])
    if not len(seen) or seen[0] == seen[-1]:
        raise ValueError("a split by time needs different times: all subjects begin at the same one, or none has any")
    positions = np.minimum(np.rint(np.cumsum(fractions)[:2] * len(seen)).astype(int), len(seen) - 1)
    return float(seen[positions[0]]), float(seen[positions[1]])


def _family(
    subjects: Subjects,
    folds: NDArray[np.int64],
    names: Sequence[Any],
    seed: int,
    strata: NDArray[np.bool_] | None,
    groups: Sequence[Hashable] | None,
    val_share: float,
    name: str,
    how: dict[str, Any],
) -> list[Split]:
    if not 0 <= val_share < 1:
        raise ValueError(f"val_share must be from 0 to below 1, got {val_share}")
    family = []
    for fold, fold_name in enumerate(names):
        rest = np.flatnonzero(folds != fold)
        chosen = strata[rest] if strata is not None else None
        together = [groups[int(position)] for position in rest] if groups is not None else None
        bins = deal_subjects(subjects[rest], [1 - val_share, val_share], _rng(seed, fold + 1), chosen, together)
        if val_share > 0 and not (bins == 1).any():
            raise ValueError(
                f"fold {fold_name}: {len(rest)} subjects are left, in units too large for a val part of {val_share:g}; "
                "give a larger --val-share, or 0 for no val part"
            )
        parts = {"train": subjects[rest][bins == 0], "val": subjects[rest][bins == 1], "test": subjects[folds == fold]}
        about = {**how, "family": name, "fold": str(fold_name), "folds": len(names), "val_share": float(val_share)}
        family.append(_split(f"{name}-{_file_name(fold_name)}", parts, about))
    return family


def _split(name: str, parts: dict[str, Subjects], how: dict[str, Any]) -> Split:
    return Split(name=name, how=how, **{part: np.sort(members) for part, members in parts.items()})


def _file_name(text: Any) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in str(text))


def _rng(seed: int, fold: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(_PURPOSE_KIND, fold))))
