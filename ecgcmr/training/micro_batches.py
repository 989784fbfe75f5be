"""A batch in pieces with the loss and the gradient of the whole: cached gradients (GradCache, arXiv 2101.06983).

A contrastive loss is no sum over micro-batches, so gradients cannot simply be accumulated. Instead: represent each
piece and forget its graph; compare all representations and take the gradient of the loss with respect to them;
represent each piece again, now with its graph, and send its part of that gradient through. Both passes draw the same
augmentations, masks and dropped paths, which are those of the whole batch (`part_of_draw`). It costs one more forward
pass.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ecgcmr.cohort.batch import Batch
from ecgcmr.models.distributed import part_of_draw
from ecgcmr.objectives.base import Objective, ObjectiveOutput
from ecgcmr.training.buffers import unchanged_buffers
from ecgcmr.training.sharding import without_reduction


@dataclass
class MicroBatches:
    """One step over a batch in `parts` pieces: `output()`, then `backward(loss)`.

    Attributes:
        accelerator: Of the run.
        model: The objective as it was prepared (wrapped for several processes).
        objective: The objective itself.
        batch: Rows of this process, a multiple of `parts`.
        parts: Number of pieces.
        start_draws: Called with the number of a piece before it is represented; seeds the global stream and gives the
            generator of the step, in the same state for each piece.
        recomputes: Whether a backward pass runs layers again (gradient checkpointing), which must leave no trace.
    """

    accelerator: Accelerator
    model: nn.Module
    objective: Objective
    batch: Batch
    parts: int
    start_draws: Callable[[int], torch.Generator]
    recomputes: bool = False
    rows: dict[str, Tensor] = field(default_factory=dict)

    def output(self) -> ObjectiveOutput:
        """Represent all pieces without keeping their graphs, and compare them."""
        # The first pass must leave no trace: BatchNorm would count each piece twice.
        found = []
        with unchanged_buffers(self.objective):
            for part in range(self.parts):
                # With gradient, because layers choose their arithmetic by it; the graph goes away with `rows`.
                rows = self._represent(self.objective, part)
                found.append({name: value.detach() for name, value in rows.items()})
                del rows
        self.rows = {name: torch.cat([rows[name] for rows in found]).requires_grad_() for name in found[0]}
        with self.accelerator.autocast():
            return self.objective.compare(self.rows, self.batch)

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradient of `loss`, made from `output()`, in the parameters; synchronized once, at the end."""
        names = list(self.rows)
        grads = torch.autograd.grad(loss, [self.rows[name] for name in names], allow_unused=True)
        for part in range(self.parts):
            last = part == self.parts - 1
            with nullcontext() if last else without_reduction(self.accelerator, self.model):
                rows = self._represent(self.model, part)
                # A representation that the loss does not use gets a gradient of 0: all parameters must take part.
                terms = [
                    (rows[name] * (torch.zeros_like(rows[name]) if grad is None else grad[self._slice(part)])).sum()
                    for name, grad in zip(names, grads, strict=True)
                ]
                with unchanged_buffers(self.objective, self.recomputes):
                    self.accelerator.backward(torch.stack(terms).sum())

    def _represent(self, module: nn.Module, part: int) -> dict[str, Tensor]:
        piece = cast(
            Batch, {key: value[self._slice(part)] for key, value in cast(dict[str, Tensor], self.batch).items()}
        )
        with part_of_draw(part, self.parts):
            return cast(dict[str, Tensor], module(piece, self.start_draws(part), rows_only=True))

    def _slice(self, part: int) -> slice:
        rows = self.batch["subject"].shape[0] // self.parts
        return slice(part * rows, (part + 1) * rows)


def check_micro_batches(objective: Objective, rows: int, parts: int, batch_norm_allowed: bool) -> None:
    """Refuse pieces that would not compute what the whole batch computes.

    Args:
        objective: In training mode.
        rows: Samples of each process and step.
        parts: `train.micro_batches`.
        batch_norm_allowed: `train.micro_batch_norm`.

    Raises:
        ValueError: If the rows cannot be shared evenly, or a BatchNorm layer would see one piece at a time.
    """
    if parts == 1:
        return
    if rows % parts:
        raise ValueError(
            f"train.micro_batches is {parts}, but a process has {rows} samples a step, which is no multiple; "
            "change train.batch_size or train.micro_batches"
        )
    layers = [name for name, layer in objective.named_modules() if isinstance(layer, _BatchNorm) and layer.training]
    if layers and not batch_norm_allowed:
        raise ValueError(
            f"train.micro_batches is {parts}, but {len(layers)} BatchNorm layers ({layers[0]}, ...) would take the "
            f"statistics of {rows // parts} samples a process instead of {rows}, which is another loss; use an encoder "
            "without BatchNorm, freeze it, or set train.micro_batch_norm=true if you mean that"
        )
