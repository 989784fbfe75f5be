"""Arrays with a declared rate, unit and lead names: NumPy, HDF5, MATLAB and text, of one recording or of many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.leads import LEADS, tidy_lead
from ecgcmr.ecg.readers.hdf5 import Hdf5Members
from ecgcmr.ecg.readers.limits import MAX_LEADS, MAX_SIGNAL_BYTES, check_size, checked
from ecgcmr.ecg.readers.matlab import MatMembers
from ecgcmr.ecg.readers.numpy_file import NpzMembers, open_npy
from ecgcmr.ecg.readers.sniff import sniff
from ecgcmr.ecg.readers.table import open_table
from ecgcmr.ecg.recording import EcgRecording, Unit
from ecgcmr.ecg.units import canonical_unit, millivolts_per_unit

ARRAY_FORMATS = ("npz", "npy", "hdf5", "mat", "table")
"""Formats, by the names of `sniff`, that hold arrays and state little about them."""

_SIGNALS = ("ecg", "signals", "signal", "samples", "x", "X", "tracings", "feats", "val")
_RATES = ("fs", "rate_hz", "sampling_rate", "sample_rate", "curr_sample_rate", "Fs")
_KEYS = ("ecg_id", "exam_id", "ids", "key", "record")
_LARGEST_FILE = 1 << 40  # arrays of many recordings are read row by row, or checked member by member


class ArrayFile:
    """A file of recordings (N, L, T), opened lazily: the samples stay in their stored type until one is asked for.

    It may hold `ecg` (N, L, T), (N, T, L), (L, T) or (T, L), `scale` (a factor for integers), `fs` [Hz], `leads`
    (L,), `unit` and `ecg_id` (N,), or the usual other names of these; `unit` and `leads` given as arguments replace
    what it holds. Leads and time are told apart by the number of leads.

    Attributes:
        path: The file.
        rate_hz: Sampling rate [Hz].
        leads: Lead names (L,), canonical spelling.
        unit: `mV` or `z`: the unit of the recordings returned.
        keys: Item keys (N,): `ecg_id` where the file has it, otherwise the row number; the file's stem for one.
    """

    def __init__(
        self,
        path: str | Path,
        unit: str | None = None,
        rate_hz: float | None = None,
        leads: tuple[str, ...] | None = None,
        gain_uv_per_unit: float | None = None,
        signal: str | None = None,
    ) -> None:
        """Open the file and check what it declares.

        Args:
            path: `.npz`, `.npy`, `.h5`, `.mat`, `.csv` or `.tsv`.
            unit: `mV`, `uV`, `V`, or `z` for samples that were standardised; required unless the file states it.
            rate_hz: Sampling rate [Hz]; required unless the file states it, and refused where that is another.
            leads: Lead names; where neither the argument nor the file has them, twelve rows are taken to be in
                canonical order.
            gain_uv_per_unit: Microvolts of one stored unit, in place of `unit` and the file's `scale`.
            signal: Name of the array, where it is none of the usual ones.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is damaged, or rate, unit or leads are missing or do not fit the shape.
        """
        self.path = Path(path)
        self._members, self._leads_first = _open(self.path)
        self._name = self._signal_name(signal)
        self._signal: Any = None
        self._shape = tuple(int(size) for size in self._load().shape)
        if len(self._shape) not in (2, 3) or min(self._shape) < 1:
            raise ValueError(
                f"{self.path}: expected samples of shape (recordings, leads, time) or (leads, time), got {self._shape}"
            )
        self.leads, self._time_first, self._assumed = self._layout(leads)
        self.rate_hz = self._rate(rate_hz)
        self.unit: Unit = "mV"
        self._declared: str | None
        if gain_uv_per_unit is not None:
            if not gain_uv_per_unit > 0:
                raise ValueError(f"gain_uv_per_unit must be positive, got {gain_uv_per_unit}")
            self._to_mv, self._declared = gain_uv_per_unit * 1e-3, None
        else:
            scale = _number(self.path, "scale", self._member(("scale",), 1.0))
            stated_unit = self._member(("unit", "units"), None) if unit is None else unit
            self.unit, factor = self._declared_unit(stated_unit)
            self._to_mv = factor * scale
            self._declared = canonical_unit(str(stated_unit)) if self.unit == "mV" else None
        self.keys = self._declared_keys()

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, row: int) -> EcgRecording:
        """Return one recording, float32, in mV or standardised.

        Raises:
            ValueError: The amplitude contradicts the declared unit.
        """
        if not -len(self.keys) <= row < len(self.keys):
            raise IndexError(f"{self.path} holds {len(self.keys)} recordings, there is no row {row}")
        stored = self._row(row)
        samples = stored.T if self._time_first else stored
        notes = ("leads taken to be in canonical order: the file names none",) if self._assumed else ()
        scaled = np.ascontiguousarray(samples.astype(np.float32)) * np.float32(self._to_mv)
        recording = EcgRecording(scaled, self.rate_hz, self.leads, self.unit, "array", notes)
        where = f", recording {self.keys[row]}" if len(self._shape) == 3 else ""
        return checked(self.path, recording, where, self._declared)

    def __iter__(self) -> Iterator[tuple[str, EcgRecording]]:
        """Yield (key, recording) in file order."""
        for row, key in enumerate(self.keys):
            yield key, self[row]

    def _signal_name(self, asked: str | None) -> str:
        if asked is not None and asked not in self._members:
            raise ValueError(f"{self.path} has no array named {asked!r}; it has {_names(self._members)}")
        name = asked or next((name for name in _SIGNALS if name in self._members), None)
        if name is None:
            refused = getattr(self._members, "refused", ())
            hint = (
                "; not read, because they may hold any object: " + ", ".join(map(" ".join, refused)) if refused else ""
            )
            raise ValueError(
                f"{self.path} has no array named {' or '.join(_SIGNALS)}; it has {_names(self._members)}: name it with "
                f"signal=...{hint}"
            )
        return name

    def _load(self) -> Any:
        """Return the stored samples, decompressed once, in their stored type; HDF5 stays in the file."""
        if self._signal is None:
            found = self._members[self._name]
            if getattr(found, "dtype", np.dtype(object)).kind not in "iuf":
                raise ValueError(
                    f"{self.path}: {self._name!r} holds {getattr(found, 'dtype', type(found))}, no numbers"
                )
            self._signal = found
        return self._signal

    def _row(self, row: int) -> NDArray[Any]:
        index: Any = row if len(self._shape) == 3 else ...
        if isinstance(self._members, Hdf5Members):
            return self._members.row(self._name, row % self._shape[0] if len(self._shape) == 3 else index)
        found = self._load()[index]
        if found.nbytes > MAX_SIGNAL_BYTES:
            raise ValueError(f"{self.path}: a recording of shape {found.shape} is more than a recording can have")
        return np.asarray(found)

    def _member(self, names: tuple[str, ...], default: Any) -> Any:
        name = next((name for name in names if name in self._members), None)
        if name is None:
            return default
        value = np.asarray(self._members[name])
        return value.reshape(-1)[0].item() if value.size == 1 and value.dtype.kind in "iufUS" else value

    def _rate(self, declared: float | None) -> float:
        """The sampling rate that is stated or declared; a wrong one would go unnoticed, so that both must agree."""
        stated = self._member(_RATES, None)
        if stated is None and declared is None:
            raise ValueError(f"{self.path} states no sampling rate; declare it with rate_hz")
        rate = _number(self.path, "sampling rate", declared if stated is None else stated)
        if declared is not None and abs(rate - declared) > 1e-3 * rate:
            raise ValueError(
                f"{self.path} states a sampling rate of {rate:g} Hz, but {declared:g} Hz was declared; leave rate_hz "
                "out, or correct the file"
            )
        return rate

    def _declared_unit(self, unit: Any) -> tuple[Unit, float]:
        if unit is None:
            raise ValueError(
                f"{self.path} states no unit; declare it with unit='mV', 'uV' or 'V', or unit='z' if the samples "
                "were standardised"
            )
        if str(unit) == "z":
            return "z", 1.0
        try:
            canonical_unit(str(unit))
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}, or 'z' for standardised samples") from error
        return "mV", millivolts_per_unit(str(unit))

    def _layout(self, leads: tuple[str, ...] | None) -> tuple[tuple[str, ...], bool, bool]:
        """Lead names, whether time comes before the leads, and whether the names were assumed."""
        stated = self._member(("leads", "lead_names"), None) if leads is None else leads
        rows, columns = self._shape[-2:]
        named = stated is not None
        names = tuple(tidy_lead(str(name)) for name in np.atleast_1d(np.asarray(stated))) if named else LEADS
        if len(names) > MAX_LEADS:
            raise ValueError(f"{self.path} names {len(names)} leads, more than {MAX_LEADS}")
        if self._leads_first:
            columns = 0  # a table has its leads as columns, whatever their number
        if rows == columns == len(names):
            raise ValueError(f"{self.path}: {rows} x {columns} samples do not tell leads from time")
        if rows == len(names) or columns == len(names):
            return names, rows != len(names), not named
        if named:
            raise ValueError(f"{self.path} has {rows} rows a recording but {len(names)} lead names: {names}")
        raise ValueError(f"{self.path} has {rows} rows a recording and names no leads; declare them")

    def _declared_keys(self) -> list[str]:
        count = self._shape[0] if len(self._shape) == 3 else 1
        keys = self._member(_KEYS, None)
        if keys is None:
            return [str(row) for row in range(count)] if len(self._shape) == 3 else [self.path.stem]
        found = [
            key.decode(errors="replace") if isinstance(key, bytes) else str(key) for key in np.ravel(keys).tolist()
        ]
        if len(found) != count:
            raise ValueError(f"{self.path}: {count} recordings but {len(found)} keys")
        return found


def _open(path: Path) -> tuple[Mapping[str, Any], bool]:
    """Members of a file, and whether its leads are known to come before time."""
    if not path.is_file():
        raise FileNotFoundError(f"no array file {path}")
    check_size(path, _LARGEST_FILE)
    found = sniff(path)
    if found == "npz":
        return NpzMembers(path), False
    if found == "npy":
        return open_npy(path), False
    if found == "hdf5":
        return Hdf5Members(path), False
    if found == "mat":
        return MatMembers(path), False
    if found == "table":
        return open_table(path), True
    raise ValueError(f"{path} is no array file: it holds {found}")


def _number(path: Path, what: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: the {what} is {str(value)[:40]!r}, expected a number") from error


def _names(members: Mapping[str, Any]) -> str:
    names = list(members)
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "") if names else "none"


def recording_keys(path: Path) -> list[str]:
    """Return the keys of the recordings of an HDF5 file, without reading a sample or needing a declaration.

    Raises:
        ValueError: It is damaged, or has no array of a usual name.
    """
    members = Hdf5Members(path)
    name = next((name for name in _SIGNALS if name in members), None)
    if name is None:
        raise ValueError(f"{path} has no array named {' or '.join(_SIGNALS)}; it has {_names(members)}")
    shape = members[name].shape
    if len(shape) != 3:
        return [path.stem]
    keys = next((np.ravel(members[key]) for key in _KEYS if key in members), np.arange(shape[0]))
    return [key.decode(errors="replace") if isinstance(key, bytes) else str(key) for key in keys.tolist()]


def read_array(
    path: str | Path,
    unit: str | None = None,
    rate_hz: float | None = None,
    leads: tuple[str, ...] | None = None,
    gain_uv_per_unit: float | None = None,
    signal: str | None = None,
    row: int | None = None,
) -> EcgRecording:
    """Read one recording of an array file; see `ArrayFile` for the arguments.

    Args:
        path: The file.
        unit: As for `ArrayFile`.
        rate_hz: As for `ArrayFile`.
        leads: As for `ArrayFile`.
        gain_uv_per_unit: As for `ArrayFile`.
        signal: As for `ArrayFile`.
        row: Which recording, in a file of several.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As for `ArrayFile`, or the file holds several recordings and no row was given.
    """
    file = ArrayFile(path, unit, rate_hz, leads, gain_uv_per_unit, signal)
    if row is None and len(file) != 1:
        raise ValueError(
            f"{path} holds {len(file)} recordings; read it with iter_array(path), or one of them with row=0"
        )
    try:
        return file[row or 0]
    except IndexError as error:
        raise ValueError(str(error)) from error


def iter_array(
    path: str | Path,
    unit: str | None = None,
    rate_hz: float | None = None,
    leads: tuple[str, ...] | None = None,
    gain_uv_per_unit: float | None = None,
    signal: str | None = None,
) -> Iterator[tuple[str, EcgRecording]]:
    """Yield (key, recording) of an array file; see `ArrayFile` for the arguments and errors.

    Only one recording at a time is turned into float32.
    """
    yield from ArrayFile(path, unit, rate_hz, leads, gain_uv_per_unit, signal)
