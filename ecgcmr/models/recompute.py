"""Gradient checkpointing: keep a layer's input only and run the layer again in the backward pass (arXiv 1604.06174)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Recomputes:
    """What a module of ours has that can run its blocks in this way; `set_grad_checkpointing` turns it on."""

    grad_checkpointing: bool = False

    def run_block(self, block: Callable[..., Any], *inputs: Any) -> Any:
        """Run a block, and forget what is in it if that is wanted and anything will be asked of it again."""
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)


def set_grad_checkpointing(module: nn.Module, on: bool = True) -> list[str]:
    """Turn gradient checkpointing on or off in all encoders and decoders within a module.

    Random layers draw the same numbers again, so that the gradient stays what it was, bit for bit on the CPU. But a
    BatchNorm that runs twice updates its running statistics twice: whoever calls `backward` must put the buffers back
    to what they were after the forward pass (the training loop does).

    Args:
        module: An encoder, or an objective that holds some.
        on: Whether to.

    Returns:
        Names of the parts that have it.

    Raises:
        ValueError: If it shall be turned on and nothing within the module can do it.
    """
    found = []
    for name, part in module.named_modules():
        if isinstance(part, Recomputes):
            part.grad_checkpointing = on
        elif hasattr(part, "set_grad_checkpointing"):  # the backbone of a TimmEncoder
            try:
                part.set_grad_checkpointing(on)
            except (AssertionError, NotImplementedError):
                if not on:
                    continue
                raise ValueError(
                    f"{name or type(part).__name__} cannot recompute its layers (timm model {type(part).__name__}); "
                    "set train.grad_checkpointing=false, or choose another model.cmr.name"
                ) from None
        else:
            continue
        found.append(name)
    if on and not found:
        raise ValueError("no part of this model can recompute its layers; set train.grad_checkpointing=false")
    return found
