"""What an objective does to a batch before the encoders: crop and augment in training, crop at 0 in evaluation.

Everything random is drawn for the global batch and cut to this process's rows (see `distributed.shard`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ecgcmr.cmr.augmentation import CmrAugment, CmrAugmentConfig
from ecgcmr.ecg.augmentation import EcgAugment
from ecgcmr.ecg.crop import crop_random, crop_start
from ecgcmr.models.ecg_mae import draw_masking, len_keep
from ecgcmr.models.ecg_vit import EcgViT
from ecgcmr.objectives.distributed import shard
from ecgcmr.objectives.modules import full_precision

_EVAL_SEED = 0

# A preset's name, or all settings.
Augmentation = str | dict[str, Any]


def make_cmr_augment(settings: str | Mapping[str, Any]) -> CmrAugment:
    """Build the augmentation of studies that a configuration names or spells out."""
    return CmrAugment(settings if isinstance(settings, str) else CmrAugmentConfig.from_dict(settings))


def the_generator(generator: object | None, training: bool, device: torch.device) -> torch.Generator:
    """Give the generator that drives a forward pass.

    Raises:
        ValueError: In training without one: every process must hold the same, seeded by the run.
    """
    if isinstance(generator, torch.Generator):
        return generator
    if generator is not None:
        raise ValueError(f"generator is a {type(generator).__name__}, expected a torch.Generator")
    if training:
        raise ValueError("an objective in training mode needs a torch.Generator; pass forward(batch, generator)")
    return torch.Generator(device=device).manual_seed(_EVAL_SEED)


def ecg_view(ecg: Tensor, n_samples: int, augment: EcgAugment | None, generator: torch.Generator) -> Tensor:
    """Make the model's input of prepared ECGs.

    Args:
        ecg: (B, L, T) with T of at least `n_samples`.
        n_samples: Input length of the model [samples].
        augment: The augmentation; None (evaluation) crops at 0 and changes nothing.
        generator: Alike on all processes.

    Returns:
        (B, L, n_samples).

    Raises:
        ValueError: If the ECG is shorter than the model's input.
    """
    if ecg.ndim != 3 or ecg.shape[-1] < n_samples:
        raise ValueError(f"ECG batch has shape {tuple(ecg.shape)}, expected (B, L, T) with T of at least {n_samples}")
    if augment is None:
        return crop_start(ecg, n_samples)
    if ecg.shape[-1] > n_samples:
        ecg = crop_random(ecg, n_samples, generator, shard=shard(), legacy=augment.config.legacy_crop)
    with full_precision(ecg):
        return augment(ecg, generator, shard=shard())


def cmr_view(cmr: Tensor, augment: CmrAugment | None, generator: torch.Generator) -> Tensor:
    """Make the model's input of prepared studies; all frames and slices of a study are moved alike.

    Args:
        cmr: (B, C, H, W) or (B, V, F, H, W) in [0, 1].
        augment: The augmentation; None changes nothing.
        generator: Alike on all processes.
    """
    if augment is None:
        return cmr
    with full_precision(cmr):
        return augment(cmr, generator, shard=shard()).to(cmr.dtype)


def kept_tokens(encoder: EcgViT, rows: int, drop: float, generator: torch.Generator) -> Tensor | None:
    """Draw which patches of each ECG are encoded in training: a random part makes a step cheaper (arXiv 2212.00794).

    Args:
        encoder: For the number of its patches and its device.
        rows: B of this process.
        drop: Share of patches that are left out; 0 for none.
        generator: Alike on all processes.

    Returns:
        (B, N_keep), or None when all are encoded.
    """
    if drop == 0 or not encoder.training:
        return None
    tokens = encoder.leads * encoder.windows
    return draw_masking((rows, tokens), len_keep(tokens, drop), generator, shard(), encoder.pos_embed.device).keep
