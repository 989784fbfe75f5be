"""From a file of unknown origin to tensors: nothing is unpickled beyond tensors and plain values.

Two walls: the names that a pickle asks for are listed without running it and must all be known ones, and then
`torch.load(weights_only=True)` reads it. Archives are mapped, not unpacked, and what a tensor declares is compared
with what the file holds.
"""

from __future__ import annotations

import argparse
import json
import pickle
import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

MAX_PICKLE = 64 * 2**20
"""A pickle that describes tensors takes some hundred bytes for each; a larger one holds something else [bytes]."""

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch's magic number, as protocol 2 writes it
_NAMESPACE = "argparse.Namespace"
_SCALAR = np.float64(0).__reduce__()[0]
_NUMBERS: dict[str, Any] = {  # numpy scalars, which training programs keep as metrics; named as numpy 1 and 2 do
    "numpy._core.multiarray.scalar": _SCALAR,
    "numpy.core.multiarray.scalar": _SCALAR,
    "numpy.dtype": np.dtype,
}
_NUMBER_TYPES = [type(np.dtype(kind)) for kind in ("?", "i4", "i8", "f4", "f8")]
_DTYPES = {str(value) for value in vars(torch).values() if isinstance(value, torch.dtype)}
_ALLOWED = _DTYPES | {
    "_codecs.encode", "builtins.set", "__builtin__.set", "collections.OrderedDict", "torch.Size", "torch.Tensor",
    "torch.device", "torch.nn.parameter.Parameter", "torch.storage.TypedStorage", "torch.storage.UntypedStorage",
    "torch._tensor._rebuild_from_type_v2", "torch._utils._rebuild_parameter", "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2", _NAMESPACE, *_NUMBERS,
}  # fmt: skip
_NO_CHECKPOINT = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself; fetch it with `git lfs pull`"),
    (b"<", "a web page, not the file; download it by its direct address"),
    (b"\x89HDF", "an HDF5 file; only PyTorch checkpoints and safetensors are read"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a PyTorch checkpoint (zip or legacy) or a safetensors file, by content and not by name.

    Args:
        path: The file.

    Returns:
        The top level, on the CPU, mapped from the disk where the format allows it. An `argparse.Namespace` in it
        becomes a plain dictionary.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it is no file, empty, cut off, damaged, of another kind, or asks for anything beyond tensors
            and plain values (named); if it declares more than it holds; or its top level is no mapping by names.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise ValueError(
            f"{path}: {'a folder' if path.is_dir() else 'not a regular file'}, expected one checkpoint file"
        )
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise ValueError(f"{path}: the file is empty; copy it again")
    if head.startswith(_ZIP):
        top = _read_zip(path)
    elif head.startswith(_LEGACY):
        top = _read_legacy(path)
    elif head[4:9] == b"\0\0\0\0{":
        top = _read_safetensors(path)
    elif head.startswith(_PICKLE):
        raise ValueError(
            f"{path}: a Python pickle and no PyTorch checkpoint; pickles can run code and are never opened"
        )
    else:
        what = next((text for start, text in _NO_CHECKPOINT if head.lstrip().startswith(start)), None)
        raise ValueError(f"{path}: {what or 'neither a PyTorch checkpoint nor safetensors'}")
    return _named(top, path)


def _read_zip(path: Path) -> Any:
    sizes = _check_zip(path)
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in sizes if name.endswith("/data.pkl"))
        with archive.open(name) as file:
            asked = _globals(file, path)
    top = _load(path, asked, mmap=True)
    records = {size for name, size in sizes.items() if "/data/" in name}
    for where, tensor in _tensors(top):
        _check_extent(tensor, where, path)
        if tensor.untyped_storage().nbytes() not in records | {0}:
            raise ValueError(
                f"{path}: {where} declares {tensor.untyped_storage().nbytes()} bytes, and no record of the file has "
                "that size; the file is damaged or was changed by hand"
            )
    return top


