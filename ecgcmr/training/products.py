"""Faster float32 matrix products where they are float32: torch's "medium" means another thing on each processor."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

log = logging.getLogger(__name__)

LARGEST_ERROR = 2e-6
"""Relative error of a product up to which it is one in float32: exact kernels have 4e-7, bfloat16 has 2e-3."""

_SHAPE = (256, 1024, 384)


def product_error(device: torch.device) -> float:
    """Measure the relative error of a float32 product, forward and backward, under the present setting.

    Inputs are of very different sizes in each column, so that a type of few bits cannot hide.

    Returns:
        The largest of the errors of the product and of both gradients, each as a Frobenius norm over that of float64.
    """
    rows, inner, columns = _SHAPE
    random = torch.Generator().manual_seed(0)
    scale = torch.logspace(-3, 0, inner)
    x = torch.randn(rows, inner, generator=random) * scale
    weight = torch.randn(columns, inner, generator=random) / inner**0.5
    grad = torch.randn(rows, columns, generator=random)
    exact = _products(x.double(), weight.double(), grad.double())
    found = _products(x.to(device), weight.to(device), grad.to(device))
    return max(float((a.cpu().double() - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True))


def _products(x: torch.Tensor, weight: torch.Tensor, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
    x, weight = x.requires_grad_(), weight.requires_grad_()
    with torch.autocast(x.device.type, enabled=False):
        y = torch.nn.functional.linear(x, weight)
    return (y.detach(), *torch.autograd.grad(y, (x, weight), grad))


@contextmanager
def float32_products(how: str, device: torch.device) -> Iterator[str]:
    """Let float32 products take the faster kernels for a while, if they are as exact here; decided by error alone.

    On processors without bfloat16 tiles "medium" only chooses another library, which may be up to 1.4 times as fast; on
    those with them (AMX), and on GPUs, it rounds to fewer bits, and is refused. The speed does not decide, because it
    varies and a resumed run must compute what the run before it did.

    Args:
        how: "exact" changes nothing; "measured" measures.
        device: Where the run computes.

    Yields:
        The setting that holds: "highest", "high" or "medium".
    """
    before = torch.get_float32_matmul_precision()
    if how == "exact":
        yield before
        return
    try:
        torch.set_float32_matmul_precision("medium")
        error = product_error(device)
        if error > LARGEST_ERROR:
            torch.set_float32_matmul_precision(before)
        log.info(
            "float32 products: the faster kernels have a relative error of %.1e here: %s",
            error, "taken" if error <= LARGEST_ERROR else f"refused (more than {LARGEST_ERROR:g})",
        )  # fmt: skip
        yield torch.get_float32_matmul_precision()
    finally:
        torch.set_float32_matmul_precision(before)
