"""Supervised learning from one modality: phenotypes by regression, diagnoses one by one, categories by a softmax."""

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
from ecgcmr.objectives.distributed import sum_over_processes
from ecgcmr.objectives.facts import DataFacts, LabelFact
from ecgcmr.objectives.modules import make_head
from ecgcmr.objectives.one_encoder import OneEncoder, OneEncoderConfig


class SupervisedConfig(OneEncoderConfig):
    """Supervised learning; see `OneEncoderConfig` for the encoder.

    Attributes:
        regression_loss: Loss of standardized phenotypes.
        huber_delta: Where the Huber loss turns linear, in standard deviations.
        regression_weight: Weight of all phenotypes together.
        binary_weight: Weight of all diagnoses together.
        class_weight: Weight of all categories together (subtypes: one value for each sample, softmax cross-entropy).
        balance_positives: Weigh positives of each diagnosis by (1 - prevalence) / prevalence, and samples of each value
            of a category by 1 / (number of values * share of that value), whose mean over the training data is 1.
        label_smoothing: Move the targets of diagnoses by this share towards 1/2, of categories towards 1 / values.
        legacy_denominator: Count missing labels as zero losses, as the reference does, instead of leaving them out.
    """

    name: Literal["supervised"] = "supervised"
    regression_loss: Literal["mse", "huber"] = "mse"
    huber_delta: float = Field(default=1.0, gt=0)
    regression_weight: float = Field(default=1.0, ge=0)
    binary_weight: float = Field(default=1.0, ge=0)
    class_weight: float = Field(default=1.0, ge=0)
    balance_positives: bool = False
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    legacy_denominator: bool = False


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


class Supervised(OneEncoder):
    """Losses `regression`, `binary` and `classes` of each sample, as far as there are labels of that kind.

    A category stands in the batch as one 0/1 label for each of its values; it is observed where all of them are.
    """

    config: SupervisedConfig
    pos_weight: Tensor
    alone: Tensor

    def __init__(self, config: SupervisedConfig, model: ModelConfig, facts: DataFacts) -> None:
        super().__init__(config, model, facts)
        self.head = make_head(model, self.head_features, facts)
        kinds = {"classes" if fact.one_of else fact.kind for fact in facts.labels}
        weights = {
            "regression": config.regression_weight,
            "binary": config.binary_weight,
            "classes": config.class_weight,
        }
        self.loss_weights = {kind: weight for kind, weight in weights.items() if kind in kinds}
        self.register_buffer("alone", torch.tensor([not fact.one_of for fact in facts.labels]), persistent=False)
        values = {name: len(places) for name, places in self.head.categories.items()}
        heavier = [_balance(fact, values) if config.balance_positives else 1.0 for fact in facts.labels]
        self.register_buffer("pos_weight", torch.tensor(heavier), persistent=False)
        self.train()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """Predict (B, K) in the labels' units, or probabilities; the objective must be in evaluation mode."""
        if self.training:
            raise ValueError("predict needs evaluation mode; call objective.eval() first")
        return self.label_values(self.represent(batch))

    def label_values(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Turn representations into predictions (B, K) in the labels' units, or probabilities."""
        return self.head.in_units(rows["raw"])

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
            if kind == "classes":
                losses, observed = self._class_losses(raw, target, batch["label_mask"])
            else:
                columns = (self.head.is_binary if kind == "binary" else ~self.head.is_binary) & self.alone
                losses = self._label_losses(kind, raw[:, columns], target[:, columns], columns)
                observed = batch["label_mask"][:, columns]
            sample, counted = masked_label_loss(losses, observed, valid, self.config.legacy_denominator)
            out.losses[kind], out.valid[kind] = sample, counted
            shown = observed & valid[:, None]
            out.metrics[f"{kind}_loss"] = Mean.over(losses, shown)
        return out

    def _class_losses(self, raw: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of each category (B, C), and where it is observed (B, C)."""
        losses, observed = [], []
        for places in self.head.categories.values():
            logs = raw[:, places].log_softmax(1)
            chosen = target[:, places].argmax(1)
            smooth = self.config.label_smoothing
            loss = -(1 - smooth) * logs.gather(1, chosen[:, None])[:, 0] - smooth * logs.mean(1)
            losses.append(loss * self.pos_weight[list(places)].to(raw.dtype)[chosen])
            observed.append(mask[:, places].all(1))
        return torch.stack(losses, 1), torch.stack(observed, 1)

    def _label_losses(self, kind: str, raw: Tensor, target: Tensor, columns: Tensor) -> Tensor:
        config = self.config
        if kind == "binary":
            smooth = target * (1 - config.label_smoothing) + config.label_smoothing / 2
            weight = self.pos_weight[columns].to(raw.dtype)
            return functional.binary_cross_entropy_with_logits(raw, smooth, reduction="none", pos_weight=weight)
        if config.regression_loss == "huber":
            return functional.huber_loss(raw, target, reduction="none", delta=config.huber_delta)
        return functional.mse_loss(raw, target, reduction="none")


def _balance(fact: LabelFact, values: Mapping[str, int]) -> float:
    """What a positive of the label weighs, for a category a sample of that value."""
    prevalence = fact.prevalence
    if fact.kind != "binary" or prevalence is None or prevalence in (0.0, 1.0):
        return 1.0
    if fact.one_of:
        return 1 / (values[fact.one_of] * prevalence)
    return (1 - prevalence) / prevalence
