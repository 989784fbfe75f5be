"""Configurations of published ECG encoders, which are rebuilt for their weights and not trained anew."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from ecgcmr.models.config import StrictConfig, check_heads, check_patches


class EcgStConfig(StrictConfig):
    """The spatio-temporal ECG transformer, in the sizes of the published model (ViT-B, 2,250 samples at 250 Hz).

    Attributes:
        n_samples: Input length in samples; None in a run file, set in a built module.
        patch: Length of a patch [samples] along time; a patch never spans two leads.
        drop_path: Stochastic depth of the last block, linear over depth from 0.
        norm_eps: Of every LayerNorm.
        separator_leads: Whether the separators of a lead carry its lead embedding.
    """

    kind: Literal["ecg_st_vit"] = "ecg_st_vit"
    n_samples: int | None = Field(default=None, gt=0)
    leads: int = Field(default=12, gt=0)
    patch: int = Field(default=75, gt=0)
    width: int = Field(default=768, gt=0)
    depth: int = Field(default=12, gt=0)
    heads: int = Field(default=12, gt=0)
    mlp_ratio: float = Field(default=4.0, gt=0)
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    norm_eps: float = Field(default=1e-5, gt=0)
    separator_leads: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> EcgStConfig:
        check_heads(self.width, self.heads, multiple=1)
        check_patches(self.n_samples, self.patch)
        return self


class EcgWav2VecConfig(StrictConfig):
    """The convolutional ECG transformer, in the sizes of ECG-FM (5,000 samples at 500 Hz).

    Attributes:
        n_samples: Input length in samples; None in a run file, set in a built module.
        conv_layers: Channels, kernel and stride [samples] of each convolution of the feature extractor.
        hidden: Width of the hidden layer of each block.
        pos_kernel: Kernel of the position convolution [tokens].
        pos_groups: Its groups of channels.
    """

    kind: Literal["ecg_wav2vec"] = "ecg_wav2vec"
    n_samples: int | None = Field(default=None, gt=0)
    leads: int = Field(default=12, gt=0)
    conv_layers: tuple[tuple[PositiveInt, PositiveInt, PositiveInt], ...] = Field(
        default=((256, 2, 2),) * 4, min_length=1
    )
    width: int = Field(default=768, gt=0)
    depth: int = Field(default=12, gt=0)
    heads: int = Field(default=12, gt=0)
    hidden: int = Field(default=3072, gt=0)
    pos_kernel: int = Field(default=128, gt=0)
    pos_groups: int = Field(default=16, gt=0)

    @property
    def tokens(self) -> int:
        """Number of tokens that the convolutions leave of n_samples."""
        length = self.n_samples or 0
        for _, kernel, stride in self.conv_layers:
            length = max(0, (length - kernel) // stride + 1)
        return length

    @model_validator(mode="after")
    def _consistent(self) -> EcgWav2VecConfig:
        check_heads(self.width, self.heads, multiple=1)
        if self.width % self.pos_groups:
            raise ValueError(f"width {self.width} is not divisible by pos_groups {self.pos_groups}")
        if self.n_samples is not None and self.tokens < 1:
            raise ValueError(f"n_samples {self.n_samples} leave no token after the convolutions {self.conv_layers}")
        return self
