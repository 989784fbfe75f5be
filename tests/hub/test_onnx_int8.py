"""int8: the shape stays, the head stays exact, and the embedding turns by no more than rounding can turn it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ecgcmr.hub.onnx_model import OnnxModel
from ecgcmr.hub.weights import Weights

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")

N = 16


def linear_layers(encoder: nn.Module) -> dict[str, nn.Linear]:
    """Those of the blocks; the patch embedding is none and reads the signal itself."""
    return {name: m for name, m in encoder.named_modules() if isinstance(m, nn.Linear)}


@torch.no_grad()
def rounding_power(encoder: nn.Module, ecg: Tensor) -> float:
    """Sum over all quantised products of the relative power of the noise that rounding puts into them.

    A step d rounds with variance d^2 / 12 (Bennett 1948, doi:10.1002/j.1538-7305.1948.tb01340.x). Weights have 7 bits,
    symmetric in each output channel: d = max|w| / 63. Activations have 8 bits over the range of the whole tensor, 0
    included: d = (max - min) / 255. Relative to the power of what is rounded both add up, layer by layer.
    """
    taken: dict[str, Tensor] = {}
    layers = linear_layers(encoder)
    hooks = [
        layer.register_forward_hook(lambda _m, given, _out, name=name: taken.__setitem__(name, given[0]))
        for name, layer in layers.items()
    ]
    encoder(ecg)
    for hook in hooks:
        hook.remove()
    total = 0.0
    for name, layer in layers.items():
        w = layer.weight.double()
        x = taken[name].double()
        step_w = w.abs().amax(dim=1) / 63
        step_x = (x.amax().clamp(min=0) - x.amin().clamp(max=0)) / 255
        total += float((step_w**2 / 12 / w.square().mean(dim=1)).mean() + step_x**2 / 12 / x.square().mean())
    return total


def test_int8__keeps_shape_and_direction(exported: tuple[Weights, Path]) -> None:
    weights, folder = exported
    exact, small = OnnxModel(folder, threads=1), OnnxModel(folder, int8=True, threads=1)
    ecg = np.random.default_rng(2).normal(size=(N, 12, 200)).astype(np.float32)
    a, b = exact.encode(ecg).astype(np.float64), small.encode(ecg).astype(np.float64)
    assert a.shape == b.shape
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    power = rounding_power(weights.modules["ecg"], torch.from_numpy(ecg))
    # Noise of relative power p at right angles turns a vector to cosine 1 - p/2; averages over tokens only lessen it,
    # and the closing norm of a mean of tokens, whose common part is small, can enlarge it: a factor of ten covers that.
    assert 0 < power < 0.02, "else the bound below would say nothing"
    assert cosine.min() > 1 - 10 * power / 2
    assert np.abs(a - b).max() > 1e-5, "it is int8 that was computed"
    shared = (exact.project(ecg) * small.project(ecg)).sum(1)
    assert shared.min() > 1 - 10 * power
    predicted = small.predict(ecg)
    assert predicted.shape == (N, 2)
    assert np.abs((predicted - exact.predict(ecg)) / [20, 1]).max() < 0.05


def test_int8__an_artefact_in_one_row_leaves_the_others_alone(exported: tuple[Weights, Path]) -> None:
    """The range of activations is that of the batch: an electrode that fell off must not blur its neighbours."""
    exact, small = OnnxModel(exported[1], threads=1), OnnxModel(exported[1], int8=True, threads=1)
    ecg = np.random.default_rng(3).normal(size=(N, 12, 200)).astype(np.float32)
    ecg[0, 3, 50:60] = 500.0
    a, b = exact.encode(ecg)[1:].astype(np.float64), small.encode(ecg)[1:].astype(np.float64)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.99


def test_int8__quantises_the_blocks_and_nothing_else(exported: tuple[Weights, Path]) -> None:
    weights, folder = exported
    layers = len(linear_layers(weights.modules["ecg"]))
    exact = onnx.load(folder / "predict.onnx")
    for name in ("ecg", "ecg_projection", "predict"):
        model = onnx.load(folder / f"{name}.int8.onnx")
        assert sum(node.op_type == "MatMulInteger" for node in model.graph.node) == layers
    model = onnx.load(folder / "predict.int8.onnx")
    head = weights.modules["head"].layers[0].weight.detach().numpy()  # type: ignore[index,union-attr]
    kept = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert any(np.array_equal(x, head) or np.array_equal(x.T, head) for x in kept if x.ndim == 2)
    assert len(model.SerializeToString()) < 0.8 * len(exact.SerializeToString())
    assert {p.key: p.value for p in model.metadata_props}["quantization"].startswith("int8 dynamic")


def test_int8__is_told_in_export_json(exported: tuple[Weights, Path]) -> None:
    about = OnnxModel(exported[1]).spec.about["graphs"]
    assert 0.99 < about["ecg"]["int8"]["moved"]["cosine"] <= 1
    assert 0 < about["predict"]["int8"]["moved"]["max_abs_difference"] < 0.1
    assert "int8" not in about["cmr"]
