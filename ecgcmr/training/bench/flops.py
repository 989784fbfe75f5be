"""Floating point operations, counted on the operations that torch runs and not by a formula."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_flops(forward: Callable[[], Tensor], backward: bool = True) -> float:
    """Count matrix products and convolutions of one forward pass, and of the backward pass of its result.

    A multiplication and an addition are two operations. Attention is counted as its products: the counter of torch
    does not know the fused kernel of the CPU and would count nothing.

    Args:
        forward: Gives a scalar; its graph is needed for `backward`.
        backward: Count the backward pass too.

    Returns:
        Operations.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        if backward:
            with torch.enable_grad():
                forward().backward()
        else:
            with torch.no_grad():
                forward()
    return float(counter.get_total_flops())
