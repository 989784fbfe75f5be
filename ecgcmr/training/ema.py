"""An exponential moving average of the weights, which is evaluated and exported instead of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ecgcmr.training.whole_state import cut_like


class WeightAverage:
    """Average of the trained parameters over the steps that were taken (Polyak averaging with forgetting).

    After each step, average = d * average + (1 - d) * weights, from the initial weights on, in float32 at least. d is
    the decay, or with warm-up min(decay, (1 + t) / (10 + t)) at update t from 0: early weights, which are far from
    where training ends, are forgotten fast. Buffers and frozen parameters are those of the live module.
    """

    def __init__(self, module: nn.Module, decay: float, warmup: bool = True) -> None:
        """Start at the weights of `module`, whose parameters are averaged in place from now on.

        Raises:
            ValueError: If the decay lies outside (0, 1).
        """
        if not 0 < decay < 1:
            raise ValueError(
                f"the decay of the average is {decay}, expected a number between 0 and 1, for instance .999"
            )
        self.decay, self.warmup, self.updates = decay, warmup, 0
        self._live = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.weights: dict[str, Tensor] = {name: _wide(p.detach()).clone() for name, p in self._live.items()}

    def decay_at(self, update: int) -> float:
        """Give d of an update, counted from 0."""
        return min(self.decay, (1 + update) / (10 + update)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights of a step that was taken."""
        live = [_wide(p.detach()) for p in self._live.values()]
        torch._foreach_lerp_(list(self.weights.values()), live, 1 - self.decay_at(self.updates))
        self.updates += 1

    @torch.no_grad()
    def copy_to_module(self) -> None:
        """Make the average the weights of the module, for good."""
        for name, parameter in self._live.items():
            parameter.copy_(self.weights[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give a block in which the module has the average for its weights; afterwards it has its own, bit for bit."""
        with torch.no_grad():
            own = [p.detach().clone() for p in self._live.values()]
            self.copy_to_module()
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self._live.values(), own, strict=True):
                    parameter.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Give what a checkpoint must hold; the tensors themselves, not copies."""
        return {"updates": self.updates, "weights": dict(self.weights)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`.

        Raises:
            ValueError: If it is of other parameters.
        """
        differing = sorted(set(state["weights"]) ^ set(self.weights))
        if differing:
            raise ValueError(
                f"the average in the checkpoint is of other parameters than this run's: {differing[0]}, ..."
            )
        for name, value in self.weights.items():
            value.copy_(cut_like(value, state["weights"][name]))
        self.updates = int(state["updates"])


def _wide(value: Tensor) -> Tensor:
    """Average in float32 at least: in bfloat16 a step of 1 - d would be rounded away."""
    return value if value.dtype in (torch.float32, torch.float64) else value.float()
