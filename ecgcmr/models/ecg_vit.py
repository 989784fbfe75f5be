"""The ECG transformer: a vision transformer over a grid of leads by time windows (arXiv 2308.05764, 2010.11929).

A patch is one lead over `patch` samples, so that no token mixes leads; token 1 + lead * W + t is window t of a lead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ecgcmr.models.blocks import Block, init_transformer, stochastic_depth
from ecgcmr.models.config import EcgEncoderConfig
from ecgcmr.models.pooling import AttentionPool, QueryPool, mean_pool
from ecgcmr.models.positions import interpolate_table, sincos_table
from ecgcmr.models.recompute import Recomputes


class PatchEmbed(nn.Module):
    """Cut (B, L, T) into patches (1, P) and embed each linearly; the weight is that of a strided convolution."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(1, width, kernel_size=(1, patch), stride=(1, patch))

    def forward(self, ecg_BLT: Tensor) -> Tensor:
        """Embed all patches, (B, L, T) to (B, L * T / P, D), lead-major."""
        return self.embed(ecg_BLT.reshape(ecg_BLT.shape[0], -1, self.patch))

    def embed(self, patches_BNP: Tensor) -> Tensor:
        """Embed chosen patches, (B, N, P) to (B, N, D): a stride equal to the kernel makes it a matrix product."""
        return nn.functional.linear(patches_BNP, self.proj.weight.flatten(1), self.proj.bias)


def check_ecg(ecg: Tensor, leads: int, n_samples: int) -> None:
    """Refuse an input that is not (B, leads, n_samples) of a floating point type.

    Raises:
        ValueError: Naming the shape that came and the one expected.
    """
    if ecg.ndim != 3 or tuple(ecg.shape[1:]) != (leads, n_samples):
        raise ValueError(
            f"ECG input has shape {tuple(ecg.shape)}, expected (B, {leads}, {n_samples}); "
            "crop or pad the recording, or build the encoder with another n_samples"
        )
    if not ecg.is_floating_point():
        raise ValueError(f"ECG input has type {ecg.dtype}, expected a floating point type; convert it first")


