"""Alignment in which subjects with similar labels are positives too, or at least no negatives.

Supervised contrast (arXiv 2004.11362) with positives that are told by the distance of labels instead of by classes:
all of them, weighed by similarity; the k nearest ones; or none, and the nearest ones are taken out of the negatives
(false-negative removal). The reference of arXiv 2308.05764 removes by a cosine similarity of 0.9 between subjects and
takes k = 6: `similarity="cosine"`, with `positives="remove", floor=0.9` or `positives="nearest", k=6`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ecgcmr.cohort.batch import Batch
from ecgcmr.models.config import ModelConfig
from ecgcmr.objectives.base import Mean, ObjectiveOutput
from ecgcmr.objectives.contrast import by_rows, excluded_columns, unit_rows
from ecgcmr.objectives.distributed import gather_rows, gather_with_gradient
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.objectives.label_space import LabelSpace, Seen, cosine_similarity, gaussian_similarity
from ecgcmr.objectives.modules import full_precision
from ecgcmr.objectives.pair import PairAlign, PairAlignConfig, pair_quality


class LabelAlignConfig(PairAlignConfig):
    """Contrast with positives by labels; see `PairAlignConfig` for the encoders.

    The similarity of two subjects looks at the labels that both have, measurements in standard deviations of the
    training subjects; it is 0 where they share no label. `gaussian` is exp(-d / (2 width^2)) of their mean squared
    difference d, and so needs subjects to be near each other; `cosine` is the cosine of the two vectors of labels,
    and so asks for the same pattern of deviations from the mean, however large (with one label: the same side).

    Attributes:
        similarity: gaussian or cosine.
        positives: `soft` (all whose similarity reaches `floor`, weighed by it), `nearest` (the k most similar of
            those, weighing 1) or `remove` (none; those that reach `floor` are no negatives).
        k: Number of further positives of `nearest`.
        floor: Least similarity.
        width: Width of the gaussian similarity [standard deviations].
        temperature: Softmax temperature tau.
        image_weight: Weight lambda of image-to-ECG; ECG-to-image weighs 1 - lambda.
    """

    name: Literal["label_align"] = "label_align"
    similarity: Literal["gaussian", "cosine"] = "gaussian"
    positives: Literal["soft", "nearest", "remove"] = "soft"
    k: int = Field(default=5, ge=1)
    floor: float = Field(default=0.5, gt=0, le=1)
    width: float = Field(default=0.5, gt=0)
    temperature: float = Field(default=0.1, ge=0.01)
    image_weight: float = Field(default=0.5, ge=0, le=1)


def soft_contrast(logits: Tensor, weights: Tensor) -> Tensor:
    """Cross entropy of each row against the shares that its weights give to the columns.

    Args:
        logits: (B, G), minus infinity for columns that take no part.
        weights: (B, G), 0 for those columns, above 0 for at least one.

    Returns:
        (B,).
    """
    terms = torch.where(weights > 0, weights * logits.log_softmax(1), torch.zeros_like(logits))
    return -terms.sum(1) / weights.sum(1)


class LabelAlign(PairAlign):
    """Loss `contrast` of each subject with both modalities."""

    config: LabelAlignConfig

    def __init__(self, config: LabelAlignConfig, model: ModelConfig, facts: DataFacts) -> None:
        super().__init__(config, model, facts)
        self.label_space = LabelSpace(facts, config.name)
        self.loss_weights = {"contrast": 1.0}

    def compare(self, rows: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        """Compare each subject with all others, and let the similar ones count as their labels say."""
        image, ecg = unit_rows(rows["image"]), unit_rows(rows["ecg"])
        valid = batch["has_ecg"] & batch["has_cmr"]
        labels, seen = self.label_space(batch, image)
        with full_precision(image):
            images, ecgs = gather_with_gradient(image), gather_with_gradient(ecg)
            everyone = gather_rows(labels), gather_rows(seen)

            def terms(part: slice) -> dict[str, Tensor]:
                excluded, own = excluded_columns(batch["subject"], valid, part)
                similarity = self._similarity((labels[part], seen[part]), everyone)
                weights, excluded = self._weights(similarity, excluded, own)
                found = {"positives": (weights > 0).sum(1).to(image.dtype)}
                for name, anchors, others in (("image", image[part], ecgs), ("ecg", ecg[part], images)):
                    logits = (anchors @ others.T / self.config.temperature).masked_fill(excluded, -torch.inf)
                    found[name] = soft_contrast(logits, weights)
                return found

            found = by_rows(terms, image.shape[0], images.shape[0])
        loss = self.config.image_weight * found["image"] + (1 - self.config.image_weight) * found["ecg"]
        metrics = {"positives": Mean.over(found["positives"], valid)} | pair_quality(image, ecg, batch)
        losses = {"contrast": torch.where(valid, loss, torch.zeros_like(loss))}
        return ObjectiveOutput(losses, {"contrast": valid}, metrics)

    def _similarity(self, rows: Seen, columns: Seen) -> Tensor:
        if self.config.similarity == "cosine":
            return cosine_similarity(rows, columns)
        return gaussian_similarity(rows, columns, self.config.width)

    def _weights(self, similarity: Tensor, excluded: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (B, G) of the positives, 1 for the own column, and the columns that take no part (B, G)."""
        config = self.config
        rows = torch.arange(own.shape[0], device=own.device)
        similar = similarity.masked_fill(excluded | (similarity < config.floor), 0)
        similar[rows, own] = 0
        weights = similar
        if config.positives == "remove":
            excluded, weights = excluded | (similar > 0), torch.zeros_like(similar)
        if config.positives == "nearest":
            # A stable sort, so that equally similar ones are taken in the order of the global batch everywhere.
            nearest = similar.sort(dim=1, descending=True, stable=True).indices[:, : config.k]
            chosen = torch.zeros_like(similar).scatter(1, nearest, 1.0)
            weights = chosen * (similar > 0)
        weights = weights.clone()
        weights[rows, own] = 1.0
        return weights, excluded
