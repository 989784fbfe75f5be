"""From a table of own labels to a weights folder and a report: read, ingest, split, fine-tune, evaluate, pack.

Every step leaves its result on disk, so that the same command goes on where an earlier one stopped.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "FinetuneRequest": "request",
    "FinetuneResult": "request",
    "finetune_labels": "run",
    "finetune_on_labels": "run",
    "read_own_labels": "table",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