def _check_zip(path: Path) -> dict[str, int]:
    """Give the members' sizes [bytes]; refuse what torch never writes, before anything is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            members, total = archive.infolist(), path.stat().st_size
            if any(member.filename.endswith("/constants.pkl") for member in members):
                raise ValueError(f"{path}: a TorchScript program, not a checkpoint; save its state_dict instead")
            packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
            if packed or sum(member.file_size for member in members) > total:
                what = f"its member {packed[0]} is compressed" if packed else "its members overlap"
                raise ValueError(
                    f"{path}: a zip file that PyTorch did not write: {what}, so that it could unpack to more than the "
                    f"{total} bytes it has; it is not opened"
                )
            sizes = {member.filename: member.file_size for member in members}
            pickles = [name for name in sizes if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise ValueError(f"{path}: a zip file with {len(pickles)} data.pkl inside, expected one checkpoint")
            if sizes[pickles[0]] > MAX_PICKLE:
                raise ValueError(f"{path}: {pickles[0]} has {sizes[pickles[0]]} bytes, more than tensors need")
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path}: the zip file is cut off or damaged ({error}); copy it again") from None
    if damaged:
        raise ValueError(f"{path}: the member {damaged} fails its checksum, the file is damaged; copy it again")
    return sizes


def _read_legacy(path: Path) -> Any:
    with path.open("rb") as file:
        asked = {name for _ in range(4) for name in _globals(file, path)}  # magic, protocol, system, object
    top, total = _load(path, asked, mmap=False), path.stat().st_size
    for where, tensor in _tensors(top):
        _check_extent(tensor, where, path)
        if tensor.untyped_storage().nbytes() > total:
            raise ValueError(f"{path}: {where} declares more bytes than the whole file has")
    return top


def _load(path: Path, asked: set[str], mmap: bool) -> Any:
    allowed: list[Any] = [argparse.Namespace] if _NAMESPACE in asked else []
    if asked & set(_NUMBERS):
        allowed += [(function, name) for name, function in _NUMBERS.items()] + _NUMBER_TYPES
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (pickle.UnpicklingError, RuntimeError, EOFError, MemoryError) as error:
        why = str(error).strip().splitlines()[-1][:300] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path}: PyTorch cannot read it as tensors, cut off or damaged ({why})") from None
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, AssertionError, OSError) as error:
        raise ValueError(f"{path}: damaged or written by hand ({type(error).__name__}: {error})") from None


def _globals(file: IO[bytes], path: Path) -> set[str]:
    """List what one pickle asks for, without running it, and refuse all but tensors and plain values."""
    names: set[str] = set()
    opaque = set()
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "GLOBAL":
                names.add(str(argument).replace(" ", "."))
            elif opcode.name in ("INST", "OBJ", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
                opaque.add(opcode.name)
    except (ValueError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: its pickle is cut off or damaged ({error}); copy it again") from None
    refused = sorted(name for name in names if name not in _ALLOWED and not _is_storage(name)) + sorted(opaque)
    if refused:
        raise ValueError(
            f"{path}: it asks for {', '.join(refused)}; only tensors and plain values are opened, because anything "
            "else can run code. If you trust its maker, load it where that may happen and save its state_dict alone"
        )
    return names


def _is_storage(name: str) -> bool:
    module, _, kind = name.rpartition(".")
    return module in ("torch", "torch.cuda") and kind.endswith("Storage") and kind.isidentifier()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        total = path.stat().st_size
        if length + 8 > total:
            raise ValueError(f"{path}: its header should have {length} bytes, the file has {total}; copy it again")
        try:
            header = json.loads(file.read(length))
        except ValueError:
            raise ValueError(f"{path}: neither a PyTorch checkpoint nor safetensors (its header is no JSON)") from None
    assert isinstance(header, dict)
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: safetensors cut off or damaged ({error}); copy it again") from None
    return tensors


def _check_extent(tensor: Tensor, where: str, path: Path) -> None:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise ValueError(f"{path}: {where} is no plain tensor (layout {tensor.layout}, device {tensor.device})")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(
            f"{path}: {where} {tuple(tensor.shape)} repeats few values to look large; expected all of them"
        )


def _tensors(value: Any, where: str = "") -> Iterator[tuple[str, Tensor]]:
    """Give all tensors with their place, without recursion: a hostile file may nest deeply or contain itself."""
    queue, seen = [(where, value)], set()
    while queue:
        where, value = queue.pop()
        if isinstance(value, Tensor):
            yield where, value
        elif id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, Mapping):
                queue += [(f"{where}.{key}" if where else str(key), one) for key, one in value.items()]
            elif isinstance(value, list | tuple):
                queue += [(f"{where}[{i}]", one) for i, one in enumerate(value)]


def _named(top: Any, path: Path) -> dict[str, Any]:
    if not isinstance(top, Mapping):
        raise ValueError(f"{path}: its top level is a {type(top).__name__}, expected a mapping of names to tensors")
    strange = [key for key in top if not isinstance(key, str)]
    if strange:
        raise ValueError(f"{path}: its top level has the key {strange[0]!r}, expected names")
    return {key: vars(value) if isinstance(value, argparse.Namespace) else value for key, value in top.items()}