class EcgViT(nn.Module, Recomputes):
    """ECG encoder.

    State-dict names are those of the released reference encoder: cls_token, pos_embed, patch_embed.proj, blocks.i.*,
    norm, and fc_norm, attention_pool and query_pool where the pooling has them. `norm` is applied by the poolings cls
    and norm_mean and by the masked autoencoder only; parameters that the chosen path does not use are frozen, so that
    no process waits for their gradient.
    """

    pos_embed: nn.Parameter

    def __init__(self, config: EcgEncoderConfig | dict[str, Any]) -> None:
        super().__init__()
        config = EcgEncoderConfig.model_validate(config)
        if config.n_samples is None:
            raise ValueError("EcgEncoderConfig.n_samples is not set; give the input length in samples")
        self.config: dict[str, Any] = config.model_dump()
        self.leads, self.n_samples, self.patch = config.leads, config.n_samples, config.patch
        self.windows = config.n_samples // config.patch
        self.embed_dim, self.pool, self.drop_path = config.width, config.pool, config.drop_path
        self.prefix = int(config.cls_token)
        self.patch_embed = PatchEmbed(config.patch, config.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width)) if config.cls_token else None
        table = sincos_table(config.leads, self.windows, config.width)[:, 1 - self.prefix :]
        self.pos_embed = nn.Parameter(table, requires_grad=config.learn_positions)
        shape = (config.width, config.heads, config.mlp_ratio, config.norm_eps, config.layer_scale)
        self.blocks = nn.ModuleList(Block(*shape) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.apply(init_transformer)
        nn.init.xavier_uniform_(self.patch_embed.proj.weight.view(config.width, -1))
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=0.02)
        if config.pool == "attention":
            self.attention_pool = AttentionPool(config.width, config.heads)
        if config.pool == "query":
            self.query_pool = QueryPool(config.width, config.heads, config.norm_eps)
        if config.pool in ("mean", "attention", "query"):
            self.fc_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.train_path("pooled")

    def train_path(self, path: str) -> EcgViT:
        """Let only the output layers train that a path uses: "pooled" (`forward`) or "tokens" (norm on all)."""
        pooled = path == "pooled"
        self.norm.requires_grad_(not pooled or self.pool in ("cls", "norm_mean"))
        for name in ("fc_norm", "attention_pool", "query_pool"):
            if hasattr(self, name):
                getattr(self, name).requires_grad_(pooled)
        return self

    def forward_tokens(
        self, ecg_BLT: Tensor, generator: torch.Generator | None = None, keep: Tensor | None = None
    ) -> Tensor:
        """Encode all patches, or those of each sample that are kept.

        Args:
            ecg_BLT: (B, L, T) with the configured L and T.
            generator: Drives stochastic depth in training.
            keep: Numbers (B, N_keep) of the patches to encode; None for all. The others cost nothing.

        Returns:
            Tokens after the last block, before any norm: (B, prefix + N, D), cls first if there is one.
        """
        self.check_input(ecg_BLT)
        if keep is None:
            return self.encode(self.patch_embed(ecg_BLT) + self.pos_embed[:, self.prefix :], generator)
        patches = ecg_BLT.reshape(ecg_BLT.shape[0], -1, self.patch)
        visible = patches.gather(1, keep[..., None].expand(-1, -1, self.patch))
        return self.encode(self.patch_embed.embed(visible) + self.pos_embed[0, self.prefix :][keep], generator)

    def encode(self, patches_BND: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Run the blocks over cls and embedded patches that carry their positions, (B, N, D) to (B, prefix + N, D)."""
        tokens = patches_BND
        if self.cls_token is not None:
            cls = (self.cls_token + self.pos_embed[:, :1]).expand(patches_BND.shape[0], -1, -1)
            tokens = torch.cat([cls.to(patches_BND.dtype), patches_BND], dim=1)
        rate = self.drop_path if self.training else 0.0
        keeps = stochastic_depth(rate, len(self.blocks), tokens, generator)
        for i, block in enumerate(self.blocks):
            tokens = self.run_block(block, tokens, keeps[i] if keeps else None)
        return tokens

    def pooled(self, tokens: Tensor) -> Tensor:
        """Pool the tokens of the last block before the closing norm, if any; (B, prefix + N, D) to (B, D)."""
        if self.pool == "cls":
            return tokens[:, 0]
        if self.pool == "norm_mean":
            tokens = self.norm(tokens)
        learned = self.trained_pool
        pooled: Tensor = mean_pool(tokens, self.prefix) if learned is None else learned(tokens, self.prefix)
        return pooled

    @property
    def trained_pool(self) -> nn.Module | None:
        """The pooling, where it has parameters."""
        pool: nn.Module | None = getattr(self, f"{self.pool}_pool", None)
        return pool

    def forward(self, ecg_BLT: Tensor, generator: torch.Generator | None = None, keep: Tensor | None = None) -> Tensor:
        """Embed an ECG, (B, L, T) to (B, D): the tokens pooled and normalized; arguments as in `forward_tokens`."""
        return self.closed(self.pooled(self.forward_tokens(ecg_BLT, generator, keep)))

    def closed(self, pooled: Tensor) -> Tensor:
        """Apply the norm that follows the pooling, if any, (..., D) to (..., D)."""
        if self.pool in ("pre_norm", "norm_mean"):
            return pooled
        return self.norm(pooled) if self.pool == "cls" else self.fc_norm(pooled)

    def check_input(self, ecg: Tensor) -> None:
        """Refuse an input of another shape or type.

        Raises:
            ValueError: Naming the shape that came and the one expected.
        """
        check_ecg(ecg, self.leads, self.n_samples)

    def resized(self, n_samples: int) -> EcgViT:
        """Give a copy for another input length: the same weights, the position table interpolated along time."""
        config = {**self.config, "n_samples": n_samples}
        other = EcgViT(config).to(self.pos_embed.device, self.pos_embed.dtype)
        state = self.state_dict()
        state["pos_embed"] = interpolate_table(state["pos_embed"], self.leads, other.windows, self.prefix)
        other.load_state_dict(state)
        return other.train(self.training)


def create_ecg_encoder(
    preset: str, n_samples: int, patch: int | None = None, pool: str = "mean", **overrides: Any
) -> EcgViT:
    """Build an ECG encoder by name.

    Args:
        preset: Name in `ECG_PRESETS`.
        n_samples: Input length [samples].
        patch: Patch length [samples]; None for the preset's.
        pool: "mean", "attention", "query", "cls", "pre_norm" or "norm_mean".
        **overrides: Any other field of `EcgEncoderConfig`.

    Raises:
        ValueError: For an unknown preset or sizes that do not fit together.
    """
    fields = {"preset": preset, "n_samples": n_samples, "patch": patch, "pool": pool, **overrides}
    return EcgViT(EcgEncoderConfig.model_validate(fields))
