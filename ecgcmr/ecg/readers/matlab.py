"""MATLAB files of versions 4 and 5 to 7 (`.mat`): arrays of numbers and text only; version 7.3 is HDF5 (`hdf5.py`).

Parsed here because scipy's parser, which runs compiled code over lengths that it takes on trust, ends the process with
a segmentation fault on some damaged files. Format: MathWorks, MAT-File Format (2024). Cells, structures, objects,
function handles and sparse matrices are named and never built.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ecgcmr.ecg.readers.limits import MAX_SIGNAL_BYTES, bounded_bytes

_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXT_TYPES = {16: "utf-8", 17: "utf-16", 18: "utf-32", 2: "latin-1", 1: "latin-1", 4: "utf-16"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_NOT_READ = {1: "cell", 2: "struct", 3: "object", 5: "sparse", 16: "function", 17: "opaque"}
_TYPES_4 = ("f8", "f4", "i4", "i2", "u2", "u1")
_MATRIX, _COMPRESSED, _CHAR, _COMPLEX = 14, 15, 4, 0x0800
_MAX_VARIABLES = 1000


class MatMembers(Mapping[str, Any]):
    """Numeric and text variables of a MATLAB file by name.

    Attributes:
        refused: (name, class) of the variables that are not read.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no MATLAB file, damaged or cut off, or would expand beyond `MAX_SIGNAL_BYTES`.
    """

    def __init__(self, path: Path) -> None:
        data = bounded_bytes(path)
        self.refused: list[tuple[str, str]] = []
        self._arrays: dict[str, Any] = {}
        try:
            if data[:10] == b"MATLAB 5.0":
                self._read_5(data)
            else:
                self._read_4(data)
        except (ValueError, struct.error, zlib.error, UnicodeError, OverflowError) as error:
            raise ValueError(f"{path} is a damaged MATLAB file ({error}); fetch it again") from error

    def __getitem__(self, name: str) -> Any:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def _read_5(self, data: bytes) -> None:
        order = ">" if data[126:128] == b"MI" else "<"
        at, expanded = 128, 0
        while at + 8 <= len(data):
            kind, start, stop, at = _tag(data, at, order)
            if kind == _COMPRESSED:
                inflate = zlib.decompressobj()
                inner = inflate.decompress(data[start:stop], MAX_SIGNAL_BYTES - expanded)
                if not inflate.eof:
                    cut = "cut off" if not inflate.unconsumed_tail else f"beyond {MAX_SIGNAL_BYTES:,} bytes: a bomb"
                    raise ValueError(f"compressed data are {cut}")
                expanded += len(inner)
                at = stop  # compressed elements are not padded
                kind, start, stop, _ = _tag(inner, 0, order)
                self._add(inner[start:stop], kind, order)
            else:
                self._add(data[start:stop], kind, order)

    def _add(self, matrix: bytes, kind: int, order: str) -> None:
        """Keep one matrix: its flags, sizes, name and real part, in that order."""
        if kind != _MATRIX:
            return
        if len(self._arrays) + len(self.refused) >= _MAX_VARIABLES:
            raise ValueError(f"more than {_MAX_VARIABLES} variables")
        _, start, stop, at = _tag(matrix, 0, order)
        flags = struct.unpack_from(f"{order}I", matrix[start:stop])[0]
        mx_class = flags & 0xFF
        _, start, stop, at = _tag(matrix, at, order)
        shape = struct.unpack(f"{order}{(stop - start) // 4}i", matrix[start : start + (stop - start) // 4 * 4])
        if mx_class == 17:  # an opaque class has its name here, and no size
            self.refused.append(("?", _NOT_READ[17]))
            return
        _, start, stop, at = _tag(matrix, at, order)
        name = matrix[start:stop].decode("latin-1")
        if mx_class in _NOT_READ or flags & _COMPLEX:
            self.refused.append((name, _NOT_READ.get(mx_class, "complex")))
            return
        if len(shape) < 2 or min(shape) < 0:
            raise ValueError(f"variable {name!r} has the shape {shape}")
        if math.prod(shape) == 0:
            return
        stored, start, stop, _ = _tag(matrix, at, order)
        part = matrix[start:stop]
        if mx_class == _CHAR:
            self._arrays[name] = _text(part, stored, shape, order)
            return
        if mx_class not in _CLASSES or stored not in _TYPES:
            raise ValueError(f"variable {name!r} is of class {mx_class} stored as {stored}, which do not exist")
        self._arrays[name] = _shaped(part, order + _TYPES[stored], shape, name).astype(_CLASSES[mx_class], copy=False)

    def _read_4(self, data: bytes) -> None:
        at = 0
        order = "<" if struct.unpack_from("<i", data)[0] in range(5000) else ">"
        while at + 20 <= len(data):
            if len(self._arrays) >= _MAX_VARIABLES:
                raise ValueError(f"more than {_MAX_VARIABLES} variables")
            kind, rows, columns, imaginary, length = struct.unpack_from(f"{order}5i", data, at)
            number, what = kind // 10 % 10, kind % 10
            if not (0 <= kind < 5000 and number < len(_TYPES_4) and rows >= 0 and columns >= 0 and 0 < length <= 256):
                raise ValueError(f"at byte {at} no variable begins")
            name = data[at + 20 : at + 20 + length].split(b"\0")[0].decode("latin-1")
            dtype = np.dtype(order + _TYPES_4[number])
            start = at + 20 + length
            at = start + rows * columns * dtype.itemsize * (2 if imaginary else 1)
            if at > len(data):
                raise ValueError(
                    f"truncated: variable {name!r} of {rows} x {columns} needs {at} bytes, it has {len(data)}"
                )
            if what or imaginary:
                self.refused.append((name, "text, sparse or complex"))
            elif rows * columns:
                self._arrays[name] = _shaped(data[start:at], dtype.str, (rows, columns), name)


def _tag(data: bytes, at: int, order: str) -> tuple[int, int, int, int]:
    """Type of the element at an offset, first and last byte of its data, and where the next one begins.

    Elements of up to four bytes may hold their length in the upper half of the first word and their data in the second.
    """
    if at + 8 > len(data):
        raise ValueError(f"truncated: no element at byte {at} of {len(data)}")
    kind, size = struct.unpack_from(f"{order}II", data, at)
    if kind >> 16:
        size, kind = kind >> 16, kind & 0xFFFF
        if size > 4:
            raise ValueError(f"a small element at byte {at} claims {size} bytes")
        return kind, at + 4, at + 4 + size, at + 8
    start = at + 8
    if start + size > len(data):
        raise ValueError(f"truncated: the element at byte {at} claims {size} bytes, {len(data) - start} are there")
    return kind, start, start + size, start + size + (-size % 8)


def _shaped(part: bytes, dtype: str, shape: tuple[int, ...], name: str) -> np.ndarray:
    wanted = math.prod(shape) * np.dtype(dtype).itemsize
    if wanted != len(part):
        raise ValueError(f"truncated: variable {name!r} of shape {shape} needs {wanted} bytes, it has {len(part)}")
    return np.frombuffer(part, dtype).reshape(shape, order="F")


def _text(part: bytes, stored: int, shape: tuple[int, ...], order: str) -> np.ndarray:
    """Lines of a character matrix (rows,)."""
    if stored not in _TEXT_TYPES:
        raise ValueError(f"text is stored as type {stored}, which does not exist")
    encoding = _TEXT_TYPES[stored]
    if encoding in ("utf-16", "utf-32"):
        encoding += "-le" if order == "<" else "-be"
    letters, rows = part.decode(encoding), shape[0]
    if rows > len(letters):
        raise ValueError(f"truncated: text of shape {shape} has {len(letters)} letters")
    return np.array([letters[row::rows].strip() for row in range(rows)])
