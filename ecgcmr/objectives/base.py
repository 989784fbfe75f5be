"""The one contract of all objectives, which is all that the training loop knows about them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ecgcmr.cohort.batch import Batch


@dataclass(frozen=True)
class Mean:
    """A metric as a sum and a count, which add up over batches and processes to the exact mean; detached.

    Attributes:
        total: Sum of the values, ().
        count: How many there are, ().
        log: Whether the metric is the logarithm of the mean.
    """

    total: Tensor
    count: Tensor
    log: bool = False

    @classmethod
    def over(cls, values: Tensor, valid: Tensor) -> Mean:
        """Take the values that are valid; both of one shape."""
        kept = torch.where(valid, values.detach(), torch.zeros((), dtype=values.dtype, device=values.device))
        return cls(kept.sum(), valid.sum())

    @property
    def value(self) -> float:
        """The mean, or its logarithm; NaN of nothing."""
        return finish_mean(float(self.total), float(self.count), self.log)


def finish_mean(total: float, count: float, log: bool) -> float:
    """Divide a sum by its count, and take the logarithm where that is the metric; NaN of nothing."""
    if not count > 0:
        return math.nan
    mean = total / count
    if not log:
        return mean
    return math.log(mean) if mean > 0 else -math.inf if mean == 0 else math.nan


@dataclass
class ObjectiveOutput:
    """What one forward pass gives.

    Attributes:
        losses: Per-sample losses (B,) float32 under a fixed set of names (the objective's `loss_weights` keys).
        valid: (B,) bool under the same names: which samples the loss is defined for. An invalid entry holds 0 but
            keeps its place in the graph, so that every rank runs the same collectives.
        metrics: Sums and counts for the log, over this rank's batch.
    """

    losses: dict[str, Tensor]
    valid: dict[str, Tensor]
    metrics: dict[str, Mean] = field(default_factory=dict)


class Objective(nn.Module):
    """Base of all objectives: `represent` looks at each sample alone, `compare` makes losses of all samples at once.

    `forward(batch, generator)` is the one after the other. The total loss is the sum over names of weight times the
    mean over valid samples *of all processes*; it is taken in the training loop. It must be `forward` because
    DistributedDataParallel synchronizes gradients only around it.

    The two halves are apart so that the costly one can be computed in pieces: over micro-batches with a cached gradient
    (arXiv 2101.06983), and over a whole validation set before its samples are compared once.
    """

    loss_weights: Mapping[str, float]
    reads_tabular: ClassVar[bool] = False

    def represent(self, batch: Batch, generator: object | None = None) -> dict[str, Tensor]:
        """Compute what `compare` needs of each sample; all trained parameters take part.

        Args:
            batch: B samples.
            generator: torch.Generator on the batch's device; drives all randomness.

        Returns:
            Tensors (B, ...) of at least float32, of each sample alone but for BatchNorm.
        """
        raise TypeError(f"{type(self).__name__} must define represent(batch, generator)")

    def compare(self, rows: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        """Make per-sample losses of the representations; draws nothing and has no parameters of its own.

        Args:
            rows: As `represent` gave them.
            batch: The same samples; `ecg` and `cmr` are not read and may be empty.
        """
        raise TypeError(f"{type(self).__name__} must define compare(rows, batch)")

    def forward(self, batch: Batch, generator: object | None = None, rows_only: bool = False) -> Any:
        """Compute the losses of one batch, or the representations only.

        Args:
            batch: B samples.
            generator: torch.Generator on the batch's device; drives all randomness.
            rows_only: Stop before `compare`.

        Returns:
            `ObjectiveOutput`, or what `represent` gives.
        """
        rows = self.represent(batch, generator)
        return rows if rows_only else self.compare(rows, batch)

    def encoders(self) -> dict[str, nn.Module]:
        """Name the parts that are exported as weights.

        Keys among `ecg`, `cmr`, `tabular`, each with `_projection` too, `head` and `ecg_decoder`. A head beside a
        `tabular` encoder reads the embedding of the signal and that of the tabular inputs one behind the other.
        """
        raise TypeError(f"{type(self).__name__} must define encoders()")

    def after_step(self) -> None:
        """Called after each optimiser step, for instance to clamp a temperature."""
