"""Alignment by NT-Xent over both modalities: negatives within a modality count beside those of the other one.

An ECG must find its own study among all studies *and* all other ECGs of the batch (SimCLR's loss, arXiv 2002.05709,
with the modalities as the two views; one of the losses that arXiv 2308.05764 compares). Against CLIP's loss it also
pushes ECGs of different subjects apart from each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ecgcmr.cohort.batch import Batch
from ecgcmr.models.config import ModelConfig
from ecgcmr.objectives.base import ObjectiveOutput
from ecgcmr.objectives.contrast import by_rows, excluded_columns, take, unit_rows
from ecgcmr.objectives.distributed import gather_rows, gather_with_gradient
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.objectives.image_contrastive import nt_xent
from ecgcmr.objectives.modules import full_precision
from ecgcmr.objectives.pair import PairAlign, PairAlignConfig, pair_quality


class NtXentAlignConfig(PairAlignConfig):
    """NT-Xent across modalities; see `PairAlignConfig` for the encoders.

    Attributes:
        temperature: Softmax temperature tau.
    """

    name: Literal["ntxent_align"] = "ntxent_align"
    temperature: float = Field(default=0.1, ge=0.01)


class NtXentAlign(PairAlign):
    """Loss `nt_xent` of each subject with both modalities; others count neither as pairs nor as negatives."""

    config: NtXentAlignConfig

    def __init__(self, config: NtXentAlignConfig, model: ModelConfig, facts: DataFacts) -> None:
        super().__init__(config, model, facts)
        self.loss_weights = {"nt_xent": 1.0}

    def compare(self, rows: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        """Compare each subject's ECG and study with all others of either modality."""
        image, ecg = unit_rows(rows["image"]), unit_rows(rows["ecg"])
        valid = batch["has_ecg"] & batch["has_cmr"]
        with full_precision(image):
            everything = gather_with_gradient(image), gather_with_gradient(ecg)

            def terms(part: slice) -> dict[str, Tensor]:
                excluded, own = excluded_columns(batch["subject"], valid, part)
                views = take(image, part), take(ecg, part)
                return {"loss": nt_xent(*views, excluded, own, self.config.temperature, everything)[0]}

            loss = by_rows(terms, image.shape[0], gather_rows(valid).shape[0])["loss"]
        losses = {"nt_xent": torch.where(valid, loss, torch.zeros_like(loss))}
        return ObjectiveOutput(losses, {"nt_xent": valid}, pair_quality(image, ecg, batch))
