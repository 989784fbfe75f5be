"""Validation values over all subjects: those of one process with one batch, on any processes and batch size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from ecgcmr.cohort.batch import Batch
from ecgcmr.cohort.mixture import AnyDataset
from ecgcmr.models.distributed import alone, part_of_draw, sum_over_processes
from ecgcmr.objectives.base import Objective
from ecgcmr.training.config import RunConfig
from ecgcmr.training.label_metrics import PredictsLabels, label_row
from ecgcmr.training.losses import Meter, reduce_losses
from ecgcmr.training.prefetch import prefetch
from ecgcmr.training.randomness import torch_generator

DRAW_ROWS = 128
"""Samples that share one random draw (masks, views) in evaluation, however many are computed at once."""

_ROW = "row "


@dataclass(frozen=True)
class Piece:
    """Samples that one process computes at once: an aligned part of a block of `DRAW_ROWS`, a power of two long."""

    start: int
    rows: int

    @property
    def block(self) -> int:
        """Which draw it is of."""
        return self.start // DRAW_ROWS

    @property
    def part(self) -> tuple[int, int]:
        """Which part of that draw."""
        return self.start % DRAW_ROWS // self.rows, DRAW_ROWS // self.rows

    @property
    def indices(self) -> slice:
        """Places in the validation data."""
        return slice(self.start, self.start + self.rows)


def pieces(n: int, at_once: int) -> Iterator[Piece]:
    """Cut samples 0 ... n-1 into pieces of at most `at_once`; each lies in one block, at a multiple of its length."""
    largest = min(1 << (at_once.bit_length() - 1), DRAW_ROWS)
    start = 0
    while start < n:
        rows = min(largest, 1 << ((n - start).bit_length() - 1))
        yield Piece(start, rows)
        start += rows


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move all tensors, without waiting where the memory is pinned."""
    moved = {key: value.to(device, non_blocking=True) for key, value in batch.items()}  # type: ignore[attr-defined]
    return cast(Batch, moved)


@torch.no_grad()
def evaluate(
    objective: Objective, dataset: AnyDataset, config: RunConfig, accelerator: Accelerator
) -> dict[str, float]:
    """Give the validation row: `loss`, `loss_<name>`, the objective's metrics, r and AUROC where it predicts labels.

    The representations of all samples are computed in pieces, shared among the processes and brought together; then
    they are compared once, as one batch. So a contrastive loss has the whole validation set as its candidates. Masks
    and views are drawn alike at each evaluation, so that values can be compared over time.
    """
    was_training = {module: module.training for module in objective.modules()}
    objective.eval()
    rows, batch = _all_rows(objective, dataset, config, accelerator)
    meter = Meter()
    with alone(), accelerator.autocast():
        _, totals = reduce_losses(objective.compare(rows, batch), objective.loss_weights, 1)
        meter.add(totals, len(dataset))
        row = meter.row(objective.loss_weights)
        if config.train.label_metrics and isinstance(objective, PredictsLabels):
            row |= label_row(objective.label_values(rows), batch, dataset.label_names)
    for module, training in was_training.items():
        module.training = training
    return row


def _all_rows(
    objective: Objective, dataset: AnyDataset, config: RunConfig, accelerator: Accelerator
) -> tuple[dict[str, Tensor], Batch]:
    """Represent each sample on one of the processes; all get all, and the batch without signals and images."""
    rank, n_processes, n = accelerator.process_index, accelerator.num_processes, len(dataset)
    every = list(pieces(n, config.train.eval_batch_size or config.train.batch_size))
    # A process that has nothing left repeats its last piece, so that all call the model equally often.
    mine = [every[min(start + rank, len(every) - 1)] for start in range(0, len(every), n_processes)]
    whole: dict[str, Tensor] = {}
    with closing(prefetch(mine, lambda piece: dataset.batch(np.arange(n)[piece.indices]))) as batches:
        for number, (piece, loaded) in enumerate(zip(mine, batches, strict=True)):
            batch = to_device(loaded, accelerator.device)
            generator = torch_generator(accelerator.device, config.seed, "evaluation", piece.block)
            with alone(), part_of_draw(*piece.part), accelerator.autocast():
                rows: dict[str, Tensor] = objective(batch, generator, rows_only=True)
            counts = number * n_processes + rank < len(every)
            for key, value in _named(rows, batch).items():
                place = whole.setdefault(key, value.new_zeros((n, *value.shape[1:])))
                if counts:
                    place[piece.indices] = value
    whole = {key: _summed(value) for key, value in whole.items()}
    facts = {key: value for key, value in whole.items() if not key.startswith(_ROW)}
    return {key.removeprefix(_ROW): value for key, value in whole.items() if key.startswith(_ROW)}, cast(Batch, facts)


def _named(rows: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """All that `compare` reads, under one list of names."""
    facts = {key: value for key, value in batch.items() if key not in ("ecg", "cmr")}
    return {**{_ROW + name: value for name, value in rows.items()}, **cast(dict[str, Tensor], facts)}


def _summed(value: Tensor) -> Tensor:
    """Bring together what each process wrote into its own places of zeros."""
    if value.dtype == torch.bool:  # gloo has no boolean collectives
        return sum_over_processes(value.to(torch.uint8)).bool()
    return sum_over_processes(value)
