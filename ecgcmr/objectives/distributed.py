"""Process helpers of the objectives: which rows of a global draw are mine, and gathering with gradient."""

from __future__ import annotations

from torch import Tensor

from ecgcmr.models.distributed import gather_rows, gather_with_gradient, row_shard, sum_over_processes, world

__all__ = ["gather_rows", "gather_with_gradient", "my_rows", "shard", "sum_over_processes", "world"]


def shard() -> tuple[int, int]:
    """Give (rank, world), which augmentations and maskers take to draw for the global batch and keep the own rows.

    Where a process computes its rows in pieces (`part_of_draw`), each piece counts as a rank.
    """
    return row_shard()


def my_rows(global_rows: Tensor) -> Tensor:
    """Take this process's contiguous rows of a tensor that all processes hold alike.

    Args:
        global_rows: (world * B, ...).

    Returns:
        (B, ...).
    """
    rank, n_processes = world()
    rows = global_rows.shape[0] // n_processes
    return global_rows[rank * rows : (rank + 1) * rows]
