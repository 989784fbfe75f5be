"""Arithmetic that the contrastive objectives share: cosine similarities, masked negatives, quality of embeddings."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ecgcmr.objectives.distributed import gather_rows, shard
from ecgcmr.objectives.modules import wide


def unit_rows(x: Tensor) -> Tensor:
    """Scale each row to length 1, in float32 at least; (B, D) to (B, D)."""
    return functional.normalize(wide(x), dim=-1)


def excluded_columns(subject: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Say which columns of the global batch are no negatives of this process's rows.

    A column is excluded if it has no data, or belongs to the subject of the row; a row's own column never is.

    Args:
        subject: (B,) int64 of this process.
        valid: (B,) bool of this process.

    Returns:
        `excluded` (B, G) bool, and `own` (B,) int64, the column of each row, with G = world * B.
    """
    rank, _ = shard()
    rows = subject.shape[0]
    subjects, valids = gather_rows(subject), gather_rows(valid)
    own = torch.arange(rows, device=subject.device) + rank * rows
    excluded = (subject[:, None] == subjects[None]) | ~valids[None]
    excluded[torch.arange(rows, device=subject.device), own] = False
    return excluded, own


def ranks_of_positive(logits: Tensor, own: Tensor) -> Tensor:
    """Count the columns that beat or tie the row's own, (B, G) to (B,); 0 is a hit at the first place."""
    positive = logits.gather(1, own[:, None])
    return (logits >= positive).sum(1) - 1


def uniformity(unit: Tensor) -> Tensor:
    """Log of the mean Gaussian potential of all pairs (arXiv 2005.10242); lower is more uniform; (N, D) to ()."""
    if unit.shape[0] < 2:
        return unit.new_zeros(())
    return torch.pdist(unit).square().mul(-2).exp().mean().log()
