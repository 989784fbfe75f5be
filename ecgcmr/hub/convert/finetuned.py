"""Fine-tuned encoders of the reference (oetu/mae): a pooling, and a head that sees the vector after a second fc_norm.

The reference applies fc_norm at the end of its features and again before its head; what it saves as an embedding has
passed it once. The folder keeps both: `embed` gives the vector after one, `predict` normalizes again for the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ecgcmr.hub.card import Card
from ecgcmr.hub.convert.cards import LIMITS, USE, unknown_if_auto
from ecgcmr.hub.convert.contract import Converted
from ecgcmr.hub.convert.registry import AUTO, parse_options
from ecgcmr.hub.convert.state import State, open_state
from ecgcmr.hub.convert.values import word_option
from ecgcmr.hub.convert.vit import MAE_SIZES, VitSize, build_vit, choose_heads, choose_input, vit_size
from ecgcmr.models.build import build_module

_ABOUT_POOL = {
    "attention": "Pooling: attention with the mean of the patch tokens as its query, then fc_norm.",
    "mean": "Pooling: mean of the patch tokens, then fc_norm.",
    "cls": "Pooling: norm, then the cls token.",
}
_TWICE = "The head sees fc_norm applied twice, as in the reference; the embedding has passed it once."


def convert_finetuned(path: Path, options: Mapping[str, str]) -> Converted:
    """Convert a fine-tuned checkpoint with its head."""
    chosen = parse_options("mae_finetuned", options)
    state = open_state(path)
    size = vit_size(state)
    pool = _pool(state)
    n_outputs = state.shape("head.weight", 2)[0]
    heads, about_heads = choose_heads(size, MAE_SIZES, chosen, path)
    pipeline, n_samples, about_input = choose_input(size, chosen, path)
    tensors = state.exactly(_shapes(state, size, pool, n_outputs))
    head_keys = ("head.weight", "head.bias")
    encoder = {key: value for key, value in tensors.items() if key not in head_keys}
    config, statistics, about_head = _head(chosen, size.width, n_outputs, path)
    head: Any = build_module(config)
    if statistics is not None:
        head.set_statistics(*statistics)
    head.layers[0].load_state_dict({key.removeprefix("head."): tensors[key] for key in head_keys})
    card = Card(
        name=f"fine-tuned ECG encoder, from {path.stem}",
        stage="supervised",
        license="CC-BY-NC-4.0" if chosen["license"] == AUTO else chosen["license"],
        provenance=unknown_if_auto(chosen["provenance"]),
        trained_on="not stated in the file",
        intended_use=USE,
        limits=LIMITS,
    )
    notes = [_ABOUT_POOL[pool], *([_TWICE] if pool != "cls" else []), about_heads, *about_input, *about_head]
    if "norm.weight" not in tensors:
        notes.append("The file has no norm.*, which this pooling does not use; the module keeps an identity there.")
    modules: dict[str, nn.Module] = {
        "ecg": build_vit(size, encoder, heads, pool, n_samples, learn_positions=True),
        "head": head.eval(),
    }
    double = {"double_fc_norm": True} if pool != "cls" else {}
    return Converted(modules, card, pipeline, head_options=double, dropped=dict(state.dropped), notes=tuple(notes))


def _pool(state: State) -> str:
    """Tell the pooling by its keys."""
    if any(key.startswith("attention_pool.") for key in state.tensors):
        return "attention"
    return "mean" if any(key.startswith("fc_norm.") for key in state.tensors) else "cls"


def _shapes(state: State, size: VitSize, pool: str, n_outputs: int) -> dict[str, tuple[int, ...]]:
    # The reference deletes `norm` when it pools; forks may have kept it, unused.
    d, has_norm = size.width, pool == "cls" or any(key.startswith("norm.") for key in state.tensors)
    shapes = size.shapes(norm=has_norm) | {"head.weight": (n_outputs, d), "head.bias": (n_outputs,)}
    if pool != "cls":
        shapes |= {"fc_norm.weight": (d,), "fc_norm.bias": (d,)}
    if pool == "attention":
        shapes |= {
            "attention_pool.in_proj_weight": (3 * d, d), "attention_pool.in_proj_bias": (3 * d,),
            "attention_pool.out_proj.weight": (d, d), "attention_pool.out_proj.bias": (d,),
        }  # fmt: skip
    return shapes


def _head(
    options: Mapping[str, str], width: int, n_outputs: int, path: Path
) -> tuple[dict[str, Any], tuple[list[float], list[float]] | None, list[str]]:
    """Give the configuration of the head, the statistics of a regression, and sentences about what was chosen."""
    task = word_option(options, "task", (AUTO, "classification", "regression"))
    notes = []
    if task == AUTO:
        task = "classification" if n_outputs == 2 else "regression"
        notes.append(f"Head: {n_outputs} outputs, taken for a {task}; the file does not say, --option task=... does.")
    labels = _labels(options["labels"], n_outputs, task, path)
    if options["labels"] == AUTO:
        notes.append(
            f"Outputs are called {labels[0]['name']} to {labels[-1]['name']}; name them by --option labels=..."
        )
    if task == "classification":
        if options["mean"] != AUTO or options["std"] != AUTO:
            raise ValueError("mean and std are of regression targets; this head is a classification")
        if n_outputs < 2:
            raise ValueError(f"{path}: a classification has at least two outputs, head.weight has {n_outputs}")
        notes.append("Probabilities are the softmax over all outputs; in the reference, output 0 is the absence.")
        return {"kind": "class_head", "in_features": width, "labels": labels}, None, notes
    mean, std = _numbers(options["mean"], "mean", n_outputs, 0.0), _numbers(options["std"], "std", n_outputs, 1.0)
    if any(value <= 0 for value in std):
        raise ValueError(f"std={options['std']!r}: standard deviations must be above 0")
    if AUTO in (options["mean"], options["std"]):
        notes.append(
            "The file holds no statistics of the targets: without --option mean=... and std=... predictions are "
            "z-scores."
        )
    return {"kind": "prediction_head", "in_features": width, "labels": labels}, (mean, std), notes


def _labels(text: str, n_outputs: int, task: str, path: Path) -> list[dict[str, str]]:
    kind = "binary" if task == "classification" else "regression"
    if text == AUTO:
        stem = "class" if task == "classification" else "output"
        unit = "" if task == "classification" else "z"
        return [{"name": f"{stem}_{i}", "kind": kind, "unit": unit} for i in range(n_outputs)]
    names = [one.strip().partition(":") for one in text.split(",")]
    if len(names) != n_outputs or not all(name for name, _, _ in names) or len({n for n, _, _ in names}) != n_outputs:
        raise ValueError(f"labels={text!r}: expected {n_outputs} different names, as head.weight of {path} has outputs")
    if task == "classification" and any(unit for _, _, unit in names):
        raise ValueError(f"labels={text!r}: classes have no unit")
    return [{"name": name, "kind": kind, "unit": unit} for name, _, unit in names]


def _numbers(text: str, option: str, count: int, default: float) -> list[float]:
    if text == AUTO:
        return [default] * count
    try:
        values = [float(one) for one in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not all(abs(value) < float("inf") for value in values):
        raise ValueError(f"{option}={text!r}: expected {count} numbers, separated by commas")
    return values
