"""The state of a run as a checkpoint holds it: gathered from its parts, and put back."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ecgcmr.objectives.base import Objective
from ecgcmr.training.checkpoint import Checkpoint
from ecgcmr.training.early_stopping import EarlyStopping
from ecgcmr.training.ema import WeightAverage
from ecgcmr.training.losses import Meter
from ecgcmr.training.position import Position


def model_state(objective: Objective) -> dict[str, Tensor]:
    """Give the whole state of the objective, unwrapped."""
    return dict(objective.state_dict())


def copied(value: Any) -> Any:
    """Copy tensors to the memory of the host, in dicts and lists too, so that nothing that goes on changes them."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True, memory_format=torch.preserve_format)
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(item) for item in value)
    return value


@dataclass
class RunState:
    """All that changes while a run goes on.

    Attributes:
        objective: The objective itself.
        optimizer: As it was prepared.
        meter: Means since the last row of metrics.
        stopping: Best value and bad evaluations so far.
        position: Where the run stands.
        ema: Average of the weights, if the run keeps one.
    """

    objective: Objective
    optimizer: Any
    meter: Meter
    stopping: EarlyStopping
    position: Position
    ema: WeightAverage | None = None

    def train_state(self) -> dict[str, Any]:
        """Give what a checkpoint holds beside the model and the position."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "meter": self.meter.state_dict(),
            "stopping": self.stopping.state_dict(),
            **({"ema": self.ema.state_dict()} if self.ema is not None else {}),
        }

    def evaluated_weights(self) -> AbstractContextManager[None]:
        """Give a block in which the objective has the weights that are evaluated and exported."""
        return self.ema.applied() if self.ema is not None else nullcontext()

    def load(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint."""
        train: Mapping[str, Any] = checkpoint.train
        self.objective.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(train["optimizer"])
        self.meter = Meter.from_state(train["meter"])
        self.stopping.load_state_dict(train["stopping"])
        self.position = Position(**checkpoint.meta["position"])
        if self.ema is not None:
            self.ema.load_state_dict(train["ema"])
