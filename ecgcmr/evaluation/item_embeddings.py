"""Embeddings of a cohort by one weights folder, kept on disk: a killed run goes on, a repeated one reads them."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.evaluation.embeddings import EmbedOptions, Modality, embed
from ecgcmr.hub.weights import Weights

CHUNK = 2048
"""Items that are embedded between two writes; a kill loses no more than these."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class EmbeddedItems:
    """Embeddings by item.

    Attributes:
        rows: Item of the data set of each row, rising (n,).
        values: (n, D) float32.
        reused: Whether they were read from an earlier run.
    """

    rows: NDArray[np.int64]
    values: NDArray[np.float32]
    reused: bool


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Hash of what decides a result, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def embed_items(
    weights: Weights,
    dataset: PairedDataset,
    modality: Modality,
    rows: NDArray[np.int64],
    cache: tuple[Path, str],
    options: EmbedOptions,
    progress: Progress | None = None,
) -> EmbeddedItems:
    """Embed items of a data set, or read what an earlier run with the same fingerprint wrote.

    Args:
        weights: Loaded weights.
        dataset: Items; all of `rows` must have the modality.
        modality: `ecg` or `cmr`.
        rows: Items to embed, rising (n,).
        cache: File (.npz) and fingerprint of weights, cohort and rows.
        options: How to run the encoder.
        progress: Called with (items done, items in all).
    """
    path, key = cache
    found = _read(path, key, rows)
    if found is not None:
        return EmbeddedItems(rows, found, True)
    partial = path.with_name(f".{path.stem}-{key[:16]}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, start in enumerate(range(0, len(rows), CHUNK)):
        file = partial / f"{number:05d}.npy"
        chosen = rows[start : start + CHUNK]
        values = _part(file, len(chosen))
        if values is None:
            values = embed(weights, dataset, modality, chosen, options).values
            _save(file, {"": values})
        parts.append(values)
        if progress is not None:
            progress(min(start + CHUNK, len(rows)), len(rows))
    values = np.concatenate(parts)
    _save(path, {"rows": rows, "values": values, "fingerprint": np.array(key)})
    shutil.rmtree(partial)
    for old in path.parent.glob(f".{path.stem}-*.partial"):  # of settings that nobody came back to
        shutil.rmtree(old, ignore_errors=True)
    return EmbeddedItems(rows, values, False)


def read_embeddings(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Items (n,) and embeddings (n, D) of a file that `embed_items` wrote.

    Raises:
        FileNotFoundError, ValueError: There is none, or it is broken.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no embeddings here; `ecgcmr evaluate` writes them")
    try:
        with np.load(path, allow_pickle=False) as data:
            return data["rows"].astype(np.int64), data["values"].astype(np.float32)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ValueError(f"{path}: not readable as embeddings ({error}); evaluate again") from error


def _read(path: Path, key: str, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as data:
            if str(data["fingerprint"]) != key or not np.array_equal(data["rows"], rows):
                return None
            return np.asarray(data["values"], dtype=np.float32)
    except (OSError, ValueError, KeyError, EOFError):
        return None  # half of a copy, or another file: embed again


def _part(file: Path, n: int) -> NDArray[np.float32] | None:
    try:
        values = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return np.asarray(values, dtype=np.float32) if values.ndim == 2 and len(values) == n else None


def _save(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays (.npz), or the one without a name (.npy), under a temporary name that is renamed when complete."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as stream:
            if "" in arrays:
                np.save(stream, arrays[""])
            else:
                np.savez(stream, **arrays)  # type: ignore[arg-type]
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
