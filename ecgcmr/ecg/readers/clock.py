"""Times of acquisition, as files write them."""

from __future__ import annotations

from datetime import datetime

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
YEARS = (1900, 2200)
"""Years of plausible recordings; de-identified databases shift theirs to 2100 and later."""


def time_of(*formats_and_text: tuple[str, str]) -> datetime | None:
    """Return the first time that one of the (format, text) pairs gives, or None: a wrong clock refuses no file."""
    for pattern, text in formats_and_text:
        try:
            found = datetime.strptime(text.strip(), pattern)
        except ValueError:
            continue
        if YEARS[0] <= found.year <= YEARS[1]:
            return found.replace(tzinfo=None)
    return None


def numeric_month(day: str) -> str:
    """Return a date such as `05-May-2020` as `05/05/2020`, whatever the language of the machine is."""
    parts = day.replace("-", "/").split("/")
    if len(parts) == 3 and parts[1][:3].lower() in _MONTHS:
        parts[1] = str(_MONTHS.index(parts[1][:3].lower()) + 1)
    return "/".join(parts)
