"""Folders and files that are whole or absent: written beside, synchronized to the disk, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file is larger than this process may write (ulimit -f)",
}


def write_folder(folder: Path, parts: Mapping[str, bytes], if_full: str, keep: Path | None = None) -> None:
    """Write a folder so that `folder` is always the old one or the new one, whole.

    The parts are written to a hidden sibling and synchronized, then the folders are renamed. A process that is
    killed on the way leaves at most a hidden sibling, which `recover` removes.

    Args:
        folder: Where it shall be; its parent is made; what was there is replaced.
        parts: Contents by file name.
        if_full: What the user can do when the disk is full.
        keep: Where the folder that is replaced goes, a sibling; what was there is removed. None removes the old folder.

    Raises:
        OSError: If it cannot be written; what was there before is untouched.
    """
    partial, old = _siblings(folder)
    recover(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        for name, data in parts.items():
            write_synced(partial / name, data)
        _sync_folder(partial)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        full = _FULL.get(error.errno or 0)
        if full is None:
            raise
        kept = "the one that was there is intact" if folder.exists() else "there was none before"
        size = sum(len(data) for data in parts.values()) / 2**20
        message = f"{full}: {size:.1f} MiB for this folder were not written ({kept}); {if_full}"
        raise OSError(error.errno, message, str(folder)) from error
    except BaseException:  # Ctrl-C
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    if keep is not None and old.exists():
        shutil.rmtree(keep, ignore_errors=True)
        old.rename(keep)
    _sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def check_replaceable(folder: Path, names: Sequence[str]) -> None:
    """Refuse a target that is not a folder of these files: `write_folder` would put the new one in its place.

    Raises:
        ValueError: Naming what is there.
    """
    if folder.is_file():
        raise ValueError(f"{folder} is a file; give the name of a new folder")
    others = sorted({path.name for path in folder.iterdir()} - set(names)) if folder.is_dir() else []
    if others:
        raise ValueError(
            f"{folder} holds {', '.join(others[:3])}{' and more' if len(others) > 3 else ''}, which would be lost; "
            "move it away, or give the name of a new folder"
        )


def recover(folder: Path) -> None:
    """Finish or undo what a killed process left: the old folder comes back if the new one was not in place."""
    partial, old = _siblings(folder)
    if old.exists() and not folder.exists():
        old.rename(folder)
    for leftover in (partial, old):
        if leftover.exists():
            shutil.rmtree(leftover)


def restore(folder: Path) -> None:
    """Bring the old folder back if a killed process had moved it away; a reader may call this while another writes."""
    old = _siblings(folder)[1]
    if old.exists() and not folder.exists():
        old.rename(folder)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a text file so that `path` is always the old one or the new one, whole.

    Raises:
        OSError: If it cannot be written; what was there before is untouched.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        write_synced(partial, text.encode())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, f"{path} was not written: {error.strerror}") from error


def independent_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors on the CPU, contiguous, each with a storage of its own, as safetensors demands.

    Tied weights and views are copied; what is already independent is not.
    """
    own: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, value in state.items():
        tensor = value.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.numel() * tensor.element_size():
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        own[key] = tensor
    return own


def _siblings(folder: Path) -> tuple[Path, Path]:
    return folder.with_name(f".{folder.name}.partial"), folder.with_name(f".{folder.name}.old")


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
