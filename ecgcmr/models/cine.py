"""A transformer over cines of any number of slices and frames.

One small convolutional network reads every frame alike; a transformer then relates the frame vectors over slices and
the cardiac cycle. Time is coded by its phase, which closes on itself as the heart beat does; the slice by its relative
place between base and apex. Both codes are functions, not tables, so that other protocols fit without interpolation.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ecgcmr.models.blocks import LAYER_NORM_EPS, Block, init_transformer
from ecgcmr.models.config import CmrEncoderConfig
from ecgcmr.models.positions import sincos_codes
from ecgcmr.models.recompute import Recomputes

MIN_SIZE = 16  # pixels; four halvings leave one pixel
_SLICE_SCALE = 100.0  # spreads the relative slice place [0, 1] over the wave lengths of the sin-cos code


class FrameEncoder(nn.Module):
    """Four strided 3x3 convolutions with group norm (no statistics over the batch), then the mean over the plane."""

    def __init__(self, stem: int, width: int) -> None:
        super().__init__()
        channels = [1, stem, 2 * stem, 4 * stem, width]
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(channels):
            layers += [
                nn.Conv2d(c_in, c_out, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(8, c_out),
                nn.GELU(),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, frames: Tensor) -> Tensor:
        """Embed frames, (M, 1, H, W) to (M, D)."""
        return self.layers(frames.contiguous(memory_format=torch.channels_last)).mean(dim=(2, 3))


class CineTransformer(nn.Module, Recomputes):
    """Embeds (B, V, F, H, W): a shared frame encoder, position codes of phase and slice, transformer, mean token."""

    def __init__(self, config: CmrEncoderConfig | dict[str, Any]) -> None:
        super().__init__()
        config = CmrEncoderConfig.model_validate(config)
        self.config: dict[str, Any] = config.model_dump()
        sizes = config.cine
        self.embed_dim = sizes.width
        self.frame_encoder = FrameEncoder(sizes.stem, sizes.width)
        self.blocks = nn.ModuleList(Block(sizes.width, sizes.heads) for _ in range(sizes.depth))
        self.fc_norm = nn.LayerNorm(sizes.width, eps=LAYER_NORM_EPS)
        self.blocks.apply(init_transformer)

    def forward(self, cmr: Tensor) -> Tensor:
        """Embed studies, given as for `forward_tokens`, to (B, D)."""
        return self.fc_norm(self.forward_tokens(cmr).flatten(1, 2).mean(dim=1))

    def forward_tokens(self, cmr: Tensor) -> Tensor:
        """Encode each frame in the light of all others.

        Args:
            cmr: (B, V, F, H, W) in [0, 1]; (B, F, H, W) is read as one slice.

        Returns:
            Tokens after the last block, before the norm (B, V, F, D).
        """
        if cmr.ndim == 4:
            cmr = cmr[:, None]
        if cmr.ndim != 5 or min(cmr.shape[-2:]) < MIN_SIZE:
            raise ValueError(
                f"cine input has shape {tuple(cmr.shape)}, expected (B, V, F, H, W) or (B, F, H, W) "
                f"with H and W of at least {MIN_SIZE} pixels"
            )
        if not cmr.is_floating_point():
            raise ValueError(f"cine input has type {cmr.dtype}, expected a floating point type in [0, 1]")
        batch, slices, frames, rows, columns = cmr.shape
        vectors = self.run_block(self.frame_encoder, (2 * cmr - 1).reshape(-1, 1, rows, columns))
        tokens = vectors.view(batch, slices * frames, self.embed_dim)
        tokens = tokens + position_codes(slices, frames, self.embed_dim, cmr.device).to(tokens.dtype)
        for block in self.blocks:
            tokens = self.run_block(block, tokens)
        return tokens.unflatten(1, (slices, frames))


def position_codes(slices: int, frames: int, width: int, device: torch.device | None = None) -> Tensor:
    """Code each (slice, frame): harmonics of the cardiac phase in the first half, the relative slice in the second.

    Returns:
        (slices * frames, width) float64, slice-major; frame F would have the code of frame 0.
    """
    harmonics = torch.arange(1, width // 4 + 1, dtype=torch.float64, device=device)
    phase = 2 * math.pi * torch.arange(frames, dtype=torch.float64, device=device) / frames
    # Higher harmonics weigh less, so that neighbouring frames have neighbouring codes.
    angle = phase[:, None] * harmonics
    time = torch.cat([angle.sin() / harmonics, angle.cos() / harmonics], dim=-1)
    place = torch.linspace(0, 1, slices, dtype=torch.float64, device=device) * _SLICE_SCALE
    slice_code = sincos_codes(place, width // 2)
    codes = torch.cat([time[None].expand(slices, -1, -1), slice_code[:, None].expand(-1, frames, -1)], dim=-1)
    return codes.reshape(slices * frames, width)
