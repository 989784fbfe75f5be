"""SimCLR of CMR studies: two augmented views of a study against all other studies (arXiv 2002.05709)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ecgcmr.cohort.batch import Batch
from ecgcmr.models.config import ModelConfig, StrictConfig
from ecgcmr.objectives.base import Mean, Objective, ObjectiveOutput
from ecgcmr.objectives.contrast import (
    by_rows,
    excluded_columns,
    potentials,
    ranks_of_positive,
    take,
    uniformity,
    unit_rows,
)
from ecgcmr.objectives.distributed import gather_rows, gather_with_gradient
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.objectives.modules import full_precision, make_cmr_encoder, make_projection
from ecgcmr.objectives.views import Augmentation, cmr_view, make_cmr_augment, the_generator


class CmrSimclrConfig(StrictConfig):
    """SimCLR of CMR studies.

    Attributes:
        temperature: Softmax temperature tau.
        cmr_augment: Preset or settings of `ecgcmr.cmr.augmentation` for both views.
    """

    name: Literal["cmr_simclr"] = "cmr_simclr"
    temperature: float = Field(default=0.1, gt=0)
    cmr_augment: Augmentation = "reference"


def nt_xent(
    view_a: Tensor,
    view_b: Tensor,
    excluded: Tensor,
    own: Tensor,
    temperature: float,
    candidates: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Normalized temperature-scaled cross entropy over the views of all processes.

    Args:
        view_a: Projections (B, D) of this process, of length 1.
        view_b: Projections (B, D) of the other views.
        excluded: (B, G) columns that are no negatives.
        own: (B,) column of each row.
        temperature: Softmax temperature.
        candidates: All first and all second views, (G, D) each; None gathers them from the processes.

    Returns:
        Loss (B,), the mean of both views' as anchors, and place (B,) of the positive for the first view.
    """
    all_a, all_b = candidates or (gather_with_gradient(view_a), gather_with_gradient(view_b))
    itself = functional.one_hot(own, excluded.shape[1]).bool()
    losses, places = [], []
    for anchor, other, same in ((view_a, all_b, all_a), (view_b, all_a, all_b)):
        to_other = (anchor @ other.T / temperature).masked_fill(excluded, -torch.inf)
        to_same = (anchor @ same.T / temperature).masked_fill(excluded | itself, -torch.inf)
        logits = torch.cat([to_other, to_same], dim=1)
        losses.append(functional.cross_entropy(logits, own, reduction="none"))
        places.append(ranks_of_positive(logits, own))
    return (losses[0] + losses[1]) / 2, places[0]


class CmrSimclr(Objective):
    """Loss `nt_xent` of each study; in evaluation too the two views are augmented, from a fixed seed."""

    def __init__(self, config: CmrSimclrConfig, model: ModelConfig, facts: DataFacts) -> None:
        super().__init__()
        self.config = config
        self.encoder = make_cmr_encoder(model, facts)
        self.projection = make_projection(model, self.encoder.embed_dim)
        self.augment = make_cmr_augment(config.cmr_augment)
        self.loss_weights = {"nt_xent": 1.0}

    def encoders(self) -> dict[str, nn.Module]:
        """Export encoder and projection."""
        return {"cmr": self.encoder, "cmr_projection": self.projection}

    def represent(self, batch: Batch, generator: object | None = None) -> dict[str, Tensor]:
        """Give the projections `view_a` and `view_b` (B, D), of length 1, of two augmented views of each study."""
        random = the_generator(generator, self.training, batch["cmr"].device)
        views = [cmr_view(batch["cmr"], self.augment, random) for _ in range(2)]
        # One pass over both views, so that BatchNorm sees them together on every number of processes.
        projected = unit_rows(self.projection(self.encoder(torch.cat(views))))
        view_a, view_b = projected.chunk(2)
        return {"view_a": view_a, "view_b": view_b}

    def compare(self, rows: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        """Compare the two views of each study with those of all others."""
        view_a, view_b = rows["view_a"], rows["view_b"]
        subject, valid = batch["subject"], batch["has_cmr"]
        valids = gather_rows(valid)
        with full_precision(view_a):
            everything = gather_with_gradient(view_a), gather_with_gradient(view_b)

            def terms(part: slice) -> dict[str, Tensor]:
                excluded, own = excluded_columns(subject, valid, part)
                a, b = take(view_a, part), take(view_b, part)
                loss, place = nt_xent(a, b, excluded, own, self.config.temperature, everything)
                return {"loss": loss, "place": place, "near": potentials(a, everything[0], own, valids)}

            found = by_rows(terms, view_a.shape[0], valids.shape[0])
        loss = torch.where(valid, found["loss"], torch.zeros((), dtype=view_a.dtype, device=view_a.device))
        metrics = {
            "top1": Mean.over((found["place"] < 1).to(loss.dtype), valid),
            "top5": Mean.over((found["place"] < 5).to(loss.dtype), valid),
            "alignment": Mean.over((view_a - view_b).square().sum(-1), valid),
            "uniformity": uniformity(found["near"], valid),
        }
        return ObjectiveOutput({"nt_xent": loss}, {"nt_xent": valid}, metrics)
