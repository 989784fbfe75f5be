"""Recordings, arrays, files, folders, cohorts and lists of them, as items that are read one by one."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.leads import canonical_lead
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.ecg.units import check_amplitude, millivolts_per_unit

if TYPE_CHECKING:
    from ecgcmr.cohort.store import Cohort

    EcgLike = EcgRecording | str | os.PathLike[str] | NDArray[Any] | Cohort

_ARRAY_SUFFIXES = (".npz", ".npy", ".h5", ".hdf5", ".hdf", ".he5", ".mat", ".csv", ".tsv", ".txt")
_TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".json")  # beside recordings these are tables far more often


@dataclass(frozen=True)
class Declared:
    """What a user says of files or arrays that do not say it themselves.

    Attributes:
        rate_hz: Sampling rate [Hz].
        leads: Lead names of the rows.
        unit: mV, uV, V, or z where the voltage is lost.
    """

    rate_hz: float | None = None
    leads: tuple[str, ...] | None = None
    unit: str | None = None

    def given(self) -> dict[str, Any]:
        """Only what was said, by the names of the readers' options."""
        named = {"rate_hz": self.rate_hz, "leads": self.leads, "unit": self.unit}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class EcgItem:
    """One recording that was asked for.

    Attributes:
        name: The file as the user named it, with `#row` in a file of several; the position in a list for others.
        read: Reads it; raises what the reader raises.
        about: Its numbers in a cohort: `recording` and `subject`.
        position: Its place among all that were asked for, from 0.
    """

    name: str
    read: Callable[[], EcgRecording]
    about: Mapping[str, int] = field(default_factory=dict)
    position: int = 0


class EcgInputs:
    """Items to be read, in a fixed order; iterating opens files of many recordings only when their turn comes.

    Attributes:
        total: Number of items; a file of many recordings counts as one until it is opened.
        single: It is one recording, so that its error is the caller's.
        ignored: How many files of folders were passed over, by suffix.
        files: Every file that will be read, in order.
        from_cohort: Some items come from a cohort.
    """

    def __init__(self, ecg: EcgLike | Sequence[EcgLike], declared: Declared | None = None) -> None:
        """Find out what is there.

        Args:
            ecg: A recording, a file, a folder, an array (L, T) or (B, L, T), a cohort, or a list of any of these.
            declared: Passed on to arrays and to the readers that take it.

        Raises:
            FileNotFoundError: A folder or single file is not there.
            ValueError: Nothing to read, or an array that does not say what it holds.
        """
        self._declared = declared or Declared()
        self.ignored: Counter[str] = Counter()
        self.files: list[Path] = []
        self.from_cohort = False
        self._parts: list[Callable[[], Iterator[EcgItem]]] = []
        self.total = 0
        many = isinstance(ecg, Sequence) and not isinstance(ecg, str)
        for position, one in enumerate(ecg if many else [ecg]):  # type: ignore[arg-type]
            self._add(one, str(position), alone=not many)
        self.single = not many and self.total == 1 and not self.from_cohort and not _is_folder(ecg)
        if self.single and self.files:  # a file of several recordings is many; what is wrong with it is said at once
            first = list(_file_items(self.files[0], str(ecg), self._declared, lenient=False))
            self._parts, self.total, self.single = [lambda: iter(first)], len(first), len(first) == 1
        if not self._parts:
            raise ValueError("nothing to embed: the list is empty")

    def __iter__(self) -> Iterator[EcgItem]:
        items = (item for part in self._parts for item in part())
        return (replace(item, position=position) for position, item in enumerate(items))

    def _add(self, one: Any, position: str, alone: bool) -> None:
        if isinstance(one, EcgRecording):
            self._parts.append(lambda: iter([EcgItem(position, lambda: one)]))
            self.total += 1
        elif isinstance(one, np.ndarray):
            recordings = recordings_of_array(one, self._declared)
            names = [position] if len(recordings) == 1 and not alone else [str(i) for i in range(len(recordings))]
            if not alone and len(recordings) > 1:
                names = [f"{position}#{name}" for name in names]
            items = [EcgItem(name, partial(_give, found)) for name, found in zip(names, recordings, strict=True)]
            self._parts.append(lambda: iter(items))
            self.total += len(items)
        elif isinstance(one, str | os.PathLike):
            self._add_path(Path(one), os.fspath(one))
        elif hasattr(one, "recordings") and hasattr(one, "recording"):
            self._add_cohort(one)
        else:
            raise ValueError(
                f"cannot read an ECG from {type(one).__name__}; expected a recording, a path, an array of numpy, a "
                "cohort, or a list of these"
            )

    def _add_path(self, path: Path, name: str) -> None:
        if not path.is_dir():
            self.files.append(path)
            self._parts.append(partial(self._expand, path, name))
            self.total += 1
        elif (path / "cohort.json").is_file():
            from ecgcmr.cohort.store import Cohort

            self._add_cohort(Cohort.open(path))
        else:
            found, ignored = recordings_below(path)
            if not found:
                passed = ", ".join(f"{count} {suffix}" for suffix, count in ignored.items()) or "it is empty"
                raise ValueError(
                    f"{path}: no recordings in this folder ({passed}); text tables (.csv, .tsv, .txt) and .json are "
                    "read when they are named one by one"
                )
            self.ignored.update(ignored)
            for relative in found:
                self._add_path(path / relative, os.fspath(Path(name) / relative))

    def _add_cohort(self, cohort: Cohort) -> None:
        def items() -> Iterator[EcgItem]:
            numbers = cohort.recordings[["recording", "subject"]].itertuples(index=False)
            for row, (recording, subject) in enumerate(numbers):
                about = {"recording": int(recording), "subject": int(subject)}
                yield EcgItem(f"recording {recording}", partial(cohort.recording, row), about)

        self.files.append(cohort.path / "cohort.json")
        self._parts.append(items)
        self.total += len(cohort.recordings)
        self.from_cohort = True

    def _expand(self, path: Path, name: str) -> Iterator[EcgItem]:
        for count, item in enumerate(_file_items(path, name, self._declared, lenient=True)):
            self.total += count > 0
            yield item


