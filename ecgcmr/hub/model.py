"""LoadedModel: files or arrays in, embeddings and predictions out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecgcmr.cmr.cine import Cine
from ecgcmr.ecg.leads import canonical_lead
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.ecg.units import millivolts_per_unit
from ecgcmr.hub.weights import Weights, load_weights

if TYPE_CHECKING:
    import pandas as pd

EcgLike = EcgRecording | str | Path | NDArray[Any]


def load_model(source: str | Path, device: str | torch.device = "cpu") -> LoadedModel:
    """Load weights with the preprocessing that belongs to them.

    Args:
        source: `local-dir:PATH` or a path of a weights folder.
        device: Where to compute.

    Raises:
        FileNotFoundError, ValueError: As `load_weights`.
    """
    return LoadedModel(load_weights(source), torch.device(device))


class LoadedModel:
    """Encoders with their preprocessing.

    Attributes:
        weights: What was loaded.
        device: Where it computes.
    """

    def __init__(self, weights: Weights, device: torch.device) -> None:
        self.weights = weights
        self.device = device
        for module in weights.modules.values():
            module.to(device).eval()

    def __repr__(self) -> str:
        return f"LoadedModel({self.weights.config['name']!r}, {', '.join(self.weights.modules)})"

    @property
    def labels(self) -> list[dict[str, str]]:
        """Name, kind and unit of each output of the head, in order."""
        return [dict(label) for label in self.weights.config["labels"]]

    def embed(
        self,
        ecg: EcgLike | Sequence[EcgRecording | str | Path],
        rate_hz: float | None = None,
        leads: Sequence[str] | None = None,
        unit: str | None = None,
        batch_size: int = 64,
    ) -> NDArray[np.float32]:
        """Embed one or many ECGs.

        Args:
            ecg: A recording, a file, a list of either, or an array (L, T) or (B, L, T).
            rate_hz: Sampling rate of an array [Hz].
            leads: Lead names of an array's rows.
            unit: Unit of an array: mV, uV, V, or z where the voltage is lost.
            batch_size: Recordings computed at a time.

        Returns:
            (B, D) float32; B is 1 for a single recording.

        Raises:
            ValueError: If rate, leads or unit of an array are not said, or the recording does not suit the pipeline.
        """
        encoder, pipeline = self._module("ecg"), self.weights.ecg_pipeline
        assert pipeline is not None
        n_samples = int(self.weights.config["ecg"]["n_samples"])
        recordings = _recordings(ecg, rate_hz, leads, unit)
        prepared = (torch.from_numpy(pipeline(recording))[:, :n_samples] for recording in recordings)
        return self._run(encoder, list(prepared), batch_size)

    def embed_cmr(self, cine: Cine | Sequence[Cine], batch_size: int = 64) -> NDArray[np.float32]:
        """Embed one or many cines, (B, D) float32."""
        encoder, pipeline = self._module("cmr"), self.weights.cmr_pipeline
        assert pipeline is not None
        cines = [cine] if isinstance(cine, Cine) else list(cine)
        return self._run(encoder, [torch.from_numpy(pipeline(one)).float() / 255.0 for one in cines], batch_size)

    def project(self, embedding: NDArray[np.float32], modality: str = "ecg") -> NDArray[np.float32]:
        """Map embeddings (B, D) of a modality into the shared space, (B, P), each of length 1."""
        projection = self._module(f"{modality}_projection")
        return self._run(nn.Sequential(projection, _Unit()), list(torch.from_numpy(embedding)), len(embedding))

    def predict(
        self,
        ecg: EcgLike | Sequence[EcgRecording | str | Path],
        rate_hz: float | None = None,
        leads: Sequence[str] | None = None,
        unit: str | None = None,
    ) -> pd.DataFrame:
        """Predict all labels of the head from one or many ECGs.

        Args:
            ecg: As `embed`.
            rate_hz: As `embed`.
            leads: As `embed`.
            unit: As `embed`.

        Returns:
            One row for each recording and one column for each label: phenotypes in their units, diagnoses as
            probabilities; `.attrs["units"]` maps columns to units ("probability" for diagnoses).
        """
        import pandas as pd

        embedding = torch.from_numpy(self.embed(ecg, rate_hz, leads, unit)).to(self.device)
        values = self.predict_from(embedding)
        table = pd.DataFrame(values.cpu().numpy(), columns=[label["name"] for label in self.labels])
        table.attrs["units"] = {
            label["name"]: "probability" if label["kind"] == "binary" else label["unit"] for label in self.labels
        }
        return table

    @torch.no_grad()
    def predict_from(self, embedding: Tensor) -> Tensor:
        """Predict (B, K) from embeddings (B, D), in original units and probabilities."""
        head: Any = self._module("head")
        if self.weights.config["head_options"].get("double_fc_norm"):
            encoder: Any = self._module("ecg")
            embedding = encoder.fc_norm(embedding)
        predicted: Tensor = head.predict(embedding)
        return predicted

    def _module(self, name: str) -> nn.Module:
        modules = self.weights.modules
        if name not in modules:
            raise ValueError(f"{self.weights.folder}: these weights have no {name!r}; they have {', '.join(modules)}")
        return modules[name]

    @torch.no_grad()
    def _run(self, module: nn.Module, inputs: list[Tensor], batch_size: int) -> NDArray[np.float32]:
        out = []
        for start in range(0, len(inputs), batch_size):
            batch = torch.stack(inputs[start : start + batch_size]).to(self.device)
            out.append(module(batch).float().cpu())
        if not out:
            raise ValueError("nothing to embed: the list is empty")
        embedded: NDArray[np.float32] = torch.cat(out).numpy()
        return embedded


class _Unit(nn.Module):
    """Scale rows to length 1."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, dim=-1)


def _recordings(
    ecg: EcgLike | Sequence[EcgRecording | str | Path],
    rate_hz: float | None,
    leads: Sequence[str] | None,
    unit: str | None,
) -> list[EcgRecording]:
    if isinstance(ecg, EcgRecording):
        return [ecg]
    if isinstance(ecg, str | Path):
        from ecgcmr.ecg.readers import open_ecg

        return [open_ecg(ecg)]
    if isinstance(ecg, np.ndarray):
        return _from_array(ecg, rate_hz, leads, unit)
    return [recording for one in ecg for recording in _recordings(one, rate_hz, leads, unit)]


def _from_array(
    ecg: NDArray[Any], rate_hz: float | None, leads: Sequence[str] | None, unit: str | None
) -> list[EcgRecording]:
    absent = [name for name, value in (("rate_hz", rate_hz), ("leads", leads), ("unit", unit)) if value is None]
    if absent or rate_hz is None or leads is None or unit is None:
        raise ValueError(
            f"an array does not say what it holds: give {', '.join(absent)}, for instance "
            'rate_hz=500, leads=["I", "II", ...], unit="mV"'
        )
    if ecg.ndim not in (2, 3):
        raise ValueError(f"the array has shape {ecg.shape}, expected (leads, time) or (recordings, leads, time)")
    names = tuple(canonical_lead(name) for name in leads)
    lost = unit == "z"
    samples = ecg.astype(np.float32) * np.float32(1.0 if lost else millivolts_per_unit(unit))
    batch = samples[None] if samples.ndim == 2 else samples
    return [EcgRecording(one, float(rate_hz), names, "z" if lost else "mV") for one in batch]
