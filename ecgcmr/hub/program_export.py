"""torch.export: the graphs as ExportedPrograms, which run where this package is not installed."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecgcmr.hub.export_folder import NOTICE, card_fields, check_target, graph_entry, write_export
from ecgcmr.hub.export_graphs import Graph, as_weights, build_graphs, measure_parity
from ecgcmr.hub.weights import Weights

# Where nodes keep the source lines they came from: paths of the machine that exports.
_TRACES = ("stack_trace", "custom")


def export_program(
    source: Weights | str | Path, out_dir: str | Path, what: Sequence[str] | None = None, force: bool = False
) -> Path:
    """Export weights as programs of torch.export, with a dynamic batch.

    `torch.export.load("NAME.pt2").module()` gives a module that needs torch alone. Each program is saved, loaded again
    and compared with the weights before anything is written.

    Args:
        source: As `load_weights`, or weights already loaded; their modules stay as they are.
        out_dir: New folder; it appears whole or not at all.
        what: Graphs, as `ecgcmr.hub.onnx_export.export_onnx`; None for all that the weights offer.
        force: Replace an earlier export at `out_dir`.

    Returns:
        The folder: NAME.pt2, export.json, preprocess.json, expected.json, README.md.

    Raises:
        FileNotFoundError: As `load_weights`.
        FileExistsError: If `out_dir` holds something.
        ValueError: As `load_weights`; for a graph that is not offered, cannot be exported, or differs from the weights.
    """
    weights, folder = as_weights(source), Path(out_dir).expanduser()
    graphs = build_graphs(weights, what)
    check_target(folder, weights.folder, force)
    files: dict[str, bytes] = {}
    entries: dict[str, dict[str, Any]] = {}
    for graph in graphs:
        entry = graph_entry(weights, graph) | {"file": f"{graph.name}.pt2"}
        data = to_program(graph, weights)
        files[entry["file"]] = data
        entry["parity"] = measure_parity(weights, graph, _runner(data))
        entries[graph.name] = entry
    return write_export(folder, weights, "program", files, entries, {"torch": torch.__version__})


def to_program(graph: Graph, weights: Weights) -> bytes:
    """Trace one graph and give the content of its .pt2 file; name, license and notice are inside.

    Raises:
        ValueError: If torch.export cannot trace it.
    """
    example = graph.random(2, torch.Generator().manual_seed(0))
    graph.module.eval()
    try:
        program = torch.export.export(graph.module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    except (torch._dynamo.exc.TorchDynamoException, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{weights.folder}: {graph.name} cannot be exported by torch {torch.__version__} ({reason}); leave it out"
        ) from error
    finally:
        graph.module.eval()
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                for key in _TRACES:
                    node.meta.pop(key, None)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # views that share a storage are saved whole, as they should be
        torch.export.save(program, file, extra_files={**card_fields(weights), "notice": NOTICE, "graph": graph.name})
    return file.getvalue()


def _runner(data: bytes) -> Any:
    module = torch.export.load(io.BytesIO(data)).module()

    @torch.no_grad()
    def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(module(torch.from_numpy(x)).numpy())

    return run
