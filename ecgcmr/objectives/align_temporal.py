"""Global and local alignment: subjects among subjects, phases of the heart beat within a subject (arXiv 2506.20683).

To CLIP's loss over subjects comes a local one within each subject: the ECG around a phase of the cardiac cycle shall
resemble the frames of that phase more than those of others, and the reverse. Both use the same encoders and
projections, so the local loss has no weights of its own. The abstract gives no more; how tokens become phases is our
reconstruction (`beat_phase`), and an explicit option, because ten seconds of ECG hold many beats and a gated cine shows
one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ecgcmr.cohort.batch import Batch
from ecgcmr.models.cine import CineTransformer
from ecgcmr.models.config import ModelConfig
from ecgcmr.objectives.base import Mean, ObjectiveOutput
from ecgcmr.objectives.beat_phase import BeatRule, phase_weights
from ecgcmr.objectives.contrast import unit_rows
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.objectives.modules import full_precision, wide
from ecgcmr.objectives.pair import PairAlign, PairAlignConfig, pair_quality
from ecgcmr.objectives.towers import tower_losses
from ecgcmr.objectives.views import cmr_view, ecg_view, kept_tokens, the_generator

PAIRS = {"global": ("image", "ecg")}


class TemporalAlignConfig(PairAlignConfig):
    """Global and local alignment; see `PairAlignConfig` for the encoders.

    Attributes:
        temperature: Softmax temperature tau over subjects.
        local_temperature: Over the phases of a subject.
        local_weight: Weight beta of the local loss.
        bins: Into how many phases the cardiac cycle is cut; at most the frames of the cine.
        beat: Which part of the ECG is compared with the one beat that the cine shows: `mean`, each phase over all whole
            beats of the input, from R peak to R peak; `first`, the first whole beat only; `window`, the input from its
            start to its end as if it were one beat, which needs no R peaks and is right only if it is one.
    """

    name: Literal["temporal_align"] = "temporal_align"
    temperature: float = Field(default=0.1, ge=0.01)
    local_temperature: float = Field(default=0.1, ge=0.01)
    local_weight: float = Field(default=1.0, ge=0)
    bins: int = Field(default=4, ge=2)
    beat: BeatRule = "mean"


def local_loss(image: Tensor, ecg: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Symmetric cross entropy of the phases of each subject among themselves.

    Args:
        image: Directions of the phases of the cine (B, K, D), of length 1.
        ecg: Those of the ECG (B, K, D).
        temperature: Softmax temperature.

    Returns:
        Loss (B,), and the share of the ECG's phases that find their own frames first (B,).
    """
    logits = ecg @ image.transpose(1, 2) / temperature
    own = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[:2])
    both = [functional.cross_entropy(one, own, reduction="none").mean(1) for one in (logits, logits.transpose(1, 2))]
    return (both[0] + both[1]) / 2, (logits.argmax(2) == own).to(logits.dtype).mean(1)


