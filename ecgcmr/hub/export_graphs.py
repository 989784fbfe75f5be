"""What can be exported from a weights folder: each encoder, encoder with projection, encoder with head.

A graph is one module with one prepared input and one output. What a user would otherwise have to know stands inside
it: the shared space has length 1, a head gives probabilities and original units.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ecgcmr.hub.expected import RECIPE, recipe_inputs
from ecgcmr.hub.weights import Weights, load_weights

PARITY = 1e-4
"""Largest difference of an exported float32 graph from the weights, in the unit of `Graph.scale`."""

PARITY_BATCHES = (1, 2, 7)
_SEED = 20

# Options of a head: the first changes what the graph computes, the others are about its outputs and travel beside it.
_READ_BY_GRAPH, _BESIDE = {"double_fc_norm"}, {"interval", "optimal_threshold"}


@dataclass(frozen=True)
class Graph:
    """One module to export.

    Attributes:
        name: ecg, cmr (embedding), ecg_projection, cmr_projection (shared space, length 1) or predict.
        modality: ecg or cmr: what its input is.
        module: A copy of the weights' modules, float32, on the CPU, in evaluation mode.
        input_shape: Shape of an input without the batch.
        output: Name of the output: embedding, projection or prediction.
        width: Length of an output row.
        scale: Unit of the parity of each output (width,): the standard deviation of the training labels for
            regression outputs of a head, 1 for all else.
    """

    name: str
    modality: str
    module: nn.Module
    input_shape: tuple[int, ...]
    output: str
    width: int
    scale: NDArray[np.float64]

    def random(self, batch: int, generator: torch.Generator) -> Tensor:
        """Draw inputs (B, ...): standard normal ECGs, images uniform in [0, 1]."""
        draw: Callable[..., Tensor] = torch.randn if self.modality == "ecg" else torch.rand
        return draw(batch, *self.input_shape, generator=generator)


class Tower(nn.Module):
    """Encoder, or encoder and projection scaled to length 1; (B, ...) to (B, D)."""

    def __init__(self, encoder: nn.Module, projection: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.projection = projection

    def forward(self, x: Tensor) -> Tensor:
        """Embed or project."""
        embedding: Tensor = self.encoder(x)
        return embedding if self.projection is None else functional.normalize(self.projection(embedding), dim=-1)


class Predictor(nn.Module):
    """Encoder and head, (B, L, T) to (B, K): probabilities and original units."""

    def __init__(self, encoder: nn.Module, head: nn.Module, double_fc_norm: bool) -> None:
        super().__init__()
        self.encoder: Any = encoder
        self.head: Any = head
        self.double_fc_norm = double_fc_norm

    def forward(self, ecg: Tensor) -> Tensor:
        """Predict."""
        embedding = self.encoder(ecg)
        if self.double_fc_norm:
            embedding = self.encoder.fc_norm(embedding)
        predicted: Tensor = self.head.predict(embedding)
        return predicted


def as_weights(source: Weights | str | Path) -> Weights:
    """Give weights that are already loaded, or load them."""
    return source if isinstance(source, Weights) else load_weights(source)


def offered(weights: Weights) -> tuple[str, ...]:
    """Names of the graphs that these weights can give."""
    has = set(weights.modules)
    needs = {
        "ecg": {"ecg"}, "cmr": {"cmr"}, "ecg_projection": {"ecg", "ecg_projection"},
        "cmr_projection": {"cmr", "cmr_projection"}, "predict": {"ecg", "head"},
    }  # fmt: skip
    return tuple(name for name, parts in needs.items() if parts <= has)


def build_graphs(weights: Weights, what: Sequence[str] | None = None) -> list[Graph]:
    """Build the graphs asked for; the modules of the weights are copied and stay as they are.

    Args:
        weights: Loaded weights.
        what: Names among `offered(weights)`; None for all.

    Raises:
        ValueError: If a name is not offered, or the head reads the embedding in a way that is not known here.
    """
    names = offered(weights)
    asked = tuple(dict.fromkeys(what)) if what is not None else names
    for name in asked:
        if name == "ecg_decoder":
            raise ValueError(
                f"{weights.folder}: ecg_decoder serves masked pretraining only and is not exported; "
                f"these weights offer {', '.join(names)}"
            )
        if name not in names:
            raise ValueError(f"{weights.folder}: no graph {name!r} in these weights; they offer {', '.join(names)}")
    if not asked:
        raise ValueError(
            f"{weights.folder}: nothing to export: the modules {', '.join(weights.modules)} make no graph of encoder, "
            "encoder and projection, or encoder and head"
        )
    return [_build(weights, name) for name in asked]


def recipe_input(weights: Weights, graph: Graph) -> Tensor:
    """Give the input (1, ...) of expected.json for a graph: the recipe, through the pipeline of the weights."""
    inputs = recipe_inputs(weights.modules, weights.ecg_pipeline, weights.cmr_pipeline, weights.config)
    return inputs[graph.modality].contiguous()


def measure_parity(
    weights: Weights, graph: Graph, run: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> dict[str, Any]:
    """Compare an exported graph with the module, on the recipe and on random batches.

    Args:
        weights: Where the graph is from.
        graph: The graph.
        run: The exported graph, (B, ...) to (B, width).

    Returns:
        For export.json: largest difference in the unit of `Graph.scale`, and in the unit of the outputs.

    Raises:
        ValueError: If an output has another shape, or differs by `PARITY` or more.
    """
    generator = torch.Generator().manual_seed(_SEED)
    inputs = {RECIPE: recipe_input(weights, graph)}
    inputs |= {f"random batch of {n}": graph.random(n, generator) for n in PARITY_BATCHES}
    scaled, plain = {}, 0.0
    for name, x in inputs.items():
        expected, found = run_module(graph.module, x), run(x.numpy())
        if found.shape != expected.shape:
            raise ValueError(
                f"{weights.folder}: {graph.name} gives shape {found.shape} for {name} after the export, expected "
                f"{expected.shape}; nothing was written"
            )
        difference = np.abs(found.astype(np.float64) - expected)
        scaled[name], plain = float((difference / graph.scale).max()), max(plain, float(difference.max()))
    worst = max(scaled, key=lambda name: scaled[name] if np.isfinite(scaled[name]) else np.inf)
    if not scaled[worst] < PARITY:
        raise ValueError(
            f"{weights.folder}: {graph.name} differs by {scaled[worst]:.2g} from the weights after the export "
            f"({worst}; allowed below {PARITY:g}); nothing was written"
        )
    return {
        "max_abs_difference": scaled[worst],
        "unit": "standard deviation of the label, probability" if graph.output == "prediction" else "as the output",
        "max_abs_difference_in_output_unit": plain,
        "allowed_below": PARITY,
        "inputs": list(inputs),
    }


@torch.no_grad()
def run_module(module: nn.Module, x: Tensor) -> NDArray[np.float64]:
    """Compute a module in evaluation mode whatever mode it is in, (B, ...) to (B, D)."""
    assert not any(part.training for part in module.modules()), "graphs are in evaluation mode"
    return np.asarray(module(x).double().numpy())


def _build(weights: Weights, name: str) -> Graph:
    modules, config = weights.modules, weights.config
    modality = "cmr" if name.startswith("cmr") else "ecg"
    scale: NDArray[np.float64] | None = None
    built: nn.Module
    if name == "predict":
        head: Any = modules["head"]
        built, output = Predictor(modules["ecg"], head, _double_fc_norm(weights)), "prediction"
        scale = torch.where(head.is_binary, 1.0, head.std.double()).cpu().numpy()
        width = len(head.label_names)
    elif name.endswith("_projection"):
        projection: Any = modules[name]
        built, output, width = Tower(modules[modality], projection), "projection", int(projection.config["out"])
    else:
        encoder: Any = modules[modality]
        built, output, width = Tower(encoder), "embedding", int(encoder.embed_dim)
    # A copy: the modules may be in training, on a GPU, or in another precision, and stay so.
    module = copy.deepcopy(built).to("cpu", torch.float32).requires_grad_(False).eval()
    shape = _ecg_shape(modules["ecg"]) if modality == "ecg" else tuple(config["cmr"]["shape"])
    return Graph(name, modality, module, shape, output, width, np.ones(width) if scale is None else scale)


def _ecg_shape(encoder: Any) -> tuple[int, int]:
    return int(encoder.leads), int(encoder.n_samples)


def _double_fc_norm(weights: Weights) -> bool:
    options: Mapping[str, Any] = weights.config.get("head_options") or {}
    unknown = set(options) - _READ_BY_GRAPH - _BESIDE
    if unknown:
        raise ValueError(
            f"{weights.folder / 'config.json'}: head_options {sorted(unknown)} are not known to the export, "
            "so that it cannot give the predictions of these weights"
        )
    return bool(options.get("double_fc_norm"))
