"""From a module's configuration to the module, and from a state dict into a module that differs in known ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ecgcmr.models.ecg_mae import EcgDecoder
from ecgcmr.models.ecg_st_vit import EcgStViT
from ecgcmr.models.ecg_vit import EcgViT
from ecgcmr.models.ecg_wav2vec import EcgWav2Vec
from ecgcmr.models.heads import ClassHead, PredictionHead
from ecgcmr.models.positions import interpolate_table
from ecgcmr.models.projection import NormProjection, ProjectionHead
from ecgcmr.models.tabular import TabularEncoder


def _cmr_encoder(config: dict[str, Any]) -> nn.Module:
    # timm and torchvision take longer to import than an ECG takes to embed: only who builds a CMR encoder pays
    from ecgcmr.models.cmr import build_cmr_encoder

    return build_cmr_encoder(config)


def _phase_encoder(config: dict[str, Any]) -> nn.Module:
    from ecgcmr.models.phases import PhaseEncoder

    return PhaseEncoder(config)


def _phase_projection(config: dict[str, Any]) -> nn.Module:
    from ecgcmr.models.phases import PhaseProjection

    return PhaseProjection(config)


BUILDERS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "ecg_vit": EcgViT,
    "ecg_st_vit": EcgStViT,
    "ecg_wav2vec": EcgWav2Vec,
    "ecg_decoder": EcgDecoder,
    "cmr_encoder": _cmr_encoder,
    "phase_encoder": _phase_encoder,
    "phase_projection": _phase_projection,
    "projection_head": ProjectionHead.from_config,
    "norm_projection": NormProjection,
    "prediction_head": PredictionHead,
    "class_head": ClassHead,
    "tabular_encoder": TabularEncoder,
}

# Layers that another pooling needs and pretraining may not have had.
_POOLING = ("fc_norm.", "attention_pool.", "query_pool.")


def build_module(config: Mapping[str, Any]) -> nn.Module:
    """Rebuild a module from its `.config`.

    Args:
        config: With `kind` among `BUILDERS` and the fields of that kind's configuration.

    Raises:
        ValueError: For an unknown kind, or fields that the kind does not have or that do not fit together.
    """
    kind = config.get("kind")
    if kind not in BUILDERS:
        raise ValueError(f"module config has kind {kind!r}, expected one of {', '.join(BUILDERS)}")
    return BUILDERS[kind](dict(config))


def load_pretrained(module: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Load weights of the same architecture, whose pooling or input length may differ.

    The position table of an `EcgViT` is interpolated to its input length. Pooling layers that the weights lack keep
    their fresh values, those that the module lacks are left out. Anything else that does not fit is an error.

    Args:
        module: The module to fill.
        state: A state dict.

    Returns:
        Names of the module's parameters that were not in `state`.

    Raises:
        ValueError: Naming all keys that are missing, unexpected, or of another shape.
    """
    own, given = module.state_dict(), dict(state)
    if isinstance(module, EcgViT) and "pos_embed" in given and given["pos_embed"].shape[-1] == module.embed_dim:
        given["pos_embed"] = interpolate_table(given["pos_embed"], module.leads, module.windows, module.prefix)
    missing = [name for name in own if name not in given]
    unexpected = [name for name in given if name not in own]
    shapes = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in given and given[name].shape != own[name].shape
    ]
    problems = {
        "missing": [name for name in missing if not name.startswith(_POOLING)],
        "unexpected": [name for name in unexpected if not name.startswith(_POOLING)],
        "of another shape": shapes,
    }
    if any(problems.values()):
        text = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems.items() if names)
        raise ValueError(f"weights do not fit {type(module).__name__}: {text}")
    with torch.no_grad():
        module.load_state_dict({name: given.get(name, value) for name, value in own.items()})
    return missing
