"""One optimizer step: all processes take it together, or skip it together because it is not finite."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from ecgcmr.cohort.batch import Batch
from ecgcmr.objectives.base import Objective
from ecgcmr.training.buffers import KeptBuffers, unchanged_buffers
from ecgcmr.training.config import RunConfig
from ecgcmr.training.ema import WeightAverage
from ecgcmr.training.losses import Totals, reduce_losses, total_loss
from ecgcmr.training.micro_batches import MicroBatches
from ecgcmr.training.optim import set_lr
from ecgcmr.training.position import Position
from ecgcmr.training.randomness import derive_seed, torch_generator
from ecgcmr.training.sharding import clip_gradients
from ecgcmr.training.skipped import describe_skipped


@dataclass(frozen=True)
class StepResult:
    """What a step gave; equal on all processes.

    Attributes:
        total: The weighted loss of the global batch.
        norm: Norm of the gradient before clipping; NaN where the loss was not finite.
        totals: Sums over all processes.
        suspects: Of a step that was skipped, what `describe_skipped` says; empty otherwise.
    """

    total: float
    norm: float
    totals: Totals
    suspects: list[dict[str, Any]] = field(default_factory=list)

    @property
    def taken(self) -> bool:
        """Whether the parameters moved."""
        return math.isfinite(self.total) and math.isfinite(self.norm)


@dataclass
class Stepper:
    """Takes the steps of a run.

    Attributes:
        config: The run.
        accelerator: Of the run.
        objective: The objective itself.
        model: The objective as it was prepared (wrapped for several processes).
        optimizer: As it was prepared.
        ema: Average of the weights, which follows each step that is taken.
    """

    config: RunConfig
    accelerator: Accelerator
    objective: Objective
    model: nn.Module
    optimizer: Any
    ema: WeightAverage | None = None

    def __post_init__(self) -> None:
        self._buffers = KeptBuffers(self.objective)

    def take(self, batch: Batch, position: Position, lr: float, asked_to_stop: bool) -> StepResult:
        """Compute loss and gradient of a batch and move the parameters, if both are finite.

        A step that is skipped leaves parameters, optimizer, average and buffers as they were: the statistics of a batch
        with one value that is not finite would spoil those of BatchNorm for good.

        Args:
            batch: Samples of this process, on its device.
            position: Where the run stands; decides what is random.
            lr: Learning rate.
            asked_to_stop: Whether this process was; it travels with the losses (`Totals.stop`).
        """
        set_lr(self.optimizer, lr)
        weights, parts = self.objective.loss_weights, self.config.train.micro_batches

        def start_draws(part: int) -> torch.Generator:
            return self._start_draws(position, part)

        recomputes = self.config.train.grad_checkpointing
        pieces = MicroBatches(self.accelerator, self.model, self.objective, batch, parts, start_draws, recomputes)
        self._buffers.keep()
        output = self.model(batch, start_draws(0)) if parts == 1 else pieces.output()
        loss, totals = reduce_losses(output, weights, self.accelerator.num_processes, asked_to_stop)
        total, norm = total_loss(totals, weights), math.nan
        if math.isfinite(total):
            if parts == 1:
                with unchanged_buffers(self.objective, recomputes):
                    self.accelerator.backward(loss)
            else:
                pieces.backward(loss)
            norm = clip_gradients(self.model, self.config.optim.clip_grad)
        result = StepResult(total, norm, totals)
        if result.taken:
            self.optimizer.step()
            self.objective.after_step()
            if self.ema is not None:
                self.ema.update()
        else:
            self._buffers.restore()
            result = replace(result, suspects=describe_skipped(batch, output))
        self.optimizer.zero_grad(set_to_none=True)
        return result

    def _start_draws(self, position: Position, part: int) -> torch.Generator:
        """Seed all that is random in one piece of a step: a function of the position alone."""
        seed, world = self.config.seed, self.accelerator
        # Layers of other libraries draw from the global stream: seeding it each step makes it part of the position.
        index = world.process_index * self.config.train.micro_batches + part
        torch.manual_seed(derive_seed(seed, "layers", position.step, index))
        return torch_generator(world.device, seed, "step", position.epoch, position.step_in_epoch)


def check_skipped(position: Position, allowed: int) -> None:
    """End a run whose last steps were all skipped.

    Raises:
        ValueError: If they are more than `allowed`.
    """
    if position.skipped_in_row > allowed:
        raise ValueError(
            f"the loss or its gradient was not finite in {position.skipped_in_row} steps in a row "
            f"(train.max_nonfinite={allowed}), the last at step {position.step - 1}; lower optim.lr, set "
            "train.precision=no, or look for values that are not finite in the cohort"
        )
