"""CMR encoders: any timm image model over chosen frames as channels, or a transformer over whole cines."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ecgcmr.models.cine import CineTransformer
from ecgcmr.models.config import CmrEncoderConfig


class TimmEncoder(nn.Module):
    """A timm model without classifier; frames (and slices) are its input channels.

    Input values lie in [0, 1] and are centred to [-1, 1], as no dataset statistics hold over scanners, unless the
    configuration says that they are taken as they are.
    """

    def __init__(self, config: CmrEncoderConfig | dict[str, Any]) -> None:
        super().__init__()
        config = CmrEncoderConfig.model_validate(config)
        if config.in_channels is None:
            raise ValueError("CmrEncoderConfig.in_channels is not set; give the number of slices times frames")
        if not timm.is_model(config.name):
            near = (
                ", ".join(get_close_matches(config.name, timm.list_models(), n=5, cutoff=0.5)) or "resnet18, resnet50"
            )
            raise ValueError(f"CMR encoder {config.name!r} is no timm model; near names: {near}; or cine_transformer")
        self.config: dict[str, Any] = {
            **config.model_dump(),
            "pretrained": False,
        }  # a rebuilt module gets its own weights
        self.in_channels = config.in_channels
        reserved = {"in_chans", "num_classes", "pretrained"} & set(config.timm_args)
        if reserved:
            raise ValueError(f"timm_args must not set {sorted(reserved)}: the encoder's own fields do")
        more: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in config.timm_args.items()
        }
        backbone: Any = timm.create_model(
            config.name, pretrained=config.pretrained, in_chans=config.in_channels, num_classes=0, **more
        )
        self.embed_dim = int(backbone.num_features)
        self.backbone = backbone
        self._centered = config.centered
        self._format = torch.channels_last if config.channels_last else torch.contiguous_format
        self.backbone.to(memory_format=self._format)

    def forward(self, cmr: Tensor) -> Tensor:
        """Embed studies, (B, C, H, W) or (B, V, F, H, W) with V * F = C to (B, D)."""
        image = cmr.flatten(1, 2) if cmr.ndim == 5 else cmr
        if image.ndim != 4 or image.shape[1] != self.in_channels:
            raise ValueError(
                f"CMR input has shape {tuple(cmr.shape)}, expected (B, {self.in_channels}, H, W) "
                "or slices and frames of that product; "
                "choose that many frames in the CMR pipeline, or build the encoder with another in_channels"
            )
        if not cmr.is_floating_point():
            raise ValueError(f"CMR input has type {cmr.dtype}, expected a floating point type in [0, 1]")
        image = 2 * image - 1 if self._centered else image
        out: Tensor = self.backbone(image.contiguous(memory_format=self._format))
        return out


def build_cmr_encoder(config: CmrEncoderConfig | dict[str, Any]) -> TimmEncoder | CineTransformer:
    """Build the encoder that `config.name` names; it has `.forward(cmr)` to (B, D), `.embed_dim` and `.config`."""
    config = CmrEncoderConfig.model_validate(config)
    return CineTransformer(config) if config.name == "cine_transformer" else TimmEncoder(config)


def create_cmr_encoder(name: str, in_channels: int | None = None, **overrides: Any) -> TimmEncoder | CineTransformer:
    """Build a CMR encoder by name.

    Args:
        name: A timm model name or "cine_transformer".
        in_channels: Slices times frames; needed by timm models, of no meaning to the cine transformer.
        **overrides: Any other field of `CmrEncoderConfig`.

    Raises:
        ValueError: For an unknown name or a missing number of channels.
    """
    return build_cmr_encoder(CmrEncoderConfig.model_validate({"name": name, "in_channels": in_channels, **overrides}))
