"""What is explained: one recording or cine, prepared as the model's training data were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ecgcmr.cmr.cine import Cine
from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.hub.inputs import Declared, EcgInputs
from ecgcmr.hub.windows import Cutter

if TYPE_CHECKING:
    from ecgcmr.hub.model import LoadedModel


@dataclass(frozen=True)
class Prepared:
    """One input of an encoder.

    Attributes:
        modality: `ecg` or `cmr`.
        x: (1, 12, T), or (1, C, H, W) or (1, V, F, H, W), on the model's device.
        source: The recording or cine.
        encoder: The encoder that reads it.
        rate_hz: Sampling rate of an ECG [Hz].
        start_s: Where the window begins in the recording [s].
        spacing_mm: Pixel of the prepared image [mm].
    """

    modality: Literal["ecg", "cmr"]
    x: Tensor
    source: EcgRecording | Cine
    encoder: nn.Module
    rate_hz: float = float("nan")
    start_s: float = 0.0
    spacing_mm: tuple[float, float] = (float("nan"), float("nan"))

    @property
    def frames(self) -> Any:
        """Frames (F, H, W) of an image, all slices one after the other."""
        return self.x[0].reshape(-1, *self.x.shape[-2:]).cpu().numpy()


def prepare(model: LoadedModel, item: Any, declared: Declared | None = None) -> Prepared:
    """Prepare a recording, an ECG file or array, or a cine; ECGs give their first window.

    Raises:
        FileNotFoundError, ValueError: It cannot be read, is too short, lacks leads, or the model has no encoder for it.
    """
    if isinstance(item, Cine):
        return _prepare_cine(model, item)
    recording = read_one(item, declared)
    encoder = module_of(model, "ecg")
    pipeline = model.weights.ecg_pipeline
    assert pipeline is not None, "an ECG encoder is loaded with its pipeline"
    window = next(iter(Cutter(pipeline, int(model.config["ecg"]["n_samples"]))(recording)))
    if len(window.leads) < len(LEADS):
        absent = ", ".join(lead for lead in LEADS if lead not in window.leads)
        raise ValueError(f"an explanation needs all twelve leads, this recording lacks {absent}")
    x = torch.from_numpy(np.ascontiguousarray(window.samples))[None].to(model.device)
    start = window.start_s + _cut_before(pipeline.to_dict()["steps"], recording)
    return Prepared("ecg", x, recording, encoder, float(pipeline.rate_hz), start)


def read_one(item: Any, declared: Declared | None = None) -> EcgRecording:
    """Read one recording, file or array.

    Raises:
        FileNotFoundError, ValueError: It cannot be read, does not say what it holds, or is many.
    """
    inputs = EcgInputs(item, declared)
    if not inputs.single:
        raise ValueError("an explanation is about one recording; give one file or recording, not a list or a folder")
    return next(iter(inputs)).read()


def _prepare_cine(model: LoadedModel, cine: Cine) -> Prepared:
    encoder = module_of(model, "cmr")
    pipeline = model.weights.cmr_pipeline
    assert pipeline is not None, "a CMR encoder is loaded with its pipeline"
    x = torch.from_numpy(pipeline(cine)).float()[None].to(model.device) / 255.0
    pixel = pipeline.crop_mm / pipeline.size
    return Prepared("cmr", x, cine, encoder, spacing_mm=(pixel, pixel))


def module_of(model: LoadedModel, name: str) -> nn.Module:
    """A module of the model.

    Raises:
        ValueError: It has none of that name, or it is an export, which has neither gradients nor attention.
    """
    modules = model.weights.modules
    if not modules:
        raise ValueError(
            f"{model.weights.folder}: an exported graph has no gradients and no attention to look at; explain the "
            "weights folder that it was made of"
        )
    if name not in modules:
        tower = {"cmr": "no CMR tower", "ecg": "no ECG tower"}.get(name, f"no {name!r}")
        raise ValueError(f"{model.config['name']}: these weights have {tower}; they have {', '.join(modules)}")
    return modules[name]


def _cut_before(steps: list[dict[str, Any]], recording: EcgRecording) -> float:
    """Seconds that a pipeline cuts off before what it keeps."""
    for step in steps:
        if step["name"] == "cut_duration" and step.get("where", "start") != "start":
            left = max(0.0, recording.duration_s - float(step["seconds"]))
            return left / 2 if step["where"] == "center" else left
    return 0.0