def recordings_below(folder: Path) -> tuple[list[str], Counter[str]]:
    """Paths below a folder that are recordings by their suffix, sorted, and what was passed over, by suffix.

    Data files of WFDB are read with their header; text tables and JSON are passed over.
    """
    from ecgcmr.cohort.ingest_walk import UNREAD_ECG, suffix_of, walk_files
    from ecgcmr.ecg.readers import ECG_SUFFIXES

    found: list[str] = []
    ignored: Counter[str] = Counter()
    for relative, _ in walk_files(folder):
        suffix = suffix_of(relative)
        if suffix in (".dat", ".mat") and (folder / relative).with_suffix(".hea").is_file():
            continue
        if suffix in (*ECG_SUFFIXES, *UNREAD_ECG) and suffix not in _TEXT_SUFFIXES:
            found.append(relative)
        else:
            ignored[suffix if suffix.startswith(".") else "without suffix"] += 1
    return found, ignored


def recordings_of_array(array: NDArray[Any], declared: Declared) -> list[EcgRecording]:
    """Recordings of an array (L, T) or (B, L, T) whose rate, leads and unit are declared.

    Raises:
        ValueError: Something is not declared, or does not fit the array or its amplitude.
    """
    rate_hz, leads, unit = declared.rate_hz, declared.leads, declared.unit
    absent = [name for name in ("rate_hz", "leads", "unit") if getattr(declared, name) is None]
    if rate_hz is None or leads is None or unit is None:
        raise ValueError(
            f"an array does not say what it holds: give {', '.join(absent)}, for instance "
            'rate_hz=500, leads=["I", "II", ...], unit="mV"'
        )
    if array.ndim not in (2, 3):
        raise ValueError(f"the array has shape {array.shape}, expected (leads, time) or (recordings, leads, time)")
    names = tuple(canonical_lead(name) for name in leads)
    lost = unit == "z"
    batch = array[None] if array.ndim == 2 else array
    factor = np.float32(1.0 if lost else millivolts_per_unit(unit))
    found = [
        EcgRecording(one.astype(np.float32) * factor, float(rate_hz), names, "z" if lost else "mV") for one in batch
    ]
    for recording in found:
        check_amplitude(recording, unit)
    return found


def _file_items(path: Path, name: str, declared: Declared, lenient: bool) -> Iterator[EcgItem]:
    """Items of a file; with `lenient`, what is wrong with it is told when its item is read."""
    if path.suffix.lower() in _ARRAY_SUFFIXES:
        from ecgcmr.ecg.readers import ArrayFile, detect_format
        from ecgcmr.ecg.readers.array import ARRAY_FORMATS

        try:
            if detect_format(path) in ARRAY_FORMATS:
                file = ArrayFile(path, declared.unit, declared.rate_hz, declared.leads)
                several = len(file) > 1
                for row in range(len(file)):
                    yield EcgItem(f"{name}#{row}" if several else name, partial(file.__getitem__, row))
                return
        except (ValueError, OSError) as error:
            if not lenient:
                raise
            yield EcgItem(name, partial(_raise, error))
            return
    yield EcgItem(name, partial(_open, path, declared, lenient))


def _open(path: Path, declared: Declared, lenient: bool) -> EcgRecording:
    """Read a file; with `lenient`, declarations that its format does not take are for other files."""
    from ecgcmr.ecg.readers import open_ecg, reader_options

    given = declared.given()
    if lenient and given:
        takes = reader_options(path)
        given = {name: value for name, value in given.items() if name in takes}
    return open_ecg(path, **given)


def _is_folder(ecg: Any) -> bool:
    return isinstance(ecg, str | os.PathLike) and Path(ecg).is_dir()


def _give(recording: EcgRecording) -> EcgRecording:
    return recording


def _raise(error: Exception) -> EcgRecording:
    raise error
