"""The convolutional ECG transformer: wav2vec 2.0 (arXiv 2006.11477) over all leads, as ECG-FM uses it (2408.05178).

Strided convolutions over all leads together give tokens in time; a convolution over tokens codes their positions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecgcmr.models.blocks import Attention, Mlp, init_transformer
from ecgcmr.models.config_published import EcgWav2VecConfig
from ecgcmr.models.ecg_vit import check_ecg


class PostNormBlock(nn.Module):
    """One post-norm transformer block (arXiv 1706.03762): LayerNorm (eps 1e-5) after each residual sum."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.mlp = Mlp(width, hidden)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform a sequence, (B, N, D) to (B, N, D)."""
        x = self.norm1(x + self.attn(x))
        return self.norm2(x + self.mlp(x))


class EcgWav2Vec(nn.Module):
    """ECG encoder with a convolutional feature extractor.

    Each convolution (no bias) is followed by GELU, the first one before that by a GroupNorm with a group for each
    channel, that is a normalization over the whole recording. Then LayerNorm, a linear layer to the width of the
    tokens, positions by a grouped convolution over tokens, LayerNorm, and post-norm blocks. The embedding is the mean
    of the tokens. A lead that is absent is given as zeros: the model was pretrained with leads set to zero at random.
    """

    def __init__(self, config: EcgWav2VecConfig | dict[str, Any]) -> None:
        super().__init__()
        config = EcgWav2VecConfig.model_validate(config)
        if config.n_samples is None:
            raise ValueError("EcgWav2VecConfig.n_samples is not set; give the input length in samples")
        self.config: dict[str, Any] = config.model_dump()
        self.leads, self.n_samples = config.leads, config.n_samples
        self.embed_dim, self.tokens = config.width, config.tokens
        channels = [config.leads, *(width for width, _, _ in config.conv_layers)]
        self.convs = nn.ModuleList(
            nn.Conv1d(channels[i], width, kernel, stride, bias=False)
            for i, (width, kernel, stride) in enumerate(config.conv_layers)
        )
        self.conv_norm = nn.GroupNorm(channels[1], channels[1])
        self.feature_norm = nn.LayerNorm(channels[-1])
        same = channels[-1] == config.width
        self.project = nn.Identity() if same else nn.Linear(channels[-1], config.width)
        self.pos_conv = nn.Conv1d(
            config.width, config.width, config.pos_kernel, padding=config.pos_kernel // 2, groups=config.pos_groups
        )
        self.token_norm = nn.LayerNorm(config.width)
        self.blocks = nn.ModuleList(
            PostNormBlock(config.width, config.heads, config.hidden) for _ in range(config.depth)
        )
        self.apply(init_transformer)
        for conv in self.convs:
            assert isinstance(conv, nn.Conv1d)
            nn.init.kaiming_normal_(conv.weight)
        nn.init.normal_(self.pos_conv.weight, std=2.0 * (config.pos_kernel * config.width) ** -0.5)

    def forward_tokens(self, ecg_BLT: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Encode an ECG, (B, L, T) to tokens (B, N, D) after the last block; `generator` is not needed."""
        self.check_input(ecg_BLT)
        x = ecg_BLT
        for i, conv in enumerate(self.convs):
            x = conv(x)
            x = functional.gelu(self.conv_norm(x) if i == 0 else x)
        x = self.project(self.feature_norm(x.transpose(1, 2)))
        # An even kernel with this padding gives one token too many at the end.
        positions = self.pos_conv(x.transpose(1, 2))[:, :, : x.shape[1]]
        x = self.token_norm(x + functional.gelu(positions).transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        return x

    def forward(self, ecg_BLT: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Embed an ECG, (B, L, T) to (B, D): the mean of its tokens."""
        return self.forward_tokens(ecg_BLT, generator).mean(dim=1)

    def check_input(self, ecg: Tensor) -> None:
        """Refuse an input of another shape or type.

        Raises:
            ValueError: Naming the shape that came and the one expected.
        """
        check_ecg(ecg, self.leads, self.n_samples)
