"""Spatio-temporal ECG transformer: patches of every lead between two separator tokens (ST-MEM, arXiv 2402.09450).

Each lead is a sentence: a left separator, its patches in time, a right separator; the sentences of all leads are read
together. State-dict names of the blocks are those of `EcgViT`; a checkpoint in the layout of MyoECG maps onto them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ecgcmr.models.blocks import Block, init_transformer, stochastic_depth
from ecgcmr.models.config_published import EcgStConfig
from ecgcmr.models.ecg_vit import check_ecg


class EcgStViT(nn.Module):
    """ECG encoder with separators and lead embeddings.

    A patch x of lead l and window t becomes LN(Linear(LN(x))) + position[1 + t] + lead[l]. The separators of lead l are
    separator + position[0] + lead[l] on the left and separator + position[W + 1] + lead[l] on the right; with
    `separator_leads` False they do not carry lead[l]. Sums commute, so no other order of adding gives another token.
    The embedding is the mean of the patch tokens of the last block, separators left out, then LayerNorm.
    """

    def __init__(self, config: EcgStConfig | dict[str, Any]) -> None:
        super().__init__()
        config = EcgStConfig.model_validate(config)
        if config.n_samples is None:
            raise ValueError("EcgStConfig.n_samples is not set; give the input length in samples")
        self.config: dict[str, Any] = config.model_dump()
        self.leads, self.n_samples, self.patch = config.leads, config.n_samples, config.patch
        self.windows = config.n_samples // config.patch
        self.embed_dim, self.drop_path, self.separator_leads = config.width, config.drop_path, config.separator_leads
        width, eps = config.width, config.norm_eps
        self.patch_norm = nn.LayerNorm(config.patch, eps=eps)
        self.patch_embed = nn.Linear(config.patch, width)
        self.token_norm = nn.LayerNorm(width, eps=eps)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.windows + 2, width))
        self.sep_embed = nn.Parameter(torch.zeros(width))
        self.lead_embed = nn.Parameter(torch.zeros(config.leads, width))
        self.blocks = nn.ModuleList(Block(width, config.heads, config.mlp_ratio, eps) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=eps)
        self.apply(init_transformer)
        for table in (self.pos_embed, self.sep_embed, self.lead_embed):
            nn.init.normal_(table, std=0.02)

    def forward_tokens(
        self, ecg_BLT: Tensor, generator: torch.Generator | None = None, keep: Tensor | None = None
    ) -> Tensor:
        """Encode all leads, or those of each sample that are kept.

        Args:
            ecg_BLT: (B, L, T) with the configured L and T.
            generator: Drives stochastic depth in training.
            keep: Numbers (B, K * W) of the patches to encode, lead * W + t, of K whole leads; None for all. The other
                leads, their separators included, cost nothing.

        Returns:
            Tokens after the last block, before any norm, separators left out: (B, K * W, D), lead-major.
        """
        self.check_input(ecg_BLT)
        patches = ecg_BLT.reshape(ecg_BLT.shape[0], self.leads, self.windows, self.patch)
        lead = self.lead_embed[None].expand(ecg_BLT.shape[0], -1, -1)
        if keep is not None:
            kept = self._whole_leads(keep)
            patches = patches.gather(1, kept[..., None, None].expand(-1, -1, *patches.shape[2:]))
            lead = self.lead_embed[kept]
        sentences = self._sentences(self.token_norm(self.patch_embed(self.patch_norm(patches))), lead)
        x = sentences.flatten(1, 2)
        rate = self.drop_path if self.training else 0.0
        keeps = stochastic_depth(rate, len(self.blocks), x, generator)
        for i, block in enumerate(self.blocks):
            x = block(x, keeps[i] if keeps else None)
        return x.view(sentences.shape)[:, :, 1:-1].flatten(1, 2)

    def _sentences(self, tokens_BKWD: Tensor, lead_BKD: Tensor) -> Tensor:
        """Put the separators around the patches of each lead and add the codes, (B, K, W, D) to (B, K, W + 2, D)."""
        batch, leads, _, width = tokens_BKWD.shape
        separator = self.sep_embed.to(tokens_BKWD.dtype).expand(batch, leads, 1, width)
        lead = lead_BKD[:, :, None]
        if self.separator_leads:
            x = torch.cat([separator, tokens_BKWD, separator], dim=2) + lead
        else:
            x = torch.cat([separator, tokens_BKWD + lead, separator], dim=2)
        return x + self.pos_embed[:, None]

    def _whole_leads(self, keep: Tensor) -> Tensor:
        """Turn patch numbers (B, K * W) into lead numbers (B, K)."""
        if keep.shape[1] and keep.shape[1] % self.windows == 0:
            by_lead = keep.view(keep.shape[0], -1, self.windows)
            leads = by_lead[..., 0] // self.windows
            windows = torch.arange(self.windows, device=keep.device)
            if torch.equal(by_lead, leads[..., None] * self.windows + windows):
                return leads
        raise ValueError(
            f"keep holds {keep.shape[1]} patches, expected the {self.windows} patches of one or more whole leads, in "
            "order: a lead is read between its separators or not at all"
        )

    def forward(self, ecg_BLT: Tensor, generator: torch.Generator | None = None, keep: Tensor | None = None) -> Tensor:
        """Embed an ECG, (B, L, T) to (B, D): the mean of the patch tokens, then LayerNorm; see `forward_tokens`."""
        return self.norm(self.forward_tokens(ecg_BLT, generator, keep).mean(dim=1))

    def check_input(self, ecg: Tensor) -> None:
        """Refuse an input of another shape or type.

        Raises:
            ValueError: Naming the shape that came and the one expected.
        """
        check_ecg(ecg, self.leads, self.n_samples)
