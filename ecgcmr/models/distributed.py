"""Collectives that keep the gradient: what P processes compute with batch B is what one computes with P*B.

A gather without gradient gives the right loss and, on P processes, 1/P of the gradient: only a gradient test tells.
Without an initialized process group everything here is the identity of a world of one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world() -> tuple[int, int]:
    """Give (rank, number of processes); (0, 1) outside a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


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
