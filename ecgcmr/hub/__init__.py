"""Weights folders: save, load, verify, and the model that a user holds.

The names are loaded lazily, because torch should only be imported when weights are.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecgcmr.hub.catalogue import list_models
    from ecgcmr.hub.expected import verify_weights
    from ecgcmr.hub.model import LoadedModel, load_model
    from ecgcmr.hub.onnx_export import export_onnx
    from ecgcmr.hub.onnx_model import OnnxModel
    from ecgcmr.hub.pack import pack
    from ecgcmr.hub.program_export import export_program
    from ecgcmr.hub.push import plan_push, push
    from ecgcmr.hub.source import resolve_source
    from ecgcmr.hub.weights import Weights, load_weights, save_weights

_WHERE = {
    "LoadedModel": "model",
    "OnnxModel": "onnx_model",
    "Weights": "weights",
    "export_onnx": "onnx_export",
    "export_program": "program_export",
    "list_models": "catalogue",
    "load_model": "model",
    "load_weights": "weights",
    "pack": "pack",
    "plan_push": "push",
    "push": "push",
    "resolve_source": "source",
    "save_weights": "weights",
    "verify_weights": "expected",
}

__all__ = [
    "LoadedModel", "OnnxModel", "Weights", "export_onnx", "export_program", "list_models", "load_model", "load_weights",
    "pack", "plan_push", "push", "resolve_source", "save_weights", "verify_weights",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
