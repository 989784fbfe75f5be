"""HDF5 files, and MATLAB 7.3 files, which are HDF5: datasets by name, read row by row.

Layouts met: SPH (`ecg`, leads x time), CODE-15 (`tracings`, recordings x time x leads, with `exam_id`). Links into
other files are not followed, and references to objects are never resolved.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ecgcmr.ecg.readers.limits import MAX_SIGNAL_BYTES

_MAX_OBJECTS = 10_000
_LARGEST_INFLATION = 1032  # of zlib, by its format
_ATTRIBUTES = ("fs", "rate_hz", "sampling_rate", "sample_rate", "unit", "units", "leads", "lead_names", "scale")


class Hdf5Members(Mapping[str, Any]):
    """Datasets of a file by their last name, and the attributes that state a rate, a unit or lead names.

    Raises:
        ValueError: It is no HDF5 file, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        import h5py  # imported here: other formats do not need it

        self._path, self._h5py = path, h5py
        self._datasets: dict[str, Any] = {}
        self._attributes: dict[str, Any] = {}
        try:
            self._file = h5py.File(path, "r")
            self._file.visititems(self._visit)
            self._note_attributes(self._file)
        except Exception as error:  # h5py raises OSError, RuntimeError, KeyError and more on damaged files
            raise ValueError(f"{path} is not a readable HDF5 file ({_first_line(error)})") from error

    def __getitem__(self, name: str) -> Any:
        if name not in self._datasets:
            return self._attributes[name]
        dataset = self._datasets[name]
        try:
            dataset.dtype  # noqa: B018  damaged types fail when they are asked for
        except Exception as error:
            raise ValueError(f"{self._path}: {name!r} is of no known type ({_first_line(error)})") from error
        return dataset if dataset.ndim >= 2 and dataset.dtype.kind in "iuf" else self._small(name, dataset)

    def __contains__(self, name: object) -> bool:
        return name in self._datasets or name in self._attributes

    def __iter__(self) -> Iterator[str]:
        yield from self._datasets
        yield from (name for name in self._attributes if name not in self._datasets)

    def __len__(self) -> int:
        return len(self._datasets.keys() | self._attributes.keys())

    def _visit(self, name: str, found: Any) -> None:
        if len(self._datasets) >= _MAX_OBJECTS:
            raise ValueError(f"more than {_MAX_OBJECTS:,} datasets")
        if not isinstance(found, self._h5py.Dataset) or name.startswith("#"):  # `#refs#`: MATLAB's cells
            return
        self._datasets.setdefault(name.rpartition("/")[2], found)
        self._note_attributes(found)

    def _note_attributes(self, found: Any) -> None:
        for name in _ATTRIBUTES:
            if name in found.attrs:
                value = found.attrs[name]
                self._attributes.setdefault(name, value.decode() if isinstance(value, bytes) else value)

    def _small(self, name: str, dataset: Any) -> Any:
        """The values of a dataset that is no signal: keys, a rate, names."""
        self.check(name, dataset)
        try:
            if self._h5py.check_string_dtype(dataset.dtype) is not None:
                return dataset.asstr(errors="replace")[()]
            if dataset.dtype.kind == "O":
                raise ValueError("it holds references to objects, which are never resolved")
            return dataset[()]
        except Exception as error:
            raise ValueError(f"{self._path}: cannot read {name!r} ({_first_line(error)})") from error

    def check(self, name: str, dataset: Any, rows: int = 1) -> None:
        """Refuse a dataset that would read other files, or more bytes at once than a recording can have.

        Args:
            name: Its name, for messages.
            dataset: The dataset.
            rows: Number of recordings in it, which are read one by one.
        """
        if dataset.is_virtual or dataset.external:
            raise ValueError(f"{self._path}: {name!r} takes its samples from other files, which are never opened")
        chunk = int(np.prod(dataset.chunks, dtype=np.float64)) * dataset.dtype.itemsize if dataset.chunks else 0
        if max(chunk, dataset.nbytes / max(rows, 1)) > MAX_SIGNAL_BYTES:
            raise ValueError(
                f"{self._path}: {name!r} of shape {dataset.shape} would need {max(chunk, dataset.nbytes):,.0f} bytes"
            )

    def row(self, name: str, index: Any) -> np.ndarray:
        """Part of a dataset, read now.

        Raises:
            ValueError: It cannot be decoded.
        """
        dataset = self._datasets[name]
        self.check(name, dataset, dataset.shape[0] if dataset.ndim == 3 else 1)
        try:
            self._check_chunks(dataset, index)
            return np.asarray(dataset[index])
        except Exception as error:
            raise ValueError(f"{self._path}: cannot read {name!r} ({_first_line(error)}); fetch it again") from error

    def _check_chunks(self, dataset: Any, index: Any) -> None:
        """Refuse chunks that the file cannot hold or that expand beyond their size: the library makes room first."""
        if dataset.chunks is None:
            return
        there = self._path.stat().st_size
        nominal = int(np.prod(dataset.chunks)) * dataset.dtype.itemsize
        first = [range(0, size, step) for size, step in zip(dataset.shape, dataset.chunks, strict=True)]
        if isinstance(index, int):
            first[0] = range(index // dataset.chunks[0] * dataset.chunks[0], index + 1, dataset.chunks[0])
        for corner in product(*first):
            info = dataset.id.get_chunk_info_by_coord(corner)
            if info.byte_offset is not None and info.byte_offset + info.size > there:
                raise ValueError(f"a chunk of {info.size:,} bytes lies beyond the end of the file, which has {there:,}")
            if (
                dataset.compression != "gzip" or info.size * _LARGEST_INFLATION <= MAX_SIGNAL_BYTES
            ):  # cannot expand beyond what we allow anyway
                continue
            inflate = zlib.decompressobj()
            inflate.decompress(dataset.id.read_direct_chunk(corner)[1], nominal + 1)
            if inflate.unconsumed_tail:
                raise ValueError(f"a chunk of {nominal:,} bytes expands beyond that: a decompression bomb")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
