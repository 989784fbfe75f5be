"""int8 weights for an ONNX transformer: smaller, faster where the processor has integer dot products, and not exact.

Products with constant weights are computed in integers: weights symmetric per output channel, activations asymmetric
per tensor with a range taken from the data at hand ("dynamic"; arXiv 1712.05877, 2004.09602).
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any


def quantize(data: bytes) -> bytes:
    """Quantise the matrix products of an ONNX model that have constant weights.

    Only `MatMul` is touched: attention and feed-forward layers. What reads the signal itself (the patch embedding)
    stays exact: its range is set by the largest artefact of the batch, which would cost all other rows their
    resolution. So does the head (`Gemm`), as its cost is nothing. Weights take 7 bits (`reduce_range`),
    because on processors without VNNI the sum of two products of 8 bits overflows 16 bits and saturates silently: the
    same file must give the same numbers everywhere.

    Args:
        data: A float32 model.

    Returns:
        The quantised model.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load_from_string(data)
    # The quantiser rewrites every Gemm as NAME_MatMul first; by name they are kept out.
    kept = [f"{node.name}_MatMul" for node in model.graph.node if node.op_type == "Gemm"]
    kept += _reads_the_signal(model)
    root = logging.getLogger()
    level = root.level
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        try:
            root.setLevel(logging.ERROR)  # it advises a preparation that the exporter has already done
            quantize_dynamic(
                model,
                path,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                reduce_range=True,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=kept,
            )
        finally:
            root.setLevel(level)
        small = onnx.load(path)
    small.doc_string = model.doc_string
    del small.metadata_props[:]
    small.metadata_props.extend(model.metadata_props)
    small.metadata_props.add(key="quantization", value="int8 dynamic, MatMul, per channel, 7 bits")
    result: bytes = small.SerializeToString(deterministic=True)
    return result


def _reads_the_signal(model: Any) -> list[str]:
    """Names of the products whose factor is the input of the graph, or a view of it."""
    views = {value.name for value in model.graph.input}
    found = []
    for node in model.graph.node:  # sorted: a tensor is made before it is used
        if node.op_type in ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"):
            views |= set(node.output) if node.input[0] in views else set()
        elif node.op_type == "MatMul" and node.input[0] in views:
            found.append(node.name)
    return found
