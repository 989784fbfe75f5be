"""An exported ONNX folder behind the API of `LoadedModel`: the same files, windows and tables, by onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecgcmr.cmr.cine import Cine
from ecgcmr.hub.covariates import Covariates
from ecgcmr.hub.inputs import EcgItem
from ecgcmr.hub.model import LoadedModel
from ecgcmr.hub.onnx_model import OnnxModel
from ecgcmr.hub.tables import Verb
from ecgcmr.hub.weights import Weights

_GRAPHS = {"ecg": ("ecg", "predict"), "cmr": ("cmr",), "head": ("predict",)}
"""By module, the graphs of which one must be there; which one is run decides what is asked for."""


class ExportedModel(LoadedModel):
    """What `load_model` gives for a folder that `ecgcmr weights export` wrote.

    All twelve leads must be there: an exported graph has a fixed number of tokens.

    Attributes:
        backend: The graphs.
    """

    def __init__(self, backend: OnnxModel) -> None:
        spec, self.backend = backend.spec, backend
        shape = spec.input_shape("ecg")
        config = {
            "head_options": {},
            **spec.about,
            "labels": spec.labels,
            "sha256": spec.about.get("weights_sha256"),
            "modules": {},
            "ecg": {**(spec.about.get("ecg") or {}), "n_samples": shape[1]} if shape else None,
        }
        super().__init__(Weights({}, spec.ecg_pipeline, spec.cmr_pipeline, config, {}, spec.folder))

    def __repr__(self) -> str:
        return f"ExportedModel({self.backend!r})"

    def embed_cmr(self, cine: Cine | Sequence[Cine], batch_size: int = 64) -> NDArray[np.float32]:
        """Embed one or many cines, (B, D) float32; errors as `OnnxModel.encode_cmr`."""
        self._module("cmr")
        pipeline = self._weights.cmr_pipeline
        assert pipeline is not None
        cines = list(cine) if isinstance(cine, Sequence) else [cine]
        prepared = np.stack([pipeline(one) for one in cines]).astype(np.float32) / 255.0
        return self.backend.encode_cmr(prepared, batch_size)

    def project(self, embedding: NDArray[np.float32], modality: str = "ecg") -> NDArray[np.float32]:
        """Refuse: exported projections read prepared inputs, not embeddings.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"{self._weights.folder}: exported projections read prepared inputs; use backend.project(prepared, "
            f"{modality!r}), or load the weights folder itself"
        )

    def _module(self, name: str) -> nn.Module:
        wanted, there = _GRAPHS.get(name, (name,)), self.backend.spec.graphs
        if not any(graph in there for graph in wanted):
            raise ValueError(
                f"{self._weights.folder}: no graph {wanted[0]!r} was exported; there are {', '.join(there)}"
            )
        return nn.Identity()  # stands for the graph; `_compute` runs it

    @torch.no_grad()
    def _compute(
        self,
        verb: Verb,
        known: Covariates | None,
        encoder: nn.Module,
        ecg_BLT: Tensor,
        leads: tuple[str, ...],
        items: list[EcgItem],
    ) -> Tensor:
        return torch.from_numpy(self.backend.compute(verb, ecg_BLT.numpy(), leads))


def open_export(folder: Path, head: str | Path | None, dtype: str) -> ExportedModel:
    """Open what `load_model` found to be an export.

    Raises:
        ValueError: If another head or precision is asked for; or as `OnnxModel`.
    """
    if head is not None or dtype != "float32":
        raise ValueError(f"{folder}: an exported graph has its own head and precision; load the weights folder itself")
    return ExportedModel(OnnxModel(f"local-dir:{folder}"))
