"""A table of own labels: which column is what, which rows stand twice, and what every label is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.cohort.ingest_tables import read_text_table, tidy_key
from ecgcmr.cohort.schema import LabelSpec
from ecgcmr.own_labels.kinds import MIN_ROWS, MISSING, label_of, outcome_names, problem_of, split_unit
from ecgcmr.own_labels.request import FinetuneRequest

SUBJECT_NAMES = ("subject", "subject_id", "subject_key", "patient", "patient_id", "pid", "eid", "person_id", "mrn")
SPLIT_NAMES = ("split", "set", "partition")
_SEX, _AGE = ("sex", "gender"), ("age", "age_years")
_SHOWN = 5


@dataclass(frozen=True)
class OwnLabels:
    """A checked table.

    Attributes:
        path: The file.
        keys: Key of each row (n,): a recording or a subject.
        rows: Data row of the file that each row was (n,), counted from 1.
        key_column: Column of the keys.
        is_subject: Whether a key is a subject, not a recording.
        subject_column: Column of the subjects; None where every recording is its own subject.
        subjects: Subject of each row (n,), or None where every recording is its own or keys are subjects.
        folds: Fold or part of each row (n,), "" where it has none; None without such a column.
        fold_column: Its name.
        about: `sex`, `age_years` and group columns, as far as the table has them, as text.
        specs: The labels.
        values: Labels (n, K), NaN where missing, codes for categories.
        notes: What was inferred or left out, one sentence each.
    """

    path: Path
    keys: list[str]
    rows: NDArray[np.int64]
    key_column: str
    is_subject: bool
    subject_column: str | None
    subjects: list[str] | None
    folds: list[str] | None
    fold_column: str | None
    about: pd.DataFrame
    specs: tuple[LabelSpec, ...]
    values: NDArray[np.float64]
    notes: tuple[str, ...] = ()

    def take(self, positions: NDArray[np.int64]) -> pd.DataFrame:
        """Labels of some rows, by name."""
        return pd.DataFrame(self.values[positions], columns=[spec.name for spec in self.specs])


def read_own_labels(path: Path, request: FinetuneRequest) -> OwnLabels:
    """Read and check a table of labels.

    Args:
        path: CSV (TSV, parquet) with a header line: the key in the first column, then labels.
        request: Names of columns and of the task.

    Raises:
        ValueError: Not such a table, a contradiction, or a label that cannot be learned; names column and rows.
    """
    table = read_text_table(path)
    _check_shape(path, table)
    roles = _roles(path, table, request)
    table, rows, notes = _without_duplicates(path, table, roles)
    names = _chosen(path, table, roles, request)
    specs, values = [], []
    outcomes = outcome_names(names, request.task, path)
    for name in names:
        try:
            spec, found, why = label_of(name, table[name], request.task, outcomes, rows)
        except ValueError as error:
            raise ValueError(f"{path}: column {name!r}: {error}") from None
        why = why or problem_of(spec, found)
        if why and (request.label_columns or len(names) == 1 or name in outcomes):
            raise ValueError(f"{path}: column {name!r}: {why}")
        if why:
            notes.append(f"column {name!r} is left out: {why}")
            continue
        notes.append(f"label {spec.name!r} is {_words(spec, found)}")
        specs.append(spec)
        values.append(found)
    if not specs:
        reasons = "; ".join(note for note in notes if "left out" in note)
        raise ValueError(f"{path}: no column can be learned: {reasons}")
    _check_together(path, specs)
    subject, fold = roles.subject, roles.fold
    if subject is not None:
        _check_subjects(path, table[subject], specs, values)
    return OwnLabels(
        path=path,
        keys=[tidy_key(key) for key in table[roles.key]],
        rows=rows,
        key_column=roles.key,
        is_subject=roles.is_subject,
        subject_column=roles.key if roles.is_subject else subject,
        subjects=[tidy_key(key) for key in table[subject]] if subject else None,
        folds=[tidy_key(value) for value in table[fold]] if fold else None,
        fold_column=fold,
        about=_about(table, roles),
        specs=tuple(specs),
        values=np.stack(values, axis=1),
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class _Roles:
    """Which column is what."""

    key: str
    is_subject: bool
    subject: str | None
    fold: str | None
    sex: str | None
    age: str | None
    groups: tuple[str, ...]

    def all(self) -> set[str]:
        named = (self.key, self.subject, self.fold, self.sex, self.age, *self.groups)
        return {name for name in named if name is not None}


def _check_shape(path: Path, table: pd.DataFrame) -> None:
    names = list(table.columns)
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        raise ValueError(
            f"{path}: the columns are not separated by commas: the header is one column, {names[0][:60]!r}"
        )
    if len(names) < 2:
        raise ValueError(f"{path}: expected two columns at least, a recording or subject and a label; found {names}")
    if not len(table):
        raise ValueError(f"{path}: there is a header and no row below it")


def _roles(path: Path, table: pd.DataFrame, request: FinetuneRequest) -> _Roles:
    lower = {name.lower(): name for name in reversed(table.columns)}
    asked = (request.item_column, request.subject_column, request.fold_column, *request.group_columns)
    for name in asked:
        if name is not None and name not in table:
            raise ValueError(f"{path}: no column {name!r}; it has {', '.join(table.columns)}")

    def usual(names: Sequence[str]) -> str | None:
        return next((lower[name] for name in names if name in lower and lower[name] not in request.label_columns), None)

    subject = request.subject_column or usual(SUBJECT_NAMES)
    key = request.item_column or str(table.columns[0])
    return _Roles(
        key=key,
        is_subject=key == subject,
        subject=None if key == subject else subject,
        fold=request.fold_column or (usual(SPLIT_NAMES) if request.split_file is None else None),
        sex=usual(_SEX),
        age=usual(_AGE),
        groups=request.group_columns,
    )


def _without_duplicates(
    path: Path, table: pd.DataFrame, roles: _Roles
) -> tuple[pd.DataFrame, NDArray[np.int64], list[str]]:
    """Rows with a key, each key once; identical rows are dropped, contradicting ones refused."""
    rows = np.arange(1, len(table) + 1)
    notes: list[str] = []
    empty = (table[roles.key] == "").to_numpy(dtype=bool)
    if empty.any():
        notes.append(f"{int(empty.sum())} rows without {roles.key!r} are left out (data rows {listed(rows[empty])})")
        table, rows = table[~empty].reset_index(drop=True), rows[~empty]
    keys = table[roles.key].map(tidy_key)
    again = keys.duplicated(keep="first").to_numpy(dtype=bool)
    if not again.any():
        return table, rows, notes
    first = keys.drop_duplicates().reset_index().set_index(roles.key)["index"]
    original = first.loc[keys[again]].to_numpy()
    here, there = table[again].reset_index(drop=True), table.iloc[original].reset_index(drop=True)
    differs = (here != there).drop(columns=roles.key)
    wrong = np.flatnonzero(differs.any(axis=1))
    if len(wrong):
        one = wrong[0]
        column = next(name for name in differs if differs[name].iloc[one])
        raise ValueError(
            f"{path}: {len(wrong)} rows contradict an earlier one of the same {roles.key!r}: data rows "
            f"{rows[original[one]]} and {rows[again][one]} differ in column {column!r}; correct them, or name the "
            "column that tells recordings apart with --item-column"
        )
    notes.append(f"{int(again.sum())} rows repeat an earlier one and are dropped (data rows {listed(rows[again])})")
    return table[~again].reset_index(drop=True), rows[~again], notes


def _chosen(path: Path, table: pd.DataFrame, roles: _Roles, request: FinetuneRequest) -> list[str]:
    """Columns to learn; `--label LVEF` also means a column 'LVEF [%]'."""
    bare = {split_unit(str(name))[0]: name for name in table.columns}
    names = []
    for name in request.label_columns:
        if name not in table and name not in bare:
            raise ValueError(f"{path}: no column {name!r}; it has {', '.join(table.columns)}")
        names.append(name if name in table else bare[name])
    found = names or [name for name in table.columns if name not in roles.all()]
    if not found:
        raise ValueError(f"{path}: no column is left to learn beside {', '.join(sorted(roles.all()))}")
    return list(dict.fromkeys(found))


def _about(table: pd.DataFrame, roles: _Roles) -> pd.DataFrame:
    about = {name: table[name] for name in roles.groups}
    for target, name in (("sex", roles.sex), ("age_years", roles.age)):
        if name is not None:
            about[target] = table[name].map(lambda text: "" if text.lower() in MISSING else text)
    return pd.DataFrame(about, index=table.index)


def _words(spec: LabelSpec, values: NDArray[np.float64]) -> str:
    seen = values[~np.isnan(values)]
    missing = f", {len(values) - len(seen)} missing" if len(seen) < len(values) else ""
    if spec.kind in ("binary", "event"):
        return f"{spec.kind}: {int(seen.sum())} of {len(seen)} rows are 1{missing}"
    if spec.kind == "category":
        counts = ", ".join(f"{value} {int((seen == code).sum())}" for code, value in enumerate(spec.values))
        return f"one of {len(spec.values)} values: {counts}{missing}"
    unit = f" {spec.unit}" if spec.unit else ""
    return f"a {'time' if spec.kind == 'time' else 'number'} from {seen.min():g} to {seen.max():g}{unit}{missing}"


def _check_together(path: Path, specs: Sequence[LabelSpec]) -> None:
    follow_up = [spec.name for spec in specs if spec.kind in ("time", "event")]
    others = [spec.name for spec in specs if spec.kind not in ("time", "event")]
    if follow_up and others:
        raise ValueError(
            f"{path}: {', '.join(follow_up)} are outcomes with follow-up and {', '.join(others)} are not: one run "
            "learns one or the other; choose with --label"
        )


def _check_subjects(path: Path, subjects: pd.Series, specs: Sequence[LabelSpec], values: list[Any]) -> None:
    for spec, column in zip(specs, values, strict=True):
        count = subjects[~np.isnan(column)].nunique()
        if count < MIN_ROWS:
            raise ValueError(
                f"{path}: column {spec.name!r}: {count} subjects have a value; at least {MIN_ROWS} are needed to train "
                "on some, select on others and test on the rest"
            )


def listed(rows: NDArray[np.int64]) -> str:
    """The first five of some row numbers."""
    return ", ".join(map(str, rows[:_SHOWN].tolist())) + (", ..." if len(rows) > _SHOWN else "")
