"""Reading the items of one chunk: what can be read is kept, everything else becomes a row of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from ecgcmr.cohort.chunks import ChunkWriter
from ecgcmr.cohort.ingest_plan import ARRAY_SUFFIXES, WFDB_SUFFIXES, Item
from ecgcmr.cohort.ledger import LONG_NUMBER, LedgerRow, Reason
from ecgcmr.ecg.leads import to_canonical
from ecgcmr.ecg.readers import ArrayFile, open_ecg, reader_options
from ecgcmr.ecg.recording import EcgRecording

MIN_SECONDS = 1.0
_DECLARED = frozenset({"unit", "rate_hz", "leads", "gain_uv_per_unit"})  # what an ingest may declare for its files
_MARKS: tuple[tuple[str, Reason], ...] = (  # words of the readers' messages -> reason code, first match wins
    ("missing after frame", Reason.MISSING_FRAME),
    ("header promises", Reason.MISSING_FRAME),
    ("add the missing files", Reason.MISSING_FRAME),
    ("two different frames", Reason.MISSING_FRAME),
    ("no cine series", Reason.NOT_CINE),
    ("not a cine", Reason.NOT_CINE),
    ("truncated", Reason.TRUNCATED),
    ("announces", Reason.TRUNCATED),
    ("cut off", Reason.TRUNCATED),
    ("cut-off", Reason.TRUNCATED),
    ("no whole sample", Reason.TRUNCATED),
    ("missing leads", Reason.MISSING_LEADS),
    ("unknown lead", Reason.MISSING_LEADS),
    ("occurs twice", Reason.MISSING_LEADS),
    ("names no leads", Reason.MISSING_LEADS),
    ("amplitude", Reason.IMPLAUSIBLE_AMPLITUDE),
    ("einthoven", Reason.IMPLAUSIBLE_AMPLITUDE),
    ("states no unit", Reason.NO_UNIT),
    ("unit of voltage", Reason.NO_UNIT),
    ("states no sampling rate", Reason.NO_RATE),
    ("not finite", Reason.NOT_FINITE),
    ("infinite samples", Reason.NOT_FINITE),
    ("no ecg reader", Reason.UNSUPPORTED_FORMAT),
    ("no reader for this format", Reason.UNSUPPORTED_FORMAT),
    ("<documenttype>", Reason.UNSUPPORTED_FORMAT),
    ("<documentversion>", Reason.UNSUPPORTED_FORMAT),
    ("exercise test", Reason.UNSUPPORTED_FORMAT),
    ("is infinite", Reason.NOT_FINITE),
    ("spacing", Reason.BAD_GEOMETRY),
    ("affine", Reason.BAD_GEOMETRY),
    ("no pixels", Reason.EMPTY),
)


@dataclass(frozen=True)
class ReadOptions:
    """What the readers are told; see `IngestOptions` for the meaning."""

    unit: str | None
    rate_hz: float | None
    leads: tuple[str, ...] | None
    gain_uv_per_unit: float | None
    incomplete: str
    roots: tuple[str, ...]


class Refused(ValueError):
    """An item that was read but cannot be used."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def read_chunk(folder: Path, items: Sequence[Item], options: ReadOptions, cine_dtype: str) -> None:
    """Read the items of one chunk into its folder; a broken file is a ledger row and never an exception."""
    with ChunkWriter(folder, cine_dtype) as rows:
        for item in items:
            before = {name: len(rows.rows[name]) for name in ("recordings", "studies")}
            try:
                found = _read_ecg(rows, item, options) if item.kind == "ecg" else _read_cmr(rows, item, options)
            except MemoryError:
                raise
            except Exception as error:  # readers of real files meet everything; the job must go on
                assert before == {name: len(rows.rows[name]) for name in before}, "a refused item left rows behind"
                reason, detail = explain(error, item, options)
                rows.add_ledger(LedgerRow(item.name, item.kind, "dropped", reason.value, detail))
                continue
            for row, detail in found:
                rows.add_ledger(LedgerRow(item.name, item.kind, "kept", "", detail, row))


