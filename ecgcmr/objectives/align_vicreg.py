"""Alignment without negatives: variance, invariance and covariance of projections (VICReg, arXiv 2105.04906).

Variance and covariance are those of the *global* batch: each sample with both modalities carries the value of the
batch, so that weighting samples or groups changes the invariance term only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from torch import Tensor

from ecgcmr.cohort.batch import Batch
from ecgcmr.models.config import ModelConfig
from ecgcmr.objectives.align_barlow import centred
from ecgcmr.objectives.base import ObjectiveOutput
from ecgcmr.objectives.distributed import gather_rows, gather_with_gradient
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.objectives.modules import full_precision
from ecgcmr.objectives.pair import PairAlign, PairAlignConfig, pair_quality

_EPSILON = 1e-4


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
