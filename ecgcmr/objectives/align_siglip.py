"""Alignment by a sigmoid for each pair of an image and an ECG, matching or not (SigLIP, arXiv 2303.15343)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ecgcmr.cohort.batch import Batch
from ecgcmr.models.config import ModelConfig
from ecgcmr.objectives.align import MAX_LOG_SCALE
from ecgcmr.objectives.base import Mean, ObjectiveOutput
from ecgcmr.objectives.contrast import by_rows, excluded_columns, unit_rows
from ecgcmr.objectives.distributed import gather_with_gradient
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.objectives.modules import full_precision
from ecgcmr.objectives.pair import PairAlign, PairAlignConfig, pair_quality


class SiglipAlignConfig(PairAlignConfig):
    """Sigmoid loss; see `PairAlignConfig` for the encoders.

    Attributes:
        scale: Where the learned factor of the cosine similarity starts.
        bias: Where the learned bias starts; strongly negative, because nearly all pairs do not match.
    """

    name: Literal["siglip_align"] = "siglip_align"
    scale: float = Field(default=10.0, gt=0, le=100)
    bias: float = -10.0


def siglip_loss(logits: Tensor, excluded: Tensor, own: Tensor) -> Tensor:
    """Sum of the logistic losses of a row: its own column matches, all others do not.

    Args:
        logits: (B, G).
        excluded: (B, G) columns that are no negatives.
        own: (B,) column of each row.

    Returns:
        (B,).
    """
    matches = functional.one_hot(own, logits.shape[1]).bool()
    losses = functional.softplus(torch.where(matches, -logits, logits))
    return losses.masked_fill(excluded, 0.0).sum(1)


class SiglipAlign(PairAlign):
    """Loss `siglip` of each subject's image with the ECGs of the global batch; those of one modality take no part."""

    config: SiglipAlignConfig

    def __init__(self, config: SiglipAlignConfig, model: ModelConfig, facts: DataFacts) -> None:
        super().__init__(config, model, facts)
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale)))
        self.bias = nn.Parameter(torch.tensor(float(config.bias)))
        self.loss_weights = {"siglip": 1.0}

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the scale at or below 100."""
        self.log_scale.clamp_(max=MAX_LOG_SCALE)

    def represent(self, batch: Batch, generator: object | None = None) -> dict[str, Tensor]:
        """Give projections `image` and `ecg` (B, D) of length 1, and `scale` and `bias` (B,) for each row."""
        rows = super().represent(batch, generator)
        n = rows["image"].shape[0]
        learned = {"scale": self.log_scale.exp().expand(n), "bias": self.bias.expand(n)}
        return {name: unit_rows(value) for name, value in rows.items()} | learned

    def compare(self, rows: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        """Compare each image with all ECGs; the sum over all pairs is the same in both directions."""
        image, scale, bias = rows["image"], rows["scale"], rows["bias"]
        valid = batch["has_ecg"] & batch["has_cmr"]
        with full_precision(image):
            ecgs = gather_with_gradient(rows["ecg"])

            def terms(part: slice) -> dict[str, Tensor]:
                excluded, own = excluded_columns(batch["subject"], valid, part)
                logits = scale[part, None] * (image[part] @ ecgs.T) + bias[part, None]
                return {"loss": siglip_loss(logits, excluded, own)}

            loss = by_rows(terms, image.shape[0], ecgs.shape[0])["loss"]
        everyone = torch.ones_like(valid)
        metrics = {"scale": Mean.over(scale, everyone), "bias": Mean.over(bias, everyone)}
        metrics |= pair_quality(image, rows["ecg"], batch)
        return ObjectiveOutput({"siglip": torch.where(valid, loss, torch.zeros_like(loss))}, {"siglip": valid}, metrics)
