"""WFDB headers, read without stumbling over dates.

The wfdb package refuses a whole record for a date it cannot parse (`05-May-2020`, as in the PhysioNet Challenge of
2021), so the header is parsed here: the record line, and the lines of signals or segments. A date that cannot be read
is no date; comments, which hold what is known of a person, are never read.
Grammar: https://physionet.org/physiotools/wag/header-5.htm
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ecgcmr.ecg.readers.clock import numeric_month, time_of
from ecgcmr.ecg.readers.limits import MAX_LEADS, check_size

DEFAULT_RATE_HZ = 250.0
DEFAULT_GAIN = 200.0
_MAX_HEADER_BYTES = 4 << 20
MAX_SKEW, MAX_PER_FRAME = 10_000, 1_000
"""Skew between signals [samples] and samples of a signal in a frame; tape recorders have some tens of each."""
_PLAIN_NAME = re.compile(r"^[^/\\\0]+$")

_SPECIFICATION = re.compile(r"^(?P<format>\d+)(?:x(?P<frame>\d+))?(?::(?P<skew>\d+))?(?:\+(?P<offset>\d+))?$")
_GAIN = re.compile(r"^(?P<gain>[-+]?\d*\.?\d*(?:[eE][-+]?\d+)?)(?:\((?P<baseline>[-+]?\d+)\))?(?:/(?P<unit>\S+))?$")


@dataclass(frozen=True)
class WfdbSignal:
    """One signal line of a header.

    Attributes:
        file_name: Name of the data file, relative to the header.
        format: Storage format, such as `16` or `212`.
        per_frame: Samples of this signal in each frame.
        skew: Samples by which the signal lags.
        offset: Bytes before the first sample.
        gain: Digital units per physical unit.
        baseline: Digital value of zero.
        unit: Physical unit as written, or None.
        name: Lead name as written.
        checksum: Sum of all samples modulo 65,536, or None.
    """

    file_name: str
    format: str
    per_frame: int
    skew: int
    offset: int
    gain: float
    baseline: int
    unit: str | None
    name: str
    checksum: int | None = None


@dataclass(frozen=True)
class WfdbHeader:
    """What a header says about the samples, and when they were recorded; never the comments."""

    path: Path
    record: str
    rate_hz: float
    n_samples: int | None
    signals: tuple[WfdbSignal, ...]
    recorded_at: datetime | None = None

    def sanitised_text(self, record: str, signal_lines: tuple[str, ...]) -> str:
        """Return a header for the same samples that any parser takes: no date, no time, no comments."""
        length = "" if self.n_samples is None else f" {self.n_samples}"
        return "\n".join([f"{record} {len(self.signals)} {self.rate_hz:.10g}{length}", *signal_lines, ""])


@dataclass(frozen=True)
class SegmentedHeader:
    """The header of a record of several segments.

    Attributes:
        path: The header.
        rate_hz: Sampling rate [Hz].
        segments: (record name, number of samples) in order of time; `~` is a gap, a first length of 0 the layout.
        recorded_at: When the first segment began.
    """

    path: Path
    rate_hz: float
    segments: tuple[tuple[str, int], ...]
    recorded_at: datetime | None = None


def read_header(path: Path) -> tuple[WfdbHeader | SegmentedHeader, tuple[str, ...]]:
    """Parse a header file.

    Returns:
        The header, and its signal lines as written (none for a record of several segments).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line cannot be understood (the line is named by number), or names a file outside the folder.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no WFDB header {path}")
    check_size(path, _MAX_HEADER_BYTES)
    text = path.read_text(encoding="ascii", errors="ignore")
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if not lines:
        raise ValueError(f"WFDB header {path} is empty")
    number, fields = lines[0][0], lines[0][1].split()
    try:
        n_signals = int(fields[1])
        rate = float(re.split(r"[/(]", fields[2])[0]) if len(fields) > 2 else DEFAULT_RATE_HZ
        n_samples = int(fields[3]) if len(fields) > 3 and int(fields[3]) > 0 else None
        n_segments = int(fields[0].split("/")[1]) if "/" in fields[0] else None
    except (IndexError, ValueError) as error:
        raise ValueError(f"WFDB header {path}, line {number}: cannot read the record line ({error})") from error
    if not (rate > 0 and math.isfinite(rate)):
        raise ValueError(f"WFDB header {path}, line {number}: sampling rate {rate:g} Hz must be positive")
    recorded_at = _recorded_at(fields[4:6])
    if n_segments is not None:
        return SegmentedHeader(path, rate, _segments(path, n_segments, lines[1:]), recorded_at), ()
    if n_signals < 1 or len(lines) - 1 < n_signals:
        raise ValueError(f"WFDB header {path} announces {n_signals} signals but describes {len(lines) - 1}")
    if n_signals > MAX_LEADS:
        raise ValueError(f"WFDB header {path} announces {n_signals} signals, more than {MAX_LEADS}")
    used = lines[1 : 1 + n_signals]
    signals = tuple(_signal(path, number, line) for number, line in used)
    return WfdbHeader(path, fields[0], rate, n_samples, signals, recorded_at), tuple(line for _, line in used)


