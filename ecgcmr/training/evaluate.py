"""Validation losses over all subjects and processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import cast

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from ecgcmr.cohort.batch import Batch
from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.objectives.base import Objective
from ecgcmr.training.config import RunConfig
from ecgcmr.training.label_metrics import LabelTable, PredictsLabels
from ecgcmr.training.losses import Meter, reduce_losses
from ecgcmr.training.prefetch import prefetch
from ecgcmr.training.randomness import torch_generator

Share = tuple[NDArray[np.int64], NDArray[np.bool_]]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move all tensors, without waiting where the memory is pinned."""
    moved = {key: value.to(device, non_blocking=True) for key, value in batch.items()}  # type: ignore[attr-defined]
    return cast(Batch, moved)


@torch.no_grad()
def evaluate(
    objective: Objective, dataset: PairedDataset, config: RunConfig, accelerator: Accelerator
) -> dict[str, float]:
    """Give the validation row: `loss`, `loss_<name>`, the objective's metrics, r and AUROC where it predicts labels.

    Masks and the like are drawn alike at each evaluation, so that values can be compared over time. The batches are
    those of one process with the global batch; where they cannot be shared evenly, rows are repeated without any
    modality or label, so that they count nowhere.
    """
    rank, n_processes = accelerator.process_index, accelerator.num_processes
    batch_size = config.train.eval_batch_size or config.train.batch_size
    was_training = {module: module.training for module in objective.modules()}
    objective.eval()
    meter = Meter()
    labels = LabelTable(objective) if config.train.label_metrics and isinstance(objective, PredictsLabels) else None
    shares = _shares(len(dataset), batch_size * n_processes, rank, n_processes)
    with closing(prefetch(shares, lambda share: _load(dataset, share))) as batches:
        for number, loaded in enumerate(batches):
            generator = torch_generator(accelerator.device, config.seed, "evaluation", number)
            batch = to_device(loaded, accelerator.device)
            with accelerator.autocast():
                output = objective(batch, generator)
                if labels is not None:
                    labels.add(batch)
            _, totals = reduce_losses(output, objective.loss_weights, n_processes)
            meter.add(totals, len(batch["subject"]))
    for module, training in was_training.items():
        module.training = training
    return meter.row(objective.loss_weights) | (labels.row(dataset.label_names) if labels else {})


def _shares(n: int, global_batch: int, rank: int, n_processes: int) -> Iterator[Share]:
    """Yield (indices, which of them count) of this process; each global batch is cut into equal contiguous parts."""
    for start in range(0, n, global_batch):
        rows = np.arange(start, min(start + global_batch, n))
        each = -(-len(rows) // n_processes)
        places = np.arange(rank * each, (rank + 1) * each)
        yield rows[np.minimum(places, len(rows) - 1)], places < len(rows)


def _load(dataset: PairedDataset, share: Share) -> Batch:
    indices, counts = share
    batch = dataset.batch(indices)
    if not counts.all():
        real = torch.from_numpy(counts)
        batch["has_ecg"] = batch["has_ecg"] & real
        batch["has_cmr"] = batch["has_cmr"] & real
        batch["label_mask"] = batch["label_mask"] & real[:, None]
    return batch
