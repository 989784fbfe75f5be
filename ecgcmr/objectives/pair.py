"""What all alignments of ECG and CMR share: encoders, projections, views, and how well pairs are found."""

from __future__ import annotations

from typing import Any, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from ecgcmr.cohort.batch import Batch
from ecgcmr.ecg.augmentation import EcgAugment
from ecgcmr.models.config import ModelConfig, StrictConfig
from ecgcmr.objectives.base import Mean, Objective
from ecgcmr.objectives.contrast import by_rows, excluded_columns, potentials, ranks_of_positive, uniformity, unit_rows
from ecgcmr.objectives.distributed import gather_rows
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.objectives.modules import (
    freeze,
    full_precision,
    make_cmr_encoder,
    make_ecg_encoder,
    make_projection,
    wide,
)
from ecgcmr.objectives.views import Augmentation, cmr_view, ecg_view, kept_tokens, make_cmr_augment, the_generator


class PairAlignConfig(StrictConfig):
    """Two encoders and their views.

    Attributes:
        token_drop: Share of ECG patches that are left out at random in training, which makes a step cheaper.
        freeze_cmr: Keep the CMR encoder as it was initialized (its projection still learns).
        freeze_ecg: Likewise for the ECG encoder.
        ecg_augment: Preset or settings of `ecgcmr.ecg.augmentation`.
        cmr_augment: Preset or settings of `ecgcmr.cmr.augmentation`.
    """

    token_drop: float = Field(default=0.0, ge=0, lt=1)
    freeze_cmr: bool = False
    freeze_ecg: bool = False
    ecg_augment: Augmentation = "mmcl"
    cmr_augment: Augmentation = "reference"


class PairAlign(Objective):
    """Base: `project` gives the projections of both modalities. A subclass adds `compare`."""

    def __init__(self, config: PairAlignConfig, model: ModelConfig, facts: DataFacts) -> None:
        super().__init__()
        self.config = config
        self.ecg_encoder = make_ecg_encoder(model, facts)
        self.cmr_encoder = self.make_cmr_encoder(model, facts)
        self.ecg_projection = make_projection(model, self.ecg_encoder.embed_dim)
        self.cmr_projection = self.make_cmr_projection(model)
        self.ecg_augment = EcgAugment(config.ecg_augment)
        self.cmr_augment = make_cmr_augment(config.cmr_augment)
        self.train()

    def make_cmr_encoder(self, model: ModelConfig, facts: DataFacts) -> Any:
        """Build the CMR encoder; alignments that read studies otherwise replace this."""
        return make_cmr_encoder(model, facts)

    def make_cmr_projection(self, model: ModelConfig) -> Any:
        """Build the projection behind `cmr_encoder`."""
        return make_projection(model, self.cmr_encoder.embed_dim)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; frozen encoders stay in evaluation mode."""
        super().train(mode)
        for encoder in self._frozen():
            freeze(encoder)
        return self

    def _frozen(self) -> list[nn.Module]:
        both = ((self.config.freeze_cmr, self.cmr_encoder), (self.config.freeze_ecg, self.ecg_encoder))
        return [encoder for frozen, encoder in both if frozen]

    def encoders(self) -> dict[str, nn.Module]:
        """Export both encoders and both projections."""
        return {
            "ecg": self.ecg_encoder,
            "cmr": self.cmr_encoder,
            "ecg_projection": self.ecg_projection,
            "cmr_projection": self.cmr_projection,
        }

    def project(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Give CMR and ECG projections (B, D), of any length."""
        n_samples, training = self.ecg_encoder.n_samples, self.training
        ecg = ecg_view(batch["ecg"], n_samples, self.ecg_augment if training else None, generator)
        cmr = cmr_view(batch["cmr"], self.cmr_augment if training else None, generator)
        image = self.cmr_projection(self.cmr_encoder(cmr))
        keep = kept_tokens(self.ecg_encoder, ecg.shape[0], self.config.token_drop, generator)
        return wide(image), wide(self.ecg_projection(self.ecg_encoder(ecg, generator, keep)))

    def represent(self, batch: Batch, generator: object | None = None) -> dict[str, Tensor]:
        """Give projections `image` and `ecg` (B, D)."""
        image, ecg = self.project(batch, the_generator(generator, self.training, batch["ecg"].device))
        return {"image": image, "ecg": ecg}


@torch.no_grad()
def pair_quality(image: Tensor, ecg: Tensor, batch: Batch) -> dict[str, Mean]:
    """Say how well pairs are found by cosine similarity among all of the global batch, and how spread out they are.

    Args:
        image: CMR projections (B, D) of this process.
        ecg: ECG projections (B, D) of this process.
        batch: With subjects and what each has.

    Returns:
        `alignment`, `uniformity_ecg`, `uniformity_cmr` (arXiv 2005.10242), and for both directions the share of pairs
        at the first place and among the first five.
    """
    image, ecg = unit_rows(image), unit_rows(ecg)
    subject, valid = batch["subject"], batch["has_ecg"] & batch["has_cmr"]
    images, ecgs, valids = gather_rows(image), gather_rows(ecg), gather_rows(valid)

    def terms(part: slice) -> dict[str, Tensor]:
        excluded, own = excluded_columns(subject, valid, part)
        return {
            "cmr_to_ecg": ranks_of_positive((image[part] @ ecgs.T).masked_fill(excluded, -torch.inf), own),
            "ecg_to_cmr": ranks_of_positive((ecg[part] @ images.T).masked_fill(excluded, -torch.inf), own),
            "cmr": potentials(image[part], images, own, valids),
            "ecg": potentials(ecg[part], ecgs, own, valids),
        }

    with full_precision(image):
        found = by_rows(terms, image.shape[0], valids.shape[0])
    metrics = {
        "alignment": Mean.over((image - ecg).square().sum(-1), valid),
        "uniformity_ecg": uniformity(found["ecg"], valid),
        "uniformity_cmr": uniformity(found["cmr"], valid),
    }
    for direction in ("cmr_to_ecg", "ecg_to_cmr"):
        for k in (1, 5):
            metrics[f"{direction}_top{k}"] = Mean.over((found[direction] < k).to(image.dtype), valid)
    return metrics
