"""Diagnoses of subjects: (subject, system, code, day) from arrays, first occurrences, and tables of diagnoses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ecgcmr.cohort.label_building.codes import CodeSet, normalize
from ecgcmr.cohort.label_building.dates import Counts, drop_special, to_days
from ecgcmr.cohort.label_building.definitions import (
    ArraySource,
    DateRules,
    FirstOccurrenceSource,
    LongSource,
    OutcomeDefinitions,
)
from ecgcmr.cohort.label_building.fields import FieldColumn
from ecgcmr.cohort.label_building.source_tables import SourceTables, key

COLUMNS = ("subject", "system", "code", "day", "source")


@dataclass
class Events:
    """Diagnoses that some definition asks for.

    Attributes:
        table: One row for each diagnosis: subject, system, normalized code, day (NaN if unknown), source.
        linked: Subjects that stand in a table of diagnoses or visits, with or without such a code.
        used: Sources that were found, in words.
        missing: Sources of which no table or column was found, in words.
    """

    table: pd.DataFrame
    linked: set[str] = field(default_factory=set)
    used: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reading:
    """What every source needs.

    Attributes:
        tables: The tables.
        subject: Column of the subject.
        wanted: Codes to keep; everything else is dropped at once, so that memory is bounded.
        subjects: Subjects of the recordings; the rest of a biobank is dropped likewise.
        rules: How dates are read.
        counts: What is set aside is counted here.
    """

    tables: SourceTables
    subject: str
    wanted: CodeSet
    subjects: pd.Index
    rules: DateRules
    counts: Counts


def read_events(
    tables: SourceTables, definitions: OutcomeDefinitions, wanted: CodeSet, subjects: pd.Index, counts: Counts
) -> Events:
    """Collect the diagnoses of all sources that the tables hold.

    Raises:
        ValueError: No source is there at all, no subject of the recordings is in any, or a table is broken.
    """
    reading = Reading(tables, definitions.subject, wanted, subjects, definitions.dates, counts)
    pieces: list[pd.DataFrame] = []
    events = Events(pd.DataFrame())
    for source in definitions.diagnoses:
        if isinstance(source, ArraySource):
            name, found = f"field {source.codes} ({source.system}) with {source.dates}", _arrays(source, reading)
        elif isinstance(source, FirstOccurrenceSource):
            name, found = f"first-occurrence fields of {source.table!r}", _first_occurrences(source, reading)
        else:
            name, found = f"table {source.table!r}", _long(source, reading)
        present = False
        for linked, piece in found:
            present = True
            events.linked.update(set(linked) - {""})
            piece = piece.assign(source=name)
            piece["day"] = drop_special(piece["day"].to_numpy(), reading.rules.special, name, counts)
            pieces.append(piece)
        (events.used if present else events.missing).append(name)
    if not events.used:
        raise ValueError(
            f"none of the sources of diagnoses is in the tables ({', '.join(events.missing)}); add their tables with "
            "--tables, or take diseases out of the definitions"
        )
    if not subjects.isin(events.linked).any():
        raise ValueError(
            f"no subject of the recordings is in {' or '.join(events.used)}: the subjects of the two tables must be "
            "written alike (the same application's identifiers, the same leading zeros)"
        )
    joined = pd.concat(pieces, ignore_index=True)[list(COLUMNS)]
    counts.add("diagnosis without a date, taken as unknown when", int(joined["day"].isna().sum()))
    events.table = joined.drop_duplicates(ignore_index=True)
    return events


def _keep(reading: Reading, system: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Rows whose `code` is wanted, with normalized codes; texts that are no code are counted."""
    frame = frame[frame["code"] != ""]
    code = normalize(system, frame["code"])
    reading.counts.add(f"text that is no {system} code, ignored", int((code == "").sum()))
    hit = reading.wanted.matches(system, code)
    return frame.assign(code=code, system=system)[hit]


def _of_recordings(chunk: pd.DataFrame, subject: str, reading: Reading) -> tuple[pd.DataFrame, pd.Series]:
    """The rows of subjects with a recording, and their subjects."""
    subjects = key(chunk[subject])
    here = subjects.isin(reading.subjects)
    return chunk[here], subjects[here]


def _arrays(source: ArraySource, reading: Reading) -> Iterator[tuple[pd.Series, pd.DataFrame]]:
    by_file: dict[Path, list[FieldColumn]] = {}
    for path, column in reading.tables.fields(source.table, source.codes):
        by_file.setdefault(path, []).append(column)
    for path, codes in by_file.items():
        dates = {
            column.array or 0: column.name
            for file, column in reading.tables.fields(source.table, source.dates)
            if file == path
        }
        if not dates:
            raise ValueError(f"{path}: field {source.codes} is there, but not its dates (field {source.dates})")
        subject = reading.tables.subject_column(path, reading.subject)
        names = [column.name for column in codes]
        for chunk in reading.tables.chunks(path, [subject, *names, *dates.values()]):
            chunk, linked = _of_recordings(chunk, subject, reading)
            pieces = []
            for column in codes:
                cells = chunk[column.name]
                if column.array is None and cells.str.contains(r"[|\[]", regex=True).any():
                    entries = cells.map(_cell_list).explode()
                    position = entries.groupby(level=0).cumcount().to_numpy()
                else:
                    entries, position = cells, np.full(len(cells), column.array or 0)
                frame = pd.DataFrame({"code": entries.fillna("").to_numpy(), "array": position, "row": entries.index})
                pieces.append(_keep(reading, source.system, frame))
            kept = pd.concat(pieces, ignore_index=True)
            texts = pd.Series("", index=kept.index, dtype=object)
            for array in kept["array"].unique():
                here = kept["array"] == array
                if array in dates:
                    texts[here] = chunk.loc[kept.loc[here, "row"], dates[array]].to_numpy()
            day = to_days(texts, reading.rules.formats, f"field {source.dates}", reading.counts)
            yield linked, kept.assign(subject=linked.loc[kept["row"]].to_numpy(), day=day)


