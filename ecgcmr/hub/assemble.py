"""Parts of a loaded model: the device, a head from another folder, the patches of the leads that are there."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from inspect import signature
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecgcmr.ecg.leads import LEADS
from ecgcmr.hub.weights import Weights


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """Turn a name into a device; "auto" is the first of cuda, mps and cpu that is there.

    Raises:
        ValueError: The name is no device, or there is none of the kind.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device is {device!r}, expected auto, cpu, cuda, cuda:0, ... or mps") from error
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.get(found.type, True)
    if not here:
        raise ValueError(f"device is {device!r}, but this machine has no {found.type}; use device='auto' or 'cpu'")
    return found


def with_head(weights: Weights, other: Weights) -> Weights:
    """Give weights the prediction head of another folder, with its labels and options.

    Warns when the other folder has an ECG encoder of its own with other tensors: a head is only right for the
    embeddings that it was fitted on.

    Raises:
        ValueError: There is no encoder or no head, or the head reads another width.
    """
    for one, name in ((weights, "ecg"), (other, "head")):
        if name not in one.modules:
            raise ValueError(f"{one.folder}: these weights have no {name!r}; they have {', '.join(one.modules)}")
    encoder: Any = weights.modules["ecg"]
    head: Any = other.modules["head"]
    options = other.config.get("head_options", {})
    beside: dict[str, Any] = {"tabular": other.modules["tabular"]} if options.get("tabular") else {}
    covariates = sum(int(part.embed_dim) for part in beside.values())
    width, reads = int(encoder.embed_dim), int(head.config["in_features"]) - covariates
    if width != reads:
        raise ValueError(
            f"the head of {other.folder} reads embeddings of width {reads}, the encoder of {weights.folder} gives "
            f"{width}; take a head that was fitted on this encoder"
        )
    own = other.modules.get("ecg")
    if own is not None and not _same_tensors(own, encoder):
        warnings.warn(
            f"the head of {other.folder} was fitted on the embeddings of that folder's encoder, which is not the one "
            f"of {weights.folder}: its predictions mean nothing unless you know that both encoders agree",
            stacklevel=3,
        )
    config = {
        **weights.config,
        "labels": other.config["labels"],
        "head_options": options,
        "head_from": {"name": other.config["name"], "sha256": other.config["sha256"]},
    }
    return replace(weights, modules={**weights.modules, **beside, "head": head}, config=config)


def _same_tensors(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def visible_patches(encoder: nn.Module, leads: Sequence[str]) -> Tensor:
    """Numbers (1, N) of the patches of these leads; patches are lead-major.

    Raises:
        ValueError: The encoder cannot leave patches out, or reads other leads than the twelve.
    """
    given: Any = encoder
    able = "keep" in signature(encoder.forward).parameters and hasattr(encoder, "windows")
    if not able or int(given.leads) != len(LEADS):
        raise ValueError(
            f"this encoder ({type(encoder).__name__}) cannot leave out leads; give recordings of all twelve leads"
        )
    rows = torch.tensor([LEADS.index(lead) for lead in leads])
    return (rows[:, None] * int(given.windows) + torch.arange(int(given.windows))).reshape(1, -1)


class UnitRows(nn.Module):
    """Scale rows to length 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Scale (B, D)."""
        return nn.functional.normalize(x, dim=-1)


@torch.no_grad()
def run_in_batches(
    module: nn.Module, inputs: list[Tensor], batch_size: int, device: torch.device
) -> NDArray[np.float32]:
    """Outputs (N, D) of a module for inputs of one shape, a batch at a time."""
    out = []
    for start in range(0, len(inputs), batch_size):
        batch = torch.stack(inputs[start : start + batch_size]).to(device)
        out.append(module(batch).float().cpu())
    if not out:
        raise ValueError("nothing to embed: the list is empty")
    embedded: NDArray[np.float32] = torch.cat(out).numpy()
    return embedded
