"""From tokens to one vector: mean, or attention with one query, the mean token or a learned one."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def mean_pool(tokens: Tensor, prefix: int = 1) -> Tensor:
    """Average the patch tokens; (B, prefix + N, D), the first `prefix` of them no patches (cls), to (B, D)."""
    return tokens[:, prefix:].mean(dim=1)


class AttentionPool(nn.MultiheadAttention):
    """Attention pooling: one query, the mean of the patch tokens; keys and values are the patch tokens, cls excluded.

    A `torch.nn.MultiheadAttention` by weights and by state-dict names, so that fine-tuned reference checkpoints fit.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads, batch_first=True)

    def forward(self, tokens: Tensor, prefix: int = 1) -> Tensor:  # type: ignore[override]
        """Pool (B, prefix + N, D), the first `prefix` tokens no patches, to (B, D)."""
        patches = tokens[:, prefix:]
        query = patches.mean(dim=1, keepdim=True)
        pooled, _ = super().forward(query, patches, patches, need_weights=False)
        return pooled[:, 0]


class QueryPool(nn.Module):
    """Attention pooling with one learned query over the normalized patch tokens, cls excluded.

    The attentive probe of a frozen encoder (arXiv 2202.03026, section 4.2; pooling by multihead attention, arXiv
    1810.00825): it learns which leads and which part of the beat to look at.
    """

    def __init__(self, width: int, heads: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(1, 1, width))
        nn.init.trunc_normal_(self.query, std=0.02)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, tokens: Tensor, prefix: int = 1) -> Tensor:
        """Pool (B, prefix + N, D), the first `prefix` tokens no patches, to (B, D)."""
        patches = self.norm(tokens[:, prefix:])
        query = self.query.to(patches.dtype).expand(patches.shape[0], -1, -1)
        pooled, _ = self.attention(query, patches, patches, need_weights=False)
        return pooled[:, 0]
