"""Distillation of CMR into the ECG encoder with relations between subjects (MyoECG, 2026, 10.57967/hf/10893).

The CMR encoder is a teacher whose vector the ECG's shall point to, while a head reads the phenotypes from either, and
the similarities *among* ECGs shall be those among the phenotypes: the ECGs' softmax over all others follows the softmax
of the distances of phenotypes (Kullback-Leibler). Written from a description of the method, not from code: there the
teacher is trained beforehand and frozen (here: `init.cmr` with `freeze_cmr=true`); without such weights the phenotypes
train it alongside, and the gradient of the other terms never reaches it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ecgcmr.cohort.batch import Batch
from ecgcmr.models.config import ModelConfig
from ecgcmr.objectives.base import Mean, ObjectiveOutput
from ecgcmr.objectives.contrast import by_rows, excluded_columns, unit_rows
from ecgcmr.objectives.distributed import gather_rows, gather_with_gradient
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.objectives.label_space import LabelSpace, label_distance
from ecgcmr.objectives.modules import full_precision, wide
from ecgcmr.objectives.pair import PairAlign, PairAlignConfig, pair_quality


class RelationalAlignConfig(PairAlignConfig):
    """Relational distillation; see `PairAlignConfig` for the encoders.

    Attributes:
        cosine: Weight of 1 - cos(ECG, CMR), the CMR fixed.
        phenotypes: Weight of the smooth L1 loss of the phenotypes that are read from the ECG.
        teacher: Likewise from the CMR.
        relational: Weight of the Kullback-Leibler term.
        temperature: Softmax temperature of the similarities among ECGs.
        phenotype_temperature: Of minus the mean squared differences of the phenotypes [variances].
    """

    name: Literal["relational_align"] = "relational_align"
    cosine: float = Field(default=1.0, ge=0)
    phenotypes: float = Field(default=1.0, ge=0)
    teacher: float = Field(default=1.0, ge=0)
    relational: float = Field(default=0.5, ge=0)
    temperature: float = Field(default=0.07, ge=0.01)
    phenotype_temperature: float = Field(default=1.0, gt=0)


def relational_loss(similarity: Tensor, distance: Tensor, others: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the softmax of similarities from the softmax of minus the distances.

    Args:
        similarity: Of the ECGs, divided by its temperature (B, G).
        distance: Of the phenotypes, divided by its temperature (B, G).
        others: (B, G) bool, which columns take part.

    Returns:
        (B,); 0 for a row in which fewer than two columns take part.
    """
    enough = others.sum(1, keepdim=True) > 1
    # A row without columns would be NaN: it takes all of them and is left out afterwards.
    used = others | ~enough
    wanted = (-distance).masked_fill(~used, -torch.inf).log_softmax(1)
    found = similarity.masked_fill(~used, -torch.inf).log_softmax(1)
    terms = torch.where(used, wanted.exp() * (wanted - found), torch.zeros_like(found))
    return terms.sum(1) * enough[:, 0]


def smooth_l1(predicted: Tensor, labels: Tensor, seen: Tensor) -> Tensor:
    """Mean smooth L1 loss over the observed labels of each row, (B, K) to (B,); 0 where none is observed."""
    each = functional.smooth_l1_loss(predicted, labels, reduction="none") * seen
    return each.sum(1) / seen.sum(1).clamp(min=1)


class RelationalAlign(PairAlign):
    """Losses `cosine` of pairs, `phenotypes` of ECGs, `teacher` of studies and `relational` among ECGs with labels."""

    config: RelationalAlignConfig

    def __init__(self, config: RelationalAlignConfig, model: ModelConfig, facts: DataFacts) -> None:
        super().__init__(config, model, facts)
        self.label_space = LabelSpace(facts, config.name, measurements_only=True)
        # One head for both, on the shared space: it is a tool of the training and is not exported.
        self.phenotype_head = nn.Linear(model.projection.out, len(facts.labels))
        self.loss_weights = {name: getattr(config, name) for name in ("cosine", "phenotypes", "teacher", "relational")}

    def represent(self, batch: Batch, generator: object | None = None) -> dict[str, Tensor]:
        """Give projections `image` and `ecg` (B, D), and the phenotypes `image_read` and `ecg_read` (B, K) in them."""
        rows = super().represent(batch, generator)
        read = {f"{name}_read": wide(self.phenotype_head(rows[name])) for name in ("image", "ecg")}
        return rows | read

    def compare(self, rows: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        """Compare each ECG with its study, its phenotypes, and its relations to all others."""
        image, ecg = unit_rows(rows["image"]), unit_rows(rows["ecg"])
        has_ecg, pair = batch["has_ecg"], batch["has_ecg"] & batch["has_cmr"]
        labels, seen = self.label_space(batch, image)
        labelled = seen.any(1)
        with full_precision(image):
            ecgs, everyone = gather_with_gradient(ecg), (gather_rows(labels), gather_rows(seen))

            def terms(part: slice) -> dict[str, Tensor]:
                excluded, own = excluded_columns(batch["subject"], has_ecg, part)
                distance, shared = label_distance((labels[part], seen[part]), everyone)
                others = (~excluded & (shared > 0)).scatter(1, own[:, None], False)
                similarity = ecg[part] @ ecgs.T / self.config.temperature
                loss = relational_loss(similarity, distance / self.config.phenotype_temperature, others)
                return {"loss": loss, "others": others.sum(1)}

            found = by_rows(terms, ecg.shape[0], ecgs.shape[0])
            losses = {
                "cosine": 1 - (ecg * image.detach()).sum(1),
                "phenotypes": smooth_l1(rows["ecg_read"], labels, seen),
                "teacher": smooth_l1(rows["image_read"], labels, seen),
                "relational": found["loss"],
            }
        valid = {
            "cosine": pair,
            "phenotypes": has_ecg & labelled,
            "teacher": batch["has_cmr"] & labelled,
            "relational": has_ecg & (found["others"] > 1),
        }
        losses = {name: torch.where(valid[name], loss, torch.zeros_like(loss)) for name, loss in losses.items()}
        compared = found["others"].to(image.dtype)
        metrics = {"compared": Mean.over(compared, valid["relational"])} | pair_quality(image, ecg, batch)
        return ObjectiveOutput(losses, valid, metrics)