def _recorded_at(fields: list[str]) -> datetime | None:
    """Time and date of a record line in either order, with months as numbers or names; None for anything else."""
    day = next((field for field in fields if "/" in field or "-" in field), "")
    clock = next((field.split(".")[0] for field in fields if ":" in field), "00:00:00")
    written = f"{numeric_month(day)} {clock}"
    return time_of(("%d/%m/%Y %H:%M:%S", written), ("%Y/%m/%d %H:%M:%S", written))


def _segments(path: Path, count: int, lines: list[tuple[int, str]]) -> tuple[tuple[str, int], ...]:
    """(name, length) of the segments that are listed."""
    if count < 1 or len(lines) < count:
        raise ValueError(f"WFDB header {path} announces {count} segments but lists {len(lines)}")
    found = []
    for number, line in lines[:count]:
        fields = line.split()
        if len(fields) < 2 or not fields[1].isdigit() or not _is_plain(fields[0]):
            raise ValueError(f"WFDB header {path}, line {number}: cannot read the segment line {line[:60]!r}")
        found.append((fields[0], int(fields[1])))
    return tuple(found)


def _is_plain(name: str) -> bool:
    """Whether a name stays within the folder of the header."""
    return bool(_PLAIN_NAME.match(name)) and name not in (".", "..")


def _signal(path: Path, number: int, line: str) -> WfdbSignal:
    """Parse `file format[xframe][:skew][+offset] [gain[(baseline)][/unit] [resolution [zero [...]]]] [name]`."""
    fields = line.split(maxsplit=8)
    specification = _SPECIFICATION.match(fields[1]) if len(fields) > 1 else None
    gain = _GAIN.match(fields[2]) if len(fields) > 2 else None
    if specification is None or (len(fields) > 2 and gain is None):
        raise ValueError(f"WFDB header {path}, line {number}: cannot read the signal line {line!r}")
    if not _is_plain(fields[0]):
        raise ValueError(
            f"WFDB header {path}, line {number}: it names the data file {fields[0]!r} outside of its own folder"
        )
    try:
        zero = int(fields[4]) if len(fields) > 4 else 0
        written = gain.group("gain") if gain else ""
        value = float(written) if written else 0.0
    except ValueError as error:
        raise ValueError(f"WFDB header {path}, line {number}: {error}") from error
    baseline = gain.group("baseline") if gain else None
    skew, per_frame = int(specification.group("skew") or 0), int(specification.group("frame") or 1)
    if skew > MAX_SKEW or not 0 < per_frame <= MAX_PER_FRAME:  # buffers of that size are made on decoding
        raise ValueError(f"WFDB header {path}, line {number}: skew {skew} or {per_frame} samples a frame cannot be")
    if not math.isfinite(value):
        raise ValueError(f"WFDB header {path}, line {number}: a gain of {value} is no gain")
    return WfdbSignal(
        file_name=fields[0],
        format=specification.group("format"),
        per_frame=per_frame,
        skew=skew,
        offset=int(specification.group("offset") or 0),
        gain=value if value != 0 else DEFAULT_GAIN,
        baseline=int(baseline) if baseline is not None else zero,
        # the format's manual: a missing unit means mV, which is a guess that we leave to the caller
        unit=gain.group("unit") if gain else None,
        name=fields[8].strip() if len(fields) > 8 else "",
        checksum=int(fields[6]) & 0xFFFF if len(fields) > 6 and fields[6].lstrip("-").isdigit() else None,
    )
