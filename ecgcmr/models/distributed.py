"""Collectives that keep the gradient: what P processes compute with batch B is what one computes with P*B.

A gather without gradient gives the right loss and, on P processes, 1/P of the gradient: only a gradient test tells.
Without an initialized process group everything here is the identity of a world of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_alone: ContextVar[bool] = ContextVar("alone", default=False)
_part: ContextVar[tuple[int, int]] = ContextVar("part", default=(0, 1))


def world() -> tuple[int, int]:
    """Give (rank, number of processes); (0, 1) outside a process group and inside `alone()`."""
    if not _alone.get() and dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


@contextmanager
def alone() -> Iterator[None]:
    """Compute as a world of one: nothing is gathered or summed, because this process holds all rows."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


@contextmanager
def part_of_draw(part: int, parts: int) -> Iterator[None]:
    """Say that the rows at hand are part `part` of `parts` equal ones of this process's rows.

    What is drawn then is what the whole would have drawn for these rows, if the generator starts in the same state:
    a batch that is computed in pieces sees the augmentations, masks and dropped paths of the batch.
    """
    if not 0 <= part < parts:
        raise ValueError(f"part must lie in 0 ... {parts - 1}, got {part}")
    token = _part.set((part, parts))
    try:
        yield
    finally:
        _part.reset(token)


def row_shard() -> tuple[int, int]:
    """Give (index, number) of the equal contiguous parts of a global draw, of which this process computes one now."""
    (rank, n_processes), (part, parts) = world(), _part.get()
    return rank * parts + part, n_processes * parts


class _Gather(torch.autograd.Function):
    """All-gather along dimension 0; the backward sums the gradients of all processes and keeps the own rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = x.shape[0]
        return _all_gather(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        rank, _ = world()
        return grad[rank * ctx.rows : (rank + 1) * ctx.rows]


def _all_gather(x: Tensor) -> Tensor:
    _, n_processes = world()
    x = x.contiguous()
    parts = [torch.empty_like(x) for _ in range(n_processes)]
    dist.all_gather(parts, x)
    return torch.cat(parts)


def gather_with_gradient(x: Tensor) -> Tensor:
    """Stack the rows of all processes in rank order, differentiably.

    Args:
        x: (B, ...) with the same B on every process.

    Returns:
        (world * B, ...); row rank*B + i is row i of that rank.
    """
    if world()[1] == 1:
        return x
    out: Tensor = _Gather.apply(x)
    return out


def gather_rows(x: Tensor) -> Tensor:
    """Stack the rows of all processes in rank order, without gradient; (B, ...) of any type to (world * B, ...)."""
    if world()[1] == 1:
        return x.detach()
    x = x.detach()
    if x.dtype == torch.bool:  # gloo has no boolean collectives
        return _all_gather(x.to(torch.uint8)).bool()
    return _all_gather(x)


def sum_over_processes(x: Tensor) -> Tensor:
    """Sum a tensor over all processes, without gradient."""
    total = x.detach().clone()
    if world()[1] > 1:
        dist.all_reduce(total)
    return total
