"""Alignment of ECG and CMR: a CLIP-style loss over the pairs of the global batch (arXiv 2308.05764, 2103.00020)."""

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
from ecgcmr.objectives.base import Mean, ObjectiveOutput
from ecgcmr.objectives.contrast import by_rows, excluded_columns, potentials, ranks_of_positive, uniformity, unit_rows
from ecgcmr.objectives.distributed import gather_rows, gather_with_gradient
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.objectives.modules import full_precision
from ecgcmr.objectives.pair import PairAlign, PairAlignConfig

MAX_LOG_SCALE = math.log(100.0)


class ClipAlignConfig(PairAlignConfig):
    """CLIP-style alignment; see `PairAlignConfig` for the encoders.

    Attributes:
        temperature: Softmax temperature tau, fixed or where learning starts.
        learn_temperature: Learn log(1 / tau), kept at or below log 100.
        image_weight: Weight lambda of image-to-ECG; ECG-to-image weighs 1 - lambda.
    """

    name: Literal["clip_align"] = "clip_align"
    temperature: float = Field(default=0.1, ge=0.01)
    learn_temperature: bool = False
    image_weight: float = Field(default=0.5, ge=0, le=1)


def clip_loss(
    image: Tensor,
    ecg: Tensor,
    scale: Tensor,
    image_weight: float,
    exclusion: tuple[Tensor, Tensor],
    candidates: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Symmetric cross entropy of matching pairs, rows image and columns ECG.

    Each process holds the logits of its own rows only, (B, G) and not (G, G); the gathers return the gradients of the
    other processes' rows, so that loss and gradient are those of the whole matrix.

    Args:
        image: CMR projections (B, D) of this process, of length 1.
        ecg: ECG projections (B, D) of this process, of length 1.
        scale: 1 / tau, () or (B, 1).
        image_weight: Weight of image-to-ECG.
        exclusion: `excluded` (B, G) and `own` (B,) of `excluded_columns`.
        candidates: All images and ECGs, (G, D) each; None gathers them from the processes.

    Returns:
        Loss (B,) of each pair, and the logits (B, G) of image-to-ECG and of ECG-to-image.
    """
    excluded, own = exclusion
    all_images, all_ecgs = candidates or (gather_with_gradient(image), gather_with_gradient(ecg))
    from_image = (scale * image @ all_ecgs.T).masked_fill(excluded, -torch.inf)
    from_ecg = (scale * ecg @ all_images.T).masked_fill(excluded, -torch.inf)
    loss = image_weight * functional.cross_entropy(from_image, own, reduction="none")
    loss = loss + (1 - image_weight) * functional.cross_entropy(from_ecg, own, reduction="none")
    return loss, from_image, from_ecg


class ClipAlign(PairAlign):
    """Loss `clip` of each subject with both modalities; others count neither as pairs nor as negatives."""

    config: ClipAlignConfig
    log_scale: Tensor

    def __init__(self, config: ClipAlignConfig, model: ModelConfig, facts: DataFacts) -> None:
        super().__init__(config, model, facts)
        start = torch.tensor(-math.log(config.temperature))
        if config.learn_temperature:
            self.log_scale = nn.Parameter(start)
        else:
            self.register_buffer("log_scale", start)
        self.loss_weights = {"clip": 1.0}

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep a learned scale at or below 100."""
        self.log_scale.clamp_(max=MAX_LOG_SCALE)

    def represent(self, batch: Batch, generator: object | None = None) -> dict[str, Tensor]:
        """Give projections `image` and `ecg` (B, D) of length 1, and `scale` (B,), 1 / tau for each row."""
        rows = super().represent(batch, generator)
        image, ecg = unit_rows(rows["image"]), unit_rows(rows["ecg"])
        # A row each, so that the temperature takes part in every piece of a batch as all other parameters do.
        return {"image": image, "ecg": ecg, "scale": self.log_scale.exp().expand(image.shape[0])}

    def compare(self, rows: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        """Compare each subject's CMR with all ECGs of the global batch, and the reverse."""
        image, ecg, scale = rows["image"], rows["ecg"], rows["scale"]
        subject, valid = batch["subject"], batch["has_ecg"] & batch["has_cmr"]
        valids = gather_rows(valid)
        with full_precision(image):
            everything = gather_with_gradient(image), gather_with_gradient(ecg)

            def terms(part: slice) -> dict[str, Tensor]:
                excluded, own = excluded_columns(subject, valid, part)
                loss, from_image, from_ecg = clip_loss(
                    image[part], ecg[part], scale[part, None], self.config.image_weight, (excluded, own), everything
                )
                return {
                    "loss": loss,
                    "cmr_to_ecg": ranks_of_positive(from_image, own),
                    "ecg_to_cmr": ranks_of_positive(from_ecg, own),
                    "cmr": potentials(image[part], everything[0], own, valids),
                    "ecg": potentials(ecg[part], everything[1], own, valids),
                }

            found = by_rows(terms, image.shape[0], valids.shape[0])
        loss = torch.where(valid, found["loss"], torch.zeros((), dtype=image.dtype, device=image.device))
        metrics = {
            "temperature": Mean.over(scale.reciprocal(), torch.ones_like(valid)),
            "alignment": Mean.over((image - ecg).square().sum(-1), valid),
            "uniformity_ecg": uniformity(found["ecg"], valid),
            "uniformity_cmr": uniformity(found["cmr"], valid),
        }
        for direction in ("cmr_to_ecg", "ecg_to_cmr"):
            for k in (1, 5):
                metrics[f"{direction}_top{k}"] = Mean.over((found[direction] < k).to(loss.dtype), valid)
        return ObjectiveOutput({"clip": loss}, {"clip": valid}, metrics)
