"""The total loss over all processes, and means over many steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ecgcmr.objectives.base import ObjectiveOutput, finish_mean
from ecgcmr.training.distributed import agree


@dataclass(frozen=True)
class Totals:
    """What one step gave, summed over all processes; equal on every process.

    Attributes:
        sums: Sum of the per-sample losses by name.
        counts: Number of valid samples by name.
        metrics: Sum, count and whether the logarithm is wanted, of each of the objective's metrics.
        stop: Whether any process was asked to stop.
    """

    sums: dict[str, float]
    counts: dict[str, float]
    metrics: dict[str, tuple[float, float, bool]]
    stop: bool


def reduce_losses(
    output: ObjectiveOutput, weights: Mapping[str, float], n_processes: int, stop: bool = False
) -> tuple[Tensor, Totals]:
    """Take the loss whose gradient, averaged over processes by DistributedDataParallel, is that of the total loss.

    total = sum over names of weight * (sum over all processes of losses * valid) / (number of valid over all).
    Everything that the processes must agree on travels in one collective.

    Args:
        output: Per-sample losses of this process's batch.
        weights: Weight by name; the names are those of the losses.
        n_processes: World size.
        stop: Whether this process was asked to stop.

    Returns:
        The loss to differentiate, and the sums. It is the total itself in one process; in several its mean over
        processes is the total.

    Raises:
        ValueError: If losses and weights have different names.
    """
    if set(output.losses) != set(weights):
        raise ValueError(f"the objective gave the losses {sorted(output.losses)} but weighs {sorted(weights)}")
    names, metrics = sorted(weights), sorted(output.metrics)
    sums = {name: torch.where(output.valid[name], output.losses[name], 0.0).sum() for name in names}
    packed = [sums[name].detach() for name in names]
    packed += [output.valid[name].sum() for name in names]
    packed += [output.metrics[name].total for name in metrics]
    packed += [output.metrics[name].count for name in metrics]
    packed.append(torch.tensor(float(stop), device=packed[0].device))
    numbers = agree(torch.stack([value.to(torch.float64).reshape(()) for value in packed]))
    k = len(names)
    counts = dict(zip(names, numbers[k : 2 * k], strict=True))
    loss = sum((weights[name] * n_processes / max(counts[name], 1.0)) * sums[name] for name in names)
    assert isinstance(loss, Tensor)
    sizes, shown = numbers[2 * k : -1], len(metrics)
    means = {name: (sizes[i], sizes[shown + i], output.metrics[name].log) for i, name in enumerate(metrics)}
    return loss, Totals(dict(zip(names, numbers[:k], strict=True)), counts, means, numbers[-1] > 0)


def total_loss(totals: Totals, weights: Mapping[str, float]) -> float:
    """Give the weighted total of one step; not finite if any process's loss was not."""
    return sum(weights[name] * totals.sums[name] / max(totals.counts[name], 1.0) for name in weights)


@dataclass
class Meter:
    """Means over several steps, exact for losses and metrics: sums and counts are kept, not means of means."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, tuple[float, float, bool]] = field(default_factory=dict)
    extra: dict[str, float] = field(default_factory=dict)
    samples: float = 0.0

    def add(self, totals: Totals, samples: int, **extra: float) -> None:
        """Take one step over `samples` samples of all processes; `extra` are further values to average over samples."""
        for name, value in totals.sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0.0) + totals.counts[name]
        for name, (total, count, log) in totals.metrics.items():
            before = self.metrics.get(name, (0.0, 0.0, log))
            self.metrics[name] = (before[0] + total, before[1] + count, log)
        for name, value in extra.items():
            self.extra[name] = self.extra.get(name, 0.0) + samples * value
        self.samples += samples

    def row(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Give `loss`, `loss_<name>` for each name, and the metrics that have values; empty if nothing was added."""
        if not self.samples:
            return {}
        means = {name: self.sums[name] / max(self.counts[name], 1.0) for name in self.sums}
        row = {"loss": math.fsum(weights[name] * mean for name, mean in means.items())}
        row |= {f"loss_{name}": mean for name, mean in means.items()}
        row |= {name: finish_mean(*found) for name, found in self.metrics.items() if found[1] > 0}
        return row | {name: value / self.samples for name, value in self.extra.items()}

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint in the middle of an epoch must hold."""
        metrics = {name: list(found) for name, found in self.metrics.items()}
        counted = {"sums": self.sums, "counts": self.counts, "metrics": metrics}
        return {**counted, "extra": self.extra, "samples": self.samples}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Meter:
        """Continue from `state_dict()`; of an older one, which held means of means, the exact sums only."""
        if "metrics" not in state:
            return cls(dict(state["sums"]), dict(state["counts"]))
        metrics = {name: (total, count, log) for name, (total, count, log) in state["metrics"].items()}
        return cls(dict(state["sums"]), dict(state["counts"]), metrics, dict(state["extra"]), float(state["samples"]))
