"""The one contract of all objectives, which is all that the training loop knows about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from ecgcmr.cohort.batch import Batch


@dataclass
class ObjectiveOutput:
    """What one forward pass gives.

    Attributes:
        losses: Per-sample losses (B,) float32 under a fixed set of names (the objective's `loss_weights` keys).
        valid: (B,) bool under the same names: which samples the loss is defined for. An invalid entry holds 0 but
            keeps its place in the graph, so that every rank runs the same collectives.
        metrics: Detached scalars for the log (means over this rank's batch).
    """

    losses: dict[str, Tensor]
    valid: dict[str, Tensor]
    metrics: dict[str, Tensor] = field(default_factory=dict)


class Objective(nn.Module):
    """Base of all objectives: `forward(batch, generator)` gives per-sample losses.

    The total loss is the sum over names of weight times the mean over valid samples *of all processes*; it is taken in
    the training loop. It must be `forward` because DistributedDataParallel synchronizes gradients only around it.
    """

    loss_weights: Mapping[str, float]

    def forward(self, batch: Batch, generator: object | None = None) -> ObjectiveOutput:
        """Compute the losses of one batch; `generator` (torch.Generator on its device) drives all randomness."""
        raise TypeError(f"{type(self).__name__} must define forward(batch, generator)")

    def encoders(self) -> dict[str, nn.Module]:
        """Name the parts that are exported as weights.

        Keys among `ecg`, `cmr`, `ecg_projection`, `cmr_projection`, `head`, `ecg_decoder`.
        """
        raise TypeError(f"{type(self).__name__} must define encoders()")

    def after_step(self) -> None:
        """Called after each optimiser step, for instance to clamp a temperature."""
