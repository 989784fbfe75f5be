"""Masked ECG modelling: predict hidden patches; squared error plus a correlation term (arXiv 2308.05764)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ecgcmr.cohort.batch import Batch
from ecgcmr.ecg.augmentation import EcgAugment
from ecgcmr.models.config import EcgDecoderConfig, ModelConfig, StrictConfig
from ecgcmr.models.ecg_mae import EcgMae, draw_masking, len_keep
from ecgcmr.objectives.base import Mean, Objective, ObjectiveOutput
from ecgcmr.objectives.distributed import shard
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.objectives.modules import make_ecg_encoder, wide
from ecgcmr.objectives.views import Augmentation, ecg_view, the_generator

_VARIANCE_EPS = 1e-12
_PIXEL_EPS = 1e-6


class MaskedEcgConfig(StrictConfig):
    """Masked ECG modelling.

    Attributes:
        mask_ratio: Share of patches that are hidden.
        ncc_weight: Weight w of 1 - NCC; the squared error weighs 1 - w.
        masked_only: Take both terms over hidden patches only; the reference takes them over all.
        norm_pix: Predict patches that are standardized one by one.
        legacy_len_keep: Round the number of visible patches down as the reference does (59 of 300 at .8).
        legacy_ncc: "Center" the prediction by its variance, as the code that trained the released weights did; equal
            but for rounding, because the target is centered and a constant of the prediction cancels.
        decoder: Sizes of the decoder.
        ecg_augment: Preset or settings of `ecgcmr.ecg.augmentation`.
    """

    name: Literal["masked_ecg"] = "masked_ecg"
    mask_ratio: float = Field(default=0.8, ge=0, lt=1)
    ncc_weight: float = Field(default=0.1, ge=0, le=1)
    masked_only: bool = False
    norm_pix: bool = False
    legacy_len_keep: bool = False
    legacy_ncc: bool = False
    decoder: EcgDecoderConfig = Field(default_factory=lambda: EcgDecoderConfig())
    ecg_augment: Augmentation = "mae"


def normalize_patches(patches: Tensor) -> Tensor:
    """Standardize each patch (B, N, P) by its own mean and unbiased variance."""
    var, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (var + _PIXEL_EPS).sqrt()


def cross_correlation(target: Tensor, prediction: Tensor, weight: Tensor | None = None, legacy: bool = False) -> Tensor:
    """Normalized cross-correlation of each lead over time, with unbiased variances.

    Args:
        target: (B, L, T).
        prediction: (B, L, T).
        weight: (B, L, T), 1 at the samples that count and 0 elsewhere; None counts all.
        legacy: Subtract from the prediction its variance instead of its mean.

    Returns:
        (B, L); 0 where fewer than two samples count.
    """

    def weighted(x: Tensor) -> Tensor:
        return x if weight is None else x * weight

    count = target.new_full((1,), target.shape[-1]) if weight is None else weight.sum(-1, keepdim=True)
    freedom = (count - 1).clamp(min=1)

    def moments(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = weighted(x).sum(-1, keepdim=True) / count.clamp(min=1)
        return mean, weighted((x - mean).square()).sum(-1, keepdim=True) / freedom

    (mean_x, var_x), (mean_y, var_y) = moments(target), moments(prediction)
    x = (target - mean_x) * (var_x + _VARIANCE_EPS).rsqrt()
    y = (prediction - (var_y if legacy else mean_y)) * (var_y + _VARIANCE_EPS).rsqrt()
    return (weighted(x * y).sum(-1) / freedom[..., 0]) * (count[..., 0] > 1)


class MaskedEcg(Objective):
    """Losses `mse` (weight 1 - w) and `ncc` (1 - NCC, weight w) of each sample."""

    def __init__(self, config: MaskedEcgConfig, model: ModelConfig, facts: DataFacts) -> None:
        super().__init__()
        self.config = config
        self.mae = EcgMae(make_ecg_encoder(model, facts), config.decoder)
        self.augment = EcgAugment(config.ecg_augment)
        self.tokens = self.mae.encoder.leads * self.mae.encoder.windows
        self.keep = len_keep(self.tokens, config.mask_ratio, config.legacy_len_keep)
        self.loss_weights = {"mse": 1 - config.ncc_weight, "ncc": config.ncc_weight}

    def encoders(self) -> dict[str, nn.Module]:
        """Export the encoder, and the decoder that draws reconstructions."""
        return {"ecg": self.mae.encoder, "ecg_decoder": self.mae.decoder}

    def represent(self, batch: Batch, generator: object | None = None) -> dict[str, Tensor]:
        """Hide patches of the augmented ECG; give squared error and correlation (B,) of the prediction with it."""
        random = the_generator(generator, self.training, batch["ecg"].device)
        ecg = ecg_view(batch["ecg"], self.mae.encoder.n_samples, self.augment if self.training else None, random)
        masking = draw_masking((ecg.shape[0], self.tokens), self.keep, random, shard(), ecg.device)
        out = self.mae(ecg, masking, random)
        mse, ncc = self._terms(ecg, wide(out.patches), out.mask)
        return {"mse": mse, "ncc": ncc}

    def compare(self, rows: Mapping[str, Tensor], batch: Batch) -> ObjectiveOutput:
        """Count the samples that have an ECG."""
        mse, ncc, valid = rows["mse"], rows["ncc"], batch["has_ecg"]
        zero = torch.zeros((), dtype=mse.dtype, device=mse.device)
        return ObjectiveOutput(
            losses={"mse": torch.where(valid, mse, zero), "ncc": torch.where(valid, 1 - ncc, zero)},
            valid={"mse": valid, "ncc": valid},
            metrics={"mse": Mean.over(mse, valid), "ncc": Mean.over(ncc, valid)},
        )

    def _terms(self, ecg: Tensor, patches: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Give squared error (B,) and correlation (B,), the mean over leads."""
        target = self.mae.patchify(wide(ecg))
        if self.config.norm_pix:
            target = normalize_patches(target)
        error = (patches - target).square().mean(-1)
        weight, leads_count = None, None
        if self.config.masked_only:
            error = (error * mask).sum(1) / mask.sum(1).clamp(min=1)
            weight = self.mae.unpatchify(mask[..., None].expand_as(target).to(target.dtype))
            leads_count = (weight.sum(-1) > 1).to(target.dtype).sum(1).clamp(min=1)
        else:
            error = error.mean(1)
        unpatchify = self.mae.unpatchify
        ncc = cross_correlation(unpatchify(target), unpatchify(patches), weight, self.config.legacy_ncc)
        return error, ncc.mean(1) if leads_count is None else ncc.sum(1) / leads_count
