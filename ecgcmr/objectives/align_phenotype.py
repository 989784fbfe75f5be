"""Alignment whose negatives weigh as much as their phenotypes differ (an option of MyoECG, 2026, 10.57967/hf/10893).

A subject with the same phenotypes is hardly a negative, one with very different ones is a whole one: CLIP's softmax
with the weight W = 1 - exp(-d / sigma^2) before each negative. Written from a description of the method, not from code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ecgcmr.cohort.batch import Batch
from ecgcmr.models.config import ModelConfig
from ecgcmr.objectives.base import Mean, ObjectiveOutput
from ecgcmr.objectives.contrast import by_rows, excluded_columns, unit_rows
from ecgcmr.objectives.distributed import gather_rows, gather_with_gradient
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.objectives.label_space import LabelSpace, label_distance
from ecgcmr.objectives.modules import full_precision
from ecgcmr.objectives.pair import PairAlign, PairAlignConfig, pair_quality

_TINY = 1e-12


class PhenotypeAlignConfig(PairAlignConfig):
    """Phenotype-weighted contrast; see `PairAlignConfig` for the encoders.

    The distance d of two subjects is the mean squared difference of the labels that both have, measurements in
    standard deviations of the training subjects; where they share none, the negative weighs 1.

    Attributes:
        sigma: Scale of the distance [standard deviations]; towards 0 the loss becomes CLIP's.
        temperature: Softmax temperature tau.
        image_weight: Weight lambda of image-to-ECG; ECG-to-image weighs 1 - lambda.
    """

    name: Literal["phenotype_align"] = "phenotype_align"
    sigma: float = Field(default=1.0, gt=0)
    temperature: float = Field(default=0.1, ge=0.01)
    image_weight: float = Field(default=0.5, ge=0, le=1)


def weighted_contrast(logits: Tensor, weights: Tensor, own: Tensor) -> Tensor:
    """-log(exp(l_own) / sum of w exp(l)), the own column weighing 1.

    Args:
        logits: (B, G), minus infinity for columns that take no part.
        weights: (B, G) in [0, 1].
        own: (B,) column of each row.

    Returns:
        (B,).
    """
    weights = weights.scatter(1, own[:, None], 1.0)
    # A weight of 0 leaves the column out; its logarithm would make the gradient NaN.
    weighed = torch.where(weights > _TINY, logits + weights.clamp(min=_TINY).log(), -torch.inf)
    return functional.cross_entropy(weighed, own, reduction="none")


class PhenotypeAlign(PairAlign):
    """Loss `contrast` of each subject with both modalities."""

    config: PhenotypeAlignConfig

    def __init__(self, config: PhenotypeAlignConfig, model: ModelConfig, facts: DataFacts) -> None:
        super().__init__(config, model, facts)
        self.label_space = LabelSpace(facts, config.name)
        self.loss_weights = {"contrast": 1.0}

    def compare(self, rows: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        """Compare each subject with all others, which weigh as much as they differ."""
        config = self.config
        image, ecg = unit_rows(rows["image"]), unit_rows(rows["ecg"])
        valid = batch["has_ecg"] & batch["has_cmr"]
        labels, seen = self.label_space(batch, image)
        with full_precision(image):
            images, ecgs = gather_with_gradient(image), gather_with_gradient(ecg)
            everyone = gather_rows(labels), gather_rows(seen)

            def terms(part: slice) -> dict[str, Tensor]:
                excluded, own = excluded_columns(batch["subject"], valid, part)
                distance, shared = label_distance((labels[part], seen[part]), everyone)
                weights = torch.where(shared > 0, -torch.expm1(-distance / config.sigma**2), 1.0)
                negatives = (~excluded).scatter(1, own[:, None], False)
                count = negatives.sum(1).clamp(min=1)
                found = {"weight": (weights * negatives).sum(1) / count}
                for name, anchors, others in (("image", image[part], ecgs), ("ecg", ecg[part], images)):
                    logits = (anchors @ others.T / config.temperature).masked_fill(excluded, -torch.inf)
                    found[name] = weighted_contrast(logits, weights, own)
                return found

            found = by_rows(terms, image.shape[0], images.shape[0])
        loss = config.image_weight * found["image"] + (1 - config.image_weight) * found["ecg"]
        metrics = {"negative_weight": Mean.over(found["weight"], valid)} | pair_quality(image, ecg, batch)
        losses = {"contrast": torch.where(valid, loss, torch.zeros_like(loss))}
        return ObjectiveOutput(losses, {"contrast": valid}, metrics)
