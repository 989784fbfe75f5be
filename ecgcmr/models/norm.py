"""Batch normalization over the batches of all processes, on any backend (torch's SyncBatchNorm needs a GPU)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ecgcmr.models.distributed import gather_with_gradient, world


class _GatheredBatchNorm(_BatchNorm):
    """BatchNorm whose training statistics are those of the global batch; equal to torch's in one process.

    Counts, means and centred sums of squares are gathered and merged (Chan, Golub and LeVeque 1983), which does not
    cancel in float32 as a plain sum of squares does. The gather is differentiable, so gradients are exact too.
    """

    def forward(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        if not self.training or world()[1] == 1:
            return super().forward(x)
        dims = [0, *range(2, x.ndim)]
        wide = x.double() if x.dtype == torch.float64 else x.float()
        mean, var, count = _global_moments(wide, dims)
        if self.track_running_stats:
            self._update_running(mean.detach(), var.detach(), count)
        shape = [1, -1, *([1] * (x.ndim - 2))]
        out = (wide - mean.view(shape)) * torch.rsqrt(var + self.eps).view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(x.dtype)

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2:
            raise ValueError(f"expected (B, C, ...), got an input of shape {tuple(x.shape)}")

    @torch.no_grad()
    def _update_running(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked.add_(1)
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        unbiased = var * (count / (count - 1).clamp(min=1))
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var), momentum)


def _global_moments(x: Tensor, dims: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Give mean (C,), biased variance (C,) and count () of the global batch."""
    count = torch.tensor(x.numel() // x.shape[1], dtype=x.dtype, device=x.device)
    local_var, local_mean = torch.var_mean(x, dims, correction=0)
    packed = gather_with_gradient(torch.stack([count.expand_as(local_mean), local_mean, local_var * count])[None])
    counts, means, squares = packed[:, 0], packed[:, 1], packed[:, 2]
    total = counts.sum(0)
    mean = (counts * means).sum(0) / total
    var = (squares + counts * (means - mean).square()).sum(0) / total
    return mean, var, total[0].detach()


class GatheredBatchNorm1d(_GatheredBatchNorm):
    """For (B, C) or (B, C, T)."""


class GatheredBatchNorm2d(_GatheredBatchNorm):
    """For (B, C, H, W)."""


class _GatheredBatchNormAct(_GatheredBatchNorm):
    """For timm's BatchNorm with a fused activation: the statistics are gathered, its own tail is kept."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


def convert_batch_norm(module: nn.Module) -> nn.Module:
    """Replace every BatchNorm of a module by its gathered form, in place; names, weights and buffers stay.

    Args:
        module: Any module, a BatchNorm itself included.

    Returns:
        The module (a new one only if it is itself a BatchNorm).
    """
    if isinstance(module, _BatchNorm) and not isinstance(module, _GatheredBatchNorm | nn.SyncBatchNorm):
        return _converted(module)
    for name, child in module.named_children():
        replaced = convert_batch_norm(child)
        if replaced is not child:
            setattr(module, name, replaced)
    return module


def _converted(old: _BatchNorm) -> _GatheredBatchNorm:
    kind: type[_GatheredBatchNorm] = GatheredBatchNorm2d
    if isinstance(old, nn.BatchNorm1d):
        kind = GatheredBatchNorm1d
    parts: dict[str, Any] = dict(old.named_children())
    if parts:
        if set(parts) != {"drop", "act"}:
            raise ValueError(
                f"{type(old).__name__} has the parts {sorted(parts)}; only timm's drop and act can be kept "
                "when BatchNorm is gathered over processes"
            )
        kind = _GatheredBatchNormAct
    new = kind(old.num_features, old.eps, old.momentum, old.affine, old.track_running_stats)
    for name, part in parts.items():
        setattr(new, name, part)
    for name, parameter in old.named_parameters(recurse=False):
        setattr(new, name, parameter)  # the same object, so that an optimiser's references stay valid
    for name, buffer in old.named_buffers(recurse=False):
        setattr(new, name, buffer)
    return new.train(old.training)
