"""Reading the items of one chunk: what can be read is kept, everything else becomes a row of the ledger."""

from __future__ import annotations

import errno
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ecgcmr.cmr.cine import Cine
from ecgcmr.cohort.chunks import ChunkWriter
from ecgcmr.cohort.ingest_guard import Mark, ReaderTimeout, known_deaths, time_limit
from ecgcmr.cohort.ingest_plan import Item
from ecgcmr.cohort.ingest_walk import ARRAY_SUFFIXES, WFDB_SUFFIXES
from ecgcmr.cohort.ledger import LONG_NUMBER, LedgerRow, Reason
from ecgcmr.cohort.privacy_patterns import redact_within
from ecgcmr.cohort.recipe import CmrFiles, EcgFiles
from ecgcmr.ecg.leads import to_canonical
from ecgcmr.ecg.readers import ArrayFile, open_ecg, reader_options
from ecgcmr.ecg.recording import EcgRecording

MIN_SECONDS = 1.0
_DECLARED = frozenset({"unit", "rate_hz", "leads", "gain_uv_per_unit", "signal"})  # what a recipe may declare
CMR_HARD_FLAGS = frozenset({"still", "flat", "not_finite"})  # on these --qc drop drops a study
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
    ("the recording lasts", Reason.TOO_SHORT),
    ("no usable lead", Reason.MISSING_LEADS),
    ("nothing but padding", Reason.EMPTY),
)


@dataclass(frozen=True)
class ReadOptions:
    """What the readers are told.

    Attributes:
        ecg: The recipe's ECG section.
        cmr: The recipe's CMR section.
        roots: Folders whose names must not be stored.
        qc: "keep", "drop" or "report".
        time_limit_s: A file that takes longer is given up [s].
    """

    ecg: EcgFiles
    cmr: CmrFiles
    roots: tuple[str, ...] = ()
    qc: str = "keep"
    time_limit_s: float = 300.0


class Refused(ValueError):
    """An item that was read but cannot be used."""

    def __init__(self, reason: Reason, detail: str, flags: str = "") -> None:
        super().__init__(detail)
        self.reason = reason
        self.flags = flags


@dataclass(frozen=True)
class Found:
    """One recording or study that an item holds, ready to be written."""

    content: EcgRecording | Cine
    day: float
    flags: str
    detail: str


def read_chunk(folder: Path, items: Sequence[Item], options: ReadOptions, cine_dtype: str) -> int:
    """Read the items of one chunk into its folder; a broken file is a ledger row and never an exception.

    Returns:
        Number of items.
    """
    deaths = known_deaths(folder)
    mark = Mark(folder)
    try:
        with ChunkWriter(folder, cine_dtype, store=options.qc != "report") as rows:
            for index, item in enumerate(items):
                if index in deaths:
                    detail = f"time limit {options.time_limit_s:g} s" if deaths[index] is Reason.READER_TIMEOUT else ""
                    rows.add_ledger(LedgerRow(item.name, item.kind, "dropped", deaths[index].value, detail))
                    continue
                mark.set(index)
                _read_item(rows, item, options)
    finally:
        mark.close()
    return len(items)


def _read_item(rows: ChunkWriter, item: Item, options: ReadOptions) -> None:
    """Rows of one item, and its rows of the ledger."""

    def drop(reason: Reason, detail: str, flags: str = "") -> None:
        rows.add_ledger(LedgerRow(item.name, item.kind, "dropped", reason.value, detail, -1, flags))

    before = {name: len(rows.rows[name]) for name in ("recordings", "studies")}
    try:
        with time_limit(options.time_limit_s):  # reading only: nothing is half-written when it rings
            found = _read_ecg(item, options) if item.kind == "ecg" else _read_cmr(item, options)
        for one in found:
            row = _write(rows, item, one)
            rows.add_ledger(LedgerRow(item.name, item.kind, "kept", "", one.detail, row, one.flags))
    except ReaderTimeout:
        drop(Reason.READER_TIMEOUT, f"time limit {options.time_limit_s:g} s")
    except MemoryError:
        drop(Reason.READER_CRASHED, "not enough memory")
    except Exception as error:  # readers of real files meet everything; the job must go on
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # our disk is full: that is not the file's fault
        assert before == {name: len(rows.rows[name]) for name in before}, "a refused item left rows behind"
        reason, detail = explain(error, item, options)
        drop(reason, detail, error.flags if isinstance(error, Refused) else "")


def _write(rows: ChunkWriter, item: Item, found: Found) -> int:
    if not isinstance(found.content, EcgRecording):
        return rows.add_study(found.content, item.subject, found.day, found.flags)
    row = rows.add_recording(found.content, item.subject, found.day, found.flags)
    if item.label_row >= 0:  # which row of the labels table it is; becomes labels when all is read
        rows.rows["recording_labels"].append({"recording": row, "label_row": item.label_row})
    return row


