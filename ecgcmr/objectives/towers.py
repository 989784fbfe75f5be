"""What alignments of more than two towers share: CLIP's loss for each of their pairs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ecgcmr.cohort.batch import Batch
from ecgcmr.objectives.align import clip_loss
from ecgcmr.objectives.contrast import by_rows, excluded_columns
from ecgcmr.objectives.distributed import gather_rows, gather_with_gradient
from ecgcmr.objectives.modules import full_precision


def tower_losses(
    rows: Mapping[str, Tensor], pairs: Mapping[str, tuple[str, str]], batch: Batch, temperature: float
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Symmetric cross entropy of matching rows, for each pair of towers.

    Args:
        rows: Tower -> projections (B, D) of length 1; `ecg` is the ECG, every other one comes from the study.
        pairs: Loss -> two towers.
        batch: With subjects and what each has; a pair of two towers of the study needs no ECG.
        temperature: Softmax temperature tau.

    Returns:
        Losses (B,) by name, 0 where not valid, and where they are valid (B,) bool.
    """
    towers = {name for pair in pairs.values() for name in pair}
    like = rows[next(iter(pairs.values()))[0]]
    scale = torch.full((), 1 / temperature, dtype=like.dtype, device=like.device)
    valid = {
        name: batch["has_cmr"] & batch["has_ecg"] if "ecg" in pair else batch["has_cmr"] for name, pair in pairs.items()
    }
    with full_precision(like):
        everything = {name: gather_with_gradient(rows[name]) for name in sorted(towers)}

        def terms(part: slice) -> dict[str, Tensor]:
            found = {}
            for name, (first, second) in pairs.items():
                exclusion = excluded_columns(batch["subject"], valid[name], part)
                own = rows[first][part], rows[second][part]
                found[name] = clip_loss(*own, scale, 0.5, exclusion, (everything[first], everything[second]))[0]
            return found

        found = by_rows(terms, like.shape[0], gather_rows(batch["has_cmr"]).shape[0])
    return {name: torch.where(valid[name], loss, torch.zeros_like(loss)) for name, loss in found.items()}, valid
