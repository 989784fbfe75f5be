"""Optimizer and learning rate: pure functions of the configuration and the step, so that resuming needs no state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from ecgcmr.objectives.groups import multiplier_of, parameter_groups
from ecgcmr.training.config import OptimConfig


def absolute_lr(config: OptimConfig, global_batch: int) -> float:
    """Resolve the learning rate.

    Args:
        config: With `lr` and `lr_rule`.
        global_batch: Samples of one step over all processes.

    Returns:
        `lr`, or under "batch_over_4" lr * global batch / 4: the reference's rule (its base rate 1e-5 at batch 128 is
        3.2e-4), 64 times the usual division by 256 of the MAE paper (arXiv 2111.06377).
    """
    return config.lr * global_batch / 4 if config.lr_rule == "batch_over_4" else config.lr


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from 0, then a half-cycle cosine (arXiv 1608.03983, without restarts), at each step or epoch.

    Attributes:
        lr: Highest learning rate.
        min_lr: Where the cosine ends.
        warmup_steps: Steps of the warm-up.
        total_steps: Steps of the whole run.
        hold: Steps of an epoch, over which the rate is held; None renews it at each step.
    """

    lr: float
    min_lr: float
    warmup_steps: float
    total_steps: int
    hold: int | None = None

    def at(self, step: int) -> float:
        """Give the learning rate of a step, counted from 0."""
        if self.hold is not None:
            return self._of_epoch(step // self.hold, self.hold)
        if step < self.warmup_steps:
            return self.lr * step / self.warmup_steps
        done = (step - self.warmup_steps) / max(self.total_steps - self.warmup_steps, 1)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    def _of_epoch(self, epoch: int, hold: int) -> float:
        """Give the rate of an epoch: 0 in the first, the highest in the last of the warm-up, then the cosine."""
        warmup, epochs = self.warmup_steps / hold, self.total_steps / hold
        if epoch < warmup:
            return self.lr * min(epoch / max(warmup - 1, 1), 1.0)
        done = (epoch - warmup) / max(epochs - warmup, 1)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def make_schedule(config: OptimConfig, lr: float, steps_per_epoch: int, total_steps: int) -> Schedule:
    """Give the schedule of a run whose highest learning rate is `lr`."""
    hold = steps_per_epoch if config.schedule == "epoch" else None
    return Schedule(lr, config.min_lr, config.warmup_epochs * steps_per_epoch, total_steps, hold)


def build_optimizer(module: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Build the optimizer over the trainable parameters of the objective.

    Each group holds `lr_scale` (layer decay and multiplier), which multiplies the schedule, and its `weight_decay`.
    Parts whose multiplier is 0 are frozen.

    Raises:
        ValueError: If nothing is left to train, or `lr_multipliers` does not fit the objective.
    """
    _freeze_parts(module, config.lr_multipliers)
    groups = parameter_groups(
        module, config.lr, config.weight_decay, config.layer_decay, config.decay_tokens, config.lr_multipliers
    )
    if not groups:
        raise ValueError("no parameter is left to train; freeze fewer modules in `objective` and optim.lr_multipliers")
    if config.decay_all:
        groups = [{**group, "weight_decay": config.weight_decay} for group in groups]
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    # The fused kernel passes once over each parameter; models of many small parameters feel it.
    return kind(groups, lr=config.lr, betas=config.betas, fused=True)


def _freeze_parts(module: nn.Module, multipliers: Mapping[str, float]) -> None:
    """Ask for no gradient of what has the multiplier 0, so that it costs none and does not count in its norm."""
    frozen = {name for name, factor in multiplier_of(module, multipliers).items() if factor == 0}
    parameters = {name: parameter for name, parameter in module.named_parameters() if name in frozen}
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    if not frozen:
        return
    module.train(module.training)  # where an objective decides by itself what it trains
    trained = [name for name, parameter in parameters.items() if parameter.requires_grad]
    if trained:
        raise ValueError(f"optim.lr_multipliers: {trained[0]} cannot be frozen by 0: the objective's options train it")


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of each group to `lr` times its layer's scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
