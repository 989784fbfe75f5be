"""The table of an ingest: whose item each row is, what becomes a label, and what is known about a subject."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.cohort.ingest_tables import (
    SIDECAR_ITEM,
    days,
    find_table,
    numbers,
    read_sidecars,
    read_text_table,
    tidy_key,
)
from ecgcmr.cohort.label_file import declared_values, read_label_columns
from ecgcmr.cohort.recipe import Column, Table, Visits
from ecgcmr.cohort.schema import LabelSpec

MAX_CATEGORIES = 20
_SUBJECT_FIELDS = {"sex": "sex", "gender": "sex", "age": "age_years", "age_years": "age_years", "site": "site"}
SEXES = {"m": "male", "male": "male", "f": "female", "female": "female"}
_TRUTH = {"true": "1", "false": "0", "yes": "1", "no": "0"}


class LabelTable:
    """A table with keys matched as text.

    Args:
        spec: Which columns mean what.
        root: Folder that `spec.file` is relative to.

    Attributes:
        table: The columns in use as text; "" is missing.
        days: Day of each row (n,) [days since year 1], 0 where unknown.
        specs: Declared labels, by column (`ecgcmr labels build`); empty when kinds are inferred.
        statements: What was inferred, one sentence each.

    Raises:
        FileNotFoundError: The file is not there.
        ValueError: It is no table, or a column is not there; names those that are.
    """

    def __init__(self, spec: Table, root: Path) -> None:
        self.spec = spec
        self.statements: list[str] = []
        self.item_column, self.subject_column = spec.item, spec.subject
        self.specs: dict[str, LabelSpec] = {}
        if spec.sidecar:
            self.path, self.table = root / spec.file, read_sidecars(root, spec.file)
            self.item_column = SIDECAR_ITEM
            if not len(self.table):
                raise FileNotFoundError(f"table.file: no file below {root} matches {spec.file}")
        else:
            found = find_table(root, spec.file, True, "table.file")
            assert found is not None
            self.path = found
            declared = read_label_columns(self.path)
            if declared is not None:
                self.specs = {spec.name: spec for spec in declared.specs}
                if self.subject_column is None and self.item_column is None:
                    self.subject_column, self.item_column = declared.subject_column, declared.item_column
            self.table = read_text_table(self.path, self._needed())
            if self._needed() is None:
                read_label_columns(self.path, list(self.table.columns))
        if self.subject_column is None and self.item_column is None:
            self.item_column = str(self.table.columns[0])
            self.statements.append(f"items are matched by the first column, {self.item_column!r}")
        for column in self._named():
            self.require(column)
        self._by_item = self._index(self.item_column, unique=True)
        self._by_subject = self._index(self.subject_column, unique=False)
        self._subjects = self.table[self.subject_column].tolist() if self.subject_column else []
        self.days = np.zeros(len(self.table), dtype=np.int32)
        if spec.date is not None:
            self.days, wrong = days(self.table[spec.date])
            if wrong:
                self.statements.append(f"{wrong} values of column {spec.date!r} are no dates; expected YYYY-MM-DD")

    def _named(self) -> list[str]:
        spec = self.spec
        fields = [column.column for column in (spec.sex, spec.age, spec.site) if column is not None]
        names = [self.subject_column, self.item_column, spec.date, spec.fold, *fields, *spec.groups]
        names += [*(spec.labels or ()), *(codes.column for codes in spec.codes)]
        return [name for name in dict.fromkeys(names) if name is not None]

    def _needed(self) -> list[str] | None:
        """The columns to read; None for all, when labels or keys are to be found by looking."""
        looking = self.spec.labels == () or (self.subject_column is None and self.item_column is None)
        return None if looking else self._named()

    def require(self, column: str | None) -> None:
        """Raise ValueError for a column that is not there."""
        if column is not None and column not in self.table:
            raise ValueError(f"{self.path}: no column {column!r}; it has {', '.join(self.table.columns)}")

    def _index(self, column: str | None, unique: bool) -> dict[str, int]:
        if column is None:
            return {}
        found: dict[str, int] = {}
        for row, value in enumerate(self.table[column].tolist()):
            key = tidy_key(value)
            if unique and key and key in found:
                raise ValueError(
                    f"{self.path}: column {column!r} has the same value in data rows {found[key] + 1} and {row + 1}; "
                    "items must be unique (is it the subject? then use --subject-column)"
                )
            if key:
                found.setdefault(key, row)
        return found

    def find(self, items: Sequence[str], subjects: Sequence[str]) -> tuple[int, str | None]:
        """Row and subject key by the first of `items` that is an item, else of `subjects` that is a subject.

        All items come first: the number of a study may be that of another subject.
        """
        row, known = -1, ""
        for names, index in ((items, self._by_item), (subjects, self._by_subject)):
            for name in names if index and row < 0 else ():
                known = tidy_key(name)
                row = index.get(known, -1)
                if row >= 0:
                    break
        if row < 0:
            return -1, None
        return row, (tidy_key(self._subjects[row]) if self._subjects else known) or known

    def fingerprint(self) -> str:
        """sha256 of the columns in use."""
        digest = hashlib.sha256()
        for name in self.table.columns:
            digest.update("\0".join([name, *self.table[name].tolist()]).encode())
        return digest.hexdigest()

    def example(self) -> str:
        """The first key."""
        return next(iter(self._by_item or self._by_subject), "")

    def subject_of_rows(self, subject_keys: dict[str, int]) -> NDArray[np.int64]:
        """Number of the subject of each row (n,); -1 for rows of subjects without a file."""
        column = self.subject_column or self.item_column
        return np.array(
            [subject_keys.get(tidy_key(value), -1) for value in self.table[column].tolist()], dtype=np.int64
        )

    def folds(self) -> list[str]:
        """Fold value of each row."""
        assert self.spec.fold is not None
        return [tidy_key(value) for value in self.table[self.spec.fold].tolist()]

    def subject_fields(self) -> pd.DataFrame:
        """Sex, age, site and group columns of each row, as far as the table has them."""
        size = len(self.table)
        out = pd.DataFrame({"sex": [""] * size, "age_years": np.full(size, np.nan), "site": [""] * size})
        wanted = {"sex": self.spec.sex, "age_years": self.spec.age, "site": self.spec.site}
        for name in self.table.columns:
            target = _SUBJECT_FIELDS.get(name.lower())
            if target is not None and wanted[target] is None and name not in self.spec.groups:
                wanted[target] = Column(column=name)
        for target, column in wanted.items():
            if column is None:
                continue
            texts = self.table[column.column].map(lambda text, c=column: "" if text in c.missing else text)
            texts = texts.map(lambda text, c=column: c.values.get(text, text))
            if target == "age_years":
                out[target] = numbers(texts)
            elif target == "sex":
                out[target] = texts.map(lambda text: SEXES.get(text.lower(), text))
            else:
                out[target] = texts
        for name in self.spec.groups:
            out[name] = self.table[name].astype(object).to_numpy()
        return out

    def labels(self) -> tuple[list[LabelSpec], NDArray[np.float64]]:
        """Label columns with their inferred kind, and their values (rows, K); says what was left out and why."""
        chosen = self.spec.labels
        fields = [column.column for column in (self.spec.sex, self.spec.age, self.spec.site) if column is not None]
        used = {self.subject_column, self.item_column, self.spec.date, self.spec.fold, *self.spec.groups, *fields}
        names = list(chosen or ())
        if chosen == () and not self.spec.codes:
            every = self.specs or self.table.columns
            names = [name for name in every if name not in used and name.lower() not in _SUBJECT_FIELDS]
        specs: list[LabelSpec] = []
        values: list[NDArray[np.float64]] = []
        for name in names:
            column = self.table[name].astype(object)
            declared = self.specs.get(name)
            if declared is None:
                spec, found, why = _infer(name, column)
            else:
                spec, found = declared, declared_values(self.path, declared, column)
                why = f" [{declared.unit}]" if declared.unit else ""
            if spec is None:
                if chosen:
                    raise ValueError(f"{self.path}: column {name!r} cannot be a label: {why}")
                self.statements.append(f"column {name!r} left out: {why}")
                continue
            self.statements.append(f"label {name!r} is {spec.kind}{why}")
            specs.append(spec)
            values.append(found)
        for codes in self.spec.codes:
            pattern = re.compile(codes.pattern)
            listed = [set(pattern.findall(text)) for text in self.table[codes.column].tolist()]
            for name, wanted in codes.labels.items():
                hits = np.array([float(not found.isdisjoint(wanted)) for found in listed])
                hits[(self.table[codes.column] == "").to_numpy(dtype=bool)] = np.nan
                text = f"any of {', '.join(wanted)} in column {codes.column}"
                specs.append(LabelSpec(name, "binary", description=text))
                values.append(hits)
                self.statements.append(f"label {name!r} is binary (prevalence {np.nanmean(hits):.3f})")
        return specs, np.stack(values, axis=1) if values else np.zeros((len(self.table), 0))


class VisitTable:
    """The day of each visit of a subject."""

    def __init__(self, spec: Visits, path: Path) -> None:
        table = read_text_table(path, [spec.subject, *spec.columns.values()])
        self._rows = {tidy_key(key): row for row, key in enumerate(table[spec.subject].tolist())}
        self._days = {visit: days(table[column])[0] for visit, column in spec.columns.items()}

    def day(self, subject: str, visit: str) -> int:
        """Day of a visit [days since year 1], 0 where unknown."""
        row = self._rows.get(tidy_key(subject), -1)
        return int(self._days[visit][row]) if row >= 0 and visit in self._days else 0


def aggregate(specs: Sequence[LabelSpec], values: pd.DataFrame, subjects: NDArray[np.int64], size: int) -> pd.DataFrame:
    """Labels of subjects 0 ... size - 1: their rows' maximum (binary, event), minimum (time), first (category) or mean.

    Args:
        specs: The labels.
        values: One row for each row of the table, one column for each label.
        subjects: Subject of each row (n,), -1 for none.
        size: Number of subjects.
    """
    ways = {"binary": "max", "event": "max", "time": "min", "category": "first", "regression": "mean"}
    known = subjects >= 0
    grouped = values[known].groupby(subjects[known], sort=True)
    out = pd.DataFrame({spec.name: getattr(grouped[spec.name], ways[spec.kind])() for spec in specs})
    return out.reindex(range(size))


def _infer(name: str, column: pd.Series) -> tuple[LabelSpec | None, NDArray[np.float64], str]:
    """Kind and values of a column; no spec and a reason when it cannot be a label."""
    values = numbers(column.str.lower().map(lambda text: _TRUTH.get(text, text)))
    filled = (column != "").to_numpy(dtype=bool)
    nothing = np.zeros(0)
    if not filled.any():
        return None, nothing, "it is empty"
    if not np.isnan(values[filled]).any():
        seen = values[filled]
        if np.isin(seen, (0.0, 1.0)).all():
            kind = "event" if name.lower().endswith("_event") else "binary"
            return LabelSpec(name, kind, description=f"column {name}"), values, f" (prevalence {seen.mean():.3f})"
        if re.search(r"(^|_)id$", name.lower()) or (np.abs(seen).min() >= 1e6 and len(np.unique(seen)) == len(seen)):
            return None, nothing, "it looks like an identifier"
        kind = "time" if re.search(r"_time(_|$)", name.lower()) else "regression"
        return LabelSpec(name, kind, description=f"column {name}"), values, f" ({seen.min():g} to {seen.max():g})"
    words = sorted(set(column[filled]))
    if len(words) > MAX_CATEGORIES or len(words) > 0.5 * filled.sum():
        return None, nothing, f"{len(words)} different texts are no categories"
    code = {word: float(position) for position, word in enumerate(words)}
    codes = np.array([code.get(text, np.nan) for text in column])
    spec = LabelSpec(name, "category", description=f"column {name}", values=tuple(words))
    return spec, codes, f" ({len(words)} values)"
