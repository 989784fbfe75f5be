"""Read the files of a weights folder that may come from anywhere: strictly, with limits, and without torch."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

LARGEST_JSON = 8 * 2**20
"""Largest config, preprocessing or expected file [bytes]; real ones have some kilobytes."""

_LARGEST_HEADER = 100 * 2**20  # what the safetensors library allows
_PICKLED = ((b"PK\x03\x04", "a zip archive as torch.save writes it"), (b"\x80", "a pickle"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; names that come twice, NaN and infinities are refused.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is too large, not UTF-8 or JSON, or not an object.
    """
    size = path.stat().st_size
    if size > LARGEST_JSON:
        raise ValueError(f"{path}: {size / 2**20:.0f} MiB, expected at most {LARGEST_JSON // 2**20}: not such a file")
    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected an object, found {type(value).__name__}")
    return value


def check_place(folder: Path, names: Sequence[str]) -> None:
    """Refuse files that are links to somewhere else: a folder from a stranger must not read or publish other files.

    The cache of the Hugging Face hub is made of links into its own `blobs`; these are followed.

    Raises:
        ValueError: Naming the link and where it leads.
    """
    real = folder.resolve()
    inside = [real]
    if real.parent.name == "snapshots":
        inside.append(real.parent.parent / "blobs")
    for name in names:
        path = folder / name
        if path.is_symlink() and not any(path.resolve().is_relative_to(place) for place in inside):
            raise ValueError(
                f"{path}: a link that leads out of the folder (to {os.path.realpath(path)}); put the file there itself"
            )


def check_magic(path: Path, head: bytes) -> None:
    """Refuse what torch.save wrote under the name of safetensors, before anybody tries to read it.

    Args:
        path: Of the file, for the message.
        head: Its first nine bytes.

    Raises:
        ValueError: Saying what it is.
    """
    for magic, what in _PICKLED:
        # Safetensors are a length of eight bytes, which may be any, and then an object in JSON.
        if head.startswith(magic) and head[8:9] != b"{":
            raise ValueError(
                f"{path}: this is {what}, not safetensors; pickled files can run code and are never opened here. "
                "Third-party checkpoints are read by: ecgcmr weights convert"
            )


def tensor_header(path: Path) -> dict[str, dict[str, Any]]:
    """Read names, types and shapes of the tensors in a safetensors file; the numbers themselves are not read.

    Returns:
        By tensor name: {"dtype": ..., "shape": [...], "data_offsets": [...]}.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(9)
        check_magic(path, head)
        file.seek(8)
        length = struct.unpack("<Q", head[:8])[0] if len(head) == 9 else 0
        if not 2 <= length <= min(size - 8, _LARGEST_HEADER):
            raise ValueError(f"{path}: cannot be read, probably cut off while copying; copy it again")
        text = file.read(length)
    try:
        header: dict[str, Any] = json.loads(text, object_pairs_hook=_unique)
        header.pop("__metadata__", None)
        if not all({"dtype", "shape", "data_offsets"} <= set(entry) for entry in header.values()):
            raise ValueError("an entry lacks its type, shape or place")
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: not a safetensors file ({error})") from None
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the name {key!r} stands twice in one object")
        found[key] = value
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")
