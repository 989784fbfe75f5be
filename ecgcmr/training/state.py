"""The state of a run as a checkpoint holds it: gathered from its parts, and put back."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ecgcmr.objectives.base import Objective
from ecgcmr.training.checkpoint import Checkpoint
from ecgcmr.training.early_stopping import EarlyStopping
from ecgcmr.training.ema import WeightAverage
from ecgcmr.training.losses import Meter
from ecgcmr.training.position import Position
from ecgcmr.training.whole_state import gather_state, gather_tensors, load_state


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

    def gathered(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Bring together what a checkpoint holds; of a sharded objective all processes must call this.

        Returns:
            State of the objective, and of all else, on the main process: copies that nothing changes. On others nothing
            of use.
        """
        model, optimizer = gather_state(self.objective, self.optimizer)
        train = {
            "optimizer": optimizer,
            "meter": copy.deepcopy(self.meter.state_dict()),
            "stopping": copy.deepcopy(self.stopping.state_dict()),
        }
        if self.ema is not None:
            average = self.ema.state_dict()
            train["ema"] = {**average, "weights": gather_tensors(self.objective, average["weights"])}
        return model, train

    def evaluated_weights(self) -> AbstractContextManager[None]:
        """Give a block in which the objective has the weights that are evaluated and exported."""
        return self.ema.applied() if self.ema is not None else nullcontext()

    def load(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint."""
        train: Mapping[str, Any] = checkpoint.train
        load_state(self.objective, checkpoint.model, self.optimizer, train["optimizer"])
        self.meter = Meter.from_state(train["meter"])
        self.stopping.load_state_dict(train["stopping"])
        self.position = Position(**checkpoint.meta["position"])
        if self.ema is not None:
            self.ema.load_state_dict(train["ema"])
