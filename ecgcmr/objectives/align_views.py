"""Cross-view alignment: two views of the heart, each with its own encoder, with the ECG and with each other.

CLIP's loss for the pairs ECG and short axis, ECG and long axis (stage 2 of arXiv 2411.13602), and short and long axis
(the cross-view term of its image pretraining, tau 0.1), here in one run. The first view is the one whose encoder and
projection are exported as `cmr`, since a weights folder prepares studies of one view.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, Self

from pydantic import Field
from torch import Tensor

from ecgcmr.cohort.batch import Batch
from ecgcmr.models.config import ModelConfig
from ecgcmr.objectives.base import Mean, ObjectiveOutput
from ecgcmr.objectives.contrast import unit_rows
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.objectives.modules import freeze, make_cmr_encoder, make_projection, wide
from ecgcmr.objectives.pair import PairAlign, PairAlignConfig, pair_quality
from ecgcmr.objectives.towers import tower_losses
from ecgcmr.objectives.views import cmr_view, ecg_view, kept_tokens, the_generator

PAIRS = {"ecg_first": ("ecg", "first"), "ecg_second": ("ecg", "second"), "first_second": ("first", "second")}


class ViewAlignConfig(PairAlignConfig):
    """Cross-view alignment; see `PairAlignConfig` for the encoders. `freeze_cmr` freezes those of both views.

    Attributes:
        temperature: Softmax temperature tau.
        ecg_first, ecg_second, first_second: Weights of the pairs; the views stand in the order of data.cmr.views.
    """

    name: Literal["view_align"] = "view_align"
    temperature: float = Field(default=0.1, ge=0.01)
    ecg_first: float = Field(default=1.0, ge=0)
    ecg_second: float = Field(default=1.0, ge=0)
    first_second: float = Field(default=1.0, ge=0)


class ViewAlign(PairAlign):
    """Losses `ecg_first` and `ecg_second` of subjects with ECG and views, `first_second` of those with the views."""

    config: ViewAlignConfig

    def __init__(self, config: ViewAlignConfig, model: ModelConfig, facts: DataFacts) -> None:
        super().__init__(config, model, facts)
        self.second_encoder = self.make_cmr_encoder(model, facts)
        self.second_projection = make_projection(model, self.second_encoder.embed_dim)
        self.loss_weights = {name: getattr(config, name) for name in PAIRS}
        self.train()

    def make_cmr_encoder(self, model: ModelConfig, facts: DataFacts) -> Any:
        """Build the encoder of one view.

        Raises:
            ValueError: If a study does not hold two views.
        """
        shape = facts.cmr_shape
        if shape is None or len(shape) != 4 or shape[0] != 2:
            raise ValueError(
                f"objective.name=view_align needs two views of each study, but a prepared study has the shape {shape}; "
                "take data.cmr.views=[sax,4ch] and a cohort that holds both"
            )
        return make_cmr_encoder(model, replace(facts, cmr_shape=shape[1:]))

    def train(self, mode: bool = True) -> Self:
        """Set the mode; frozen encoders stay in evaluation mode."""
        super().train(mode)
        if self.config.freeze_cmr and hasattr(self, "second_encoder"):
            freeze(self.second_encoder)
        return self

    def represent(self, batch: Batch, generator: object | None = None) -> dict[str, Tensor]:
        """Give the projections `ecg`, `first` and `second` (B, D), of length 1."""
        random = the_generator(generator, self.training, batch["ecg"].device)
        training = self.training
        ecg = ecg_view(batch["ecg"], self.ecg_encoder.n_samples, self.ecg_augment if training else None, random)
        cmr = cmr_view(batch["cmr"], self.cmr_augment if training else None, random)
        keep = kept_tokens(self.ecg_encoder, ecg.shape[0], self.config.token_drop, random)
        rows = {
            "ecg": self.ecg_projection(self.ecg_encoder(ecg, random, keep)),
            "first": self.cmr_projection(self.cmr_encoder(cmr[:, 0])),
            "second": self.second_projection(self.second_encoder(cmr[:, 1])),
        }
        return {name: unit_rows(wide(value)) for name, value in rows.items()}

    def compare(self, rows: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        """Compare ECG and both views of each subject with those of all others."""
        losses, valid = tower_losses(rows, PAIRS, batch, self.config.temperature)
        apart = (rows["first"] - rows["second"]).square().sum(-1)
        metrics = {"views_apart": Mean.over(apart, batch["has_cmr"])}
        return ObjectiveOutput(losses, valid, metrics | pair_quality(rows["first"], rows["ecg"], batch))
