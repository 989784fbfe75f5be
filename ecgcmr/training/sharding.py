"""An objective whose parameters are sharded over the processes (FSDP2); `whole_state` brings its state together.

Where accelerate's configuration asks for FSDP (`fsdp_version: 2`), each process keeps its part of the parameters, their
gradients and the optimizer's state; a layer is brought together while it computes and given back (ZeRO-3, arXiv
1910.02054; arXiv 2304.11277). torch's `fully_shard` is called here and not by accelerate, which reads the same
settings but on the CPU silently takes DistributedDataParallel instead, refuses to wrap classes that a model does not
have, and does not shard scalars (a learned temperature). So what gloo processes prove here is what GPUs run.

Agreements:
- The forward goes through the objective itself, `objective(batch, ...)`, evaluation and cached gradients included:
  only there are the parameters whole. `objective.represent(...)` would meet shards.
- Precision: parameters, gradients and their sum over processes are float32; `train.precision=bf16` is autocast, as
  under DDP. So both compute the same numbers, and only the gathering order differs.
"""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, fully_shard
from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy, transformer_auto_wrap_policy
from torch.distributed.tensor import DTensor, Shard

from ecgcmr.models.distributed import sum_over_processes
from ecgcmr.objectives.base import Objective

log = logging.getLogger(__name__)

_LAYOUT = "_sharding_layout"


@dataclass(frozen=True)
class Layout:
    """What sharding changed.

    Attributes:
        plain: Copy of the objective with its buffers, whose parameters have shapes only.
        scalars: Names of the parameters that had no dimension and now have one.
    """

    plain: Objective
    scalars: frozenset[str]