def _read_ecg(rows: ChunkWriter, item: Item, options: ReadOptions) -> list[tuple[int, str]]:
    if not item.supported:
        why = "without its header (.hea)" if item.path.suffix.lower() in WFDB_SUFFIXES else "no reader for this format"
        raise Refused(Reason.UNSUPPORTED_FORMAT, f"{item.path.suffix} file: {why}")
    if item.path.suffix.lower() in ARRAY_SUFFIXES:
        array = _array(item.path, options.unit, options.rate_hz, options.leads, options.gain_uv_per_unit)
        recording = array[item.row]
    else:
        given = {name: getattr(options, name) for name in reader_options(item.path) & _DECLARED}
        recording = open_ecg(item.path, **{name: value for name, value in given.items() if value is not None})
    recording = _usable(to_canonical(recording))
    row = rows.add_recording(recording, item.subject)
    if item.label_row >= 0:  # which row of the labels table it is; becomes labels when all is read
        rows.rows["recording_labels"].append({"recording": row, "label_row": item.label_row})
    return [(row, "; ".join(recording.notes))]


@lru_cache(maxsize=1)
def _array(
    path: Path, unit: str | None, rate_hz: float | None, leads: tuple[str, ...] | None, gain: float | None
) -> ArrayFile:
    return ArrayFile(path, unit, rate_hz, leads, gain)


def _usable(recording: EcgRecording) -> EcgRecording:
    """The recording with notes, or a refusal."""
    if recording.duration_s < MIN_SECONDS:
        raise Refused(Reason.TOO_SHORT, f"{recording.duration_s:.3g} s; expected at least {MIN_SECONDS:g} s")
    missing = np.isnan(recording.samples)
    empty = [lead for lead, gone in zip(recording.leads, np.all(missing, axis=1), strict=True) if gone]
    if empty:
        raise Refused(Reason.NAN_LEAD, f"lead {', '.join(empty)} holds no sample")
    low, high = np.nanmin(recording.samples, axis=1), np.nanmax(recording.samples, axis=1)
    flat = [lead for lead, same in zip(recording.leads, low == high, strict=True) if same]
    notes = list(recording.notes)
    if flat:
        notes.append(f"flat: {', '.join(flat)}")
    if missing.any():
        notes.append(f"{float(missing.mean()):.2%} of the samples are missing")
    return replace(recording, notes=tuple(notes))


def _read_cmr(rows: ChunkWriter, item: Item, options: ReadOptions) -> list[tuple[int, str]]:
    from ecgcmr.cmr.readers import open_cine

    cines = open_cine(item.path, incomplete=options.incomplete)
    if not cines:
        raise Refused(Reason.EMPTY, "no cine series in it")
    packed = [(cine, _tidy(cine.notes, item, options)) for cine in cines]
    for cine, _ in packed:
        if not np.isfinite(cine.pixels).all():
            raise Refused(Reason.NOT_FINITE, f"{cine.view} holds intensities that are not finite")
    return [(rows.add_study(replace(cine, notes=notes), item.subject), cine.view) for cine, notes in packed]


def _tidy(notes: Sequence[str], item: Item, options: ReadOptions) -> tuple[str, ...]:
    return tuple(redact(note, item, options) for note in notes)


def explain(error: Exception, item: Item, options: ReadOptions) -> tuple[Reason, str]:
    """Reason code and detail of an exception, without paths and long numbers."""
    detail = redact(str(error) or type(error).__name__, item, options)
    if isinstance(error, Refused):
        return error.reason, detail
    if isinstance(error, FileNotFoundError):
        return Reason.MISSING_FILE, detail
    if not isinstance(error, ValueError | OSError):
        detail = f"{type(error).__name__}: {detail}"
    lower = detail.lower()
    return next((reason for mark, reason in _MARKS if mark in lower), Reason.UNREADABLE), detail


def redact(text: str, item: Item, options: ReadOptions) -> str:
    """Text with the item's ledger name in place of its path, and without numbers that could be identifiers."""
    name = item.name.split(" row ")[0]
    text = text.replace(str(item.path), name).replace(str(item.path.with_suffix("")), name)
    for root in options.roots:
        text = text.replace(root + "/", "").replace(root, ".")
    return LONG_NUMBER.sub("<number>", text)