def _read_ecg(item: Item, options: ReadOptions) -> list[Found]:
    from ecgcmr.ecg.quality import HARD_FLAGS, check_ecg

    recording = _open(item, options.ecg)
    day = _day(item, getattr(recording, "recorded_at", None))
    recording = _usable(to_canonical(_trimmed(recording) if options.ecg.trim_zeros else recording))
    flags, told = _judge(check_ecg(recording), HARD_FLAGS, options.qc)
    return [Found(recording, day, flags, "; ".join([*recording.notes, *told]))]


def _open(item: Item, files: EcgFiles) -> EcgRecording:
    suffix = item.path.suffix.lower()
    if not item.supported:
        why = "without its header (.hea)" if suffix in WFDB_SUFFIXES else "no reader for this format"
        raise Refused(Reason.UNSUPPORTED_FORMAT, f"{item.path.suffix} file: {why}")
    if suffix in ARRAY_SUFFIXES:
        return _array(item.path, files)[item.row]
    given = {name: getattr(files, name) for name in reader_options(item.path) & _DECLARED}
    return open_ecg(item.path, **{name: value for name, value in given.items() if value is not None})


def _trimmed(recording: EcgRecording) -> EcgRecording:
    """Without the samples at both ends at which every lead is exactly zero."""
    used = np.flatnonzero(np.any(recording.samples != 0, axis=0))
    if not len(used):
        raise Refused(Reason.EMPTY, "nothing but padding: every sample is zero")
    samples = recording.samples[:, used[0] : used[-1] + 1]
    cut = recording.n_samples - samples.shape[1]
    if not cut:
        return recording
    notes = (*recording.notes, f"{cut} samples of padding cut off")
    return replace(recording, samples=np.ascontiguousarray(samples), notes=notes)


def _day(item: Item, recorded_at: datetime | date | None) -> float:
    """Day on the subject's own calendar: by the tables, else by the file; NaN when neither says it."""
    if item.day is not None:
        return float(item.day)
    return float(recorded_at.toordinal() + item.shift) if recorded_at is not None else math.nan


def _judge(found: Sequence[Any], hard: Collection[str], qc: str) -> tuple[str, list[str]]:
    """Flags as stored and as told; with `drop`, a refusal for hard ones."""
    flags = ",".join(dict.fromkeys(flag.code for flag in found))
    told = [f"{flag.code}: {flag.detail}" for flag in found]
    if qc == "drop" and any(flag.code in hard for flag in found):
        why = [text for text, flag in zip(told, found, strict=True) if flag.code in hard]
        raise Refused(Reason.QUALITY, "; ".join(why), flags)
    return flags, told


@lru_cache(maxsize=1)
def _array(path: Path, files: EcgFiles) -> ArrayFile:
    return ArrayFile(path, files.unit, files.rate_hz, files.leads, files.gain_uv_per_unit, files.signal)


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


def _read_cmr(item: Item, options: ReadOptions) -> list[Found]:
    from ecgcmr.cmr.quality import check_cine

    cines = _open_cines(item, options.cmr)
    if not cines:
        raise Refused(Reason.EMPTY, "no cine series in it")
    found = []
    for cine in cines:
        if not np.isfinite(cine.pixels).all():
            raise Refused(Reason.NOT_FINITE, f"{cine.view} holds intensities that are not finite")
        day = _day(item, getattr(cine, "recorded_at", None))
        flags, told = _judge(check_cine(cine), CMR_HARD_FLAGS, options.qc)
        tidy = replace(cine, notes=_tidy(cine.notes, item, options))
        found.append(Found(tidy, day, flags, "; ".join([cine.view, *told])))
    return found


def _open_cines(item: Item, files: CmrFiles) -> list[Cine]:
    """The cines of a study, with what is known of their phases in the notes."""
    from ecgcmr.cmr.readers import open_cine, open_study

    if files.layout is None:
        return open_cine(item.path, incomplete=files.incomplete)
    study = open_study(item.path, files.layout, incomplete=files.incomplete)
    phases = study.phases or ({},) * len(study.cines)
    cines = []
    for cine, known in zip(study.cines, phases, strict=True):
        said = [f"{phase.upper()} is frame {frame}" for phase, frame in sorted(known.items())]
        cines.append(replace(cine, notes=(*cine.notes, *study.notes, *said)))
    return cines


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
    return reason_of(detail), detail


def reason_of(message: str) -> Reason:
    """Reason code for what a reader or a pipeline says; `UNREADABLE` when its words are not known."""
    lower = message.lower()
    return next((reason for mark, reason in _MARKS if mark in lower), Reason.UNREADABLE)


def redact(text: str, item: Item, options: ReadOptions) -> str:
    """Text with the item's ledger name in place of its path, and without what could be an identifier."""
    name = item.name.split(" row ")[0]
    text = text.replace(str(item.path), name).replace(str(item.path.with_suffix("")), name)
    for root in options.roots:
        text = text.replace(root + "/", "").replace(root, ".")
    return redact_within(LONG_NUMBER.sub("<number>", text))
