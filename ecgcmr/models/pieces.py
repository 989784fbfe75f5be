"""Inference in pieces: what a layer writes stays in the cache, and no block of memory is mapped anew for each layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ecgcmr.models.ecg_vit import EcgViT

PIECE_BYTES = 16 * 2**20
"""Size of the widest layer's output for one piece: below the 32 MiB above which glibc maps each block by itself."""


def piece_rows(encoder: nn.Module) -> int | None:
    """How many samples an ECG transformer encodes at once on the CPU; None for other encoders.

    float32 is assumed; bfloat16 takes half of it.
    """
    if not isinstance(encoder, EcgViT):
        return None
    tokens = encoder.prefix + encoder.leads * encoder.windows
    widest = int(encoder.embed_dim * max(encoder.config["mlp_ratio"], 3.0))
    return max(1, PIECE_BYTES // (4 * tokens * widest))


def encode(encoder: nn.Module, ecg_BLT: Tensor, keep: Tensor | None = None) -> Tensor:
    """Embed ECGs without gradient, in pieces where that is faster: on the CPU.

    Args:
        encoder: An ECG encoder; samples do not see each other, so pieces change nothing but rounding.
        ecg_BLT: (B, L, T).
        keep: Numbers (B, N_keep) of the patches to encode; None for all.

    Returns:
        (B, D).
    """
    rows = piece_rows(encoder)
    if rows is None or len(ecg_BLT) <= rows or ecg_BLT.device.type != "cpu" or torch.is_grad_enabled():
        return _call(encoder, ecg_BLT, keep)
    parts = range(0, len(ecg_BLT), rows)
    return torch.cat(
        [_call(encoder, ecg_BLT[i : i + rows], None if keep is None else keep[i : i + rows]) for i in parts]
    )


def _call(encoder: Any, ecg_BLT: Tensor, keep: Tensor | None) -> Tensor:
    found: Tensor = encoder(ecg_BLT) if keep is None else encoder(ecg_BLT, keep=keep)
    return found
