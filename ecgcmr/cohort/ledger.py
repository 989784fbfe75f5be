"""The ledger: every item that was seen, and why it was dropped when it was."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class Reason(StrEnum):
    """Why an item was dropped, or a file ignored; the value is what stands in the table."""

    UNREADABLE = "unreadable"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TRUNCATED = "truncated"
    EMPTY = "empty"
    MISSING_LEADS = "missing_leads"
    NAN_LEAD = "nan_lead"
    NOT_FINITE = "not_finite"
    IMPLAUSIBLE_AMPLITUDE = "implausible_amplitude"
    TOO_SHORT = "too_short"
    MISSING_FILE = "missing_file"
    NO_UNIT = "no_unit"
    NO_RATE = "no_rate"
    NOT_CINE = "not_cine"
    MISSING_FRAME = "missing_frame"
    BAD_GEOMETRY = "bad_geometry"
    READER_CRASHED = "reader_crashed"
    READER_TIMEOUT = "reader_timeout"
    QUALITY = "quality"
    COMPANION = "companion"
    NOT_A_SIGNAL = "not_a_signal"
    NOT_WANTED = "not_wanted"
    MASK_FILE = "mask_file"
    DUPLICATE = "duplicate"


EXPLANATIONS: dict[Reason, str] = {
    Reason.UNREADABLE: "the reader could not make sense of the file",
    Reason.UNSUPPORTED_FORMAT: "no reader for this format yet",
    Reason.TRUNCATED: "the file is shorter than its header says",
    Reason.EMPTY: "the file holds no signal or no image",
    Reason.MISSING_LEADS: "the twelve leads are neither there nor derivable",
    Reason.NAN_LEAD: "a lead holds no sample at all",
    Reason.NOT_FINITE: "infinite values",
    Reason.IMPLAUSIBLE_AMPLITUDE: "the typical deflection is not that of an ECG in mV: probably another unit",
    Reason.TOO_SHORT: "shorter than one second",
    Reason.MISSING_FILE: "a file that belongs to it is not there",
    Reason.NO_UNIT: "the unit of the voltage is neither stated nor given",
    Reason.NO_RATE: "the sampling rate is neither stated nor given",
    Reason.NOT_CINE: "an image series without frames over time",
    Reason.MISSING_FRAME: "a cine series lacks a frame",
    Reason.BAD_GEOMETRY: "spacing, orientation or size of the images do not fit together",
    Reason.READER_CRASHED: "reading it killed the process, or needed more memory than there is",
    Reason.READER_TIMEOUT: "reading it took longer than the time limit",
    Reason.QUALITY: "a hard quality flag, with --qc drop",
    Reason.COMPANION: "read together with its header",
    Reason.NOT_A_SIGNAL: "neither a recording nor an image",
    Reason.NOT_WANTED: "the recipe does not ask for it",
    Reason.MASK_FILE: "masks, which are read with the images where the data set is known",
    Reason.DUPLICATE: "the same name and the same bytes as an earlier file",
}

IGNORED = (Reason.COMPANION, Reason.NOT_A_SIGNAL, Reason.NOT_WANTED, Reason.MASK_FILE, Reason.DUPLICATE)


@dataclass(frozen=True)
class LedgerRow:
    """One item.

    Attributes:
        item: File relative to the ingested root (and the row within an array file); never an identifier.
        kind: "ecg" or "cmr".
        status: "kept", "dropped", or "ignored" for files that are no items.
        reason: A `Reason`, or "" when kept.
        detail: What exactly was found.
        row: Row in recordings or studies; -1 when dropped or ignored.
        flags: Codes of the quality flags, joined by commas.
    """

    item: str
    kind: str
    status: str
    reason: str = ""
    detail: str = ""
    row: int = -1
    flags: str = ""


def dropped_by_reason(rows: Iterable[Any], kind: str | None = None) -> dict[str, int]:
    """Count dropped rows by reason, most frequent first; rows are mappings with the ledger's columns."""
    counts = Counter(str(row["reason"]) for row in rows if row["status"] == "dropped" and kind in (None, row["kind"]))
    return dict(counts.most_common())


LONG_NUMBER = re.compile(r"\d{7,}")


class Redactor:
    """Makes names safe to store: paths become relative, runs of seven or more digits become `<1>`, `<2>`, ...

    Participant and accession numbers have seven digits or more in practice. A hash of so short a number could be
    inverted by trying all of them, so distinct numbers are counted in the order of their first appearance instead.
    """

    def __init__(self, roots: Iterable[Path]) -> None:
        self._roots = sorted({str(root) for root in roots} | {str(root.resolve()) for root in roots}, key=len)[::-1]
        self._numbers: dict[str, int] = {}

    def __call__(self, text: str) -> str:
        """Redact a name or a message."""
        for root in self._roots:
            text = text.replace(root + "/", "").replace(root, ".")
        return LONG_NUMBER.sub(self._replace, text)

    def _replace(self, match: re.Match[str]) -> str:
        return f"<{self._numbers.setdefault(match.group(), len(self._numbers) + 1)}>"
