"""MATLAB files up to version 7 (`.mat`): plain numbers and text only; version 7.3 is HDF5 (see `hdf5.py`)."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ecgcmr.ecg.readers.limits import MAX_SIGNAL_BYTES, check_size

_NUMERIC = {"double", "single", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "char"}
_COMPRESSED, _HEADER_BYTES, _STEP = 15, 128, 1 << 20
_MAX_VARIABLES = 1000


class MatMembers(Mapping[str, Any]):
    """Numeric and text variables of a MATLAB file by name, loaded when asked for.

    Cells, structures, sparse matrices, function handles and opaque classes are never built: they can hold anything.

    Attributes:
        refused: (name, class) of the variables that are not read.

    Raises:
        ValueError: It is no MATLAB file, damaged, or would expand beyond `MAX_SIGNAL_BYTES`.
    """

    def __init__(self, path: Path) -> None:
        import scipy.io  # imported here: other formats do not need it

        check_size(path)
        self._path, self._load = path, scipy.io.loadmat
        _check_expansion(path)
        try:
            listed = scipy.io.whosmat(str(path), appendmat=False)
        except Exception as error:  # scipy raises many types on damaged files; each means that it is unreadable
            raise ValueError(f"{path} is not a readable MATLAB file ({type(error).__name__}: {error})") from error
        if len(listed) > _MAX_VARIABLES:
            raise ValueError(f"{path} holds {len(listed)} variables, more than {_MAX_VARIABLES}")
        self.refused = tuple((name, kind) for name, _, kind in listed if kind not in _NUMERIC)
        self._shapes = {name: shape for name, shape, kind in listed if kind in _NUMERIC}
        for name, shape in self._shapes.items():
            if any(size < 0 for size in shape) or math.prod(map(int, shape)) * 8 > MAX_SIGNAL_BYTES:
                raise ValueError(f"{path}: {name!r} announces shape {shape}, more than a recording can have")

    def __getitem__(self, name: str) -> Any:
        if name not in self._shapes:
            raise KeyError(name)
        try:
            value = np.asarray(self._load(str(self._path), appendmat=False, variable_names=[name])[name])
        except Exception as error:
            raise ValueError(f"{self._path}: cannot read {name!r} ({type(error).__name__}: {error})") from error
        if value.dtype.hasobject:
            raise ValueError(f"{self._path}: {name!r} holds objects, which are not read; store plain numbers")
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def _check_expansion(path: Path) -> None:
    """Refuse a version 5 file whose compressed elements expand beyond the limit, before anything keeps them.

    A version 5 file is a header of 128 bytes and elements of (type, length, data); type 15 is zlib data.
    """
    with path.open("rb") as stream:
        header = stream.read(_HEADER_BYTES)
        if not header.startswith(b"MATLAB 5.0"):
            return
        order = ">" if header[126:128] == b"MI" else "<"
        total = 0
        while len(tag := stream.read(8)) == 8:
            kind, size = struct.unpack(f"{order}II", tag)
            if kind != _COMPRESSED:
                stream.seek(size, 1)
                continue
            inflate, left = zlib.decompressobj(), size
            while left > 0 and not inflate.eof:
                data = inflate.unconsumed_tail or stream.read(min(_STEP // 16, left))
                left -= 0 if inflate.unconsumed_tail else len(data)
                if not data:
                    raise ValueError(f"{path} is truncated: an element of {size} bytes is cut off")
                try:
                    total += len(inflate.decompress(data, _STEP))
                except zlib.error as error:
                    raise ValueError(f"{path}: a compressed element is damaged ({error}); fetch it again") from error
                if total > MAX_SIGNAL_BYTES:
                    raise ValueError(f"{path} expands beyond {MAX_SIGNAL_BYTES:,} bytes: a decompression bomb")
            stream.seek(left, 1)
