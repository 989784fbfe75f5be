"""Attention rollout (Abnar & Zuidema 2020, arXiv 2005.00928): how much of each patch could reach the embedding.

It is about no target: attention is the same whatever the head predicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ecgcmr.ecg.leads import LEADS
from ecgcmr.evaluation.explain.prepare import prepare
from ecgcmr.evaluation.explain.result import CLASS_AGNOSTIC, ECG_AXES, Explanation
from ecgcmr.models.attention_maps import attention_maps, pooling_weights
from ecgcmr.models.ecg_st_vit import EcgStViT
from ecgcmr.models.ecg_vit import EcgViT

if TYPE_CHECKING:
    from ecgcmr.hub.model import LoadedModel


def rollout(maps: Sequence[Tensor]) -> Tensor:
    """Product of the blocks' attention with half of the residual path, (B, heads, N, N) each, to (B, N, N).

    Rows are output tokens, columns are input tokens; every row sums to 1.
    """
    total: Tensor | None = None
    for weights in maps:
        mean = weights.double().mean(dim=1)
        step = 0.5 * mean + 0.5 * torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
        step = step / step.sum(dim=-1, keepdim=True)
        total = step if total is None else step @ total
    if total is None:
        raise ValueError("attention rollout needs the maps of at least one block")
    return total


def attention_rollout(model: LoadedModel, item: Any) -> Explanation:
    """Share of each patch in what is pooled, for ECG encoders whose tokens are patches of one lead.

    Args:
        model: The model.
        item: A recording or ECG file.

    Returns:
        Values (12, W) over windows as long as a patch; they sum to 1. `settings["cls"]` is the share of the cls token,
        which is no place in the ECG and was divided out.

    Raises:
        ValueError: A cine was given, or the encoder's tokens are not patches of one lead.
    """
    prepared = prepare(model, item)
    encoder = prepared.encoder
    if prepared.modality != "ecg" or not isinstance(encoder, EcgViT | EcgStViT):
        raise ValueError(
            f"attention rollout needs tokens that are patches of one lead; {type(encoder).__name__} has none such; "
            "take method 'ig' or 'occlusion'"
        )
    flow = rollout(attention_maps(encoder, prepared.x))[0]
    read = _read_by_pooling(encoder, prepared.x, flow)
    windows = encoder.windows
    if isinstance(encoder, EcgViT):
        cls, grid = read[: encoder.prefix].sum(), read[encoder.prefix :].reshape(len(LEADS), windows)
    else:
        by_lead = read.reshape(len(LEADS), windows + 2)
        cls, grid = by_lead[:, [0, -1]].sum(), by_lead[:, 1:-1]
    return Explanation(
        values=np.asarray((grid / grid.sum()).cpu().numpy()),
        axes=ECG_AXES,
        method="attention rollout",
        target=CLASS_AGNOSTIC,
        unit="share",
        model=str(model.config["name"]),
        sha256=str(model.config["sha256"]),
        settings={"residual": 0.5, "heads": "mean", "cls": float(cls)},
        leads=LEADS,
        rate_hz=prepared.rate_hz / encoder.patch,
        start_s=prepared.start_s,
    )


def _read_by_pooling(encoder: EcgViT | EcgStViT, x: Tensor, flow: Tensor) -> Tensor:
    """Share (N,) of every input token in what the pooling reads of the output tokens."""
    if isinstance(encoder, EcgStViT):
        rows = flow.reshape(len(LEADS), encoder.windows + 2, -1)[:, 1:-1]
        return rows.reshape(-1, flow.shape[1]).mean(dim=0)
    if encoder.pool == "cls":
        return flow[0]
    if encoder.pool == "attention":
        with torch.no_grad():
            weights = pooling_weights(encoder.attention_pool, encoder.forward_tokens(x), encoder.prefix)[0]
        return weights.double() @ flow[encoder.prefix :]
    return flow[encoder.prefix :].mean(dim=0)
