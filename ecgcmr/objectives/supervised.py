"""Supervised learning from one modality: phenotypes by regression, diagnoses by multi-label classification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ecgcmr.cohort.batch import Batch
from ecgcmr.ecg.augmentation import EcgAugment
from ecgcmr.models.config import ModelConfig, StrictConfig
from ecgcmr.models.ecg_vit import EcgViT
from ecgcmr.objectives.base import Mean, Objective, ObjectiveOutput
from ecgcmr.objectives.distributed import sum_over_processes
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.objectives.modules import freeze, make_cmr_encoder, make_ecg_encoder, make_head, wide
from ecgcmr.objectives.views import Augmentation, cmr_view, ecg_view, kept_tokens, make_cmr_augment, the_generator


class SupervisedConfig(StrictConfig):
    """Supervised learning.

    Attributes:
        modality: Which encoder is trained.
        regression_loss: Loss of standardized phenotypes.
        huber_delta: Where the Huber loss turns linear, in standard deviations.
        regression_weight: Weight of all phenotypes together.
        binary_weight: Weight of all diagnoses together.
        balance_positives: Weigh positives of each diagnosis by (1 - prevalence) / prevalence.
        label_smoothing: Move the targets of diagnoses by this share towards 1/2.
        legacy_denominator: Count missing labels as zero losses, as the reference does, instead of leaving them out.
        token_drop: Share of ECG patches that are left out at random in training, which makes a step cheaper.
        freeze_encoder: Train the head only (linear probe); an attention pooling and its norm train with it.
        double_fc_norm: Apply the encoder's fc_norm twice before the head, as the reference's fine-tuning does.
        ecg_augment: Preset or settings of `ecgcmr.ecg.augmentation`.
        cmr_augment: Preset or settings of `ecgcmr.cmr.augmentation`.
    """

    name: Literal["supervised"] = "supervised"
    modality: Literal["ecg", "cmr"] = "ecg"
    regression_loss: Literal["mse", "huber"] = "mse"
    huber_delta: float = Field(default=1.0, gt=0)
    regression_weight: float = Field(default=1.0, ge=0)
    binary_weight: float = Field(default=1.0, ge=0)
    balance_positives: bool = False
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    legacy_denominator: bool = False
    token_drop: float = Field(default=0.0, ge=0, lt=1)
    freeze_encoder: bool = False
    double_fc_norm: bool = False
    ecg_augment: Augmentation = "finetune"
    cmr_augment: Augmentation = "reference"


def masked_label_loss(losses: Tensor, observed: Tensor, valid: Tensor, legacy: bool = False) -> tuple[Tensor, Tensor]:
    """Reduce label losses to sample losses, whose mean over valid samples of all processes is the mean over labels.

    Args:
        losses: Loss of each label (B, K).
        observed: (B, K) bool.
        valid: (B,) bool, which samples have an input.
        legacy: Divide by all labels, missing ones included.

    Returns:
        Sample losses (B,), 0 where nothing is observed, and which samples count (B,) bool.
    """
    observed = observed & valid[:, None]
    total = torch.where(observed, losses, torch.zeros((), dtype=losses.dtype, device=losses.device)).sum(1)
    if legacy:
        return total / losses.shape[1], valid
    counted = observed.any(1)
    n_samples, n_labels = sum_over_processes(torch.stack([counted.sum(), observed.sum()]))
    # The loop divides by the samples that count; this factor turns that into a division by the labels that do.
    return total * (n_samples / n_labels.clamp(min=1)).to(total.dtype), counted


class Supervised(Objective):
    """Losses `regression` and `binary` of each sample, as far as there are labels of that kind."""

    pos_weight: Tensor

    def __init__(self, config: SupervisedConfig, model: ModelConfig, facts: DataFacts) -> None:
        super().__init__()
        self.config = config
        # Any, because the two modalities' encoders share no type that has both `n_samples` and `embed_dim`.
        self.encoder: Any = (make_ecg_encoder if config.modality == "ecg" else make_cmr_encoder)(model, facts)
        self.head = make_head(model, self.encoder.embed_dim, facts)
        self.ecg_augment = EcgAugment(config.ecg_augment)
        self.cmr_augment = make_cmr_augment(config.cmr_augment)
        if config.double_fc_norm and not hasattr(self.encoder, "fc_norm"):
            raise ValueError(
                "double_fc_norm needs an encoder with fc_norm: an ECG encoder with mean or attention pooling"
            )
        kinds = {fact.kind for fact in facts.labels}
        weights = {"regression": config.regression_weight, "binary": config.binary_weight}
        self.loss_weights = {kind: weight for kind, weight in weights.items() if kind in kinds}
        odds = [_odds_against(fact.prevalence) if config.balance_positives else 1.0 for fact in facts.labels]
        self.register_buffer("pos_weight", torch.tensor(odds), persistent=False)
        self.train()

    def train(self, mode: bool = True) -> Supervised:
        """Set the mode; a frozen encoder stays in evaluation mode, but for a pooling that is trained."""
        super().train(mode)
        if self.config.freeze_encoder:
            freeze(self.encoder)
            if isinstance(self.encoder, EcgViT) and self.encoder.pool == "attention":
                for part in (self.encoder.attention_pool, self.encoder.fc_norm):
                    part.requires_grad_(True).train(mode)
        return self

    def encoders(self) -> dict[str, nn.Module]:
        """Export the encoder and the head."""
        return {self.config.modality: self.encoder, "head": self.head}

    def embed(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Give the embeddings (B, D) that the head sees."""
        if self.config.modality == "cmr":
            return self.encoder(cmr_view(batch["cmr"], self.cmr_augment if self.training else None, generator))
        augment = self.ecg_augment if self.training else None
        ecg = ecg_view(batch["ecg"], self.encoder.n_samples, augment, generator)
        keep = kept_tokens(self.encoder, ecg.shape[0], self.config.token_drop, generator)
        embedding = self.encoder(ecg, generator, keep)
        return self.encoder.fc_norm(embedding) if self.config.double_fc_norm else embedding

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """Predict (B, K) in the labels' units, or probabilities; the objective must be in evaluation mode."""
        if self.training:
            raise ValueError("predict needs evaluation mode; call objective.eval() first")
        return self.label_values(self.represent(batch))

    def label_values(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Turn representations into predictions (B, K) in the labels' units, or probabilities."""
        return self.head.in_units(rows["raw"])

    def represent(self, batch: Batch, generator: object | None = None) -> dict[str, Tensor]:
        """Give the raw outputs (B, K) of the head."""
        random = the_generator(generator, self.training, batch["labels"].device)
        return {"raw": wide(self.head(self.embed(batch, random)))}

    def compare(self, rows: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        """Compare the outputs with the observed labels of each sample."""
        raw = rows["raw"]
        if batch["labels"].shape != raw.shape:
            raise ValueError(
                f"batch has labels of shape {tuple(batch['labels'].shape)}, the head predicts {tuple(raw.shape)}: "
                f"{', '.join(self.head.label_names)}"
            )
        target = self.head.standardize(batch["labels"].to(raw.dtype))
        valid = batch["has_ecg"] if self.config.modality == "ecg" else batch["has_cmr"]
        # An unobserved label may hold anything, NaN too: it must not reach the loss, where 0 * NaN is NaN.
        target = torch.where(batch["label_mask"], target, torch.zeros((), dtype=target.dtype, device=target.device))
        out = ObjectiveOutput({}, {})
        for kind in self.loss_weights:
            columns = self.head.is_binary if kind == "binary" else ~self.head.is_binary
            losses = self._label_losses(kind, raw[:, columns], target[:, columns])
            observed = batch["label_mask"][:, columns]
            sample, counted = masked_label_loss(losses, observed, valid, self.config.legacy_denominator)
            out.losses[kind], out.valid[kind] = sample, counted
            shown = observed & valid[:, None]
            out.metrics[f"{kind}_loss"] = Mean.over(losses, shown)
        return out

    def _label_losses(self, kind: str, raw: Tensor, target: Tensor) -> Tensor:
        config = self.config
        if kind == "binary":
            smooth = target * (1 - config.label_smoothing) + config.label_smoothing / 2
            weight = self.pos_weight[self.head.is_binary].to(raw.dtype)
            return functional.binary_cross_entropy_with_logits(raw, smooth, reduction="none", pos_weight=weight)
        if config.regression_loss == "huber":
            return functional.huber_loss(raw, target, reduction="none", delta=config.huber_delta)
        return functional.mse_loss(raw, target, reduction="none")


def _odds_against(prevalence: float | None) -> float:
    if prevalence is None or prevalence in (0.0, 1.0):
        return 1.0
    return (1 - prevalence) / prevalence
