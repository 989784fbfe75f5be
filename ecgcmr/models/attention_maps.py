"""Attention weights of our transformers, recomputed from what each attention module reads.

The fused kernel never forms the weights; a hook takes the input of each module and computes them again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ecgcmr.models.blocks import Attention
from ecgcmr.models.pooling import AttentionPool


def attention_weights(module: Attention, x: Tensor) -> Tensor:
    """Weights with which each token reads the others, (B, N, D) to (B, heads, N, N); rows sum to 1."""
    batch, tokens, width = x.shape
    qkv = module.qkv(x).view(batch, tokens, 3, module.heads, width // module.heads)
    q, k, _ = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1)


@torch.no_grad()
def attention_maps(encoder: nn.Module, x: Tensor) -> list[Tensor]:
    """Weights (B, heads, N, N) of every block, first to last, while the encoder reads x.

    Raises:
        ValueError: The encoder has no attention of this package.
    """
    modules = [module for module in encoder.modules() if isinstance(module, Attention)]
    if not modules:
        raise ValueError(f"{type(encoder).__name__} has no attention to look at")
    maps: list[Tensor] = []

    def look(module: nn.Module, given: Any) -> None:
        assert isinstance(module, Attention), "hooks were set on attention modules alone"
        maps.append(attention_weights(module, given[0]))

    hooks = [module.register_forward_pre_hook(look) for module in modules]
    try:
        encoder(x)
    finally:
        for hook in hooks:
            hook.remove()
    return maps


@torch.no_grad()
def pooling_weights(pool: AttentionPool, tokens: Tensor, prefix: int) -> Tensor:
    """Weights (B, N) with which attention pooling reads the patch tokens of (B, prefix + N, D), mean over heads."""
    patches = tokens[:, prefix:]
    query = patches.mean(dim=1, keepdim=True)
    _, weights = nn.MultiheadAttention.forward(pool, query, patches, patches, need_weights=True)
    assert weights is not None, "weights were asked for"
    return weights[:, 0]
