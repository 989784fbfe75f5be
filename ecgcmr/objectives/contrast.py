"""Arithmetic that the contrastive objectives share: cosine similarities, masked negatives, quality of embeddings."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ecgcmr.objectives.base import Mean
from ecgcmr.objectives.distributed import gather_rows, world
from ecgcmr.objectives.modules import wide

MAX_LOGITS = 2**24
"""How many similarities are held at once where no gradient is needed; a whole validation set may have more."""

PIECE_LOGITS = 2**22
"""How many a piece has where there are more: a dozen tensors of this size are alive at once."""

WHOLE = slice(None)


def unit_rows(x: Tensor) -> Tensor:
    """Scale each row to length 1, in float32 at least; (B, D) to (B, D)."""
    return functional.normalize(wide(x), dim=-1)


def by_rows(compute: Callable[[slice], dict[str, Tensor]], rows: int, columns: int) -> dict[str, Tensor]:
    """Compute values of each row, in pieces where no gradient is needed and there are more than `MAX_LOGITS`.

    Args:
        compute: Gives named tensors (N, ...) for the N rows of a slice.
        rows: Rows of this process.
        columns: Similarities of each row.

    Returns:
        Named tensors (rows, ...).
    """
    if torch.is_grad_enabled() or rows * columns <= MAX_LOGITS:
        return compute(WHOLE)
    step = max(1, min(MAX_LOGITS, PIECE_LOGITS) // columns)
    whole: dict[str, Tensor] = {}
    for start in range(0, rows, step):
        piece = compute(slice(start, start + step))
        for name, value in piece.items():
            place = whole.setdefault(name, value.new_empty((rows, *value.shape[1:])))
            place[start : start + step] = value
        # Small results that lived on between the large similarities would keep the allocator from using their room
        # again: gigabytes for ten thousand rows.
        del piece, value
    return whole


def take(rows: Tensor, part: slice) -> Tensor:
    """Give the rows of a slice; all of them are the tensor itself, so that its gradient is summed in one order."""
    return rows if part == WHOLE else rows[part]


def excluded_columns(subject: Tensor, valid: Tensor, part: slice = WHOLE) -> tuple[Tensor, Tensor]:
    """Say which columns of the global batch are no negatives of this process's rows.

    A column is excluded if it has no data, or belongs to the subject of the row; a row's own column never is.

    Args:
        subject: (B,) int64 of this process.
        valid: (B,) bool of this process.
        part: Which rows to answer for; all by default.

    Returns:
        `excluded` (B, G) bool, and `own` (B,) int64, the column of each row, with G = world * B.
    """
    rank, _ = world()
    subjects, valids = gather_rows(subject), gather_rows(valid)
    own = (torch.arange(subject.shape[0], device=subject.device) + rank * subject.shape[0])[part]
    excluded = (subject[part, None] == subjects[None]) | ~valids[None]
    excluded[torch.arange(own.shape[0], device=subject.device), own] = False
    return excluded, own


def ranks_of_positive(logits: Tensor, own: Tensor) -> Tensor:
    """Count the columns that beat or tie the row's own, (B, G) to (B,); 0 is a hit at the first place."""
    positive = logits.gather(1, own[:, None])
    return (logits >= positive).sum(1) - 1


@torch.no_grad()
def potentials(rows: Tensor, everything: Tensor, own: Tensor, valid: Tensor) -> Tensor:
    """Sum the Gaussian potential exp(-2 d^2) of each row to all valid columns but itself (arXiv 2005.10242).

    Args:
        rows: (B, D) of length 1.
        everything: (G, D) of length 1.
        own: (B,) column of each row.
        valid: (G,) bool.

    Returns:
        (B,).
    """
    near = (4 * (rows @ everything.T) - 4).exp()  # d^2 = 2 - 2 cos
    return near.masked_fill(~valid, 0).scatter(1, own[:, None], 0).sum(1)


def uniformity(potential: Tensor, valid: Tensor) -> Mean:
    """Log of the mean potential of all pairs of the global batch; lower is more uniform.

    Args:
        potential: (B,) as `potentials` gives it.
        valid: (B,) bool of this process.
    """
    pairs = valid.sum() * (gather_rows(valid).sum() - 1)
    return Mean(Mean.over(potential, valid).total, pairs, log=True)
