"""`cohort split`: draw the asked kind of split from a cohort, write it, and check splits against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.cohort.split_kinds import (
    VAL_SHARE,
    cuts_by_fractions,
    fold_splits,
    kfold_splits,
    site_splits,
    stratified_split,
    temporal_split,
)
from ecgcmr.cohort.splits import (
    DEFAULT_FRACTIONS,
    PARTS,
    Split,
    name_subjects,
    open_split,
    split_from_folds,
    write_split,
)
from ecgcmr.cohort.stratify import strata_of, subject_column

if TYPE_CHECKING:
    from ecgcmr.cohort.store import Cohort

KINDS = ("random", "stratified", "kfold", "folds", "temporal", "site")


@dataclass(frozen=True)
class SplitRequest:
    """What to draw.

    Attributes:
        kind: One of `KINDS`.
        name: Name of the split, or of the family of splits.
        seed: Seed of the draw.
        fractions: Shares of train, val and test.
        k: Number of folds.
        by: Labels and columns to stratify by.
        group: Column whose values stay together.
        column: Column of the official folds, the site, or the time: NAME of subjects, recordings.NAME or studies.NAME.
        parts: Part -> official folds; empty makes one split for each fold.
        cuts: Beginning of val and of test in time; None takes `fractions`.
        val_share: Share of the subjects outside of a test fold that validate.
        only: NAME:PART[,PART...] of a stored split, to draw from these subjects only.
        force: Replace splits of that name.
    """

    kind: str
    name: str
    seed: int = 0
    fractions: tuple[float, ...] = DEFAULT_FRACTIONS
    k: int = 5
    by: tuple[str, ...] = ()
    group: str | None = None
    column: str | None = None
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cuts: tuple[float, float] | None = None
    val_share: float = VAL_SHARE
    only: str | None = None
    force: bool = False


def split_cohort(cohort: Cohort, request: SplitRequest) -> list[Split]:
    """Draw splits of a cohort and write them to its folder.

    Raises:
        ValueError: The request does not fit the cohort.
        FileExistsError: A split of that name is there.
    """
    splits = draw_splits(cohort, request)
    for split in splits:
        if not request.force and (cohort.path / "splits" / f"{split.name}.json").exists():
            raise FileExistsError(
                f"{cohort.path} has a split {split.name!r}; use --force to replace it, or another --name"
            )
        if f"splits/{split.name}.json" in cohort.schema.files:
            raise ValueError(
                f"{cohort.path}: split {split.name!r} was written with the cohort, and cohort.json holds its sha256; "
                "choose another --name"
            )
    for split in splits:
        write_split(cohort, split)
    return splits


def draw_splits(cohort: Cohort, request: SplitRequest) -> list[Split]:
    """Draw splits without writing them; arguments and errors as `split_cohort`."""
    _check(request)
    subjects, here = _chosen(cohort, request.only)
    table, titles = strata_of(cohort, request.by)
    strata = table[here] if request.by else None
    groups = _texts(subject_column(cohort, request.group))[here].tolist() if request.group else None
    if request.kind in ("random", "stratified"):
        splits = [stratified_split(subjects, request.seed, request.fractions, strata, groups, request.name)]
    elif request.kind == "kfold":
        splits = kfold_splits(subjects, request.k, request.seed, strata, groups, request.val_share, request.name)
    elif request.kind == "temporal":
        splits = [_temporal(cohort, request, subjects, here)]
    else:
        column = request.column or "site"
        values = _texts(subject_column(cohort, column))[here].tolist()
        if request.parts:
            folds = {int(subject): [value] for subject, value in zip(subjects, values, strict=True)}
            splits = [split_from_folds(folds, request.parts, column, request.name)]
        elif request.kind == "folds":
            splits = fold_splits(subjects, values, request.seed, request.val_share, request.name, column)
        else:
            splits = site_splits(subjects, values, request.seed, strata, request.val_share, request.name, column)
    extra: dict[str, Any] = {"stratified_by": titles} if request.by else {}
    extra |= {"grouped_by": request.group} if request.group else {}
    extra |= {"only": request.only} if request.only else {}
    return [Split(split.name, split.train, split.val, split.test, {**split.how, **extra}) for split in splits]


def open_family(cohort: Cohort, name: str) -> list[Split]:
    """Open all splits of a family in the order of their folds, and check that no subject is tested twice.

    Raises:
        FileNotFoundError: No split of that family.
        ValueError: A split is missing or broken, or a subject is in two test parts; names it.
    """
    splits = [open_split(cohort, stored) for stored in cohort.split_names]
    family = [split for split in splits if split.how.get("family") == name]
    if not family:
        names = sorted({str(split.how["family"]) for split in splits if "family" in split.how})
        raise FileNotFoundError(f"{cohort.path} has no family of splits {name!r}; it has {names}")
    expected = int(family[0].how.get("folds", len(family)))
    if len(family) != expected:
        raise ValueError(
            f"{cohort.path}: the family {name!r} has {len(family)} of its {expected} splits; draw it again with --force"
        )
    tested = np.concatenate([split.test for split in family])
    found, counts = np.unique(tested, return_counts=True)
    if (counts > 1).any():
        raise ValueError(
            f"{cohort.path}: in the family {name!r}, {name_subjects(found[counts > 1])} tested in two folds"
        )
    return family


def check_stages(cohort: Cohort, earlier: str, later: str) -> None:
    """Assert that no subject that a later stage tests was learned from in an earlier one.

    Args:
        cohort: The cohort.
        earlier: Split of the earlier stage (pretraining).
        later: Split of the later stage (fine-tuning, evaluation).

    Raises:
        ValueError: Names the subjects.
    """
    first, second = open_split(cohort, earlier), open_split(cohort, later)
    for part in ("train", "val"):
        shared = np.intersect1d(first.part(part), second.test)
        if len(shared):
            raise ValueError(
                f"{cohort.path}: {name_subjects(shared)} in {part} of {earlier!r} and in test of {later!r}: a model "
                "that learned from them cannot be tested on them. Use one split in all stages, or draw the later one "
                f"with --only {earlier}:test"
            )


def _check(request: SplitRequest) -> None:
    if request.kind not in KINDS:
        raise ValueError(f"--kind {request.kind}: there are {', '.join(KINDS)}")
    if not request.name or any(not (letter.isalnum() or letter in "-_.") for letter in request.name):
        raise ValueError(f"--name {request.name!r}: letters, digits, '-', '_' and '.' only")
    if request.kind == "stratified" and not request.by:
        raise ValueError("--kind stratified needs --by LABEL or COLUMN, once for each")
    if request.kind in ("folds", "temporal") and not request.column:
        raise ValueError(f"--kind {request.kind} needs --column")
    unused: dict[str, bool] = {
        "parts": bool(request.parts) and request.kind not in ("folds", "site"),
        "cuts": bool(request.cuts) and request.kind != "temporal",
        "group": bool(request.group) and request.kind not in ("random", "stratified", "kfold"),
        "by": bool(request.by) and request.kind in ("random", "folds", "temporal"),
    }
    wrong = [name for name, is_wrong in unused.items() if is_wrong]
    if wrong:
        option = {"parts": "part", "cuts": "cut"}.get(wrong[0], wrong[0])
        raise ValueError(f"--{option} has no meaning for --kind {request.kind}")


def _chosen(cohort: Cohort, only: str | None) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Subjects to draw from, and which rows of subjects.parquet they are."""
    everyone = cohort.subjects["subject"].to_numpy(dtype=np.int64)
    if only is None:
        return everyone, np.ones(len(everyone), dtype=bool)
    name, colon, parts = only.partition(":")
    wanted = [part.strip() for part in parts.split(",")]
    if not colon or not set(wanted) <= set(PARTS):
        raise ValueError(f"--only {only}: expected NAME:PART,PART of {', '.join(PARTS)}, for instance default:test")
    split = open_split(cohort, name)
    here = np.isin(everyone, np.concatenate([split.part(part) for part in wanted]))
    return everyone[here], here


