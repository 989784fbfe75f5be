"""Checkpoints that are whole or absent, and verified by hash when read."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from ecgcmr.hub.folder import independent_tensors, recover, write_folder

FORMAT_VERSION = 2
"""Version 1 had no hash of meta.json itself; it is still read."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder holds.

    Attributes:
        model: State of the objective, unwrapped.
        train: State of optimizer, meters and early stopping; empty where only weights were kept.
        meta: Epoch, step, seed, world size, best value, versions, hashes.
    """

    model: dict[str, Tensor]
    train: dict[str, Any]
    meta: dict[str, Any]


def save_checkpoint(
    folder: Path,
    model: Mapping[str, Tensor],
    train: Mapping[str, Any],
    meta: Mapping[str, Any],
    keep: Path | None = None,
) -> None:
    """Write `model.safetensors`, `train_state.pt` and `meta.json`; `folder` is always the old or the new one, whole.

    Args:
        folder: Where the checkpoint shall be; its parent is made.
        model: State of the objective.
        train: State of the optimizer and so on: tensors, numbers, text, lists, dicts; empty writes no file.
        meta: Plain values for `meta.json`; version and hashes are added.
        keep: Where the checkpoint that is replaced goes; None removes it.

    Raises:
        OSError: If it cannot be written; with a full disk the message says that the old one is intact.
    """
    parts = {"model.safetensors": save_safetensors(independent_tensors(model))}
    if train:
        buffer = io.BytesIO()
        torch.save(dict(train), buffer)
        parts["train_state.pt"] = buffer.getvalue()
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()}
    about = {"format_version": FORMAT_VERSION, **meta, "sha256": hashes}
    parts["meta.json"] = json.dumps({**about, "meta_sha256": _meta_digest(about)}, indent=1).encode()
    write_folder(folder, parts, if_full="free space and continue with --resume", keep=keep)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint and verify it.

    Raises:
        FileNotFoundError: If there is none, or a part is missing; the message names it.
        ValueError: If a part is not what was written; the message names it.
    """
    recover(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no checkpoint there")
    meta = _read_meta(folder)
    parts = {name: _verified(folder / name, digest) for name, digest in meta["sha256"].items()}
    try:
        model = load_safetensors(parts["model.safetensors"])
    except (KeyError, SafetensorError) as error:
        raise ValueError(f"{folder / 'model.safetensors'}: cannot be read: {error}") from None
    train = {}
    if "train_state.pt" in parts:
        train = torch.load(io.BytesIO(parts["train_state.pt"]), map_location="cpu", weights_only=True)
    return Checkpoint(model, train, meta)


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / "meta.json"
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        hashes = meta["sha256"]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: missing; this folder is not a whole checkpoint") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not what a checkpoint's meta.json holds ({error!r})") from None
    version = meta.get("format_version")
    if version not in (1, FORMAT_VERSION) or not isinstance(hashes, dict):
        raise ValueError(f"{path}: format_version is {version!r}, this program reads {FORMAT_VERSION}")
    if version != 1 and meta.get("meta_sha256") != _meta_digest(meta):
        raise ValueError(f"{path}: corrupt: its content has another sha256 than it says; use another checkpoint")
    return dict(meta)


def _meta_digest(meta: Mapping[str, Any]) -> str:
    """Hash of all that meta.json says but of the hash itself."""
    plain = {key: value for key, value in meta.items() if key != "meta_sha256"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _verified(path: Path, digest: str) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing; the checkpoint is incomplete: use another one or start anew")
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise ValueError(
            f"{path}: corrupt: its sha256 begins with {found[:12]}, meta.json says {digest[:12]}; "
            "use another checkpoint or start anew"
        )
    return data
