"""Count what a sample of a stage costs: operations, parameters, and what is kept for the backward pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ecgcmr.cohort.batch import Batch
from ecgcmr.training.bench.presets import run_config
from ecgcmr.training.bench.scaling import Work
from ecgcmr.training.bench.stages import COUNTED, TrainingStep, build, flops_of_step

CPU = torch.device("cpu")


def saved_bytes(step: TrainingStep, batch: Batch) -> float:
    """Count what a forward pass under bfloat16 keeps for the backward pass, each storage once, no weights [bytes].

    On the CPU attention keeps its weights, which the fused kernel of a GPU does not: an upper bound there.
    """
    own = {p.untyped_storage().data_ptr() for p in step.objective.parameters()}
    seen: dict[int, tuple[int, Any]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = (storage.nbytes(), storage)  # held, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = step.loss(batch)
    total = float(sum(size for size, _ in seen.values()))
    del loss
    return total


def count_work(preset: str, stage: str, cohort: Path) -> Work:
    """Count one stage of a preset on a cohort, which gives it its shapes only.

    Args:
        preset: Name in `ecgcmr.training.bench.presets.PRESETS`.
        stage: "mae", "align" or "supervised".
        cohort: A cohort with a few subjects.
    """
    config = run_config(preset, stage, cohort, COUNTED)
    objective, dataset = build(config)
    flops = flops_of_step(objective, config, dataset, CPU)
    step = TrainingStep(objective, config, CPU, low=True)
    # The difference of two sizes is what a sample adds: casts of the weights are kept once, whatever the batch.
    small, large = (saved_bytes(step, dataset.batch(range(n))) for n in (COUNTED, 2 * COUNTED))
    return Work(
        name=f"{preset}, {stage}",
        flops=flops,
        parameters=float(sum(p.numel() for p in objective.parameters() if p.requires_grad)),
        saved_bytes=(large - small) / COUNTED,
        read_bytes=float(_read_bytes(dataset.batch([0]))),
        projection=config.model.projection.out if stage == "align" else 0,
    )


def _read_bytes(one: Batch) -> int:
    """Bytes of one sample in the prepared arrays: ECG in two bytes, CMR in one."""
    ecg = 2 * one["ecg"].numel() if bool(one["has_ecg"].any()) else 0
    cmr = one["cmr"].numel() if bool(one["has_cmr"].any()) else 0
    return ecg + cmr