class TemporalAlign(PairAlign):
    """Losses `global` of subjects with both modalities, `local` of those of them whose ECG holds a whole beat."""

    config: TemporalAlignConfig
    cmr_encoder: CineTransformer

    def __init__(self, config: TemporalAlignConfig, model: ModelConfig, facts: DataFacts) -> None:
        super().__init__(config, model, facts)
        shape = facts.cmr_shape
        if not isinstance(self.cmr_encoder, CineTransformer) or shape is None or len(shape) != 4:
            raise ValueError(
                f"objective.name=temporal_align needs frames of the whole cycle and an encoder that keeps them apart, "
                f"but model.cmr.name is {model.cmr.name!r} and a prepared study has the shape {shape}; take "
                "model.cmr.name=cine_transformer and data.cmr.pipeline=cine"
            )
        if shape[1] < config.bins:
            raise ValueError(
                f"objective.bins is {config.bins}, but a study has {shape[1]} frames; set data.cmr.frames to at least "
                "that many"
            )
        self.rate_hz = facts.ecg_rate_hz
        self.loss_weights = {"global": 1.0, "local": config.local_weight}

    def represent(self, batch: Batch, generator: object | None = None) -> dict[str, Tensor]:
        """Give `image` and `ecg` (B, D), `image_phases` and `ecg_phases` (B, K, D), and `known` (B,), 1 for a beat."""
        random = the_generator(generator, self.training, batch["ecg"].device)
        training = self.training
        ecg = ecg_view(batch["ecg"], self.ecg_encoder.n_samples, self.ecg_augment if training else None, random)
        cmr = cmr_view(batch["cmr"], self.cmr_augment if training else None, random)
        images = self.cmr_projection(self._image_rows(cmr))
        keep = kept_tokens(self.ecg_encoder, ecg.shape[0], self.config.token_drop, random)
        rows, known = self._ecg_rows(ecg, random, keep)
        found = {"known": known}
        for name, projected in (("image", images), ("ecg", self.ecg_projection(rows))):
            directions = unit_rows(wide(projected)).unflatten(0, (ecg.shape[0], 1 + self.config.bins))
            found[name], found[f"{name}_phases"] = directions[:, 0], directions[:, 1:]
        return found

    def _image_rows(self, cmr: Tensor) -> Tensor:
        """Embeddings of each study and of its phases, (B * (1 + K), D): one pass, so that BatchNorm sees all."""
        tokens = self.cmr_encoder.forward_tokens(cmr)
        frames = tokens.mean(1)
        place = torch.arange(frames.shape[1], device=frames.device) * self.config.bins // frames.shape[1]
        weights = functional.one_hot(place, self.config.bins).to(frames.dtype)  # (F, K)
        phases = (weights / weights.sum(0)).T @ frames
        rows = torch.cat([tokens.flatten(1, 2).mean(1, keepdim=True), phases], dim=1)
        return self.cmr_encoder.fc_norm(rows).flatten(0, 1)

    def _ecg_rows(self, ecg: Tensor, random: torch.Generator, keep: Tensor | None) -> tuple[Tensor, Tensor]:
        """Embeddings of each ECG and of its phases, (B * (1 + K), D), and which have all phases (B,)."""
        encoder, config = self.ecg_encoder, self.config
        tokens = encoder.forward_tokens(ecg, random, keep)
        patches = tokens[:, encoder.prefix :]
        if encoder.pool == "norm_mean":
            patches = encoder.norm(patches)
        with full_precision(ecg):
            weights = phase_weights(ecg, self.rate_hz, encoder.patch, config.bins, config.beat)
            if keep is None:
                weights = weights.repeat(1, 1, encoder.leads)  # tokens are lead-major
            else:
                weights = weights.gather(2, (keep % encoder.windows)[:, None].expand(-1, config.bins, -1))
            total = weights.sum(2, keepdim=True)
            phases = (weights / total.clamp(min=1)) @ wide(patches).to(weights.dtype)
        rows = torch.cat([encoder.closed(encoder.pooled(tokens))[:, None], encoder.closed(phases.to(tokens.dtype))], 1)
        return rows.flatten(0, 1), (total[..., 0] > 0).all(1).to(wide(tokens).dtype)

    def compare(self, rows: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        """Compare each subject with all others, and the phases of each subject with each other."""
        losses, valid = tower_losses(rows, PAIRS, batch, self.config.temperature)
        whole = valid["global"] & (rows["known"] > 0.5)
        with full_precision(rows["image"]):
            loss, found = local_loss(rows["image_phases"], rows["ecg_phases"], self.config.local_temperature)
        losses["local"] = torch.where(whole, loss, torch.zeros_like(loss))
        metrics = {"phase_top1": Mean.over(found, whole)} | pair_quality(rows["image"], rows["ecg"], batch)
        return ObjectiveOutput(losses, {**valid, "local": whole}, metrics)
