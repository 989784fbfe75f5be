"""Alignment without negatives: cross-correlations of dimensions near the identity (Barlow Twins, arXiv 2103.03230).

It looks at correlations between the dimensions of the projections over the *global* batch, so it has no value for one
sample: each sample with both modalities carries the value of the batch, whose mean over samples it is. Weighting
samples or groups therefore changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from torch import Tensor

from ecgcmr.cohort.batch import Batch
from ecgcmr.models.config import ModelConfig
from ecgcmr.objectives.base import ObjectiveOutput
from ecgcmr.objectives.distributed import gather_rows, gather_with_gradient
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.objectives.modules import full_precision
from ecgcmr.objectives.pair import PairAlign, PairAlignConfig, pair_quality


class BarlowAlignConfig(PairAlignConfig):
    """Barlow Twins; see `PairAlignConfig` for the encoders.

    Attributes:
        off_diagonal: Weight lambda of the correlations between different dimensions.
    """

    name: Literal["barlow_align"] = "barlow_align"
    off_diagonal: float = Field(default=0.005, ge=0)


def centred(x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Take the mean over valid rows from each; (G, D), 0 in rows that are not valid, and the number of valid ones."""
    count = valid.sum().to(x.dtype)
    kept = x.masked_fill(~valid[:, None], 0)
    return (kept - kept.sum(0) / count.clamp(min=1)).masked_fill(~valid[:, None], 0), count


def barlow_loss(image: Tensor, ecg: Tensor, valid: Tensor, off_diagonal: float) -> Tensor:
    """Distance of the cross-correlation matrix from the identity.

    Args:
        image: (G, D) of all processes.
        ecg: (G, D) likewise.
        valid: (G,) bool.
        off_diagonal: Weight of the entries off the diagonal.

    Returns:
        (), which is D where nothing correlates because fewer than two rows are valid.
    """
    a, b = centred(image, valid)[0], centred(ecg, valid)[0]
    # The small constant only matters for a dimension that does not vary, whose correlation is then 0.
    a, b = (x / (x.square().sum(0) + 1e-12).sqrt() for x in (a, b))
    correlation = a.T @ b
    diagonal = correlation.diagonal()
    others = correlation.square().sum() - diagonal.square().sum()
    return (1 - diagonal).square().sum() + off_diagonal * others


class BarlowAlign(PairAlign):
    """Loss `barlow`, the same for each subject with both modalities."""

    config: BarlowAlignConfig

    def __init__(self, config: BarlowAlignConfig, model: ModelConfig, facts: DataFacts) -> None:
        super().__init__(config, model, facts)
        self.loss_weights = {"barlow": 1.0}

    def compare(self, rows: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        """Correlate the dimensions of both modalities over all subjects."""
        valid = batch["has_ecg"] & batch["has_cmr"]
        with full_precision(rows["image"]):
            image, ecg = (gather_with_gradient(rows[name]) for name in ("image", "ecg"))
            loss = barlow_loss(image, ecg, gather_rows(valid), self.config.off_diagonal)
        losses = {"barlow": loss * valid.to(loss.dtype)}
        return ObjectiveOutput(losses, {"barlow": valid}, pair_quality(rows["image"], rows["ecg"], batch))
