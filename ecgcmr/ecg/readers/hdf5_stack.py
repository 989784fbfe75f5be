"""HDF5 files of many recordings: one data set of signals (N, T, L) or (N, L, T), one with their keys."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from ecgcmr.ecg.leads import LEADS, tidy_lead
from ecgcmr.ecg.recording import EcgRecording, Unit
from ecgcmr.ecg.units import canonical_unit, check_amplitude, millivolts_per_unit


class StackLayout(Protocol):
    """What must be declared, because the files do not say it."""

    @property
    def unit(self) -> str | None:
        """Unit of the samples."""

    @property
    def rate_hz(self) -> float | None:
        """Sampling rate [Hz]."""

    @property
    def leads(self) -> tuple[str, ...] | None:
        """Lead names in the order of the file; twelve in canonical order when None."""

    @property
    def signals(self) -> str | None:
        """Data set with the signals."""

    @property
    def trim_zeros(self) -> bool:
        """Whether zeros in all leads at both ends are padding."""


class Hdf5Stack:
    """A file of recordings of which one is read at a time.

    Args:
        path: The file.
        layout: Unit, rate, leads and names of the data sets.

    Raises:
        ValueError: No HDF5 file, no such data set, or unit, rate or leads are missing or do not fit its shape.
    """

    def __init__(self, path: str | Path, layout: StackLayout) -> None:
        self.path, self._layout = Path(path), layout
        if layout.unit is None:
            raise ValueError(f"{path} states no unit; declare ecg.unit: mV, uV, V or z")
        if layout.rate_hz is None:
            raise ValueError(f"{path} states no sampling rate; declare ecg.rate_hz")
        self._leads = tuple(tidy_lead(name) for name in layout.leads or LEADS)
        self._unit = canonical_unit(layout.unit)
        self._signals = _dataset(self.path, layout.signals or "tracings")
        shape = self._signals.shape
        if len(shape) != 3 or len(self._leads) not in shape[1:]:
            raise ValueError(f"{path}: data set has shape {shape}, expected (N, T, L) with {len(self._leads)} leads")
        self._leads_last = shape[2] == len(self._leads)

    def __len__(self) -> int:
        """Number of recordings."""
        return int(self._signals.shape[0])

    def __getitem__(self, row: int) -> EcgRecording:
        """Read one recording.

        Raises:
            ValueError: Nothing but padding, or an amplitude that contradicts the unit.
        """
        try:
            samples = np.asarray(self._signals[row], dtype=np.float32)
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.path} row {row} cannot be read ({error}); fetch the file again") from error
        samples = samples.T if self._leads_last else samples
        notes: tuple[str, ...] = ()
        if self._layout.trim_zeros:
            used = np.flatnonzero(np.any(samples != 0, axis=0))
            if not len(used):
                raise ValueError(f"{self.path} row {row}: nothing but padding, every sample is zero")
            padded = samples.shape[1] - (used[-1] + 1 - used[0])
            samples = samples[:, used[0] : used[-1] + 1]
            notes = (f"{padded} samples of padding cut off",) if padded else ()
        factor = 1.0 if self._unit == "z" else millivolts_per_unit(self._unit)
        assert self._layout.rate_hz is not None
        samples = np.ascontiguousarray(samples * np.float32(factor))
        unit: Unit = "z" if self._unit == "z" else "mV"
        recording = EcgRecording(samples, self._layout.rate_hz, self._leads, unit, "hdf5", notes)
        try:
            check_amplitude(recording)
        except ValueError as error:
            raise ValueError(f"{self.path} row {row}: {error}") from error
        return recording


def stack_keys(path: Path, signals: str, ids: str | None) -> list[str]:
    """Keys of the recordings, or their row numbers; one key when the file cannot be read."""
    try:
        count = int(_dataset(path, signals).shape[0])
        if ids is None:
            return [f"{path.stem}/{row}" for row in range(count)]
        keys = _dataset(path, ids)[:]
        texts = [key.decode() if isinstance(key, bytes) else str(key) for key in keys.tolist()]
        return texts if len(texts) == count else [path.stem]
    except (ValueError, IndexError, UnicodeDecodeError):
        return [path.stem]


def _dataset(path: Path, name: str):  # type: ignore[no-untyped-def]  # h5py has no types
    import h5py  # imported here: only such files need it

    try:
        file = h5py.File(path, "r")
        if name not in file:
            raise ValueError(f"{path}: no data set {name!r}; it has {', '.join(file)}")
        return file[name]
    except OSError as error:
        raise ValueError(f"{path}: not a readable HDF5 file ({error})") from error
