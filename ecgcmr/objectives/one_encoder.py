"""What objectives that learn labels from one modality share: the encoder, its input, and a head behind it."""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from ecgcmr.cohort.batch import Batch
from ecgcmr.ecg.augmentation import EcgAugment
from ecgcmr.models.config import ModelConfig, StrictConfig
from ecgcmr.models.ecg_vit import EcgViT
from ecgcmr.models.heads import PredictionHead
from ecgcmr.models.tabular import TabularEncoder, tabular_input
from ecgcmr.objectives.base import Objective
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.objectives.modules import freeze, make_cmr_encoder, make_ecg_encoder, make_tabular_encoder, wide
from ecgcmr.objectives.views import Augmentation, cmr_view, ecg_view, kept_tokens, make_cmr_augment, the_generator


class OneEncoderConfig(StrictConfig):
    """An encoder with a prediction head.

    Attributes:
        modality: Which encoder is trained.
        token_drop: Share of ECG patches that are left out at random in training, which makes a step cheaper.
        freeze_encoder: Train the head only (linear probe); an attention pooling and its norm train with it (attention
            probe: model.ecg.pool=query or attention).
        double_fc_norm: Apply the encoder's fc_norm twice before the head, as the reference's fine-tuning does.
        ecg_augment: Preset or settings of `ecgcmr.ecg.augmentation`.
        cmr_augment: Preset or settings of `ecgcmr.cmr.augmentation`.
    """

    modality: Literal["ecg", "cmr"] = "ecg"
    token_drop: float = Field(default=0.0, ge=0, lt=1)
    freeze_encoder: bool = False
    double_fc_norm: bool = False
    ecg_augment: Augmentation = "finetune"
    cmr_augment: Augmentation = "reference"


class OneEncoder(Objective):
    """Base: `represent` gives the raw outputs of the head. A subclass sets `head` and then calls `train()`.

    With tabular inputs (late fusion) the head reads their embedding behind that of the signal.
    """

    reads_tabular = True
    head: PredictionHead
    tabular: TabularEncoder | None

    def __init__(self, config: OneEncoderConfig, model: ModelConfig, facts: DataFacts) -> None:
        super().__init__()
        self.config = config
        # Any, because the two modalities' encoders share no type that has both `n_samples` and `embed_dim`.
        self.encoder: Any = (make_ecg_encoder if config.modality == "ecg" else make_cmr_encoder)(model, facts)
        self.tabular = make_tabular_encoder(model, facts) if facts.tabular else None
        self.head_features = self.encoder.embed_dim + (self.tabular.embed_dim if self.tabular else 0)
        self.ecg_augment = EcgAugment(config.ecg_augment)
        self.cmr_augment = make_cmr_augment(config.cmr_augment)
        if config.double_fc_norm and not hasattr(self.encoder, "fc_norm"):
            raise ValueError(
                "double_fc_norm needs an encoder with fc_norm: an ECG encoder with mean or attention pooling"
            )

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen encoder stays in evaluation mode, but for a pooling that is trained."""
        super().train(mode)
        if self.config.freeze_encoder:
            freeze(self.encoder)
            if isinstance(self.encoder, EcgViT) and self.encoder.trained_pool is not None:
                for part in (self.encoder.trained_pool, self.encoder.fc_norm):
                    part.requires_grad_(True).train(mode)
        return self

    def encoders(self) -> dict[str, nn.Module]:
        """Export the encoder, the head, and the encoder of tabular inputs where there are any."""
        beside: dict[str, nn.Module] = {"tabular": self.tabular} if self.tabular is not None else {}
        return {self.config.modality: self.encoder, "head": self.head, **beside}

    def embed(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Give the embeddings (B, D) that the head sees."""
        if self.config.modality == "cmr":
            return self.encoder(cmr_view(batch["cmr"], self.cmr_augment if self.training else None, generator))
        augment = self.ecg_augment if self.training else None
        ecg = ecg_view(batch["ecg"], self.encoder.n_samples, augment, generator)
        keep = kept_tokens(self.encoder, ecg.shape[0], self.config.token_drop, generator)
        embedding = self.encoder(ecg, generator, keep)
        return self.encoder.fc_norm(embedding) if self.config.double_fc_norm else embedding

    def represent(self, batch: Batch, generator: object | None = None) -> dict[str, Tensor]:
        """Give the raw outputs (B, K) of the head."""
        random = the_generator(generator, self.training, batch["labels"].device)
        embedding = self.embed(batch, random)
        if self.tabular is not None:
            beside = self.tabular(tabular_input(batch["tabular"].to(batch["labels"].dtype), batch["tabular_mask"]))
            embedding = torch.cat([embedding, beside.to(embedding.dtype)], dim=1)
        return {"raw": wide(self.head(embedding))}
