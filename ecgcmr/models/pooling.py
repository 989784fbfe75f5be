"""From tokens to one vector: mean, or attention with the mean token as its only query."""

from __future__ import annotations

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
