"""The neural networks and nothing else: ECG transformer, masked autoencoder, CMR encoders, heads, pooling, presets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecgcmr.models.build import build_module, load_pretrained
    from ecgcmr.models.cmr import create_cmr_encoder
    from ecgcmr.models.config import ModelConfig
    from ecgcmr.models.ecg_mae import EcgMae
    from ecgcmr.models.ecg_vit import EcgViT, create_ecg_encoder

_WHERE = {
    "EcgMae": "ecg_mae",
    "EcgViT": "ecg_vit",
    "ModelConfig": "config",
    "build_module": "build",
    "create_cmr_encoder": "cmr",
    "create_ecg_encoder": "ecg_vit",
    "load_pretrained": "build",
}

__all__ = [
    "EcgMae",
    "EcgViT",
    "ModelConfig",
    "build_module",
    "create_cmr_encoder",
    "create_ecg_encoder",
    "load_pretrained",
]


def __getattr__(name: str) -> Any:
    """Import a public name at first use, so that reading a configuration does not import torch."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
