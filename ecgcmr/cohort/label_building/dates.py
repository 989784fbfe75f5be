"""Dates as days: strict formats, and the dates that a data owner uses as codes for something else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.cohort.label_file import shape

DAYS_PER_YEAR = 365.25
UNREADABLE_LIMIT = 0.05


@dataclass
class Counts:
    """What was set aside, and how often; every number ends up in the report of the build.

    Attributes:
        numbers: What -> how many.
    """

    numbers: dict[str, int] = field(default_factory=dict)

    def add(self, what: str, how_many: int) -> None:
        """Count something; zero leaves no trace."""
        if how_many:
            self.numbers[what] = self.numbers.get(what, 0) + int(how_many)


def to_days(texts: pd.Series, formats: Sequence[str], what: str, counts: Counts) -> NDArray[np.float64]:
    """Days since 1970-01-01 (n,), NaN where a text is empty or fits none of the formats (which is counted).

    A time of the day is dropped. Formats are tried in their order: never list both day-first and month-first.

    Args:
        texts: Dates as text (n,).
        formats: Formats of `datetime.strptime`.
        what: Name for messages, without any value.
        counts: Unreadable dates are counted here.

    Raises:
        ValueError: More than a twentieth of the dates fit no format.
    """
    cleaned = texts.astype("string").fillna("").str.strip()
    names, inverse = np.unique(cleaned.to_numpy(dtype=str), return_inverse=True)
    unique = pd.Series(names)
    parsed = pd.Series(pd.NaT, index=unique.index, dtype="datetime64[ns]")
    for style in formats:
        todo = parsed.isna() & (unique != "")
        if todo.any():
            parsed[todo] = pd.to_datetime(unique[todo], format=style, errors="coerce")
    days = np.floor(parsed.to_numpy().astype("datetime64[s]").astype(np.float64) / 86400.0)
    days[parsed.isna().to_numpy()] = np.nan
    found: NDArray[np.float64] = days[inverse]
    written = (cleaned != "").to_numpy(dtype=bool)
    bad = written & np.isnan(found)
    if bad.sum() > UNREADABLE_LIMIT * max(1, written.sum()):
        example = shape(str(cleaned[bad].iloc[0]))
        raise ValueError(
            f"{what}: {int(bad.sum())} of {int(written.sum())} dates look like {example} and fit none of the formats "
            f"{list(formats)}; write the right one under dates.formats of the definitions"
        )
    counts.add(f"{what}: unreadable date, taken as unknown", int(bad.sum()))
    return found


def day_of(when: date) -> float:
    """Days since 1970-01-01."""
    return float((when - date(1970, 1, 1)).days)


def drop_special(
    days: NDArray[np.float64], special: Mapping[date, str], what: str, counts: Counts
) -> NDArray[np.float64]:
    """Days with the codes among them set to NaN (unknown), each counted under its meaning."""
    result = days.copy()
    for when, meaning in special.items():
        hit = days == day_of(when)
        counts.add(f"{what}: {when.isoformat()} means {meaning!r}, taken as unknown", int(hit.sum()))
        result[hit] = np.nan
    return result