def sharding_asked() -> FullyShardedDataParallelPlugin | None:
    """Give accelerate's FSDP settings, None if its configuration asks for none.

    Raises:
        ValueError: For a setting that this module does not have; the message names it as the file does.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return None
    version = os.environ.get("FSDP_VERSION", "1")
    if version != "2":
        raise ValueError(
            f"accelerate's configuration asks for FSDP with fsdp_version: {version}; only fsdp_version: 2 is "
            "supported (fully_shard), see configs/accelerate/fsdp.yaml"
        )
    plugin = FullyShardedDataParallelPlugin()
    unsupported = {
        "fsdp_offload_params": isinstance(plugin.cpu_offload, CPUOffloadPolicy),
        "fsdp_activation_checkpointing": plugin.activation_checkpointing,
        "fsdp_ignored_modules": bool(plugin.ignored_modules),
    }
    for setting, wanted in unsupported.items():
        if wanted:
            raise ValueError(
                f"accelerate's configuration has {setting}, which sharded runs do not support; "
                "remove it, see configs/accelerate/fsdp.yaml"
            )
    return plugin


def is_sharded(module: nn.Module) -> bool:
    """Whether `prepare_objective` sharded this module: all processes must then gather, save and load together."""
    return isinstance(module, FSDPModule)


def prepare_objective(accelerator: Accelerator, objective: Objective) -> nn.Module:
    """Move the objective to the device and make it exact over processes: sharded where asked for, else under DDP.

    Build the optimizer afterwards: sharding gives the objective new parameters.

    Args:
        accelerator: Started for the run.
        objective: With its initial weights, which may differ between processes: those of the first are taken.

    Returns:
        What to call in training. A sharded objective is the objective itself, changed in place.

    Raises:
        ValueError: For settings that cannot be followed.
    """
    plugin = sharding_asked()
    if plugin is None or not dist.is_initialized():
        return cast(nn.Module, accelerator.prepare_model(objective))
    layers = layers_to_shard(objective, plugin)
    objective.to(accelerator.device)
    layout = Layout(_without_parameters(objective), _make_shardable(objective))
    for tensor in (*objective.parameters(), *objective.buffers()):
        dist.broadcast(tensor.detach(), src=0)
    if accelerator.mixed_precision != "no":
        _autocast_forward(accelerator, objective)
    n_processes = dist.get_world_size()
    how: dict[str, Any] = {
        "mesh": init_device_mesh(accelerator.device.type, (n_processes,)),
        "shard_placement_fn": lambda parameter: _placement(parameter, n_processes),
    }
    for layer in layers:
        fully_shard(layer, reshard_after_forward=bool(plugin.reshard_after_forward), **how)
    fully_shard(objective, **how)
    # torch warns of outputs that are views, for somebody might change them in place; here nobody does.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor", category=UserWarning)
    log.info("parameters sharded over %d processes, %d layers gathered one by one", n_processes, len(layers))
    objective.__dict__[_LAYOUT] = layout  # no attribute of nn.Module: `plain` must not become a part
    return objective


def layers_to_shard(objective: nn.Module, plugin: FullyShardedDataParallelPlugin) -> list[nn.Module]:
    """Choose the layers that are gathered one by one; all other parameters stay together as one unit.

    Candidates are the children of `nn.ModuleList` and `nn.Sequential`, which are always called as modules (an encoder
    is not: the masked autoencoder calls its `forward_tokens`). With fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP those
    of the classes in fsdp_transformer_layer_cls_to_wrap, for instance `Block` of the transformers and `BasicBlock` and
    `Bottleneck` of timm's ResNets; with SIZE_BASED_WRAP the outermost with at least fsdp_min_num_params parameters.

    Raises:
        ValueError: If the model has a layer of none of the classes.
    """
    policy = getattr(plugin.auto_wrap_policy, "func", plugin.auto_wrap_policy)
    candidates = [
        layer for part in objective.modules() if isinstance(part, nn.ModuleList | nn.Sequential) for layer in part
    ]
    if policy is transformer_auto_wrap_policy:
        names = {name.strip() for name in plugin.transformer_cls_names_to_wrap or ()}
        found = [layer for layer in candidates if type(layer).__name__ in names]
        if not found:
            there = sorted({type(layer).__name__ for layer in candidates})
            raise ValueError(
                f"fsdp_transformer_layer_cls_to_wrap names {', '.join(sorted(names)) or 'nothing'}, but the repeated "
                f"layers of this model are {', '.join(there)}; name some of them or use SIZE_BASED_WRAP"
            )
    elif policy is size_based_auto_wrap_policy:
        large = [
            layer for layer in candidates if sum(p.numel() for p in layer.parameters()) >= (plugin.min_num_params or 0)
        ]
        inner = {id(part) for layer in large for part in layer.modules() if part is not layer}
        found = [layer for layer in large if id(layer) not in inner and any(True for _ in layer.parameters())]
    else:
        return []
    return list({id(layer): layer for layer in found}.values())


def _without_parameters(objective: Objective) -> Objective:
    """Copy the modules and buffers, with parameters that have shapes only: it costs no memory."""
    memo: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for p in objective.parameters()
    }
    return copy.deepcopy(objective, memo)


def _make_shardable(objective: nn.Module) -> frozenset[str]:
    """Give scalars a dimension and all contiguous memory, in place, as `fully_shard` wants; names the scalars."""
    scalars = set()
    for name, parameter in objective.named_parameters():
        parameter.data = parameter.data.contiguous()
        if parameter.ndim == 0:
            parameter.data = parameter.data.reshape(1)
            scalars.add(name)
    return frozenset(scalars)


def _placement(parameter: nn.Parameter, n_processes: int) -> Shard | None:
    """Cut a parameter that has too few rows (tokens, position codes) along another dimension, if that is even."""
    if parameter.shape[0] >= n_processes:
        return None
    even = [i for i, size in enumerate(parameter.shape) if size and size % n_processes == 0]
    return Shard(even[0]) if even else None


def _autocast_forward(accelerator: Accelerator, objective: Objective) -> None:
    plain = objective.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with accelerator.autocast():
            return plain(*args, **kwargs)

    objective.forward = forward  # type: ignore[method-assign]


@contextmanager
def without_reduction(accelerator: Accelerator, model: nn.Module) -> Iterator[None]:
    """Accumulate gradients on each process alone, until a backward pass outside reduces their sum."""
    if not isinstance(model, FSDPModule):
        with accelerator.no_sync(model):
            yield
        return
    model.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)


@torch.no_grad()
def clip_gradients(model: nn.Module, limit: float | None) -> float:
    """Scale the gradient to a norm of at most `limit`, if it is finite.

    Args:
        model: After the backward pass.
        limit: Largest norm over all parameters; None leaves the gradient as it is.

    Returns:
        The norm before, equal on all processes.

    Raises:
        ValueError: If a trained parameter of a sharded model got no gradient.
    """
    parameters = [p for p in model.parameters() if p.grad is not None]
    if not is_sharded(model):
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if limit is not None and limit < float(norm) < float("inf"):
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        return float(norm)
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    if missing:
        raise ValueError(f"{len(missing)} trained parameters got no gradient: {', '.join(missing[:3])}, ...")
    # On the shards themselves: one sum over processes instead of one for each parameter.
    grads = [_local(p.grad) for p in parameters if p.grad is not None]
    norm = sum_over_processes(torch.nn.utils.get_total_norm(grads).double().square()).sqrt()
    value = float(norm)
    if limit is not None and limit < value < float("inf"):
        torch._foreach_mul_(grads, limit / (value + 1e-6))
    return value


def agree_to_gather(model: nn.Module, wanted: bool) -> bool:
    """Whether to gather a checkpoint's state now: of a sharded model all processes must, if any of them wants it."""
    if not is_sharded(model):
        return wanted
    flag = torch.tensor(float(wanted), device=next(model.buffers(), next(model.parameters())).device)
    return float(sum_over_processes(flag)) > 0


def layout_of(objective: nn.Module) -> Layout | None:
    """Give what sharding changed of the objective, None if it is not sharded."""
    layout: Layout | None = objective.__dict__.get(_LAYOUT)
    return layout


def _local(x: Tensor) -> Tensor:
    return x.to_local() if isinstance(x, DTensor) else x
