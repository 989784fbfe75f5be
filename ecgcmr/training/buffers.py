"""Put buffers back after a pass that must leave no trace in them, such as the running statistics of BatchNorm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class KeptBuffers:
    """A copy of all buffers of a module, renewed by `keep` and put back by `restore`."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._copies: list[Tensor] = []

    @torch.no_grad()
    def keep(self) -> None:
        """Copy the buffers as they are now."""
        live = list(self._module.buffers())
        if live and len(self._copies) == len(live):
            torch._foreach_copy_(self._copies, live)
        else:
            self._copies = [buffer.clone() for buffer in live]

    @torch.no_grad()
    def restore(self) -> None:
        """Make the buffers what they were at the last `keep`."""
        if self._copies:
            torch._foreach_copy_(list(self._module.buffers()), self._copies)


@contextmanager
def unchanged_buffers(module: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Give a block in which the buffers may change and after which they are as before; nothing if not `wanted`."""
    if not wanted:
        yield
        return
    kept = KeptBuffers(module)
    kept.keep()
    yield
    kept.restore()
