"""The whole state of an objective and its optimizer, on one process: of checkpoints, best weights and exports.

The checkpoint of a sharded run (`sharding`) is that of one process, so a run can be continued sharded or not, on any
number of processes: names and shapes are those of the objective before it was sharded, and the optimizer's state is
numbered as plain torch numbers it, by the parameters' places in the optimizer's groups (`optimizer.state_dict()`).
The processes that keep nothing hold one whole parameter at a time.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ecgcmr.objectives.base import Objective
from ecgcmr.training.sharding import is_sharded, layout_of

State = dict[str, Any]


def gather_state(objective: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> tuple[State, State]:
    """Bring the whole state together on the main process; of a sharded objective all processes must call this.

    Args:
        objective: As `prepare_objective` left it, sharded or not.
        optimizer: Built over its parameters; None if only the objective's state is wanted.

    Returns:
        State of the objective and of the optimizer on the main process: copies on the CPU that nothing changes. Empty
        dicts on all others.
    """
    model = gather_tensors(objective, objective.state_dict())
    if optimizer is None:
        return model, {}
    found, parameters = optimizer.state_dict(), _numbered(optimizer)
    names = {id(p): name for name, p in objective.named_parameters()}
    slots: State = {}
    for i, slot in found["state"].items():
        name = names[id(parameters[i])]
        whole = {key: gather_tensors(objective, {name: value}) for key, value in slot.items()}
        slots[i] = {key: value[name] for key, value in whole.items() if value}
    return model, {"state": slots, "param_groups": copy.deepcopy(found["param_groups"])} if _is_main() else {}


def gather_tensors(objective: nn.Module, tensors: Mapping[str, Any]) -> State:
    """Bring together what is cut as the objective's parameters are, for instance their moving average.

    Args:
        objective: As `prepare_objective` left it; of a sharded one all processes must call this, with the same names.
        tensors: Sharded or plain tensors by the name of their parameter; other values pass through.

    Returns:
        Copies on the CPU, of the shapes before sharding, on the main process; nothing on all others.
    """
    main, layout = _is_main(), layout_of(objective)
    if not main and not is_sharded(objective):
        return {}
    scalars = layout.scalars if layout else frozenset()
    kept: State = {}
    for name, value in tensors.items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if main and isinstance(whole, Tensor):
            whole = whole.detach().to("cpu", copy=True)
            kept[name] = whole.reshape(()) if name in scalars else whole
        elif main:
            kept[name] = whole
    return kept


def load_state(
    objective: nn.Module,
    model: Mapping[str, Any],
    optimizer: torch.optim.Optimizer | None = None,
    train: Mapping[str, Any] | None = None,
) -> None:
    """Put back what `gather_state` gave, into an objective that is sharded or not, over any number of processes.

    Args:
        objective: As `prepare_objective` left it; of a sharded one all processes must call this.
        model: State of the objective, whole, on every process (sharding takes that of the first).
        optimizer: Built over its parameters.
        train: State of the optimizer, likewise.

    Raises:
        RuntimeError: If names or shapes differ; torch names them.
    """
    here = objective.state_dict()
    # In the objective's order: that of a safetensors file differs from process to process.
    ready = {name: cut_like(value, model[name]) for name, value in here.items() if name in model}
    objective.load_state_dict({**model, **ready})
    if optimizer is None or train is None:
        return
    parameters, train = _numbered(optimizer), copy.deepcopy(dict(train))  # torch goes on to change what it is given
    slots = {
        i: {key: value if key == "step" else cut_like(parameters[i], value) for key, value in slot.items()}
        for i, slot in sorted(train["state"].items())
    }
    optimizer.load_state_dict({**train, "state": slots})


def cut_like(target: Any, value: Any) -> Any:
    """Cut a whole tensor as a sharded one is cut; what is no tensor, or for no sharded target, stays as it is."""
    if not isinstance(target, DTensor) or not isinstance(value, Tensor):
        return value
    value = value.reshape(1) if value.ndim == 0 else value
    return distribute_tensor(value.to(target.device), target.device_mesh, target.placements)


def whole_objective(objective: Objective, state: Mapping[str, Any]) -> Objective:
    """Give an objective that is not sharded and holds `state`, on the process that has it: for export.

    Args:
        objective: As `prepare_objective` left it; if it is not sharded it is itself loaded and given back.
        state: Of the objective, from `gather_state`.
    """
    layout = layout_of(objective)
    if layout is None:
        objective.load_state_dict(state)
        return objective
    layout.plain.load_state_dict(state, assign=True)
    return layout.plain.cpu()


def _numbered(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _is_main() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0
