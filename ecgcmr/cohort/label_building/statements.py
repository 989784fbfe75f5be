"""Statements about recordings: SNOMED codes of the PhysioNet Challenge, SCP statements of PTB-XL.

A class is 1 when one of its codes stands, 0 when the annotators could have written it and did not, and NaN when that
cannot be known: nothing was annotated, the source never uses the class, or the statement is less likely than asked for.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, StrictStr, model_validator

from ecgcmr.cohort.label_building.concepts import NAME
from ecgcmr.cohort.label_building.dates import Counts
from ecgcmr.cohort.label_building.definition_files import Strict
from ecgcmr.cohort.label_building.source_tables import SourceTables, key
from ecgcmr.cohort.label_file import LabelColumns
from ecgcmr.cohort.schema import LabelSpec

_NOTHING = ("", "unknown", "none", "na")
_HEADER_LINE = re.compile(r"^#\s*(Dx|Age|Sex)\s*:\s*(.*?)\s*$", re.IGNORECASE | re.MULTILINE)


class StatementClass(Strict):
    """One label.

    Attributes:
        name: Name of the label.
        codes: Statements that make it 1; more than one where a data owner scores them as the same.
        description: One sentence.
        group: Level of the statements ("diagnostic", "rhythm", ...).
        sources: Data sources whose annotators use the class; empty for all.
    """

    name: str = Field(pattern=NAME.pattern)
    codes: tuple[StrictStr, ...] = Field(min_length=1)
    description: str
    group: str
    sources: tuple[str, ...] = ()


class StatementColumns(Strict):
    """Where statements stand.

    Attributes:
        table: Table with a row for each recording; None where only headers are read.
        item: Column of the recording.
        subject: Column of the subject, or None.
        codes: Column with the statements.
        format: "list" of codes parted by `separator`, or "likelihoods": a dictionary of statement to percent.
        separator: What parts a list.
        keep: Columns that are copied (official folds, age, sex).
        rename: Column -> name in the result.
        values: Column -> text -> text, for coded values of copied columns.
    """

    table: str | None = None
    item: str = "record"
    subject: str | None = None
    codes: str = "dx"
    format: Literal["list", "likelihoods"] = "list"
    separator: str = ","
    keep: tuple[str, ...] = ()
    rename: dict[str, str] = Field(default_factory=dict)
    values: dict[str, dict[str, str]] = Field(default_factory=dict)


class StatementDefinitions(Strict):
    """The content of a definition file of kind "statements".

    Attributes:
        name: Name of the definitions.
        provenance: Where the data come from.
        sources: Where the classes come from.
        columns: Where the statements stand.
        item_sources: Pattern of the item -> data sources it may come from, for `StatementClass.sources`.
        min_likelihood: Likelihood from which a statement counts [%]; below it the class is unknown. A likelihood of 0
            means that none was stated, and the statement counts.
        needs_statement: Groups whose classes are unknown, not 0, where the recording has no statement of the group.
        classes: The labels.
        known: Codes that belong to no class, with their meaning; any other code is reported.
    """

    kind: Literal["statements"]
    name: str
    provenance: str
    sources: tuple[str, ...] = Field(min_length=1)
    columns: StatementColumns
    item_sources: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    min_likelihood: float = Field(default=0.0, ge=0, le=100)
    needs_statement: tuple[str, ...] = ()
    classes: tuple[StatementClass, ...]
    known: dict[StrictStr, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _once(self) -> StatementDefinitions:
        names = [item.name for item in self.classes]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"class {twice[0]!r} is defined twice")
        return self


def plain_code(text: str) -> str:
    """A code without its SNOMED address: sct/59118001 is 59118001."""
    return text.strip().removeprefix("http://snomed.info/").removeprefix("sct/")


def header_statements(folder: Path) -> pd.DataFrame:
    """Items, sex, age and statements of the comment lines of all WFDB headers below a folder.

    Raises:
        ValueError: There is no header.
    """
    rows = []
    for path in sorted(folder.rglob("*.hea")):
        lines = _HEADER_LINE.findall(path.read_text(encoding="utf-8", errors="replace"))
        said = {name.lower(): text for name, text in lines if text.lower() not in (*_NOTHING, "nan")}
        age = said.get("age", "")
        codes = ",".join(text for name, text in lines if name.lower() == "dx")
        plausible = age if re.fullmatch(r"[0-9]{1,3}(\.[0-9]+)?", age) and float(age) <= 120 else ""
        rows.append({"item": path.stem, "sex": said.get("sex", "").lower(), "age_years": plausible, "codes": codes})
    if not rows:
        raise ValueError(f"{folder}: holds no .hea file")
    table = pd.DataFrame(rows)
    if table["item"].duplicated().any():
        twice = int(table["item"].duplicated().sum())
        raise ValueError(
            f"{folder}: {twice} headers have the name of another one; build the labels of each folder alone"
        )
    return table


def parse_likelihoods(cell: str, where: str) -> dict[str, float]:
    """Statements and likelihoods [%] of a cell such as {'NORM': 100.0, 'SR': 0.0}; nothing in it is executed.

    Raises:
        ValueError: The cell is no such dictionary; names the row.
    """
    if cell.strip().lower() in _NOTHING:
        return {}
    try:
        data = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"{where}: expected statements such as {{'NORM': 100.0}}, got {cell[:40]!r}") from error
    if not isinstance(data, dict) or not all(isinstance(value, int | float) for value in data.values()):
        raise ValueError(f"{where}: expected a dictionary of statement to percent, got {cell[:40]!r}")
    likely = {str(name): float(value) for name, value in data.items()}
    wrong = [value for value in likely.values() if not 0 <= value <= 100]
    if wrong:
        raise ValueError(f"{where}: likelihood {wrong[0]:g} is no percentage")
    return likely


def build_statements(
    rules: StatementDefinitions, tables: Sequence[str], counts: Counts
) -> tuple[pd.DataFrame, LabelColumns, list[str]]:
    """Labels of recordings from their statements: the table, what its columns are, and what was found.

    Args:
        rules: The definitions.
        tables: One folder of WFDB headers, or tables as for `SourceTables.parse`.
        counts: What is set aside is counted here.

    Raises:
        ValueError: A table, column or cell is wrong, or no code is known.
    """
    folder = Path(tables[0]) if len(tables) == 1 else None
    if folder is not None and folder.is_dir() and any(folder.rglob("*.hea")):
        raw = header_statements(folder)
        result, codes, has_subject = raw[["item", "sex", "age_years"]].copy(), raw["codes"], False
        separator, likelihoods = ",", False
    else:
        raw = _read_table(rules.columns, tables)
        has_subject = rules.columns.subject is not None
        result = pd.DataFrame({"item": key(raw[rules.columns.item])})
        if rules.columns.subject is not None:
            result["subject"] = key(raw[rules.columns.subject])
        for name in rules.columns.keep:
            coded = rules.columns.values.get(name, {})
            result[rules.columns.rename.get(name, name)] = raw[name].map(
                lambda text, coded=coded: coded.get(text, text)
            )
        codes, separator = raw[rules.columns.codes], rules.columns.separator
        likelihoods = rules.columns.format == "likelihoods"
    stated: list[dict[str, float]] = []
    for row, cell in enumerate(codes):
        if likelihoods:
            stated.append(parse_likelihoods(cell, f"column {rules.columns.codes!r}, data row {row + 1}"))
        else:
            parts = (plain_code(part) for part in cell.split(separator))
            stated.append({part: 100.0 for part in parts if part.lower() not in _NOTHING})
    labels = _labels(rules, result["item"], stated, counts)
    for item in rules.classes:
        result[item.name] = labels[item.name]
    specs = tuple(LabelSpec(item.name, "binary", "", f"{item.description} ({item.group})") for item in rules.classes)
    words = [f"{len(result)} recordings, {sum(map(bool, stated))} with statements"]
    return result, LabelColumns(specs, "subject" if has_subject else None, "item", rules.provenance), words


def _read_table(columns: StatementColumns, tables: Sequence[str]) -> pd.DataFrame:
    source = SourceTables.parse(tables)
    name = columns.table or ""
    if len(source.files) == 1:
        name = next(iter(source.files))
    files = source.require(name, "the statements")
    wanted = [columns.item, columns.codes, *([columns.subject] if columns.subject else []), *columns.keep]
    table = pd.concat([source.read(path, wanted) for path in files], ignore_index=True)
    twice = table[columns.item].duplicated()
    if twice.any():
        row = int(np.flatnonzero(twice)[0]) + 1
        raise ValueError(f"table {name!r}: column {columns.item!r} has the same recording again in data row {row}")
    return table


def _labels(
    rules: StatementDefinitions, items: pd.Series, stated: list[dict[str, float]], counts: Counts
) -> dict[str, NDArray[np.float64]]:
    groups: dict[str, set[str]] = {}
    for item in rules.classes:
        groups.setdefault(item.group, set()).update(map(plain_code, item.codes))
    known = set().union(*groups.values()) | {plain_code(code) for code in rules.known}
    strange = Counter(code for row in stated for code in row if code not in known)
    if strange and len(strange) == len({code for row in stated for code in row}):
        raise ValueError(
            f"no code of the recordings is in {rules.name!r}; the first is {next(iter(strange))!r}: another set?"
        )
    for code, number in strange.most_common(10):
        counts.add(f"code {code!r} is in no class and not listed as known", number)
    counts.add("recordings without any statement: every class unknown", sum(not row for row in stated))
    sources = [_sources_of(rules, name) for name in items]
    result = {}
    for item in rules.classes:
        codes = [plain_code(code) for code in item.codes]
        values = np.zeros(len(stated))
        for row, statements in enumerate(stated):
            likely = [statements[code] for code in codes if code in statements]
            silent = not statements or (
                item.group in rules.needs_statement and not groups[item.group] & statements.keys()
            )
            foreign = bool(item.sources and sources[row]) and not set(item.sources) & sources[row]
            if any(value == 0 or value >= rules.min_likelihood for value in likely):
                values[row] = 1.0
            elif likely or silent or foreign:
                values[row] = np.nan
        counts.add(
            f"{item.name}: less likely than {rules.min_likelihood:g} %, unknown", _unlikely(stated, codes, rules)
        )
        result[item.name] = values
    return result


def _unlikely(stated: list[dict[str, float]], codes: list[str], rules: StatementDefinitions) -> int:
    low = [[row[code] for code in codes if code in row] for row in stated]
    return sum(bool(row) and not any(value == 0 or value >= rules.min_likelihood for value in row) for row in low)


def _sources_of(rules: StatementDefinitions, item: str) -> set[str]:
    """Data sources that an item may come from, by its name; empty when no pattern fits."""
    for pattern, names in rules.item_sources.items():
        if re.fullmatch(pattern, item):
            return set(names)
    return set()
