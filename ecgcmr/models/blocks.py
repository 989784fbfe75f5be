"""Transformer blocks: pre-norm, packed qkv with bias, exact GELU, LayerNorm eps 1e-6 (arXiv 2010.11929).

The attention product is chosen by device and task, see `attention`. State-dict names are those of timm's blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgcmr.models.distributed import row_shard

LAYER_NORM_EPS = 1e-6


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention by the product that is fastest for the device and the task.

    On the CPU the backward of the fused kernel is slow in bfloat16, so there training uses two batched products with
    the scale folded into q; everywhere else, float32 training on the CPU included, the fused kernel wins.

    Args:
        q: Queries (B, heads, N, d).
        k: Keys (B, heads, M, d).
        v: Values (B, heads, M, d).

    Returns:
        (B, heads, N, d).
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled() and q.requires_grad:
        weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        return weights.softmax(dim=-1).to(v.dtype) @ v
    return functional.scaled_dot_product_attention(q, k, v)


class Attention(nn.Module):
    """Multi-head self-attention; rows of `qkv` are q, k, v and within each head-major."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each sequence, (B, N, D) to (B, N, D)."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        out = attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        return self.proj(out)


class Mlp(nn.Module):
    """Two linear layers with an exact (erf) GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token, (B, N, D) to (B, N, D)."""
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Transform a sequence.

        Args:
            x: Tokens (B, N, D).
            keep: Factors (2, B) of the two residual branches of each sample (stochastic depth); None for 1.

        Returns:
            (B, N, D).
        """
        if keep is None:
            x = x + self.attn(self.norm1(x))
            return x + self.mlp(self.norm2(x))
        keep = keep.to(x.dtype)[:, :, None, None]
        x = x + keep[0] * self.attn(self.norm1(x))
        return x + keep[1] * self.mlp(self.norm2(x))


def stochastic_depth(
    drop_path: float, depth: int, like: Tensor, generator: torch.Generator | None = None
) -> list[Tensor] | None:
    """Draw which residual branches each sample keeps (arXiv 1603.09382), for the global batch, and take the own rows.

    Args:
        drop_path: Rate of the last block; the rate grows linearly over depth from 0.
        depth: Number of blocks.
        like: A tensor (B, ...) of this process, for batch size, device and type.
        generator: Source of randomness, alike on all processes.

    Returns:
        For each block factors (2, B), 0 or 1 / (1 - rate); None where nothing can be dropped.
    """
    if drop_path == 0 or not torch.is_grad_enabled():
        return None
    rank, n_processes = row_shard()
    rows = like.shape[0]
    drawn_on = generator.device if generator is not None else like.device
    draw = torch.rand(depth, 2, n_processes * rows, generator=generator, device=drawn_on).to(like.device)
    keep_rates = 1 - torch.linspace(0, drop_path, depth, device=like.device)[:, None, None]
    factors = (draw < keep_rates).to(like.dtype) / keep_rates.to(like.dtype)
    return list(factors[:, :, rank * rows : (rank + 1) * rows])


def init_transformer(module: nn.Module) -> None:
    """Xavier-uniform linear layers with zero bias, as in masked autoencoders (arXiv 2111.06377); use with `apply`."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
