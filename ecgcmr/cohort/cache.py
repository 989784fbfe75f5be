"""Prepared arrays beside a cohort: built once by a pipeline, keyed by its fingerprint, mapped by every process."""

from __future__ import annotations

import json
import logging
import mmap
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from ecgcmr.cohort.locks import FolderLock
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.tables import sha256

logger = logging.getLogger(__name__)

_DATA, _META = "data.npy", "meta.json"
KEEP_MAPPED = 256 * 2**20
"""How much of a mapped file a process holds at most [bytes]."""
_AROUND = 2 * 2**16
Progress = Callable[[int, int], None]
# builder(rows, allocate): calls allocate(item_shape) once, fills the array it got; returns row -> reason of refusal
Allocate = Callable[[tuple[int, ...]], NDArray[Any]]
Builder = Callable[[Allocate], dict[int, str]]


@dataclass(frozen=True)
class PreparedArray:
    """Model-ready arrays of all recordings or studies of a cohort.

    Attributes:
        data: (n, ...) one entry for each row of the table; zeros where refused.
        refused: Row -> why the pipeline would not take it.
        folder: Where it lies, or None when it is in memory only.
    """

    data: NDArray[Any]
    refused: dict[int, str]
    folder: Path | None
    _mapped: list[int] = field(default_factory=lambda: [0], repr=False, compare=False)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Copy rows (B,) out of the array, (B, ...).

        What is read of a mapped file counts as memory of the process until the system needs it. Every `KEEP_MAPPED`
        bytes the process lets go of it, so that it stays small whatever the size of the file; the file's pages stay in
        the cache of the system, where all processes share them.
        """
        found: NDArray[Any] = self.data[rows]
        mapping = getattr(self.data, "_mmap", None)
        if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            # A row that is looked up brings neighboring pages with it.
            self._mapped[0] += len(rows) * (self.data[:1].nbytes + _AROUND)
            if self._mapped[0] > KEEP_MAPPED:
                mapping.madvise(mmap.MADV_DONTNEED)
                self._mapped[0] = 0
        return found


def prepared(
    cohort: Cohort, key: str, about: dict[str, Any], builder: Builder, spec: tuple[int, str], cache_dir: Path | None
) -> PreparedArray:
    """Open a prepared array, building it first when nobody has.

    One process builds while the others wait for its lock; the folder appears by a rename, so it is whole or absent.
    A cohort that cannot be written to is cached under `cache_dir`, or in memory, which is logged.

    Args:
        cohort: The cohort.
        key: Name of the cache folder: kind and fingerprint of the pipeline.
        about: What meta.json records: the pipeline and its arguments.
        builder: Fills the array.
        spec: (number of rows, dtype).
        cache_dir: Where to cache instead of <cohort>/cache.
    """
    root = _cache_root(cohort, cache_dir)
    if root is None:
        logger.warning("%s cannot be written to and no cache_dir was given: %s is prepared in memory", cohort.path, key)
        return _build_in_memory(builder, spec)
    folder = root / key
    found = _open(folder, spec)
    if found is not None:
        return found
    lock = FolderLock(root / f"{key}.lock")
    lock.acquire()
    try:
        found = _open(folder, spec)
        if found is None:
            logger.info("preparing %d rows into %s", spec[0], folder)
            _build(folder, about, builder, spec)
            found = _open(folder, spec)
            assert found is not None, folder
        return found
    finally:
        lock.release()


def _cache_root(cohort: Cohort, cache_dir: Path | None) -> Path | None:
    if cache_dir is not None:  # one folder may serve several cohorts, so the content of cohort.json is part of the path
        root = Path(cache_dir) / sha256(cohort.path / "cohort.json")[:16]
    else:
        root = cohort.path / "cache"
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return root if os.access(root, os.W_OK) else None


def _open(folder: Path, spec: tuple[int, str]) -> PreparedArray | None:
    if not (folder / _META).is_file():
        return None
    meta = json.loads((folder / _META).read_text())
    data = np.load(folder / _DATA, mmap_mode="r")
    if len(data) != spec[0] or data.dtype != np.dtype(spec[1]):
        raise ValueError(
            f"{folder}: holds {len(data)} rows of {data.dtype}, expected {spec[0]} of {spec[1]}; delete this folder"
        )
    return PreparedArray(data, {int(row): reason for row, reason in meta["refused"].items()}, folder)


def _build(folder: Path, about: dict[str, Any], builder: Builder, spec: tuple[int, str]) -> None:
    working = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir(parents=True)
    try:
        refused = builder(lambda shape: open_memmap(working / _DATA, "w+", dtype=spec[1], shape=(spec[0], *shape)))
        meta = {**about, "refused": {str(row): reason for row, reason in sorted(refused.items())}}
        (working / _META).write_text(json.dumps(meta, indent=2, sort_keys=True))
        working.rename(folder)
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _build_in_memory(builder: Builder, spec: tuple[int, str]) -> PreparedArray:
    made: list[NDArray[Any]] = []

    def allocate(shape: tuple[int, ...]) -> NDArray[Any]:
        made.append(np.zeros((spec[0], *shape), dtype=spec[1]))
        return made[0]

    refused = builder(allocate)
    return PreparedArray(made[0], refused, None)


def first_reasons(refused: dict[int, str], limit: int = 3) -> str:
    """A short text with the first few reasons of refusal."""
    shown = [f"row {row}: {reason}" for row, reason in sorted(refused.items())[:limit]]
    return "; ".join(shown) + (f"; and {len(refused) - limit} more" if len(refused) > limit else "")


def split_rows(rows: Sequence[int] | NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Rows in blocks of at most `size`."""
    array = np.asarray(rows, dtype=np.int64)
    return [array[start : start + size] for start in range(0, len(array), size)]


def gather(
    array: PreparedArray | None, rows: NDArray[np.int64], shape: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of a prepared array as a tensor, zeros where the row is -1, and which rows are real."""
    has = rows >= 0
    if array is None:
        return torch.zeros((len(rows), *shape)), torch.zeros(len(rows), dtype=torch.bool)
    values = array.take(np.maximum(rows, 0)) if len(array.data) else np.zeros((len(rows), *shape), array.data.dtype)
    if not has.all():
        values[~has] = 0
    return torch.from_numpy(np.ascontiguousarray(values)), torch.from_numpy(has)
