"""Inference by onnxruntime from an exported folder, without torch: prepared arrays in, arrays out.

`OnnxModel` is a backend: it computes what the modules of a weights folder compute, on inputs that the pipelines beside
it have prepared, and knows nothing of files and windows. `backend.encode(ecg_BLT)` can stand wherever the encoder does.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecgcmr.cmr.preprocessing import CmrPipeline
from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.preprocessing import EcgPipeline
from ecgcmr.hub.export_folder import EXPORT, read_export, read_graph_file
from ecgcmr.hub.reading import read_json
from ecgcmr.hub.source import resolve_source

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FORMAT = "onnx"


@dataclass(frozen=True)
class ExportSpec:
    """What an exported folder is and takes.

    Attributes:
        name: Name of the weights.
        graphs: By graph (ecg, cmr, ecg_projection, cmr_projection, predict) its entry in export.json.
        labels: Name, kind and unit of each output of the head, in order.
        ecg_pipeline: What prepares ECGs; None if there is none.
        cmr_pipeline: What prepares cines; None if there is none.
        about: All of export.json.
        folder: Where it was read from.
    """

    name: str
    graphs: dict[str, dict[str, Any]]
    labels: list[dict[str, str]]
    ecg_pipeline: EcgPipeline | None
    cmr_pipeline: CmrPipeline | None
    about: dict[str, Any]
    folder: Path

    def input_shape(self, modality: str) -> tuple[int, ...] | None:
        """Shape of an input without the batch, (L, T) for "ecg"; None if no graph reads the modality."""
        for entry in self.graphs.values():
            if entry["modality"] == modality:
                return tuple(int(n) for n in entry["input"]["shape"][1:])
        return None


class OnnxModel:
    """Exported encoders, projections and head, computed by onnxruntime.

    Attributes:
        spec: What it is and takes.
        int8: Whether ECG graphs are computed with int8 weights; CMR graphs never are.
    """

    def __init__(
        self,
        source: str | Path,
        int8: bool = False,
        threads: int | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        """Open a folder that `export_onnx` wrote; graphs are read at first use.

        Args:
            source: `local-dir:PATH`, a path, or a name in the cache (`ecgcmr.hub.source`).
            int8: Use the int8 files of ECG graphs.
            threads: Threads of one product; None for all cores.
            providers: Execution providers of onnxruntime, in order of preference.

        Raises:
            FileNotFoundError, ValueError: If onnxruntime is not installed, or the folder is incomplete, broken, or has
                no int8 files.
        """
        require_extra("onnxruntime")
        self.spec = read_spec(source)
        self.int8 = int8
        self._threads, self._providers = threads, tuple(providers)
        self._sessions: dict[str, InferenceSession] = {}
        self._lock = threading.Lock()
        if int8 and not any("int8" in entry for entry in self.spec.graphs.values()):
            raise ValueError(
                f"{self.spec.folder} has no int8 graphs; write them with: ecgcmr weights export ... --int8"
            )

    def __repr__(self) -> str:
        return f"OnnxModel({self.spec.name!r}, {', '.join(self.spec.graphs)}{', int8' if self.int8 else ''})"

    @property
    def labels(self) -> list[dict[str, str]]:
        """Name, kind and unit of each output of the head, in order."""
        return [dict(label) for label in self.spec.labels]

    def encode(self, ecg_BLT: ArrayLike, batch_size: int = 64) -> NDArray[np.float32]:
        """Embed prepared ECGs, (B, L, T) to (B, D) float32.

        Args:
            ecg_BLT: What `spec.ecg_pipeline` gives, cut to the input length.
            batch_size: Inputs computed at a time.

        Raises:
            ValueError: If the shape does not fit, a value is not finite, or the folder has no such graph.
        """
        return self._run("ecg", ecg_BLT, batch_size)

    def encode_cmr(self, cmr: ArrayLike, batch_size: int = 64) -> NDArray[np.float32]:
        """Embed prepared images in [0, 1], (B, F, H, W) or (B, V, F, H, W) to (B, D); errors as `encode`."""
        return self._run("cmr", cmr, batch_size)

    def project(self, prepared: ArrayLike, modality: str = "ecg", batch_size: int = 64) -> NDArray[np.float32]:
        """Map prepared inputs of a modality into the shared space, (B, P), each of length 1; errors as `encode`."""
        return self._run(f"{modality}_projection", prepared, batch_size)

    def predict(self, ecg_BLT: ArrayLike, batch_size: int = 64) -> NDArray[np.float32]:
        """Predict (B, K) from prepared ECGs, in the order of `labels`: probabilities and original units."""
        return self._run("predict", ecg_BLT, batch_size)

    def compute(
        self, verb: Literal["embed", "predict"], ecg_BLT: ArrayLike, leads: Sequence[str] = LEADS
    ) -> NDArray[np.float32]:
        """Compute windows that have the same leads, as the stream of `LoadedModel` gives them.

        Args:
            verb: "embed" for (B, D), "predict" for (B, K).
            ecg_BLT: As `encode`.
            leads: Leads that are there.

        Raises:
            ValueError: As `encode`; or if a lead is absent: an exported graph reads all of them.
        """
        absent = [lead for lead in LEADS if lead not in leads]
        if absent:
            raise ValueError(
                f"an exported graph reads all twelve leads, but not there: {', '.join(absent)}; load the weights "
                "folder itself"
            )
        return self.encode(ecg_BLT) if verb == "embed" else self.predict(ecg_BLT)

    def _run(self, graph: str, inputs: ArrayLike, batch_size: int) -> NDArray[np.float32]:
        entry = self._entry(graph)
        x = self._check(entry, inputs)
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        session = self._session(graph, entry)
        name, output = entry["input"]["name"], entry["output"]["name"]
        parts = [
            session.run([output], {name: x[start : start + batch_size]})[0] for start in range(0, len(x), batch_size)
        ]
        return np.concatenate(parts).astype(np.float32, copy=False)

    def _entry(self, graph: str) -> dict[str, Any]:
        if graph not in self.spec.graphs:
            raise ValueError(
                f"{self.spec.folder}: no graph {graph!r} was exported; there are {', '.join(self.spec.graphs)}"
            )
        return self.spec.graphs[graph]

    def _check(self, entry: dict[str, Any], inputs: ArrayLike) -> NDArray[np.float32]:
        given = np.asarray(inputs)
        shape = tuple(entry["input"]["shape"][1:])
        if given.ndim != len(shape) + 1 or given.shape[1:] != shape or not len(given):
            raise ValueError(
                f"{entry['modality']} input has shape {given.shape}, expected (B, {', '.join(map(str, shape))}) with B "
                f"of at least 1, {entry['input']['prepared_by']}"
            )
        if not np.issubdtype(given.dtype, np.floating):
            raise ValueError(f"{entry['modality']} input has type {given.dtype}, expected a floating point type")
        bad = ~np.isfinite(given.reshape(len(given), -1)).all(axis=1)
        if bad.any():
            raise ValueError(
                f"{entry['modality']} input {int(np.argmax(bad))} is not finite; an exported graph reads all leads: "
                "for recordings that lack some, load the weights folder itself"
            )
        return np.ascontiguousarray(given, dtype=np.float32)

    def _session(self, graph: str, entry: dict[str, Any]) -> InferenceSession:
        with self._lock:
            if graph not in self._sessions:
                part = entry["int8"] if self.int8 and "int8" in entry else entry
                data = read_graph_file(self.spec.folder, part)
                try:
                    self._sessions[graph] = open_session(data, self._threads, self._providers)
                except ValueError:
                    raise
                except Exception as error:  # its own types, which share no base
                    raise ValueError(
                        f"{self.spec.folder / part['file']}: onnxruntime cannot read it ({error})"
                    ) from error
            return self._sessions[graph]


def open_session(
    data: bytes, threads: int | None = None, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> InferenceSession:
    """Open a model with onnxruntime.

    Args:
        data: The model.
        threads: Threads of one product; None for all cores.
        providers: Execution providers, in order of preference.

    Raises:
        ValueError: For a provider that this onnxruntime does not have.
    """
    import onnxruntime

    here = onnxruntime.get_available_providers()
    absent = [name for name in providers if name not in here]
    if absent:
        raise ValueError(f"onnxruntime has no provider {', '.join(absent)}; it has {', '.join(here)}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; they are raised anyway
    if threads is not None:
        options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(data, options, providers=list(providers))


def read_spec(source: str | Path) -> ExportSpec:
    """Read what an exported ONNX folder is and takes; no graph is opened, and onnxruntime is not needed.

    Raises:
        FileNotFoundError, ValueError: If the folder is incomplete, broken, or of another format.
    """
    folder = resolve_source(source)
    about = read_export(folder, FORMAT)
    preprocess = read_json(folder / "preprocess.json")
    graphs = {str(name): _checked_entry(folder, str(name), entry) for name, entry in about["graphs"].items()}
    for modality in sorted({str(entry["modality"]) for entry in graphs.values()}):
        if not preprocess.get(modality):
            raise ValueError(f"{folder / 'preprocess.json'}: no {modality!r} pipeline, but there are {modality} graphs")
    ecg, cmr = preprocess.get("ecg"), preprocess.get("cmr")
    return ExportSpec(
        name=str(about.get("name")),
        graphs=graphs,
        labels=list(about.get("labels", [])),
        ecg_pipeline=EcgPipeline.from_dict(ecg) if ecg else None,
        cmr_pipeline=CmrPipeline.from_dict(cmr) if cmr else None,
        about=about,
        folder=folder,
    )


def _checked_entry(folder: Path, name: str, entry: Any) -> dict[str, Any]:
    try:
        for part in (entry, *([entry["int8"]] if "int8" in entry else [])):
            if not (isinstance(part["file"], str) and isinstance(part["sha256"], str)):
                raise TypeError
        shape, modality = entry["input"]["shape"], entry["modality"]
        if modality not in ("ecg", "cmr") or not all(isinstance(n, int) for n in shape[1:]):
            raise TypeError
        if not all(isinstance(x, str) for x in (entry["input"]["name"], entry["output"]["name"])):
            raise TypeError
        if not isinstance(entry["input"]["prepared_by"], str):
            raise TypeError
    except (KeyError, TypeError):
        raise ValueError(f"{folder / EXPORT}: the entry of graph {name!r} is not as export_onnx writes it") from None
    found: dict[str, Any] = entry
    return found


def require_extra(*packages: str) -> None:
    """Say which extra is missing.

    Raises:
        ValueError: Naming the packages that are not installed and how to get them.
    """
    absent = [name for name in packages if find_spec(name) is None]
    if absent:
        raise ValueError(f"ONNX needs {', '.join(absent)}, which is not installed: pip install 'ecgcmr[onnx]'")
