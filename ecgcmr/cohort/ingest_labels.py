"""The labels table of an ingest: CSV or parquet with one row for each item or subject."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.cohort.label_file import declared_values, read_label_columns, read_label_table, shape
from ecgcmr.cohort.schema import LabelSpec

MAX_CATEGORIES = 20
_SUBJECT_FIELDS = {
    "sex": "sex",
    "gender": "sex",
    "age": "age_years",
    "age_years": "age_years",
    "site": "site",
}
_SEXES = {"m": "male", "male": "male", "f": "female", "female": "female"}
_TRUTH = {"true": "1", "false": "0", "yes": "1", "no": "0"}


class LabelTable:
    """A labels table with keys matched as text.

    Args:
        path: CSV or parquet file; its specs (`ecgcmr labels build`) say what the columns mean.
        subject_column: Column with the subject, or None.
        item_column: Column with the item; when neither is given that of the specs, else the first column.

    Attributes:
        table: The file as text; "" is missing.
        specs: Declared labels, by column; empty when the file has no specs and kinds are inferred.
        statements: What was inferred, one sentence each.

    Raises:
        ValueError: The file is no table, or a column is not there; names those that are.
    """

    def __init__(self, path: Path, subject_column: str | None = None, item_column: str | None = None) -> None:
        self.path = path
        self.table = read_label_table(path)
        declared = read_label_columns(path, list(self.table.columns))
        self.statements: list[str] = []
        self.specs: dict[str, LabelSpec] = {}
        if declared is not None:
            self.specs = {spec.name: spec for spec in declared.specs}
            if subject_column is None and item_column is None:
                subject_column, item_column = declared.subject_column, declared.item_column
        if subject_column is None and item_column is None:
            item_column = str(self.table.columns[0])
            self.statements.append(f"items are matched by the first column, {item_column!r}")
        self.subject_column, self.item_column = subject_column, item_column
        for column in (subject_column, item_column):
            self.require(column)
        self._by_item = self._index(item_column, unique=True)
        self._by_subject = self._index(subject_column, unique=False)

    def require(self, column: str | None) -> None:
        """Raise ValueError for a column that is not there."""
        if column is not None and column not in self.table:
            raise ValueError(f"{self.path}: no column {column!r}; it has {', '.join(self.table.columns)}")

    def _index(self, column: str | None, unique: bool) -> dict[str, int]:
        if column is None:
            return {}
        found: dict[str, int] = {}
        for row, value in enumerate(self.table[column]):
            key = _key(value)
            if unique and key and key in found:
                raise ValueError(
                    f"{self.path}: column {column!r} has the same value in data rows {found[key] + 1} and {row + 1}; "
                    "items must be unique (is it the subject? then use --subject-column)"
                )
            if key:
                found.setdefault(key, row)
        return found

    def find(self, candidates: Sequence[str]) -> tuple[int, str | None]:
        """Row and subject key of an item, by the first candidate that is an item or a subject; else (-1, None)."""
        for candidate in candidates:
            key = _key(candidate)
            row = self._by_item.get(key, self._by_subject.get(key, -1))
            if row >= 0:
                subject = self.table[self.subject_column].iloc[row] if self.subject_column else key
                return row, _key(str(subject)) or key
        return -1, None

    def check_matches(self, matched: Sequence[int], keys: Sequence[str]) -> None:
        """Say how many rows belong to no file; refuse a table that belongs to none at all.

        Args:
            matched: Row of each item (n,), -1 without.
            keys: A key of some items, to show how they look; no identifier gets into the message.

        Raises:
            ValueError: No item has a row.
        """
        rows = {row for row in matched if row >= 0}
        if matched and not rows:
            column = self.item_column or self.subject_column
            filled = next((text for text in self.table[str(column)] if text), "")
            raise ValueError(
                f"{self.path}: none of its {len(self.table)} rows belongs to any of the {len(matched)} items: files "
                f"are named like {shape(keys[0])!r}, column {column!r} holds values like {shape(filled)!r} (9 is a "
                "digit, A a letter). Name the right --item-column or --subject-column, or cut the key out of the path "
                "with --subject-regex"
            )
        if self.subject_column is not None:  # rows of a subject that has a file are used, whichever row was found
            owners = {_key(self.table[self.subject_column].iloc[row]) for row in rows}
            rows |= {row for owner in owners for row in self.rows_of(owner)}
        strange = len(self.table) - len(rows)
        if strange:
            self.statements.append(
                f"{strange} of {len(self.table)} rows of the labels table belong to no file: not used"
            )

    def rows_of(self, subject_key: str) -> list[int]:
        """All rows of a subject."""
        if self.subject_column is None:
            row = self._by_item.get(_key(subject_key), -1)
            return [row] if row >= 0 else []
        return self._rows_by_subject.get(subject_key, [])

    @property
    def _rows_by_subject(self) -> dict[str, list[int]]:
        if not hasattr(self, "_rows"):
            assert self.subject_column is not None
            self._rows: dict[str, list[int]] = {}
            for row, value in enumerate(self.table[self.subject_column]):
                self._rows.setdefault(_key(value), []).append(row)
        return self._rows

    def folds(self, column: str, rows: Sequence[int]) -> list[str]:
        """Fold values of rows."""
        self.require(column)
        return [_key(self.table[column].iloc[row]) for row in rows]

    def subject_fields(self, row: int, groups: Sequence[str]) -> dict[str, str | float]:
        """Sex, age, site and group columns of a row, as far as the table has them."""
        fields: dict[str, str | float] = {"sex": "", "age_years": float("nan"), "site": ""}
        for column in self.table.columns:
            target = _SUBJECT_FIELDS.get(column.lower())
            text = self.table[column].iloc[row] if row >= 0 else ""
            if target == "age_years":
                fields[target] = _number(text)
            elif target is not None:
                fields[target] = _SEXES.get(text.lower(), text) if target == "sex" else text
            elif column in groups:
                fields[column] = text
        return fields

    def labels(self, chosen: Sequence[str], leave_out: Sequence[str]) -> tuple[list[LabelSpec], NDArray[np.float64]]:
        """Label columns with their inferred kind, and their values (rows, K); says what was left out and why.

        Args:
            chosen: Columns to take; empty for all that can be.
            leave_out: Columns that have another use (folds, groups).
        """
        for column in chosen:
            self.require(column)
        used = {self.subject_column, self.item_column, *leave_out}
        names = list(chosen) or [
            name
            for name in self.specs or self.table.columns
            if name not in used and name.lower() not in _SUBJECT_FIELDS
        ]
        specs: list[LabelSpec] = []
        values: list[NDArray[np.float64]] = []
        for name in names:
            spec, found, why = (
                _declared(self.path, self.specs[name], self.table[name])
                if name in self.specs
                else _infer(name, self.table[name])
            )
            if spec is None:
                if chosen:
                    raise ValueError(f"{self.path}: column {name!r} cannot be a label: {why}")
                self.statements.append(f"column {name!r} left out: {why}")
                continue
            self.statements.append(f"label {name!r} is {spec.kind}{why}")
            specs.append(spec)
            values.append(found)
        shape = (len(self.table), 0)
        return specs, np.stack(values, axis=1) if values else np.zeros(shape)


def aggregate(specs: Sequence[LabelSpec], values: NDArray[np.float64]) -> dict[str, float]:
    """Labels of a subject from its rows (n, K): maximum (binary, event), minimum (time), first (category), mean."""
    result = {}
    for position, spec in enumerate(specs):
        seen = values[~np.isnan(values[:, position]), position]
        if not len(seen):
            result[spec.name] = float("nan")
        elif spec.kind in ("binary", "event"):
            result[spec.name] = float(seen.max())
        elif spec.kind == "time":
            result[spec.name] = float(seen.min())
        elif spec.kind == "category":
            result[spec.name] = float(seen[0])
        else:
            result[spec.name] = float(seen.mean())
    return result


def _declared(path: Path, spec: LabelSpec, column: pd.Series) -> tuple[LabelSpec, NDArray[np.float64], str]:
    return spec, declared_values(path, spec, column), f" [{spec.unit}]" if spec.unit else ""


def _infer(name: str, column: pd.Series) -> tuple[LabelSpec | None, NDArray[np.float64], str]:
    """Kind and values of a column; no spec and a reason when it cannot be a label."""
    texts = column.str.lower().map(lambda text: _TRUTH.get(text, text))
    values = np.array([_number(text) for text in texts], dtype=np.float64)
    filled = (column != "").to_numpy()
    nothing = np.zeros(0)
    if not filled.any():
        return None, nothing, "it is empty"
    if np.isnan(values[filled]).mean() == 0:
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
    codes = np.array([float(words.index(text)) if text else np.nan for text in column])
    spec = LabelSpec(name, "category", description=f"column {name}", values=tuple(words))
    return spec, codes, f" ({len(words)} values)"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _key(text: str) -> str:
    """Keys as text; 12.0 (a number that went through a spreadsheet) is 12."""
    text = text.strip()
    return text[:-2] if re.fullmatch(r"\d+\.0", text) else text
