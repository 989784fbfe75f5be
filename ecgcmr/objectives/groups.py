"""Parameter groups for the optimiser: no decay of one-dimensional parameters, smaller steps in earlier layers."""

from __future__ import annotations

from typing import Any

from timm.models import group_parameters
from torch import nn

from ecgcmr.models.cine import CineTransformer
from ecgcmr.models.cmr import TimmEncoder
from ecgcmr.models.ecg_vit import EcgViT

# Two-dimensional and larger in shape only: they are codes, not weight matrices.
_NO_DECAY = ("cls_token", "pos_embed", "mask_token")


def parameter_groups(
    objective: nn.Module, lr: float, weight_decay: float, layer_decay: float = 1.0, decay_tokens: bool = False
) -> list[dict[str, Any]]:
    """Group the trainable parameters of an objective.

    The rate of an encoder's layer is lr * layer_decay^(distance from the encoder's end) (arXiv 2106.08254); parts
    outside an encoder (heads, projections, decoder) keep lr.

    Args:
        objective: Any module; encoders are found within it.
        lr: Learning rate of the last layers.
        weight_decay: Decay of matrices; vectors, biases, norms, tokens and position codes get none.
        layer_decay: Factor from one layer to the one before it, in (0, 1].
        decay_tokens: Decay tokens and learned position codes too, which have more than one dimension.

    Returns:
        Optimiser groups with `params`, `lr`, `weight_decay`, `lr_scale` and `names`, in a fixed order.

    Raises:
        ValueError: If `layer_decay` lies outside (0, 1].
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay is {layer_decay}, expected a factor in (0, 1]")
    distances = _distances(objective)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in objective.named_parameters():
        if not parameter.requires_grad:
            continue
        exempt = not decay_tokens and name.rsplit(".", 1)[-1] in _NO_DECAY
        decays = parameter.ndim > 1 and not exempt
        distance = distances.get(name, 0) if layer_decay < 1 else 0
        scale = layer_decay**distance
        fresh = {"params": [], "names": [], "lr": lr * scale, "lr_scale": scale}
        group = groups.setdefault((distance, decays), {**fresh, "weight_decay": weight_decay if decays else 0.0})
        group["params"].append(parameter)
        group["names"].append(name)
    return [groups[key] for key in sorted(groups)]


def _distances(objective: nn.Module) -> dict[str, int]:
    """Count for each encoder parameter the layers between it and what follows the encoder, at least 1 for a block."""
    distances: dict[str, int] = {}
    for prefix, module in objective.named_modules():
        if not isinstance(module, EcgViT | CineTransformer | TimmEncoder):
            continue
        layers = _layers(module)
        last = max(layers.values())
        for name, layer in layers.items():
            distances[f"{prefix}.{name}" if prefix else name] = last - layer
    return distances


def _layers(encoder: EcgViT | CineTransformer | TimmEncoder) -> dict[str, int]:
    """Number the layers of an encoder from its input (0) on."""
    if isinstance(encoder, TimmEncoder):
        matcher = encoder.backbone.group_matcher(coarse=False)
        layers = group_parameters(encoder.backbone, matcher, reverse=True)
        return {f"backbone.{name}": int(layer) for name, layer in layers.items()}
    depth = len(encoder.blocks)
    out: dict[str, int] = {}
    for name, _ in encoder.named_parameters():
        parts = name.split(".")
        if parts[0] == "blocks":
            out[name] = int(parts[1]) + 1
        else:
            out[name] = 0 if parts[0] in ("cls_token", "pos_embed", "patch_embed", "frame_encoder") else depth + 1
    return out
