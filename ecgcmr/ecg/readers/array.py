"""Arrays of many recordings: `.npz` and `.npy` files with a declared rate, unit and lead names."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.leads import LEADS, tidy_lead
from ecgcmr.ecg.recording import EcgRecording, Unit
from ecgcmr.ecg.units import canonical_unit, check_amplitude, millivolts_per_unit

_SIGNALS = ("ecg", "signals", "samples", "x", "X")
_RATES = ("fs", "rate_hz", "sampling_rate")
_DAMAGED = (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError)
_KEYS = ("ecg_id", "ids", "key", "record")


class ArrayFile:
    """A file of recordings (N, L, T), opened lazily: the samples stay in their stored type until one is asked for.

    A `.npz` may hold `ecg` (N, L, T), `scale` (a factor for integers), `fs` [Hz], `leads` (L,), `unit` and `ecg_id`
    (N,); arguments replace what it holds. A `.npy` holds the samples only, and is memory-mapped.

    Attributes:
        path: The file.
        rate_hz: Sampling rate [Hz].
        leads: Lead names (L,), canonical spelling.
        unit: `mV` or `z`: the unit of the recordings returned.
        keys: Item keys (N,): `ecg_id` where the file has it, otherwise the row number.
    """

    def __init__(
        self,
        path: str | Path,
        unit: str | None = None,
        rate_hz: float | None = None,
        leads: tuple[str, ...] | None = None,
    ) -> None:
        """Open the file and check what it declares.

        Args:
            path: `.npz` or `.npy`.
            unit: `mV`, `uV`, `V`, or `z` for samples that were standardised; required unless the file states it.
            rate_hz: Sampling rate [Hz]; required unless the file states it.
            leads: Lead names; where neither the argument nor the file has them, twelve rows are taken to be in
                canonical order.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is damaged, or rate, unit or leads are missing or do not fit the shape.
        """
        self.path = Path(path)
        self._members = _open(self.path)
        self._name = _first(self._members, _SIGNALS)
        if self._name is None:
            raise ValueError(f"{self.path} has no array named {' or '.join(_SIGNALS)}; it has {list(self._members)}")
        self._signal: NDArray[Any] | None = None
        shape = self._load().shape
        if len(shape) != 3 or shape[2] < 1:
            raise ValueError(f"{self.path}: expected samples of shape (recordings, leads, time), got {shape}")
        self._scale = float(self._member(("scale",), 1.0))
        stated_rate = self._member(_RATES, None) if rate_hz is None else rate_hz
        if stated_rate is None:
            raise ValueError(f"{self.path} states no sampling rate; declare it with rate_hz")
        self.rate_hz = float(stated_rate)
        stated_unit = self._member(("unit",), None) if unit is None else unit
        self.unit, self._to_mv = self._declared_unit(stated_unit)
        self.leads = self._declared_leads(leads, shape[1])
        keys = self._member(_KEYS, None)
        self.keys = [str(k) for k in (np.arange(shape[0]) if keys is None else np.asarray(keys).tolist())]
        if len(self.keys) != shape[0]:
            raise ValueError(f"{self.path}: {shape[0]} recordings but {len(self.keys)} keys")

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, row: int) -> EcgRecording:
        """Return one recording, float32, in mV or standardised.

        Raises:
            ValueError: The amplitude contradicts the declared unit.
        """
        stored = self._load()[row]
        samples = stored.astype(np.float32) * np.float32(self._scale * self._to_mv)
        recording = EcgRecording(samples, self.rate_hz, self.leads, self.unit, "array")
        try:
            check_amplitude(recording)
        except ValueError as error:
            raise ValueError(f"{self.path}, recording {self.keys[row]}: {error}") from error
        return recording

    def __iter__(self) -> Iterator[tuple[str, EcgRecording]]:
        """Yield (key, recording) in file order."""
        for row, key in enumerate(self.keys):
            yield key, self[row]

    def _load(self) -> NDArray[Any]:
        """Return the stored samples, decompressed once, in their stored type."""
        if self._signal is None:
            try:
                self._signal = self._members[cast(str, self._name)]
            except _DAMAGED as error:
                raise ValueError(f"{self.path}: cannot read {self._name!r} ({error}); fetch it again") from error
        return self._signal

    def _member(self, names: tuple[str, ...], default: Any) -> Any:
        name = _first(self._members, names)
        if name is None:
            return default
        value = np.asarray(self._members[name])
        return value.item() if value.ndim == 0 else value

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

    def _declared_leads(self, leads: tuple[str, ...] | None, n_rows: int) -> tuple[str, ...]:
        stated = self._member(("leads",), None) if leads is None else leads
        if stated is None:
            if n_rows != len(LEADS):
                raise ValueError(f"{self.path} has {n_rows} rows a recording and names no leads; declare them")
            return LEADS
        names = tuple(tidy_lead(str(name)) for name in stated)
        if len(names) != n_rows:
            raise ValueError(f"{self.path} has {n_rows} rows a recording but {len(names)} lead names: {names}")
        return names


def _open(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no array file {path}")
    try:
        loaded = np.load(path, mmap_mode="r" if path.suffix == ".npy" else None, allow_pickle=False)
    except _DAMAGED as error:
        raise ValueError(f"{path} is not a readable .npz or .npy file ({error})") from error
    return {"ecg": loaded} if isinstance(loaded, np.ndarray) else loaded


def _first(members: Any, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in members), None)


def iter_array(
    path: str | Path,
    unit: str | None = None,
    rate_hz: float | None = None,
    leads: tuple[str, ...] | None = None,
) -> Iterator[tuple[str, EcgRecording]]:
    """Yield (key, recording) of an array file; see `ArrayFile` for the arguments and errors.

    Only one recording at a time is turned into float32.
    """
    yield from ArrayFile(path, unit, rate_hz, leads)
