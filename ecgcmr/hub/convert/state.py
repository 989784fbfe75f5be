"""From a checkpoint to exactly the tensors that a module needs; every other key is set aside with a reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ecgcmr.hub.convert.reading import read_checkpoint

CONTAINERS = ("model", "state_dict", "model_state_dict")
WRAPPERS = ("module.", "model.")
"""Prefixes that DistributedDataParallel and Lightning put before every key."""

_TRAINING = "state of the training, not weights"


@dataclass(frozen=True)
class State:
    """The tensors of a checkpoint that are still to be placed, and those set aside.

    Attributes:
        file: Where they come from, for messages.
        tensors: By key, as in the file but for prefixes that were taken off.
        dropped: Keys that were set aside, with the reason.
        top: What else stood at the top level (epoch, args, ...), plain values only.
    """

    file: Path
    tensors: Mapping[str, Tensor]
    dropped: Mapping[str, str] = field(default_factory=dict)
    top: Mapping[str, Any] = field(default_factory=dict)

    def stripped(self, *prefixes: str) -> State:
        """Take prefixes off that every key carries, in any order and as often as they are there."""
        tensors = dict(self.tensors)
        while tensors and (found := next((p for p in prefixes if all(k.startswith(p) for k in tensors)), None)):
            tensors = {key[len(found) :]: value for key, value in tensors.items()}
        return replace(self, tensors=tensors)

    def under(self, prefix: str, reason: str) -> State:
        """Keep the keys below a prefix, without it; the others are set aside for a reason.

        Raises:
            ValueError: If there are none.
        """
        own = {key[len(prefix) :]: value for key, value in self.tensors.items() if key.startswith(prefix)}
        if not own:
            raise ValueError(f"{self.file}: no key begins with {prefix!r}; there are {_some(self.tensors)}")
        others = {key: reason for key in self.tensors if not key.startswith(prefix)}
        return replace(self, tensors=own, dropped={**self.dropped, **others})

    def without(self, reasons: Mapping[str, str]) -> State:
        """Set aside the keys that begin with one of the given prefixes, for the reason that stands with it."""
        dropped = dict(self.dropped)
        for key in self.tensors:
            if found := [prefix for prefix in reasons if key.startswith(prefix)]:
                dropped[key] = reasons[max(found, key=len)]
        return replace(self, tensors={k: v for k, v in self.tensors.items() if k not in dropped}, dropped=dropped)

    def shape(self, key: str, dims: int) -> tuple[int, ...]:
        """Give the shape of a tensor that tells the architecture.

        Raises:
            ValueError: If it is missing or has another number of dimensions.
        """
        if key not in self.tensors:
            raise ValueError(f"{self.file}: {key} is missing; there are {_some(self.tensors)}")
        shape = tuple(self.tensors[key].shape)
        if len(shape) != dims or 0 in shape:
            raise ValueError(f"{self.file}: {key} has shape {shape}, expected {dims} dimensions, none empty")
        return shape

    def count(self, pattern: str) -> int:
        """Count layers that are numbered from 0 without a gap.

        Args:
            pattern: How their keys begin, with {} for the number, for instance "blocks.{}.".

        Raises:
            ValueError: If there are none, or a number is skipped.
        """
        begin, end = (re.escape(part) for part in pattern.split("{}"))
        numbers = {int(hit[1]) for key in self.tensors if (hit := re.match(rf"{begin}(\d+){end}", key))}
        if not numbers:
            raise ValueError(f"{self.file}: no key like {pattern.format(0)}*; there are {_some(self.tensors)}")
        absent = [pattern.format(n) + "*" for n in range(len(numbers)) if n not in numbers]
        if absent:
            raise ValueError(f"{self.file}: missing: {', '.join(absent)}, although there is {max(numbers)}")
        return len(numbers)

    def exactly(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """Give exactly these tensors: float32 (whatever precision they were stored in), contiguous, own memory.

        Args:
            shapes: Shape of each key that must be there.

        Raises:
            ValueError: Listing all keys that are missing, unexpected, of another shape or type, or not finite.
        """
        problems = {
            "missing": [key for key in shapes if key not in self.tensors],
            "unexpected": [key for key in self.tensors if key not in shapes],
            "of another shape": [
                f"{key} {tuple(self.tensors[key].shape)} instead of {tuple(shape)}"
                for key, shape in shapes.items()
                if key in self.tensors and tuple(self.tensors[key].shape) != tuple(shape)
            ],
            "of a type that holds no weights": [
                f"{key} {value.dtype}" for key, value in self.tensors.items() if not _is_plain(value)
            ],
        }
        if not any(problems.values()):
            problems["with values that are not finite"] = [
                key for key, value in self.tensors.items() if not bool(torch.isfinite(value).all())
            ]
        if any(problems.values()):
            text = "; ".join(f"{what}: {_some(keys, 12)}" for what, keys in problems.items() if keys)
            raise ValueError(f"{self.file}: the tensors do not fit this format: {text}")
        return {key: _plain(self.tensors[key]) for key in shapes}


def open_state(path: str | Path, containers: Iterable[str] = CONTAINERS) -> State:
    """Read a checkpoint and unwrap its state dict.

    Args:
        path: The file.
        containers: Names under which the state dict may stand, the first that is there wins; a top level of nothing
            but tensors is one itself.

    Returns:
        The state with prefixes of `WRAPPERS` taken off; the rest of the top level is in `dropped`.

    Raises:
        FileNotFoundError, ValueError: As `read_checkpoint`; or no state dict is there, or something in it is no tensor.
    """
    top, path, names = read_checkpoint(path), Path(path), tuple(containers)
    name = next((name for name in names if isinstance(top.get(name), Mapping)), None)
    found: Mapping[Any, Any] = top if name is None else top[name]
    if not found:
        raise ValueError(f"{path}: {'it' if name is None else repr(name)} holds nothing")
    if name is None and not all(isinstance(value, Tensor) for value in top.values()):
        raise ValueError(f"{path}: no state dict under {', '.join(names)}; its top level has {_some(top)}")
    wrong = [f"{key!r} is a {type(v).__name__}" for key, v in found.items() if not isinstance(v, Tensor)]
    wrong += [f"the key {key!r} is no name" for key in found if not isinstance(key, str)]
    if wrong:
        raise ValueError(f"{path}: in {name!r} expected tensors by name, but {_some(wrong)}")
    rest = {} if name is None else {key: value for key, value in top.items() if key != name}
    state = State(path, dict(found), dict.fromkeys(rest, _TRAINING), rest)
    return state.stripped(*WRAPPERS)


def _is_plain(value: Tensor) -> bool:
    return value.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.int32)


def _plain(value: Tensor) -> Tensor:
    kind = torch.float32 if value.is_floating_point() else value.dtype
    return value.detach().to(kind, copy=True).contiguous()


def _some(keys: Iterable[str], most: int = 6) -> str:
    names = list(keys)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(str(name)[:120] for name in names[:most]) + more
