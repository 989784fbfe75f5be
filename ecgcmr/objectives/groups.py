"""Parameter groups for the optimiser: no decay of one-dimensional parameters, smaller steps in earlier layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models import group_parameters
from torch import nn

from ecgcmr.models.cine import CineTransformer
from ecgcmr.models.cmr import TimmEncoder
from ecgcmr.models.ecg_vit import EcgViT
from ecgcmr.objectives.base import Objective

# Two-dimensional and larger in shape only: they are codes, not weight matrices.
_NO_DECAY = ("cls_token", "pos_embed", "mask_token")


def parameter_groups(
    objective: nn.Module,
    lr: float,
    weight_decay: float,
    layer_decay: float = 1.0,
    decay_tokens: bool = False,
    multipliers: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Group the trainable parameters of an objective.

    The rate of an encoder's layer is lr * layer_decay^(distance from the encoder's end) (arXiv 2106.08254); parts
    outside an encoder (heads, projections, decoder) keep lr. A multiplier applies on top of that.

    Args:
        objective: Any module; encoders are found within it.
        lr: Learning rate of the last layers.
        weight_decay: Decay of matrices; vectors, biases, norms, tokens and position codes get none.
        layer_decay: Factor from one layer to the one before it, in (0, 1].
        decay_tokens: Decay tokens and learned position codes too, which have more than one dimension.
        multipliers: Factor of the rate by part, see `multiplier_of`; what has 0 is in no group: weights that no
            optimizer holds neither move nor decay.

    Returns:
        Optimiser groups with `params`, `lr`, `weight_decay`, `lr_scale` and `names`, in a fixed order.

    Raises:
        ValueError: If `layer_decay` lies outside (0, 1], or a multiplier names nothing.
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay is {layer_decay}, expected a factor in (0, 1]")
    distances, factors = _distances(objective), multiplier_of(objective, multipliers or {})
    groups: dict[tuple[int, bool, float], dict[str, Any]] = {}
    for name, parameter in objective.named_parameters():
        factor = factors.get(name, 1.0)
        if not parameter.requires_grad or factor == 0:
            continue
        exempt = not decay_tokens and name.rsplit(".", 1)[-1] in _NO_DECAY
        decays = parameter.ndim > 1 and not exempt
        distance = distances.get(name, 0) if layer_decay < 1 else 0
        scale = factor * layer_decay**distance
        fresh = {"params": [], "names": [], "lr": lr * scale, "lr_scale": scale}
        group = groups.setdefault(
            (distance, decays, factor), {**fresh, "weight_decay": weight_decay if decays else 0.0}
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return [groups[key] for key in sorted(groups)]


def multiplier_of(objective: nn.Module, multipliers: Mapping[str, float]) -> dict[str, float]:
    """Give the factor of each parameter that some multiplier names.

    Args:
        objective: Any module; the names that an objective gives its `encoders()` stand for those parts.
        multipliers: By the name of an exported part, or by the beginning of parameter names up to a dot; of several
            that fit, the one of the longest path decides.

    Raises:
        ValueError: If one fits no parameter that is trained; the message names what there is.
    """
    exported = objective.encoders() if isinstance(objective, Objective) else {}
    paths = {id(module): path for path, module in objective.named_modules()}
    by_path: dict[str, float] = {}
    trained = [name for name, parameter in objective.named_parameters() if parameter.requires_grad]
    for name, factor in multipliers.items():
        path = paths[id(exported[name])] if name in exported else name
        known = any(_lies_in(each, path) for each, _ in objective.named_parameters())
        if not known or (factor and not any(_lies_in(each, path) for each in trained)):
            parts = sorted({*exported, *(each.partition(".")[0] for each in trained)})
            what = "is frozen by another option" if known else "names no part of this objective"
            raise ValueError(f"optim.lr_multipliers: {name!r} {what}; parts are {', '.join(parts)}, or longer names")
        by_path[path] = factor
    found: dict[str, float] = {}
    for parameter, _ in objective.named_parameters():
        fitting = [path for path in by_path if _lies_in(parameter, path)]
        if fitting:
            found[parameter] = by_path[max(fitting, key=len)]
    return found


def _lies_in(parameter: str, path: str) -> bool:
    return parameter == path or parameter.startswith(f"{path}.")


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
