"""Masked autoencoder of the ECG (arXiv 2111.06377; for the ECG arXiv 2308.05764): encode the visible patches only."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ecgcmr.models.blocks import Block, init_transformer
from ecgcmr.models.config import EcgDecoderConfig, EcgEncoderConfig
from ecgcmr.models.ecg_vit import EcgViT
from ecgcmr.models.positions import sincos_table
from ecgcmr.models.recompute import Recomputes


class Masking(NamedTuple):
    """Hidden patches: `keep` (B, N_keep) token numbers, `restore` (B, N), `mask` (B, N), 0 keep, 1 removed."""

    keep: Tensor
    restore: Tensor
    mask: Tensor


class MaeOutput(NamedTuple):
    """`patches` (B, N, P) predicted patches and `mask` (B, N) float32, 0 keep, 1 removed."""

    patches: Tensor
    mask: Tensor


def len_keep(tokens: int, mask_ratio: float, legacy: bool = False) -> int:
    """Count the patches that stay visible.

    Args:
        tokens: Number of patches.
        mask_ratio: Share to hide, in [0, 1).
        legacy: Round as the reference does, down from a floating-point product: 59 instead of 60 of 300 at .8.

    Raises:
        ValueError: If nothing would stay visible.
    """
    keep = int(tokens * (1 - mask_ratio)) if legacy else round(tokens * (1 - mask_ratio))
    if not 0 < keep <= tokens:
        raise ValueError(f"mask_ratio {mask_ratio} keeps {keep} of {tokens} patches; choose a ratio in [0, 1)")
    return keep


def draw_masking(
    shape: tuple[int, int],
    keep: int,
    generator: torch.Generator | None = None,
    shard: tuple[int, int] = (0, 1),
    device: torch.device | None = None,
) -> Masking:
    """Hide patches at random, in each sample independently, by sorting uniform noise.

    Args:
        shape: (B, N) of this process.
        keep: Patches that stay visible.
        generator: Source of the noise, alike on all processes.
        shard: (rank, world): noise is drawn for world * B rows and the rank's own are used.
        device: Of the result.
    """
    (rows, tokens), (rank, n_processes) = shape, shard
    drawn_on = generator.device if generator is not None else device
    noise = torch.rand(n_processes * rows, tokens, generator=generator, device=drawn_on)
    order = noise[rank * rows : (rank + 1) * rows].to(device).argsort(dim=1)
    restore = order.argsort(dim=1)
    return Masking(order[:, :keep], restore, (restore >= keep).float())


class EcgDecoder(nn.Module, Recomputes):
    """From the visible tokens to all patches: a narrow transformer with a mask token and fixed positions."""

    def __init__(self, config: EcgDecoderConfig | dict[str, Any]) -> None:
        super().__init__()
        config = EcgDecoderConfig.model_validate(config)
        grid = (config.encoder_width, config.leads, config.windows, config.patch)
        if None in grid:
            raise ValueError(
                f"EcgDecoderConfig has encoder_width, leads, windows, patch = {grid}; all four must be set, "
                "EcgMae.from_configs takes them from the encoder"
            )
        encoder_width, leads, windows, patch = (int(n) for n in grid if n is not None)
        self.config: dict[str, Any] = config.model_dump()
        self.embed = nn.Linear(encoder_width, config.width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.prefix = int(config.cls_token)
        table = sincos_table(leads, windows, config.width)[:, 1 - self.prefix :]
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        shape = (config.width, config.heads, config.mlp_ratio, config.norm_eps, config.layer_scale)
        self.blocks = nn.ModuleList(Block(*shape) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.pred = nn.Linear(config.width, patch)
        self.apply(init_transformer)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, visible: Tensor, restore: Tensor) -> Tensor:
        """Predict all patches.

        Args:
            visible: Encoded cls, if there is one, and visible tokens (B, prefix + N_keep, D).
            restore: (B, N) place of each patch in the shuffled order.

        Returns:
            (B, N, P).
        """
        x = self.embed(visible)
        batch, tokens = restore.shape
        missing = self.mask_token.to(x.dtype).expand(batch, tokens + self.prefix - x.shape[1], -1)
        shuffled = torch.cat([x[:, self.prefix :], missing], dim=1)
        patches = shuffled.gather(1, restore[..., None].expand(-1, -1, x.shape[-1]))
        x = torch.cat([x[:, : self.prefix], patches], dim=1) + self.pos_embed
        for block in self.blocks:
            x = self.run_block(block, x)
        return self.pred(self.norm(x[:, self.prefix :]))


class EcgMae(nn.Module):
    """Encoder and decoder; `encoder` is what is kept after pretraining."""

    def __init__(self, encoder: EcgViT, decoder: EcgDecoderConfig | EcgDecoder | dict[str, Any]) -> None:
        super().__init__()
        self.encoder = encoder.train_path("tokens")
        if not isinstance(decoder, EcgDecoder):
            given = EcgDecoderConfig.model_validate(decoder).model_dump()
            decoder = EcgDecoder({**given, **_grid_of(encoder)})
        self.decoder = decoder

    @classmethod
    def from_configs(cls, encoder: EcgEncoderConfig | dict[str, Any], decoder: EcgDecoderConfig) -> EcgMae:
        """Build both parts; the decoder's grid follows from the encoder."""
        return cls(EcgViT(encoder), decoder)

    def forward(self, ecg_BLT: Tensor, masking: Masking, generator: torch.Generator | None = None) -> MaeOutput:
        """Hide patches, encode the rest, predict all.

        Args:
            ecg_BLT: (B, L, T).
            masking: From `draw_masking`.
            generator: Drives stochastic depth in training.
        """
        tokens = self.encoder.norm(self.encoder.forward_tokens(ecg_BLT, generator, masking.keep))
        return MaeOutput(self.decoder(tokens, masking.restore), masking.mask)

    def patchify(self, ecg_BLT: Tensor) -> Tensor:
        """Cut an ECG into patches, (B, L, T) to (B, N, P), lead-major."""
        return ecg_BLT.reshape(ecg_BLT.shape[0], -1, self.encoder.patch)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Put patches together, (B, N, P) to (B, L, T)."""
        return patches.reshape(patches.shape[0], self.encoder.leads, self.encoder.n_samples)

    @torch.no_grad()
    def reconstruct(
        self, ecg_BLT: Tensor, mask_ratio: float = 0.8, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Hide patches and predict them, for a figure.

        Returns:
            The prediction (B, L, T) of all patches and the mask (B, L, T), 1 where the model saw nothing.
        """
        tokens = self.encoder.leads * self.encoder.windows
        shape = (ecg_BLT.shape[0], tokens)
        masking = draw_masking(shape, len_keep(tokens, mask_ratio), generator, device=ecg_BLT.device)
        out = self(ecg_BLT, masking)
        return self.unpatchify(out.patches), out.mask.repeat_interleave(self.encoder.patch, 1).view_as(ecg_BLT)


def _grid_of(encoder: EcgViT) -> dict[str, int | bool]:
    return {
        "encoder_width": encoder.embed_dim,
        "leads": encoder.leads,
        "windows": encoder.windows,
        "patch": encoder.patch,
        "cls_token": bool(encoder.prefix),
    }
