"""Can a map be believed? Randomise the weights and see whether the map changes (Adebayo et al. 2018, arXiv 1810.03292).

A map that stays the same when the network forgets what it learned shows the input and not the model. Weights are
replaced by fresh ones as before training, from the output down: the head, then the last block, and so on to the patch
embedding. After each step the map is compared with the first one by rank correlation.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import nn

from ecgcmr.evaluation.explain.front import explain
from ecgcmr.evaluation.explain.prepare import module_of
from ecgcmr.hub.model import LoadedModel
from ecgcmr.models.build import build_module

if TYPE_CHECKING:
    from ecgcmr.evaluation.explain.result import Explanation

FALLEN = 0.5
"""Rank correlation, all weights random, from which on a map is called blind to the weights."""
_DRAWS = 2000
_BLOCK = re.compile(r"(blocks\.\d+|backbone\.(layer\d+|stages\.\d+|blocks\.\d+))\.")


@dataclass(frozen=True)
class RandomisationCheck:
    """Rank correlation of maps before and after weights were replaced.

    Attributes:
        method: Method of the maps.
        target: Explained output.
        steps: What was random: "none" (the map again), "head", "+ blocks.3", ..., "+ input", each with all before it.
        signed: Rank correlation of the attributions (steps, items).
        sizes: Rank correlation of their sizes without sign (steps, items).
    """

    method: str
    target: str
    steps: tuple[str, ...]
    signed: NDArray[np.float64]
    sizes: NDArray[np.float64]

    @property
    def passed(self) -> bool:
        """Whether signs and sizes both change: see `signed_fall` and `sizes_fall`."""
        return self.signed_fall and self.sizes_fall

    @property
    def signed_fall(self) -> bool:
        """Whether the upper end of the interval of the signed maps lies below `FALLEN` when all weights are random."""
        return bool(self._interval(self.signed[-1])[2] < FALLEN)

    @property
    def sizes_fall(self) -> bool:
        """The same of the sizes; where they do not fall, large values show a large input and not the model."""
        return bool(self._interval(self.sizes[-1])[2] < FALLEN)

    def table(self) -> pd.DataFrame:
        """One row for each step: means over items with 95 % bootstrap intervals."""
        rows = []
        for step, signed, sizes in zip(self.steps, self.signed, self.sizes, strict=True):
            (s, s_lo, s_hi), (m, m_lo, m_hi) = self._interval(signed), self._interval(sizes)
            rows.append((step, m, m_lo, m_hi, s, s_lo, s_hi, len(sizes)))
        names = ["random", "sizes", "sizes_lo", "sizes_hi", "signed", "signed_lo", "signed_hi", "n"]
        return pd.DataFrame(rows, columns=names)

    @staticmethod
    def _interval(values: NDArray[np.float64]) -> tuple[float, float, float]:
        rng = np.random.default_rng(5)
        means = values[rng.integers(0, len(values), (_DRAWS, len(values)))].mean(axis=1)
        lo, hi = np.quantile(means, [0.025, 0.975])
        return float(values.mean()), float(lo), float(hi)


def sanity_check(
    model: LoadedModel, items: Sequence[Any], target: Any = None, method: str = "ig", seed: int = 0, **options: Any
) -> RandomisationCheck:
    """Compare maps before and after the weights are randomised, block by block from the output down.

    Args:
        model: The model; it is copied and stays as it is.
        items: Recordings or cines, some ten.
        target: Output of the head, or None for rollout; other targets keep their own weights, so that the encoder
            alone becomes random.
        method: As in `explain`, but for `localisation`.
        seed: Of the fresh weights.
        **options: Of the method.

    Raises:
        ValueError: No items, or as `explain`.
    """
    if not items:
        raise ValueError("a sanity check needs at least one recording or cine")
    if method == "localisation":
        raise ValueError("localisation has no target of its own; check 'ig', 'occlusion', 'rollout' or 'gradcam'")
    first = [explain(model, item, target, method, **options) for item in items]
    modality = "cmr" if first[0].modality == "cmr" else "ecg"
    names, signed, sizes = [], [], []
    for step, changed in [("none", model), *_cascade(model, modality, seed)]:
        maps = [explain(changed, item, target, method, **options) for item in items]
        pairs = [_correlations(a, b) for a, b in zip(first, maps, strict=True)]
        signed.append([pair[0] for pair in pairs])
        sizes.append([pair[1] for pair in pairs])
        names.append(step)
    shown = target if isinstance(target, str) else getattr(target, "name", first[0].target)
    return RandomisationCheck(first[0].method, shown, tuple(names), np.array(signed), np.array(sizes))


def _cascade(model: LoadedModel, modality: str, seed: int) -> list[tuple[str, LoadedModel]]:
    """Models with ever more fresh weights, and what became random last."""
    modules = dict(model.weights.modules)
    encoder = module_of(model, modality)
    fresh = {name: _fresh(modules[name], seed + i) for i, name in enumerate(("head", modality)) if name in modules}
    made = []
    if "head" in fresh and modality == "ecg":
        _keep_statistics(modules["head"], fresh["head"])
        modules["head"] = fresh["head"]
        made.append(("head", _with(model, modules)))
    state, new = copy.deepcopy(encoder.state_dict()), fresh[modality].state_dict()
    for name, keys in _parts(encoder):
        state.update({key: new[key] for key in keys})
        modules[modality] = copy.deepcopy(encoder)
        modules[modality].load_state_dict(state)
        made.append((f"+ {name}", _with(model, modules)))
    return made


def _parts(encoder: nn.Module) -> list[tuple[str, list[str]]]:
    """Parts of an encoder with their tensors, from the output to the input: blocks or stages, then all before them.

    Norms and pooling at the output go with the last block; position tables are no weights.
    """
    blocks: dict[str, list[str]] = {}
    ends: list[str] = []
    stem: list[str] = []
    trainable = {key for key, _ in encoder.named_parameters() if not key.startswith("pos_embed")}
    for key in encoder.state_dict():
        found = _BLOCK.match(key)
        if found:
            blocks.setdefault(found.group(0).rstrip("."), []).append(key)
        elif key.split(".")[0] in ("norm", "fc_norm", "attention_pool"):
            ends.append(key)
        elif key in trainable or key.startswith("backbone"):  # not the position table, but statistics of norms
            stem.append(key)
    names = list(reversed(blocks))
    parts = [(name, blocks[name] + (ends if i == 0 else [])) for i, name in enumerate(names)]
    return [*parts, ("input", stem)]


def _fresh(module: nn.Module, seed: int) -> nn.Module:
    config: Any = module.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_module(config).eval().to(next(module.parameters()).device)


def _keep_statistics(old: nn.Module, new: nn.Module) -> None:
    """Mean and deviation of the training labels are no weights."""
    for name in ("mean", "std"):
        getattr(new, name).copy_(getattr(old, name))


def _with(model: LoadedModel, modules: dict[str, nn.Module]) -> LoadedModel:
    return LoadedModel(replace(model.weights, modules=dict(modules)), model.device, model.dtype)


def _correlations(first: Explanation, other: Explanation) -> tuple[float, float]:
    a, b = first.values.ravel(), other.values.ravel()
    pairs = ((a, b), (np.abs(a), np.abs(b)))
    # a map that is the same everywhere orders nothing
    found = [0.0 if np.ptp(x) == 0 or np.ptp(y) == 0 else float(spearmanr(x, y).statistic) for x, y in pairs]
    return found[0], found[1]
