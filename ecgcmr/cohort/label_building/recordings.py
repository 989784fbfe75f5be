"""Who gets labels: one row for each recording, with its date and what is known of the subject."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.cohort.label_building.dates import Counts, to_days
from ecgcmr.cohort.label_building.definitions import Column, OutcomeDefinitions
from ecgcmr.cohort.label_building.fields import parse_field
from ecgcmr.cohort.label_building.source_tables import SourceTables, key


class People:
    """The recordings of a build and the values of their subjects.

    Args:
        tables: The tables.
        definitions: What stands where.
        counts: What is set aside is counted here.

    Attributes:
        rows: One row for each recording: subject, instance, day (NaN if unknown), and item if items are labelled.
        subjects: Every subject once.

    Raises:
        ValueError: A table or a column is missing, or a subject stands twice in a table of subjects.
    """

    def __init__(self, tables: SourceTables, definitions: OutcomeDefinitions, counts: Counts) -> None:
        self.tables, self.definitions, self.counts = tables, definitions, counts
        tables.require(definitions.recordings.table, "the recordings")
        self._frames: dict[Path, pd.DataFrame] = {}
        date = definitions.recordings.date
        self.rows = self._by_visit(date) if date.field is not None else self._by_row(date)
        if self.rows.empty:
            raise ValueError(f"table {definitions.recordings.table!r} holds no recording with a subject")
        self.subjects = pd.Index(self.rows["subject"].unique(), name="subject")

    def _by_visit(self, date: Column) -> pd.DataFrame:
        rules = self.definitions.recordings
        pieces = []
        for instance in rules.instances:
            texts = self.field(date.table or rules.table, int(date.field or 0), instance)
            if texts.empty:
                raise ValueError(f"table {rules.table!r} has no field {date.field} of instance {instance}")
            days = to_days(texts.iloc[:, 0], self.definitions.dates.formats, f"field {date.field}", self.counts)
            self.counts.add(f"no visit of instance {instance}, no row", int(np.isnan(days).sum()))
            seen = texts.index[~np.isnan(days)]
            pieces.append(pd.DataFrame({"subject": seen, "instance": instance, "day": days[~np.isnan(days)]}))
        rows = pd.concat(pieces, ignore_index=True).sort_values(["subject", "instance"], ignore_index=True)
        if rules.item is not None:
            pairs = zip(rows["subject"], rows["instance"], strict=True)
            items = [rules.item.format(subject=subject, instance=instance) for subject, instance in pairs]
            rows.insert(0, "item", items)
        elif rows["subject"].duplicated().any():
            raise ValueError("several instances give several rows for a subject: name the items with recordings.item")
        return rows

    def _by_row(self, date: Column) -> pd.DataFrame:
        rules = self.definitions.recordings
        pieces = []
        for path in self.tables.require(rules.table, "the recordings"):
            subject = self.tables.subject_column(path, self.definitions.subject)
            columns = [subject, str(date.column), *([rules.item] if rules.item else []), *rules.keep]
            pieces.append(self.tables.read(path, columns).rename(columns={subject: "subject"}))
        table = pd.concat(pieces, ignore_index=True)
        table["subject"] = key(table["subject"])
        self.counts.add("recording without a subject, left out", int((table["subject"] == "").sum()))
        table = table[table["subject"] != ""].reset_index(drop=True)
        days = to_days(table[str(date.column)], self.definitions.dates.formats, "date of recording", self.counts)
        self.counts.add("recording without a date: its diagnoses are unknown", int(np.isnan(days).sum()))
        rows = pd.DataFrame({"subject": table["subject"], "instance": 0, "day": days})
        if rules.item is not None:
            rows.insert(0, "item", key(table[rules.item]))
            twice = rows["item"].duplicated()
            if twice.any():
                raise ValueError(
                    f"table {rules.table!r}: column {rules.item!r} has the same item again in data row "
                    f"{int(np.flatnonzero(twice)[0]) + 1}; items must be unique"
                )
        for column in rules.keep:
            rows[column] = table[column]
        return rows

    def field(self, table: str, number: int, instance: int | None) -> pd.DataFrame:
        """Texts of a field by subject (n, columns); empty when no file has it."""
        found: dict[Path, list[str]] = {}
        for path, column in self.tables.fields(table, number, instance):
            found.setdefault(path, []).append(column.name)
        pieces = [self._columns(path, names) for path, names in found.items()]
        return pd.concat(pieces, axis=1).fillna("") if pieces else pd.DataFrame()

    def _columns(self, path: Path, names: list[str]) -> pd.DataFrame:
        """Columns of a file by subject. A file is read once for all fields that the definitions name, not for each."""
        have = self._frames.get(path)
        if have is not None and set(names) <= set(have.columns):
            return have[names]
        known = getattr(self, "subjects", None)
        wanted = dict.fromkeys(names)
        if known is not None:
            fields = self.definitions.fields()
            parsed = (parse_field(name) for name in self.tables.header(path))
            wanted |= dict.fromkeys(column.name for column in parsed if column is not None and column.field in fields)
        subject = self.tables.subject_column(path, self.definitions.subject)
        pieces = []
        for chunk in self.tables.chunks(path, [subject, *wanted]):
            chunk.index = pd.Index(key(chunk.pop(subject)), name="subject")
            pieces.append(chunk[(chunk.index != "") & (True if known is None else chunk.index.isin(known))])
        frame = pd.concat(pieces) if pieces else pd.DataFrame(columns=list(wanted), dtype=object)
        twice = int(frame.index.duplicated().sum())
        if twice:
            raise ValueError(
                f"{path}: {twice} rows hold a subject that the table already has; one row for each is expected"
            )
        if known is not None:
            self._frames[path] = frame
        return frame[names]

    def texts(self, column: Column) -> pd.Series:
        """Value of a column for each recording (n,), "" where there is none."""
        table = column.table or self.definitions.recordings.table
        if column.field is None:
            values = self._column_texts(table, str(column.column))
        else:
            values = pd.Series("", index=self.rows.index, dtype=object)
            instances = self.rows["instance"].unique() if column.instance == "recording" else [column.instance]
            for instance in instances:
                texts = self.field(table, column.field, None if instance is None else int(instance))
                if texts.empty:
                    continue
                here = (
                    self.rows["instance"] == instance if column.instance == "recording" else self.rows["subject"] != ""
                )
                first = texts.replace("", pd.NA).bfill(axis=1).iloc[:, 0].fillna("")
                values[here] = first.reindex(self.rows.loc[here, "subject"]).fillna("").to_numpy()
        return values.map(lambda text: column.values.get(text, text)) if column.values else values

    def _column_texts(self, table: str, column: str) -> pd.Series:
        pieces = []
        for path in self.tables.require(table, f"column {column!r}"):
            subject = self.tables.subject_column(path, self.definitions.subject)
            piece = self.tables.read(path, [subject, column])
            pieces.append(pd.Series(piece[column].to_numpy(), index=key(piece[subject])))
        values = pd.concat(pieces)
        first = values[values != ""].groupby(level=0).first()
        return pd.Series(first.reindex(self.rows["subject"]).fillna("").to_numpy(), index=self.rows.index)

    def ages(self) -> pd.Series:
        """Age at each recording (n,) by `anchored_age` [years], as text, "" if unknown."""
        rule = self.definitions.anchored_age
        assert rule is not None
        age = pd.to_numeric(self.texts(rule.age), errors="coerce")
        year = pd.to_numeric(self.texts(rule.year), errors="coerce")
        when = pd.Timestamp(1970, 1, 1) + pd.to_timedelta(self.rows["day"], unit="D")
        years = age + when.dt.year - year
        return years.map(lambda value: "" if pd.isna(value) else f"{value:g}")

    def subject_days(self, column: Column, latest: bool = False) -> NDArray[np.float64]:
        """Earliest (or latest) day of a date column for the subject of each recording (n,), NaN where there is none."""
        table = column.table or self.definitions.recordings.table
        rules, what = self.definitions.dates, f"field {column.field}" if column.field else f"column {column.column}"
        if column.field is not None:
            instance = column.instance if isinstance(column.instance, int) else None
            texts = self.field(table, column.field, instance)
            if texts.empty:
                self.counts.add(f"{what} is in no table, taken as empty", 1)
                return np.full(len(self.rows), np.nan)
            long = pd.concat([texts[name] for name in texts.columns])
        else:
            pieces = []
            for path in self.tables.require(table, what):
                subject = self.tables.subject_column(path, self.definitions.subject)
                for chunk in self.tables.chunks(path, [subject, str(column.column)]):
                    chunk.index = pd.Index(key(chunk.pop(subject)))
                    pieces.append(chunk.iloc[:, 0][chunk.index.isin(self.subjects)])
            long = pd.concat(pieces)
        long = long[long != ""]
        days = pd.Series(to_days(long, rules.formats, what, self.counts), index=long.index)
        grouped = days.groupby(level=0)
        chosen = grouped.max() if latest else grouped.min()
        return np.asarray(chosen.reindex(self.rows["subject"]), dtype=np.float64)
