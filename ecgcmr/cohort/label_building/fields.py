"""UK Biobank columns: the spellings of field, instance and array index in the forms in which the data are delivered."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# 24100-2.0 (showcase CSV), f.24100.2.0 (R), p24100_i2_a0 (research analysis platform), n_24100_2_0 (Stata), X24100.2.0.
_SPELLINGS = (
    re.compile(r"(?P<field>\d+)-(?P<instance>\d+)\.(?P<array>\d+)"),
    re.compile(r"[fX]\.?(?P<field>\d+)\.(?P<instance>\d+)\.(?P<array>\d+)"),
    re.compile(r"p(?P<field>\d+)(?:_i(?P<instance>\d+))?(?:_a(?P<array>\d+))?"),
    re.compile(r"(?:n|s|ts)_(?P<field>\d+)_(?P<instance>\d+)_(?P<array>\d+)"),
)
_ID_SPELLINGS = ("{}", "f.{}", "n_{}", "participant.{}")


@dataclass(frozen=True)
class FieldColumn:
    """A column of a UK Biobank table.

    Attributes:
        name: The column as it is spelled.
        field: Number of the data field.
        instance: Visit; 0 where the spelling leaves it away.
        array: Position in an array; None where the spelling leaves it away (the cell may then hold a whole list).
    """

    name: str
    field: int
    instance: int
    array: int | None


def parse_field(name: str) -> FieldColumn | None:
    """The field that a column holds; None when the name is no spelling of a field."""
    text = name.removeprefix("participant.")
    for pattern in _SPELLINGS:
        match = pattern.fullmatch(text)
        if match:
            array = match["array"]
            return FieldColumn(
                name, int(match["field"]), int(match["instance"] or 0), None if array is None else int(array)
            )
    return None


def field_columns(names: Iterable[str], field: int, instance: int | None = None) -> list[FieldColumn]:
    """Columns of a field (of one instance, or of all), by instance and array index."""
    found = [column for column in map(parse_field, names) if column is not None and column.field == field]
    wanted = [column for column in found if instance is None or column.instance == instance]
    return sorted(wanted, key=lambda column: (column.instance, -1 if column.array is None else column.array))


def id_column(names: Iterable[str], wanted: str) -> str | None:
    """The column of the subject under one of its spellings (name, f.name, n_name, participant.name), or None."""
    have = set(names)
    return next((text for text in (spelling.format(wanted) for spelling in _ID_SPELLINGS) if text in have), None)
