"""WFDB records: a text header and one or more data files.

Format 16 without frames or skew, which is what nearly every 12-lead database uses, is decoded here; all other formats
by the wfdb package.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.leads import einthoven_residual, tidy_lead
from ecgcmr.ecg.readers.limits import MAX_SIGNAL_BYTES, check_size, checked
from ecgcmr.ecg.readers.wfdb_header import SegmentedHeader, WfdbHeader, read_header
from ecgcmr.ecg.readers.wfdb_segments import join_segments
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.ecg.units import canonical_unit, millivolts_per_unit

_SUFFIXES = (".hea", ".dat", ".mat")

# Bits of one sample in a data file, for the formats whose size follows from the number of samples.
_BITS = {"8": 8, "16": 16, "24": 24, "32": 32, "61": 16, "80": 8, "160": 16, "212": 12, "310": 32 / 3, "311": 32 / 3}

# Digital value that means "no sample".
_INVALID = {
    "16": -(1 << 15),
    "24": -(1 << 23),
    "32": -(1 << 31),
    "61": -(1 << 15),
    "80": -(1 << 7),
    "160": -(1 << 15),
    "212": -(1 << 11),
    "310": -(1 << 9),
    "311": -(1 << 9),
}


def read_wfdb(path: str | Path, unit: str | None = None, gain_uv_per_unit: float | None = None) -> EcgRecording:
    """Read a WFDB record.

    Missing samples are NaN; a lead that is wholly NaN is left to the caller. Records of several segments are joined.
    Comments of the header are never read.

    Args:
        path: Header, data file or record name without suffix.
        unit: Unit of the physical values (`mV`, `uV`, `V`): replaces what the header states or leaves out.
        gain_uv_per_unit: Microvolts per digital unit, for files whose header gains are not physical (LUDB: 1.0);
            the header's gains, baselines and units are then not used.

    Returns:
        Recording in mV, leads in file order.

    Raises:
        FileNotFoundError: The header or a data file is missing.
        ValueError: The header cannot be understood, a data file is truncated, a unit is missing or unknown, the
            amplitude contradicts the unit, or the header's gains contradict Einthoven's law.
    """
    if gain_uv_per_unit is not None and not gain_uv_per_unit > 0:
        raise ValueError(f"gain_uv_per_unit must be positive, got {gain_uv_per_unit}")
    path = _header_path(Path(path))
    declared = None if gain_uv_per_unit is not None else canonical_unit(unit) if unit is not None else "mV"
    return checked(path, _read(path, unit, gain_uv_per_unit), declared=declared)


def _read(path: Path, unit: str | None, gain_uv_per_unit: float | None, within: bool = False) -> EcgRecording:
    """A record before the check of its amplitude; `within` says that it is a segment of another."""
    header, lines = read_header(path)
    if isinstance(header, SegmentedHeader):
        if within:
            raise ValueError(f"{path}: a segment cannot have segments of its own")
        return join_segments(header, lambda segment: _read(segment, unit, gain_uv_per_unit, within=True))
    _check_sizes(header)
    digital, wrong = _decode(header, lines)
    notes = [f"checksum does not fit: {', '.join(wrong)}"] if wrong else []
    if gain_uv_per_unit is not None:
        samples = digital * np.float32(gain_uv_per_unit * 1e-3)
        notes.append(f"scaled by {gain_uv_per_unit:g} uV a unit as declared, not by the gains of the header")
    else:
        samples = _calibrate(header, digital, unit)
    leads = tuple(tidy_lead(signal.name) for signal in header.signals)
    samples = samples.astype(np.float32, copy=False)
    recording = EcgRecording(samples, header.rate_hz, leads, "mV", "wfdb", tuple(notes), recorded_at=header.recorded_at)
    if gain_uv_per_unit is None:
        try:
            _check_gains(header, digital, recording)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return recording


def _header_path(path: Path) -> Path:
    return path.with_suffix(".hea") if path.suffix.lower() in _SUFFIXES else path.with_name(path.name + ".hea")


def _check_sizes(header: WfdbHeader) -> None:
    """Refuse data files that hold fewer samples than the header announces (wfdb may return what there is)."""
    groups = defaultdict(list)
    for signal in header.signals:
        groups[signal.file_name].append(signal)
    for name, signals in groups.items():
        file = header.path.parent / name
        if not file.is_file():
            raise FileNotFoundError(f"{header.path} names the data file {name}, which is not beside it")
        check_size(file, MAX_SIGNAL_BYTES) if header.n_samples is None else None
        bits = _BITS.get(signals[0].format)
        if header.n_samples is None or bits is None:  # compressed, or the length is what the file holds
            continue
        frame_bits = bits * sum(signal.per_frame for signal in signals)
        found = int((file.stat().st_size - signals[0].offset) * 8 / frame_bits + 1e-9)
        if found < header.n_samples:
            raise ValueError(
                f"{file} is truncated: {header.path.name} announces {header.n_samples} samples of {len(signals)} "
                f"signals, the file holds {max(found, 0)}; fetch it again"
            )


def _decode(header: WfdbHeader, lines: tuple[str, ...]) -> tuple[NDArray[np.float32], list[str]]:
    """Return digital values (L, T), missing ones NaN, and the signals whose checksum does not fit."""
    first = header.signals[0]
    plain = all(
        (s.file_name, s.format, s.offset, s.per_frame, s.skew) == (first.file_name, "16", first.offset, 1, 0)
        for s in header.signals
    )
    if plain:
        n_signals = len(header.signals)
        count = -1 if header.n_samples is None else header.n_samples * n_signals
        raw = np.fromfile(header.path.parent / first.file_name, "<i2", count, offset=first.offset)
        if raw.size < n_signals:
            raise ValueError(f"{header.path.parent / first.file_name} holds no whole sample of {n_signals} signals")
        table = raw[: raw.size // n_signals * n_signals].reshape(-1, n_signals).T
    else:
        table = _decode_with_wfdb(header, lines)
    digital = np.array(table, dtype=np.float32, order="C")
    for row, signal in enumerate(header.signals):
        if signal.format in _INVALID:
            digital[row, table[row] == _INVALID[signal.format]] = np.nan
    return digital, _wrong_checksums(header, table)


def _wrong_checksums(header: WfdbHeader, table_LT: NDArray[np.signedinteger]) -> list[str]:
    """Names of the signals whose samples do not sum up to the checksum; writers that compute none write zeros."""
    stated = [signal.checksum for signal in header.signals]
    plain = all(signal.per_frame == 1 and signal.skew == 0 for signal in header.signals)
    if not any(stated) or header.n_samples is None or not plain:
        return []
    sums = table_LT.sum(axis=1, dtype=np.int64) & 0xFFFF
    rows = [row for row, checksum in enumerate(stated) if checksum is not None and checksum != sums[row]]
    return [header.signals[row].name or str(row) for row in rows]


def _decode_with_wfdb(header: WfdbHeader, lines: tuple[str, ...]) -> NDArray[np.int64]:
    """Let the wfdb package decode the samples (L, T), by a header without date in a temporary folder."""
    import wfdb  # imported here: it pulls in pandas and more, which plain records do not need

    with TemporaryDirectory(prefix="ecgcmr-") as folder:
        for name in {signal.file_name for signal in header.signals}:
            source, link = (header.path.parent / name).resolve(), Path(folder) / name
            link.parent.mkdir(parents=True, exist_ok=True)
            try:
                link.symlink_to(source)
            except OSError:  # file systems and platforms without links
                shutil.copyfile(source, link)
        (Path(folder) / "record.hea").write_text(header.sanitised_text("record", lines), encoding="ascii")
        try:
            record = wfdb.rdrecord(str(Path(folder) / "record"), physical=False, return_res=64)
        except Exception as error:  # wfdb raises many types; to the user each means that the record is unreadable
            raise ValueError(f"{header.path}: the wfdb package cannot decode the record ({error})") from error
    table = np.asarray(record.d_signal).T
    if header.n_samples is not None and table.shape[1] < header.n_samples:
        raise ValueError(
            f"{header.path} announces {header.n_samples} samples, its data hold {table.shape[1]}; fetch it again"
        )
    return table


def _calibrate(header: WfdbHeader, digital: NDArray[np.float32], unit: str | None) -> NDArray[np.float32]:
    """Turn digital values (L, T) into mV by the header's gains and units."""
    out = np.empty_like(digital)
    for row, signal in enumerate(header.signals):
        try:
            factor = millivolts_per_unit(unit if unit is not None else signal.unit)
        except ValueError as error:
            raise ValueError(f"{header.path}, signal {signal.name or row}: {error}") from error
        with np.errstate(over="ignore"):  # absurd gains give infinite samples, which are refused
            out[row] = (digital[row].astype(np.float64) - signal.baseline) * (factor / signal.gain)
    return out


def _check_gains(header: WfdbHeader, digital: NDArray[np.float32], recording: EcgRecording) -> None:
    """Refuse headers whose gains rescale each lead by itself: Einthoven's law then holds before them, not after.

    Recorders compute III from I and II, so that the law holds to the last digit in digital units.
    """
    rows = [recording.leads.index(lead) for lead in ("I", "II", "III") if lead in recording.leads]
    if len(rows) < 3 or len({header.signals[row].gain for row in rows}) == 1:
        return
    before, after = einthoven_residual(digital[rows]), einthoven_residual(recording.samples[rows])
    if before < 0.03 and after > 0.05:
        raise ValueError(
            f"the header's gains break Einthoven's law (residual {after:.2g} of lead II; {before:.2g} without them): "
            "they are not physical. Give the true scale with gain_uv_per_unit"
        )