def _cell_list(cell: str) -> list[str]:
    """Codes of a cell that holds a whole array: I10|I21 or a JSON list."""
    if cell.startswith("["):
        try:
            return [str(item) for item in json.loads(cell.replace("'", '"'))]
        except ValueError:
            return [part for part in re.split(r"[\[\]'\",|\s]+", cell) if part]
    return [part.strip() for part in cell.split("|")]


def _first_occurrences(source: FirstOccurrenceSource, reading: Reading) -> Iterator[tuple[pd.Series, pd.DataFrame]]:
    by_file: dict[Path, dict[str, str]] = {}
    for category, number in source.fields.items():
        for path, column in reading.tables.fields(source.table, number):
            by_file.setdefault(path, {})[category] = column.name
    for path, columns in by_file.items():
        subject = reading.tables.subject_column(path, reading.subject)
        for chunk in reading.tables.chunks(path, [subject, *columns.values()]):
            chunk, linked = _of_recordings(chunk, subject, reading)
            pieces = [
                pd.DataFrame({"code": category, "row": chunk.index, "text": chunk[name].to_numpy()})
                for category, name in columns.items()
            ]
            frame = pd.concat(pieces, ignore_index=True)
            frame = frame[frame["text"] != ""]
            kept = _keep(reading, source.system, frame)
            day = to_days(kept["text"], reading.rules.formats, f"first occurrences of {source.table!r}", reading.counts)
            yield linked, kept.assign(subject=linked.loc[kept["row"]].to_numpy(), day=day)


def _long(source: LongSource, reading: Reading) -> Iterator[tuple[pd.Series, pd.DataFrame]]:
    if source.table not in reading.tables:
        return
    visits = _visit_days(source, reading) if source.visits else None
    if visits is not None and (source.subject or reading.subject) in source.by:
        none = pd.DataFrame({"subject": [], "system": [], "code": [], "day": []}, dtype=object).astype({"day": float})
        yield visits[source.subject or reading.subject], none  # a visit without a diagnosis is a subject that is seen
    for path in reading.tables.files[source.table]:
        subject = reading.tables.subject_column(path, source.subject or reading.subject)
        own_dates = () if source.visits else source.dates
        codes = [*source.codes.values(), *(name for name in (source.code, source.version) if name)]
        for chunk in reading.tables.chunks(path, [subject, *codes, *source.by, *own_dates]):
            chunk, linked = _of_recordings(chunk, subject, reading)
            chunk = chunk.assign(**{name: key(chunk[name]) for name in source.by}, subject=linked)
            for system, column in _systems(source, chunk, reading.counts):
                kept = _keep(reading, system, column.rename(columns={column.columns[-1]: "code"}))
                if visits is None:
                    texts = _first_filled(kept, source.dates)
                    day = to_days(texts, reading.rules.formats, f"table {source.table!r}", reading.counts)
                else:
                    joined = kept[list(source.by)].merge(visits, how="left", on=list(source.by), validate="many_to_one")
                    reading.counts.add(
                        f"diagnosis of {source.table!r} without a visit", int(joined["known"].isna().sum())
                    )
                    day = joined["day"].to_numpy(dtype=np.float64)
                yield linked, kept.assign(day=day)[["subject", "system", "code", "day"]]


def _systems(source: LongSource, chunk: pd.DataFrame, counts: Counts) -> Iterator[tuple[str, pd.DataFrame]]:
    """(system, rows with the code as last column) of a piece of a table."""
    front = [name for name in chunk.columns if name == "subject" or name in source.by or name in source.dates]
    for system, column in source.codes.items():
        yield system, chunk[[*front, column]]
    if source.code and source.version:
        version = key(chunk[source.version])
        counts.add(f"{source.table!r}: unknown version of the codes", int((~version.isin(source.versions)).sum()))
        for value, system in source.versions.items():
            yield system, chunk.loc[version == value, [*front, source.code]]


def _first_filled(frame: pd.DataFrame, columns: tuple[str, ...]) -> pd.Series:
    texts = frame[columns[0]]
    for column in columns[1:]:
        texts = texts.where(texts != "", frame[column])
    return texts


def _visit_days(source: LongSource, reading: Reading) -> pd.DataFrame:
    """Day of each visit, by the columns that the diagnoses share with it."""
    pieces, subject = [], source.subject or reading.subject
    for path in reading.tables.require(str(source.visits), f"the dates of {source.table!r}"):
        for chunk in reading.tables.chunks(path, [*source.by, *source.dates]):
            texts = _first_filled(chunk, source.dates)
            keys = {name: key(chunk[name]) for name in source.by}
            if subject in keys:
                here = keys[subject].isin(reading.subjects)
                texts, keys = texts[here], {name: values[here] for name, values in keys.items()}
            day = to_days(texts, reading.rules.formats, f"table {source.visits!r}", reading.counts)
            pieces.append(pd.DataFrame(keys).assign(day=day, known=True))
    visits = pd.concat(pieces, ignore_index=True)
    repeated = int(visits.duplicated(list(source.by)).sum())
    if repeated:
        raise ValueError(f"table {source.visits!r} repeats {repeated} visits: {', '.join(source.by)} must be unique")
    return visits