def _texts(values: pd.Series) -> NDArray[Any]:
    """Values as text; whole numbers without a decimal point, missing ones empty."""
    texts = values.map(lambda value: "" if pd.isna(value) else f"{value:g}" if isinstance(value, float) else str(value))
    return texts.to_numpy(dtype=object)


def _temporal(cohort: Cohort, request: SplitRequest, subjects: NDArray[np.int64], here: NDArray[np.bool_]) -> Split:
    column = str(request.column)
    first, last = _times(cohort, column)
    cuts = request.cuts or cuts_by_fractions(first[here], request.fractions)
    return temporal_split(subjects, first[here], last[here], cuts, request.name, column)


def _times(cohort: Cohort, column: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First and last time of each subject (n,), (n,)."""
    table, dot, name = column.partition(".")
    if not dot or table == "subjects":
        values = subject_column(cohort, name if dot else column)
        numbers = _numbers(values, column)
        return numbers, numbers
    if table not in ("recordings", "studies"):
        raise ValueError(f"--column {column}: give NAME of subjects, recordings.NAME or studies.NAME")
    rows = cohort.recordings if table == "recordings" else cohort.studies
    if name not in rows:
        raise ValueError(f"{cohort.path}: {table} has no column {name!r}; it has {', '.join(rows.columns)}")
    by_subject = pd.Series(_numbers(rows[name], column), index=rows["subject"].to_numpy()).groupby(level=0)
    index = cohort.subjects["subject"]
    first = np.asarray(by_subject.min().reindex(index), dtype=np.float64)
    if name == "visit_days" and len(first) and np.nanmax(np.abs(first), initial=0.0) == 0.0:
        raise ValueError(
            f"{column} counts from each subject's own first visit, so it cannot tell whose visit was earlier. Ingest a "
            "column with a day that counts from one date for all (--group) and name it with --column"
        )
    return first, np.asarray(by_subject.max().reindex(index), dtype=np.float64)


def _numbers(values: pd.Series, column: str) -> NDArray[np.float64]:
    if pd.api.types.is_numeric_dtype(values):
        return values.to_numpy(dtype=np.float64)
    texts = values.fillna("").astype(str).str.strip().replace("", None)
    numbers = pd.to_numeric(texts, errors="coerce")
    if numbers.notna().sum() == texts.notna().sum():
        return numbers.to_numpy(dtype=np.float64)
    days = pd.to_datetime(texts, format="%Y-%m-%d", errors="coerce")
    if days.notna().sum() != texts.notna().sum():
        raise ValueError(f"--column {column}: holds neither numbers nor dates written as YYYY-MM-DD")
    return np.asarray((days - pd.Timestamp(1970, 1, 1)).dt.days, dtype=np.float64)


def parts_of(request_parts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """PART=FOLD,FOLD,... texts as part -> folds.

    Raises:
        ValueError: A text without folds.
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in request_parts:
        part, equals, folds = text.partition("=")
        if not equals or not folds:
            raise ValueError(f"--part {text}: expected PART=FOLD,FOLD,... such as train=1,2,3")
        found[part] = found.get(part, ()) + tuple(fold.strip() for fold in folds.split(","))
    return found
