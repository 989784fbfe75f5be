"""ONNX of both towers and of encoder and head, with parity measured before anything is written.

The graphs are plain ONNX (no custom operators) with a dynamic batch; each file says by itself what it is and under
which license, and holds no path of the machine that wrote it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import ecgcmr
from ecgcmr.hub.export_folder import NOTICE, card_fields, check_target, graph_entry, write_export
from ecgcmr.hub.export_graphs import Graph, as_weights, build_graphs, measure_parity, recipe_input, run_module
from ecgcmr.hub.onnx_model import open_session, require_extra
from ecgcmr.hub.weights import Weights

OPSET = 18
"""The oldest opset that holds all operators natively; runtimes since 2023 read it."""

_LARGEST_FILE = 2 * 10**9  # protobuf ends at 2 GiB


def export_onnx(
    source: Weights | str | Path,
    out_dir: str | Path,
    what: Sequence[str] | None = None,
    int8: bool = False,
    force: bool = False,
) -> Path:
    """Export weights to ONNX.

    Each graph is compared with the weights on the input of expected.json and on random batches of 1, 2 and 7 before
    anything is written.

    Args:
        source: As `load_weights`, or weights already loaded; their modules stay as they are.
        out_dir: New folder; it appears whole or not at all.
        what: Graphs among ecg, cmr (embeddings), ecg_projection, cmr_projection (encoder and projection, length 1:
            for retrieval) and predict (ECG encoder and head: probabilities and original units); None for all that
            the weights offer.
        int8: Write each ECG graph a second time with int8 weights; see docs/export.md for what it costs.
        force: Replace an earlier export at `out_dir`.

    Returns:
        The folder: NAME.onnx (and NAME.int8.onnx), export.json, preprocess.json, expected.json, README.md.

    Raises:
        FileNotFoundError: As `load_weights`.
        FileExistsError: If `out_dir` holds something.
        ValueError: If the extra `onnx` is not installed; as `load_weights`; for a graph that is not offered or cannot
            be exported; or if a graph differs from the weights by 1e-4 or more (regression outputs: in standard
            deviations of the label). Nothing stays behind.
    """
    require_extra("onnx", "onnxscript", "onnxruntime")
    weights, folder = as_weights(source), Path(out_dir).expanduser()
    graphs = build_graphs(weights, what)
    check_target(folder, weights.folder, force)
    if int8 and not any(graph.modality == "ecg" for graph in graphs):
        raise ValueError(f"int8 is offered for ECG graphs only, and {', '.join(g.name for g in graphs)} is none")
    files: dict[str, bytes] = {}
    entries: dict[str, dict[str, Any]] = {}
    for graph in graphs:
        entry = graph_entry(weights, graph) | {"file": f"{graph.name}.onnx"}
        data = to_onnx(graph, weights)
        files[entry["file"]] = data
        entry["parity"] = measure_parity(weights, graph, _runner(data, graph))
        if int8 and graph.modality == "ecg":
            entry["int8"] = {"file": f"{graph.name}.int8.onnx"}
            files[entry["int8"]["file"]], entry["int8"]["moved"] = _int8(data, weights, graph)
        entries[graph.name] = entry
    packages = {name: version(name) for name in ("torch", "onnx", "onnxscript", "onnxruntime")}
    return write_export(folder, weights, "onnx", files, entries, {"opset": OPSET, **packages})


def to_onnx(graph: Graph, weights: Weights) -> bytes:
    """Translate one graph.

    Raises:
        ValueError: If torch's exporter does not know how, or the file would be larger than the format allows.
    """
    import onnx

    size = sum(4 * parameter.numel() for parameter in graph.module.parameters())
    if size > _LARGEST_FILE:
        raise ValueError(f"{weights.folder}: {graph.name} has {size / 1e9:.1f} GB of weights; one ONNX file holds 2 GB")
    example = graph.random(2, torch.Generator().manual_seed(0))
    graph.module.eval()
    try:
        with _quiet():
            program = torch.onnx.export(
                graph.module,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[graph.modality],
                output_names=[graph.output],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{weights.folder}: {graph.name} cannot be exported to ONNX: a module of {_kinds(graph)} is not supported "
            f"by torch {torch.__version__} ({reason}); leave {graph.name} out"
        ) from error
    finally:
        graph.module.eval()  # the exporter may leave a wrapper in training mode: stochastic depth, batch statistics
    assert program is not None, "dynamo=True gives a program"
    model = program.model_proto
    strip_traces(model)
    model.doc_string = f"{weights.config['name']}, graph {graph.name}. {NOTICE}"
    fields = {**card_fields(weights), "notice": NOTICE, "graph": graph.name, "ecgcmr_version": ecgcmr.__version__}
    for key, value in fields.items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def strip_traces(message: Any) -> None:
    """Clear doc strings and metadata everywhere in a protobuf message: the exporter writes source paths into them."""
    for name in ("metadata_props", "doc_string"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in [value] if hasattr(value, "ListFields") else value:
            strip_traces(part)


def _runner(data: bytes, graph: Graph) -> Any:
    session = open_session(data)

    def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
        (found,) = session.run([graph.output], {graph.modality: x})
        return np.asarray(found)

    return run


def _int8(data: bytes, weights: Weights, graph: Graph) -> tuple[bytes, dict[str, float]]:
    """The graph in int8, and what that does to its output for the recipe."""
    from ecgcmr.hub.onnx_int8 import quantize

    small = quantize(data)
    x = recipe_input(weights, graph)
    expected, found = run_module(graph.module, x)[0], _runner(small, graph)(x.numpy())[0].astype(np.float64)
    if found.shape != expected.shape or not np.isfinite(found).all():
        raise ValueError(f"{weights.folder}: {graph.name} in int8 gives no finite output; nothing was written")
    moved = {"max_abs_difference": float((np.abs(found - expected) / graph.scale).max())}
    if graph.output != "prediction":
        moved["cosine"] = float(found @ expected / (np.linalg.norm(found) * np.linalg.norm(expected)))
    return small, moved


def _kinds(graph: Graph) -> str:
    children = (name for name, _ in graph.module.named_children())
    return ", ".join(type(getattr(graph.module, name)).__name__ for name in children)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the optimiser's remarks on single operators out of the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
