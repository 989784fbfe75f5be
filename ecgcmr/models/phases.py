"""Encoder and projection of studies whose phases (end-diastole, end-systole) are read apart (arXiv 2602.12883)."""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ecgcmr.models.cmr import build_cmr_encoder
from ecgcmr.models.config import CmrEncoderConfig, ProjectionConfig, StrictConfig
from ecgcmr.models.projection import ProjectionHead


class PhaseEncoderConfig(StrictConfig):
    """CMR encoders that read some frames of a study apart.

    Attributes:
        encoder: The encoder of one frame.
        shared: One encoder for all phases instead of one for each.
        slices: Slices of a study, which are the input channels.
        frames: Frames of each slice.
        phases: Which of them are read.
    """

    kind: Literal["phase_encoder"] = "phase_encoder"
    encoder: CmrEncoderConfig = CmrEncoderConfig()
    shared: bool = False
    slices: int = Field(default=1, gt=0)
    frames: int = Field(default=3, gt=0)
    phases: tuple[int, ...] = Field(default=(0, 2), min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if min(self.phases) < 0 or max(self.phases) >= self.frames:
            raise ValueError(f"phases {self.phases} are not among the {self.frames} frames")
        return self


class PhaseProjectionConfig(StrictConfig):
    """A projection head for each phase; `head.in_features` is the width of one phase."""

    kind: Literal["phase_projection"] = "phase_projection"
    phases: int = Field(default=2, gt=0)
    head: ProjectionConfig = ProjectionConfig()


class PhaseEncoder(nn.Module):
    """Takes some frames out of each study and encodes each by itself; the slices of a frame are input channels."""

    def __init__(self, config: PhaseEncoderConfig | dict[str, Any]) -> None:
        super().__init__()
        config = PhaseEncoderConfig.model_validate(config)
        self.phases, self.frames, self.slices = config.phases, config.frames, config.slices
        count = 1 if config.shared else len(config.phases)
        self.encoders = nn.ModuleList(
            build_cmr_encoder({**config.encoder.model_dump(), "in_channels": config.slices}) for _ in range(count)
        )
        # As the encoders resolved it, so that a rebuilt module is the same one and fetches no weights.
        self.config: dict[str, Any] = {**config.model_dump(), "encoder": dict(self._encoder(0).config)}
        self.phase_dim = int(self._encoder(0).embed_dim)
        self.embed_dim = len(config.phases) * self.phase_dim

    def _encoder(self, number: int) -> Any:
        return self.encoders[min(number, len(self.encoders) - 1)]

    def forward(self, cmr: Tensor) -> Tensor:
        """Embed studies, (B, S * F, H, W) slice by slice to (B, P * D): the phases one after the other."""
        if cmr.ndim != 4 or cmr.shape[1] != self.slices * self.frames:
            raise ValueError(
                f"CMR input has shape {tuple(cmr.shape)}, expected (B, {self.slices * self.frames}, H, W): "
                f"{self.frames} frames of {self.slices} slices"
            )
        frames = cmr.unflatten(1, (self.slices, self.frames))
        chosen = [frames[:, :, phase] for phase in self.phases]
        if len(self.encoders) == 1:
            # One pass over all phases, so that BatchNorm sees them together.
            return torch.cat(self._encoder(0)(torch.cat(chosen)).chunk(len(chosen)), dim=1)
        return torch.cat([self._encoder(number)(image) for number, image in enumerate(chosen)], dim=1)


class PhaseProjection(nn.Module):
    """A projection head for each phase; a study stands at the mean of its phases' directions."""

    def __init__(self, config: PhaseProjectionConfig | dict[str, Any]) -> None:
        super().__init__()
        config = PhaseProjectionConfig.model_validate(config)
        self.config: dict[str, Any] = config.model_dump()
        self.heads = nn.ModuleList(ProjectionHead.from_config(config.head) for _ in range(config.phases))

    def each(self, embedding: Tensor) -> list[Tensor]:
        """Project each phase, (B, P * D) to P times (B, out), of any length."""
        width = self.config["head"]["in_features"] * len(self.heads)
        if embedding.ndim != 2 or embedding.shape[1] != width:
            raise ValueError(f"projection input has shape {tuple(embedding.shape)}, expected (B, {width})")
        parts = embedding.chunk(len(self.heads), dim=1)
        return [head(part) for head, part in zip(self.heads, parts, strict=True)]

    def forward(self, embedding: Tensor) -> Tensor:
        """Project studies, (B, P * D) to (B, out)."""
        return torch.stack([nn.functional.normalize(part, dim=-1) for part in self.each(embedding)]).mean(0)
