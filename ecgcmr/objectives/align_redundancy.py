"""Alignment without negatives, by statistics of the batch: Barlow Twins (arXiv 2103.03230), VICReg (2105.04906).

Both look at correlations between the dimensions of the projections over the *global* batch, so they have no value for
one sample: each sample with both modalities carries the value of the batch, whose mean over samples it is. Weighting
samples or groups therefore changes nothing but the invariance term of VICReg.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ecgcmr.cohort.batch import Batch
from ecgcmr.models.config import ModelConfig
from ecgcmr.objectives.base import ObjectiveOutput
from ecgcmr.objectives.distributed import gather_rows, gather_with_gradient
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.objectives.modules import full_precision
from ecgcmr.objectives.pair import PairAlign, PairAlignConfig, pair_quality

_EPSILON = 1e-4


class BarlowAlignConfig(PairAlignConfig):
    """Barlow Twins; see `PairAlignConfig` for the encoders.

    Attributes:
        off_diagonal: Weight lambda of the correlations between different dimensions.
    """

    name: Literal["barlow_align"] = "barlow_align"
    off_diagonal: float = Field(default=0.005, ge=0)


class VicregAlignConfig(PairAlignConfig):
    """VICReg; see `PairAlignConfig` for the encoders.

    Attributes:
        invariance: Weight of the mean squared difference of a pair, over dimensions.
        variance: Weight of the hinge that keeps the standard deviation of each dimension at 1.
        covariance: Weight of the squared covariances between different dimensions.
    """

    name: Literal["vicreg_align"] = "vicreg_align"
    invariance: float = Field(default=25.0, ge=0)
    variance: float = Field(default=25.0, ge=0)
    covariance: float = Field(default=1.0, ge=0)


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


def vicreg_terms(x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and covariance terms of one modality.

    Args:
        x: (G, D) of all processes.
        valid: (G,) bool.

    Returns:
        Mean over dimensions of max(0, 1 - standard deviation), and sum of squared covariances between different
        dimensions divided by D.
    """
    c, count = centred(x, valid)
    covariance = c.T @ c / (count - 1).clamp(min=1)
    variances = covariance.diagonal()
    hinge = (1 - (variances + _EPSILON).sqrt()).clamp(min=0).mean()
    return hinge, (covariance.square().sum() - variances.square().sum()) / x.shape[1]


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


class VicregAlign(PairAlign):
    """Losses `invariance` of each pair, `variance` and `covariance` of the batch."""

    config: VicregAlignConfig

    def __init__(self, config: VicregAlignConfig, model: ModelConfig, facts: DataFacts) -> None:
        super().__init__(config, model, facts)
        self.loss_weights = {name: getattr(config, name) for name in ("invariance", "variance", "covariance")}

    def compare(self, rows: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        """Bring pairs together and keep all dimensions of both modalities in use."""
        valid = batch["has_ecg"] & batch["has_cmr"]
        with full_precision(rows["image"]):
            everyone = gather_rows(valid)
            both = [vicreg_terms(gather_with_gradient(rows[name]), everyone) for name in ("image", "ecg")]
            counted = valid.to(rows["image"].dtype)
            losses = {
                "invariance": (rows["image"] - rows["ecg"]).square().mean(1) * counted,
                "variance": (both[0][0] + both[1][0]) * counted,
                "covariance": (both[0][1] + both[1][1]) * counted,
            }
        metrics = pair_quality(rows["image"], rows["ecg"], batch)
        return ObjectiveOutput(losses, dict.fromkeys(losses, valid), metrics)
