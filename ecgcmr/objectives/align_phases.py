"""Dual-phase alignment: end-diastole and end-systole are encoded apart and aligned with the ECG and each other.

Three pairs, ECG-ED, ECG-ES and ED-ES, each with CLIP's loss, tau 0.07 and a weight of a third (arXiv 2602.12883). There
the CMR encoders are trained on phenotypes beforehand and frozen (`init.cmr`, `freeze_cmr`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from torch import Tensor

from ecgcmr.cohort.batch import Batch
from ecgcmr.models.config import ModelConfig
from ecgcmr.models.phases import PhaseEncoder, PhaseEncoderConfig, PhaseProjection, PhaseProjectionConfig
from ecgcmr.objectives.base import ObjectiveOutput
from ecgcmr.objectives.contrast import unit_rows
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.objectives.modules import wide
from ecgcmr.objectives.pair import PairAlign, PairAlignConfig, pair_quality
from ecgcmr.objectives.towers import tower_losses
from ecgcmr.objectives.views import cmr_view, ecg_view, kept_tokens, the_generator

FRAMES = 3
"""What the pipelines of rule `ed_mid_es` give for each slice: end-diastole, the middle of systole, end-systole."""
PAIRS = {"ecg_ed": ("ecg", "ed"), "ecg_es": ("ecg", "es"), "ed_es": ("ed", "es")}


class PhaseAlignConfig(PairAlignConfig):
    """Dual-phase alignment; see `PairAlignConfig` for the encoders.

    Attributes:
        temperature: Softmax temperature tau.
        shared_encoder: One CMR encoder for both phases instead of one for each; each phase has its own projection.
        ecg_ed, ecg_es, ed_es: Weights of the pairs.
    """

    name: Literal["phase_align"] = "phase_align"
    temperature: float = Field(default=0.07, ge=0.01)
    shared_encoder: bool = False
    ecg_ed: float = Field(default=1 / 3, ge=0)
    ecg_es: float = Field(default=1 / 3, ge=0)
    ed_es: float = Field(default=1 / 3, ge=0)


class PhaseAlign(PairAlign):
    """Losses `ecg_ed` and `ecg_es` of subjects with both modalities, `ed_es` of those with a study."""

    config: PhaseAlignConfig
    cmr_projection: PhaseProjection

    def __init__(self, config: PhaseAlignConfig, model: ModelConfig, facts: DataFacts) -> None:
        super().__init__(config, model, facts)
        self.loss_weights = {name: getattr(config, name) for name in PAIRS}

    def make_cmr_encoder(self, model: ModelConfig, facts: DataFacts) -> PhaseEncoder:
        """Build the encoders of both phases.

        Raises:
            ValueError: If a study does not hold three frames of each slice as channels.
        """
        shape = facts.cmr_shape
        if shape is None or len(shape) != 3 or shape[0] % FRAMES:
            raise ValueError(
                f"objective.name=phase_align needs end-diastole and end-systole, but a prepared study has the shape "
                f"{shape}; take data.cmr.pipeline=three_frames"
            )
        assert isinstance(self.config, PhaseAlignConfig), "set before the modules are built"
        shared = self.config.shared_encoder
        return PhaseEncoder(
            PhaseEncoderConfig(encoder=model.cmr, shared=shared, slices=shape[0] // FRAMES, frames=FRAMES)
        )

    def make_cmr_projection(self, model: ModelConfig) -> PhaseProjection:
        """Build a projection for each phase."""
        head = model.projection.model_copy(update={"in_features": self.cmr_encoder.phase_dim})
        return PhaseProjection(PhaseProjectionConfig(phases=len(self.cmr_encoder.phases), head=head))

    def represent(self, batch: Batch, generator: object | None = None) -> dict[str, Tensor]:
        """Give the projections `ecg`, `ed` and `es` (B, D), of length 1."""
        random = the_generator(generator, self.training, batch["ecg"].device)
        training = self.training
        ecg = ecg_view(batch["ecg"], self.ecg_encoder.n_samples, self.ecg_augment if training else None, random)
        cmr = cmr_view(batch["cmr"], self.cmr_augment if training else None, random)
        ed, es = self.cmr_projection.each(self.cmr_encoder(cmr))
        keep = kept_tokens(self.ecg_encoder, ecg.shape[0], self.config.token_drop, random)
        rows = {"ecg": self.ecg_projection(self.ecg_encoder(ecg, random, keep)), "ed": ed, "es": es}
        return {name: unit_rows(wide(value)) for name, value in rows.items()}

    def compare(self, rows: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        """Compare ECG, end-diastole and end-systole of each subject with those of all others."""
        losses, valid = tower_losses(rows, PAIRS, batch, self.config.temperature)
        study = rows["ed"] + rows["es"]  # in the direction where `cmr_projection` puts it
        return ObjectiveOutput(losses, valid, pair_quality(study, rows["ecg"], batch))
