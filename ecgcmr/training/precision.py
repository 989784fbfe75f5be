"""Choose between bfloat16 and float32 by a measurement on this machine, at the width of this model."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ecgcmr.models.distributed import world
from ecgcmr.training.distributed import agree

log = logging.getLogger(__name__)

WORTH_IT = 1.3
"""How much faster bfloat16 must be to be chosen: below that its rounding is not worth it."""

HOPELESS = 10.0
"""How much slower the first call in bfloat16 may be before no more time is spent on it."""

_ROWS, _LARGEST = 256, 1024


@dataclass(frozen=True)
class PrecisionChoice:
    """What was measured.

    Attributes:
        precision: "bf16" or "no".
        speedup: Time in float32 over time in bfloat16, for one linear layer forward and backward.
        width: (in, out) features of that layer.
    """

    precision: str
    speedup: float
    width: tuple[int, int]

    def __str__(self) -> str:
        name = "bfloat16" if self.precision == "bf16" else "float32"
        return (
            f"{name}: a {self.width[0]} x {self.width[1]} layer is {self.speedup:.1f} times as fast in bfloat16 "
            f"here (chosen from {WORTH_IT})"
        )


def choose_precision(module: nn.Module, device: torch.device, budget_s: float = 0.02) -> PrecisionChoice:
    """Time the module's largest linear layer (or convolution as a product) in both precisions.

    Args:
        module: The objective; only the sizes of its layers are read (up to 1024, larger ones behave alike).
        device: Where the run computes.
        budget_s: Time to spend after one warm-up of each [s].

    Returns:
        The faster precision, if it is `WORTH_IT`.
    """
    width = _largest_product(module)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(_ROWS, width[0], generator=generator).to(device)
    weight = torch.randn(width[1], width[0], generator=generator).to(device).requires_grad_()
    seconds: dict[bool, list[float]] = {False: [], True: []}
    first = {low: _time_layer(x, weight, low) for low in seconds}
    if first[True] > HOPELESS * first[False]:  # processors without bfloat16 emulate it, 10 to 50 times slower
        return PrecisionChoice("no", first[False] / first[True], width)
    start = time.perf_counter()
    while len(seconds[True]) < 2 or time.perf_counter() - start < budget_s:
        for low, taken in seconds.items():  # interleaved: a neighbor on the machine slows both alike
            taken.append(_time_layer(x, weight, low))
    speedup = min(seconds[False]) / min(seconds[True])
    return PrecisionChoice("bf16" if speedup >= WORTH_IT else "no", speedup, width)


def _largest_product(module: nn.Module) -> tuple[int, int]:
    sizes = [(layer.in_features, layer.out_features) for layer in module.modules() if isinstance(layer, nn.Linear)]
    sizes += [
        (layer.weight[0].numel(), layer.out_channels) for layer in module.modules() if isinstance(layer, nn.Conv2d)
    ]
    rows, columns = max(sizes, key=lambda size: size[0] * size[1], default=(256, 256))
    return min(rows, _LARGEST), min(columns, _LARGEST)


def _time_layer(x: Tensor, weight: Tensor, low: bool) -> float:
    start = time.perf_counter()
    with torch.autocast(x.device.type, torch.bfloat16, enabled=low):
        y = torch.nn.functional.linear(x, weight)
    y.sum().backward()
    weight.grad = None
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - start


def agree_on_precision(asked: str, module: nn.Module, device: torch.device) -> str:
    """Give the precision of the run: what was asked, or for "auto" the main process's measurement, on every process."""
    if asked != "auto":
        return asked
    rank, _ = world()
    low = torch.zeros(1)
    if rank == 0:
        choice = choose_precision(module, device)
        log.info("precision %s", choice)
        low[0] = float(choice.precision == "bf16")
    return "bf16" if agree(low.to(device))[0] > 0 else "no"
