"""What a column of a table of labels is: a number, 0 or 1, one of a few values, or the follow-up of an outcome."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.cohort.label_file import numbers, shape
from ecgcmr.cohort.schema import LabelSpec

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "missing", "unknown", ".", "-", "?"})
MAX_VALUES = 20
MIN_ROWS, MIN_OF_A_CLASS = 10, 3
_TRUTH = {"true": "1", "false": "0", "yes": "1", "no": "0", "y": "1", "n": "0"}
_UNIT = re.compile(r"^(?P<name>.*?)\s*[\[(](?P<unit>[^\])]*)[\])]$")


def outcome_names(names: Sequence[str], task: str, path: Path) -> dict[str, str]:
    """Columns of outcomes with follow-up: column -> name of the label, NAME_time... or NAME_event.

    Raises:
        ValueError: The task is survival and a column has no partner.
    """
    found: dict[str, str] = {}
    if task in ("auto", "survival"):
        plain = {name: split_unit(name)[0] for name in names}
        events = {_stem(text): name for name, text in plain.items() if re.search(r"(^|_)event$", text.lower())}
        times = {_stem(text): name for name, text in plain.items() if re.search(r"(^|_)time(_|$)", text.lower())}
        for stem in events.keys() & times.keys():
            event, time = events[stem], times[stem]
            found[event], found[time] = plain[event], plain[time]
            if not stem:
                found[event], found[time] = "outcome_event", "outcome_time"
    alone = [name for name in names if name not in found]
    if task == "survival" and alone:
        raise ValueError(
            f"{path}: an outcome has two columns, NAME_time (or NAME_time_years) and NAME_event (0 or 1); {alone[0]!r} "
            "has no partner: rename it, or choose with --label"
        )
    return found


def split_unit(column: str) -> tuple[str, str]:
    """Name and unit of a column: "LVEF [%]" is LVEF in %."""
    match = _UNIT.match(column)
    return (match["name"], match["unit"]) if match and match["name"] else (column, "")


def label_of(
    column: str, texts: pd.Series, task: str, outcomes: Mapping[str, str], rows: NDArray[np.int64]
) -> tuple[LabelSpec, NDArray[np.float64], str]:
    """Find out what a column is.

    Args:
        column: Its name; "LVEF [%]" states the unit.
        texts: Its values as text (n,).
        task: One of `request.TASKS`.
        outcomes: What `outcome_names` gave.
        rows: Data row of each value (n,), for messages.

    Returns:
        The label, its values (n,) with NaN where missing, and why it cannot be a label, or "".

    Raises:
        ValueError: A value is not of its kind; names the row.
    """
    name, unit = split_unit(column)
    texts = texts.map(lambda text: "" if text.lower() in MISSING else text)
    filled = (texts != "").to_numpy(dtype=bool)
    if not filled.any():
        return LabelSpec(name, "regression"), np.full(len(texts), np.nan), f"it is missing in all {len(texts)} rows"
    values = numbers(texts.map(lambda text: _TRUTH.get(text.lower(), text)))
    no_number = filled & ~np.isfinite(values)
    if column in outcomes:
        return _follow_up(outcomes[column], unit, texts, values, no_number, rows)
    two = filled & np.isin(values, (0.0, 1.0))
    if task == "binary" or (task == "auto" and np.array_equal(two, filled)):
        if not np.array_equal(two, filled):
            raise ValueError(_bad(texts, filled & ~two, rows, "0, 1, yes, no, true, false or nothing"))
        return LabelSpec(name, "binary", description=f"column {column}"), values, ""
    if task == "classes" or (task == "auto" and no_number.sum() > 0.5 * filled.sum()):
        return _category(name, column, texts, filled)
    if no_number.any():
        raise ValueError(_bad(texts, no_number, rows, "a number or nothing" + _hint(texts[no_number].iloc[0])))
    seen = values[filled]
    if task == "auto" and np.array_equal(seen, np.round(seen)) and len(np.unique(seen)) == len(seen) > MAX_VALUES:
        return LabelSpec(name, "regression"), values, "every value is another whole number, as of an identifier"
    return LabelSpec(name, "regression", unit=unit, description=f"column {column}"), values, ""


def problem_of(spec: LabelSpec, values: NDArray[np.float64], where: str = "") -> str:
    """Why nothing can be learned of a label, or "".

    Args:
        spec: The label.
        values: Its values (n,), NaN where missing.
        where: Words for the rows, such as "of the training subjects".
    """
    seen = values[~np.isnan(values)]
    of = f" {where}" if where else ""
    if not len(seen):
        return f"it is missing in all {len(values)} rows{of}"
    if len(seen) < MIN_ROWS:
        return (
            f"{len(seen)} rows{of} have a value; at least {MIN_ROWS} are needed to train on some, select on others and "
            "test on the rest"
        )
    found, counts = np.unique(seen, return_counts=True)
    if spec.kind == "event":
        events = int(seen.sum())
        few = f"{events} of {len(seen)} rows{of} have the event; at least {MIN_OF_A_CLASS} are needed"
        return few if events < MIN_OF_A_CLASS else ""
    if spec.kind == "binary" and len(found) < 2:
        return f"there is one class only: all {len(seen)} rows{of} are {found[0]:g}, so nothing tells it from the other"
    if spec.kind == "category" and len(found) < 2:
        return f"all {len(seen)} rows{of} have the one value {spec.values[int(found[0])]!r}"
    if spec.kind == "regression" and len(found) < 2:
        return f"it is constant: all {len(seen)} rows{of} are {found[0]:g}"
    if spec.kind in ("binary", "category") and counts.min() < MIN_OF_A_CLASS:
        rare = f"{found[counts.argmin()]:g}" if spec.kind != "category" else spec.values[int(found[counts.argmin()])]
        return f"only {counts.min()} rows{of} are {rare}; at least {MIN_OF_A_CLASS} are needed, one for each part"
    return ""


def _follow_up(
    name: str, unit: str, texts: pd.Series, values: NDArray[np.float64], no_number: NDArray[np.bool_],
    rows: NDArray[np.int64],
) -> tuple[LabelSpec, NDArray[np.float64], str]:  # fmt: skip
    filled = ~np.isnan(values) | no_number
    if name.lower().endswith("_event"):
        wrong = no_number | (filled & ~np.isin(values, (0.0, 1.0)))
        if wrong.any():
            raise ValueError(_bad(texts, wrong, rows, "1 (event), 0 (censored) or nothing"))
        if not np.nansum(values):
            return LabelSpec(name, "event"), values, f"all {int(filled.sum())} rows are censored: there is no event"
        return LabelSpec(name, "event", description=f"column {name}"), values, ""
    wrong = no_number | (filled & ~(values >= 0))
    if wrong.any():
        raise ValueError(_bad(texts, wrong, rows, "a follow-up time from 0 on, or nothing"))
    last = name.lower().rpartition("_time_")[2] if "_time_" in name.lower() else ""
    return LabelSpec(name, "time", unit=unit or last, description=f"column {name}"), values, ""


def _category(
    name: str, column: str, texts: pd.Series, filled: NDArray[np.bool_]
) -> tuple[LabelSpec, NDArray[np.float64], str]:
    words = sorted(set(texts[filled]))
    if len(words) > MAX_VALUES:
        spec = LabelSpec(name, "category", values=tuple(words[:MAX_VALUES]))
        return (
            spec,
            np.full(len(texts), np.nan),
            f"{len(words)} different texts are no classes; at most {MAX_VALUES} are",
        )
    code = {word: float(position) for position, word in enumerate(words)}
    values = np.array([code.get(text, np.nan) for text in texts])
    return LabelSpec(name, "category", description=f"column {column}", values=tuple(words)), values, ""


def _bad(texts: pd.Series, wrong: NDArray[np.bool_], rows: NDArray[np.int64], expected: str) -> str:
    """A message with the first wrong value; its content is hidden, for it may name a person."""
    first = int(np.flatnonzero(wrong)[0])
    more = f" and {int(wrong.sum()) - 1} more" if wrong.sum() > 1 else ""
    text = texts.iloc[first]
    shown = text if re.fullmatch(r"[-+\d.,eE<>%]{1,8}", text) else shape(text)
    return f"data row {rows[first]}{more}: {shown!r} (letters shown as A) is not what was expected, {expected}"


def _hint(text: str) -> str:
    if re.fullmatch(r"[-+]?\d+,\d+", text):
        return " with a decimal point, not a comma"
    if re.match(r"[-+]?\d", text) and re.search(r"[A-Za-z%]", text):
        return "; write the unit in the header, as in 'LVEF [%]', not into the cells"
    return ""


def _stem(name: str) -> str:
    lower = name.lower()
    if lower in ("time", "event"):
        return ""
    return lower.removesuffix("_event") if lower.endswith("_event") else lower.partition("_time")[0]
