"""NumPy files: members of a `.npz`, or the one array of a `.npy`; never a pickle, never more than was announced."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

LARGEST_RATIO = 100
"""Signals compress two- to fivefold, and long silences more; what expands further and is large is a bomb."""

_SMALL_BYTES = 256 << 20
_MAX_HEADER_BYTES = 1 << 16


def open_npy(path: Path) -> dict[str, NDArray[Any]]:
    """Return {"ecg": memory-mapped array} of a `.npy` file.

    Raises:
        ValueError: It is damaged, shorter than its header says, or holds Python objects.
    """
    try:
        with path.open("rb") as stream:
            shape, dtype = _header(stream)
            there = path.stat().st_size - stream.tell()
        if math.prod(shape) * dtype.itemsize > there:
            raise ValueError(f"truncated: shape {shape} of {dtype} does not fit into {there} bytes")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy and zipfile raise many types on damaged files
        raise ValueError(f"{path} is not a readable .npy file ({error})") from error
    return {"ecg": array}


class NpzMembers(Mapping[str, NDArray[Any]]):
    """Members of a `.npz` file by name, decompressed when asked for.

    Raises:
        ValueError: It is no zip archive, or a member is damaged, holds Python objects, or would expand too far.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                infos = archive.infolist()
        except Exception as error:  # numpy and zipfile raise many types on damaged files
            raise ValueError(f"{path} is not a readable .npz file ({error})") from error
        self._infos = {info.filename.removesuffix(".npy"): info for info in infos if info.filename.endswith(".npy")}
        if not self._infos:
            raise ValueError(f"{path} is a zip archive without arrays: not a readable .npz file")

    def __getitem__(self, name: str) -> NDArray[Any]:
        info = self._infos[name]
        try:
            with zipfile.ZipFile(self._path) as archive, archive.open(info) as stream:
                self._check(info, stream)
            with zipfile.ZipFile(self._path) as archive, archive.open(info) as stream:
                array = np.lib.format.read_array(stream, allow_pickle=False)
        except Exception as error:  # numpy and zipfile raise many types on damaged files
            raise ValueError(f"{self._path}: cannot read {name!r} ({error}); fetch it again") from error
        return np.asarray(array)

    def __contains__(self, name: object) -> bool:
        return name in self._infos  # without decompressing it, as a Mapping would

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)

    def _check(self, info: zipfile.ZipInfo, stream: IO[bytes]) -> None:
        """Refuse a member before it is decompressed: a bomb, a pickle, or a shape that its bytes cannot hold."""
        if info.file_size > _SMALL_BYTES and info.file_size > LARGEST_RATIO * max(info.compress_size, 1):
            raise ValueError(f"it expands {info.file_size // max(info.compress_size, 1)}-fold: a decompression bomb")
        shape, dtype = _header(stream)
        if math.prod(shape) * dtype.itemsize > info.file_size:
            raise ValueError(f"truncated: shape {shape} of {dtype} does not fit into {info.file_size} bytes")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type that the header of an array announces; a pickle is refused here."""
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):  # numpy makes room for the length that the header claims before it reads it
        length = int.from_bytes(stream.read(4), "little")
        if length > _MAX_HEADER_BYTES:
            raise ValueError(f"its header claims {length} bytes")
        stream.seek(-4, 1)
    read: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects (a pickle), which are never loaded; store plain numbers")
    if any(size < 0 for size in shape):
        raise ValueError(f"shape {shape} has a negative length")
    return shape, dtype
