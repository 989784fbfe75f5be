"""validate_cohort: every problem of a cohort on disk, naming file, row and field."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgcmr.cohort.schema import ADDED_COLUMNS, KEY_COLUMNS, REQUIRED_TABLES, TABLES, CohortSchema, read_schema
from ecgcmr.cohort.tables import read_table, sha256
from ecgcmr.cohort.validate_arrays import check_arrays
from ecgcmr.cohort.validate_labels import check_labels

LIMIT = 20  # problems told of one kind; the rest is counted


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        file: File relative to the cohort.
        row: Row of the table, or None when the whole file is meant.
        field: Column or key, or "".
        message: What is wrong and what was expected.
    """

    file: str
    row: int | None
    field: str
    message: str

    def __str__(self) -> str:
        place = (
            self.file + ("" if self.row is None else f", row {self.row}") + (f", {self.field}" if self.field else "")
        )
        return f"{place}: {self.message}"


class Findings:
    """Collects problems; of one kind at most `LIMIT` are told one by one."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, file: str, row: int | None, field: str, message: str) -> None:
        """Add one problem."""
        self.problems.append(Problem(file, row, field, message))

    def add_rows(self, file: str, field: str, bad: Any, message: str, values: Any = None) -> None:
        """Add a problem for each row where `bad` is true; `{}` in the message becomes the value."""
        rows = np.flatnonzero(np.asarray(bad, dtype=bool))
        for row in rows[:LIMIT]:
            text = message if values is None else message.replace("{}", repr(_plain(values[row])))
            self.add(file, int(row), field, text)
        if len(rows) > LIMIT:
            self.add(file, None, field, f"{len(rows) - LIMIT} more rows with the same problem")


def validate_cohort(path: str | Path, deep: bool = False) -> list[Problem]:
    """Look for problems; a clean cohort gives an empty list.

    Args:
        path: Cohort folder.
        deep: Also read every image mask (minutes for a large cohort).

    Raises:
        FileNotFoundError: There is no cohort at `path`.
    """
    folder = Path(path)
    found = Findings()
    try:
        schema = read_schema(folder)
    except ValueError as error:
        found.add("cohort.json", None, "", str(error))
        return found.problems
    tables = _read_tables(folder, schema, found)
    for name, table in tables.items():
        _check_columns(name, table, found)
    if any(set(TABLES[name]) - set(table) - set(ADDED_COLUMNS) for name, table in tables.items()):
        return found.problems  # without its columns a table cannot be looked into further
    _check_keys(tables, found)
    _check_groups(schema, tables, found)
    _check_splits(folder, tables, found)
    _check_ledger(tables, found)
    _check_pairs(tables, found)
    check_labels(schema, tables, found)
    check_arrays(folder, schema, tables, found, deep)
    return found.problems


def _read_tables(folder: Path, schema: CohortSchema, found: Findings) -> dict[str, pd.DataFrame]:
    tables = {}
    for name in (*REQUIRED_TABLES, "recording_labels", "truth", "pairs"):
        file = f"{name}.parquet"
        if name not in REQUIRED_TABLES and file not in schema.files:
            continue
        try:
            tables[name] = read_table(folder / file)
        except (FileNotFoundError, ValueError) as error:
            found.add(file, None, "", str(error))
    for name in REQUIRED_TABLES:
        if f"{name}.parquet" not in schema.files:
            found.add("cohort.json", None, f"files.{name}.parquet", "missing: nothing tells whether it was changed")
    for file, expected in schema.files.items():
        if not (folder / file).is_file():
            if file.startswith("splits/"):
                found.add(file, None, "", "missing, but cohort.json lists it")
        elif sha256(folder / file) != expected:
            found.add(file, None, "", "its sha256 is not the one in cohort.json: the file was changed after writing")
    return tables


def _check_columns(name: str, table: pd.DataFrame, found: Findings) -> None:
    file = f"{name}.parquet"
    for column, kind in TABLES[name].items():
        if column not in table and column in ADDED_COLUMNS:
            continue  # written before the column was thought of
        if column not in table:
            found.add(file, None, column, f"the column is missing; expected {kind}")
        elif kind in ("int64", "float64") and table[column].dtype != np.dtype(kind):
            found.add(file, None, column, f"type is {table[column].dtype}, expected {kind}")


def _check_keys(tables: dict[str, pd.DataFrame], found: Findings) -> None:
    for name, key in KEY_COLUMNS.items():
        if name not in tables:
            continue
        file, values = f"{name}.parquet", tables[name][key].to_numpy()
        found.add_rows(file, key, tables[name][key].duplicated(), "{} is there twice; keys must be unique", values)
        if name in ("subjects", "recordings", "studies"):
            wrong = values != np.arange(len(values))
            found.add_rows(file, key, wrong & ~tables[name][key].duplicated(), "{} is not the row number", values)
    if "subjects" not in tables:
        return
    known = tables["subjects"]["subject"]
    for name in ("recordings", "studies", "labels", "truth"):
        if name in tables:
            subjects = tables[name]["subject"]
            unknown = ~subjects.isin(known)
            found.add_rows(
                f"{name}.parquet", "subject", unknown, "subject {} is not in subjects.parquet", subjects.to_numpy()
            )


def _check_groups(schema: CohortSchema, tables: dict[str, pd.DataFrame], found: Findings) -> None:
    for column in schema.group_columns:
        if "subjects" in tables and column not in tables["subjects"]:
            found.add("subjects.parquet", None, column, "cohort.json lists it as a group column, but it is missing")


def _check_splits(folder: Path, tables: dict[str, pd.DataFrame], found: Findings) -> None:
    from ecgcmr.cohort.splits import check_split, read_split

    if "subjects" not in tables:
        return
    for path in sorted((folder / "splits").glob("*.json")):
        file = f"splits/{path.name}"
        try:
            check_split(read_split(path), tables["subjects"]["subject"].to_numpy(), file)
        except ValueError as error:
            found.add(file, None, "", str(error).removeprefix(f"{file}: "))


def _check_ledger(tables: dict[str, pd.DataFrame], found: Findings) -> None:
    from ecgcmr.cohort.ledger import Reason

    if "ledger" not in tables:
        return
    ledger, file = tables["ledger"], "ledger.parquet"
    status, reason = ledger["status"], ledger["reason"].fillna("")
    found.add_rows(file, "kind", ~ledger["kind"].isin(["ecg", "cmr"]), "{} is neither ecg nor cmr", ledger["kind"])
    known = status.isin(["kept", "dropped", "ignored"])
    found.add_rows(file, "status", ~known, "{} is neither kept nor dropped nor ignored", status)
    unknown = (status.isin(["dropped", "ignored"])) & ~reason.isin([code.value for code in Reason])
    found.add_rows(file, "reason", unknown, "{} is no known reason code", reason)
    for kind, name in (("ecg", "recordings"), ("cmr", "studies")):
        if name in tables:
            kept = (ledger["kind"] == kind) & (status == "kept")
            bad = kept & ~ledger["row"].between(0, len(tables[name]) - 1)
            found.add_rows(file, "row", bad, f"{{}} is no row of {name}.parquet", ledger["row"])


def _check_pairs(tables: dict[str, pd.DataFrame], found: Findings) -> None:
    """Pairs must be of one subject, with the days of their two visits."""
    if not {"pairs", "recordings", "studies"} <= tables.keys():
        return
    pairs, file = tables["pairs"], "pairs.parquet"
    sides = {}
    for key, name in (("recording", "recordings"), ("study", "studies")):
        strange = ~pairs[key].between(0, len(tables[name]) - 1)
        found.add_rows(file, key, strange, f"{{}} is no row of {name}.parquet", pairs[key].to_numpy())
        if strange.any():
            return
        sides[key] = tables[name].iloc[pairs[key]].reset_index(drop=True)
    other = sides["recording"]["subject"] != sides["study"]["subject"]
    found.add_rows(file, "study", other, "study {} is of another subject than its recording", pairs["study"].to_numpy())
    apart = sides["study"]["visit_days"] - sides["recording"]["visit_days"]
    wrong = ~other & (pairs["days_apart"].fillna(-1e9) != apart.fillna(-1e9))
    found.add_rows(file, "days_apart", wrong, "{} are not the days between the visits", pairs["days_apart"].to_numpy())


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
