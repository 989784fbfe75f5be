"""Training: run configuration, the loop over any objective, optimizer, checkpoints, processes.

`pretrain(config)` and `finetune(config)` run a `RunConfig` that `load_config(path, overrides)` read, and give the
run folder. The names are loaded lazily, because reading this package must stay cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecgcmr.training.config import RunConfig, load_config
    from ecgcmr.training.progress import ProgressEvent
    from ecgcmr.training.run import finetune, pretrain
    from ecgcmr.training.signals import RunInterrupted

_WHERE = {
    "RunConfig": "config",
    "load_config": "config",
    "ProgressEvent": "progress",
    "pretrain": "run",
    "finetune": "run",
    "RunInterrupted": "signals",
}

__all__ = ["ProgressEvent", "RunConfig", "RunInterrupted", "finetune", "load_config", "pretrain"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
