"""Tensors in half precision on the disk: half the bytes, where no output moves by more than a thousandth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ecgcmr.hub.folder import independent_tensors
from ecgcmr.hub.load_report import STORED_DTYPES, fill_modules, fit_tensors
from ecgcmr.models.build import build_module

LARGEST_CHANGE = 1e-3
"""Largest relative change of an embedding, a projection or a prediction that half precision may cause."""


def to_storage(modules: Mapping[str, nn.Module], dtype: str, exact: Sequence[str] = ()) -> dict[str, Tensor]:
    """Give the tensors as they are stored, by MODULE.NAME.

    In half precision go the matrices and kernels alone. They are nearly all of the bytes. Norms and biases are small
    and their errors add up over tokens; running statistics, mean and deviation of labels and position tables must be
    exact (tables are interpolated and compared with formulas); numbers beyond 65,504 have no half.

    Args:
        modules: By name.
        dtype: float32 or float16.
        exact: Names of modules that stay in float32 as they are.

    Raises:
        ValueError: For another type than float32 or float16, or a name that no module has.
    """
    unknown = [name for name in exact if name not in modules]
    if unknown:
        raise ValueError(f"exact names {', '.join(unknown)}, but the modules are {', '.join(modules)}")
    if dtype not in STORED_DTYPES:
        raise ValueError(f"dtype is {dtype!r}, expected {' or '.join(STORED_DTYPES)}")
    stored: dict[str, Tensor] = {}
    for name, module in modules.items():
        kept = _exact_keys(module)
        for key, value in module.state_dict().items():
            tensor = value.detach().float() if value.is_floating_point() else value.detach()
            if dtype == "float16" and name not in exact and key not in kept and _fits_half(tensor):
                tensor = tensor.half()
            stored[f"{name}.{key}"] = tensor
    return independent_tensors(stored)


def rebuild(modules: Mapping[str, nn.Module], stored: Mapping[str, Tensor], dtype: str) -> dict[str, nn.Module]:
    """Build the modules that a loader will get from stored tensors: on the CPU, in float32, for evaluation.

    Raises:
        ValueError: If a module cannot be rebuilt from its `.config`: such a folder could be written, but not loaded.
    """
    rebuilt: dict[str, nn.Module] = {}
    with torch.random.fork_rng(devices=[]):  # fresh values are overwritten; a run's random numbers stay as they were
        for name, module in modules.items():
            config: Any = module.config
            rebuilt[name] = build_module(dict(config))
    report = fit_tensors(rebuilt, stored, dtype)
    if not report.fits:
        raise ValueError(f"the modules are not those that their configurations describe: {report.problems()}")
    fill_modules(rebuilt, stored, report)
    return {name: module.eval() for name, module in rebuilt.items()}


def _exact_keys(module: nn.Module) -> set[str]:
    keys = {name for name, _ in module.named_buffers()}
    keys |= {name for name, _ in module.named_parameters() if "pos" in name.rpartition(".")[2]}
    for prefix, part in module.named_modules():
        if isinstance(part, _BatchNorm):
            keys |= {f"{prefix}.{name}".lstrip(".") for name in part.state_dict()}
    return keys


def _fits_half(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or tensor.ndim < 2:
        return False
    return bool(tensor.abs().max() <= torch.finfo(torch.float16).max) if tensor.numel() else False
