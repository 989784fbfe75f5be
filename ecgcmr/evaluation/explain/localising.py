"""Cross-modal localisation: parts of an ECG against a whole study, parts of an image against a whole ECG, and pairs.

As in the reference system (arXiv 2308.05764): patch tokens of the last block, before any norm, twice as many along
time by linear interpolation, each through the ECG projection; positions of the image tower's last map, twice as many
by bilinear interpolation, each through the CMR projection; cosine with the other modality's global projection over a
temperature of 0.6. The projections were trained on pooled embeddings and read single tokens here: these maps show
where parts resemble the whole, no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from ecgcmr.cmr.cine import Cine
from ecgcmr.ecg.leads import LEADS
from ecgcmr.evaluation.explain.gradients import conv_stage
from ecgcmr.evaluation.explain.prepare import Prepared, module_of, prepare
from ecgcmr.evaluation.explain.result import CMR_AXES, ECG_AXES, PAIR_AXES, Explanation
from ecgcmr.evaluation.explain.targets import shared_vector
from ecgcmr.models.ecg_st_vit import EcgStViT
from ecgcmr.models.ecg_vit import EcgViT

if TYPE_CHECKING:
    from ecgcmr.hub.model import LoadedModel

TEMPERATURE = 0.6
Which = Literal["ecg", "cmr", "pairs"]
_POOLING_TOLERANCE = 1e-3


def localisation(
    model: LoadedModel,
    recording: Any,
    cine: Cine,
    which: Which = "ecg",
    upsample: int = 2,
    temperature: float = TEMPERATURE,
    softmax: bool = False,
) -> Explanation:
    """Localise one modality in the other.

    Args:
        model: Weights with both towers and projections.
        recording: A recording or ECG file.
        cine: The study.
        which: `ecg` (12, W) ECG tokens against the study; `cmr` (h, w) regions against the ECG; `pairs` (12, W, h, w).
        upsample: Factor of the interpolation of tokens along time and of regions along rows and columns.
        temperature: Divides the cosine.
        softmax: Whether values are a softmax over places (for pairs, over all pairs).

    Raises:
        ValueError: A tower or projection is missing, the towers do not keep places apart, or settings are wrong.
    """
    if which not in ("ecg", "cmr", "pairs"):
        raise ValueError(f"which is {which!r}, expected 'ecg', 'cmr' or 'pairs'")
    if upsample < 1 or not temperature > 0:
        raise ValueError(f"upsample {upsample} must be at least 1 and temperature {temperature} positive")
    if not isinstance(cine, Cine):
        raise ValueError(f"localisation needs a cine as well as a recording, got {type(cine).__name__}")
    ecg, image = prepare(model, recording), prepare(model, cine)
    with torch.no_grad():
        parts = {
            "ecg": lambda: _ecg_parts(model, ecg, upsample) @ shared_vector(model, image),
            "cmr": lambda: _image_parts(model, image, upsample) @ shared_vector(model, ecg),
            "pairs": lambda: torch.einsum(
                "ltp,hwp->lthw", _ecg_parts(model, ecg, upsample), _image_parts(model, image, upsample)
            ),
        }
        values: Tensor = parts[which]().double() / temperature
        cosine = float(shared_vector(model, ecg) @ shared_vector(model, image))
    if softmax:
        values = values.flatten().softmax(dim=0).view_as(values)
    over_ecg, over_image = which != "cmr", which != "ecg"
    places = values.shape[-2:] if over_image else (1, 1)
    side = [size * step / n for size, step, n in zip(image.x.shape[-2:], image.spacing_mm, places, strict=True)]
    return Explanation(
        values=values.cpu().numpy(),
        axes={"ecg": ECG_AXES, "cmr": CMR_AXES, "pairs": PAIR_AXES}[which],
        method="cross-modal localisation",
        target={"ecg": "the whole study", "cmr": "the whole ECG", "pairs": "pairs of parts"}[which],
        unit="share" if softmax else "cosine over temperature",
        model=str(model.config["name"]),
        sha256=str(model.config["sha256"]),
        settings={"upsample": upsample, "temperature": temperature, "softmax": softmax, "cosine of the pair": cosine},
        leads=LEADS if over_ecg else (),
        rate_hz=ecg.rate_hz * values.shape[1] / ecg.x.shape[-1] if over_ecg else float("nan"),
        start_s=ecg.start_s,
        spacing_mm=(side[0], side[1]) if over_image else (float("nan"), float("nan")),
        frames=image.frames if over_image else None,
    )


def _ecg_parts(model: LoadedModel, prepared: Prepared, upsample: int) -> Tensor:
    """Unit vectors (12, W * upsample, P) of the patch tokens."""
    encoder = prepared.encoder
    if not isinstance(encoder, EcgViT | EcgStViT):
        raise ValueError(f"{type(encoder).__name__} has no tokens of single leads: the ECG can not be localised")
    tokens = encoder.forward_tokens(prepared.x)[0]
    patches = tokens[getattr(encoder, "prefix", 0) :].reshape(len(LEADS), encoder.windows, -1)
    if upsample > 1:
        patches = functional.interpolate(patches.transpose(1, 2), scale_factor=upsample, mode="linear").transpose(1, 2)
    return _projected(model, "ecg", patches)


def _image_parts(model: LoadedModel, prepared: Prepared, upsample: int) -> Tensor:
    """Unit vectors (h * upsample, w * upsample, P) of the positions of the last map."""
    encoder = prepared.encoder
    _, stage = conv_stage(encoder)
    found: list[Tensor] = []
    hook = stage.register_forward_hook(lambda module, given, made: found.append(made))
    try:
        pooled = encoder(prepared.x)
    finally:
        hook.remove()
    maps = found[0]
    if maps.ndim != 4 or not torch.allclose(maps.mean(dim=(2, 3)), pooled, rtol=_POOLING_TOLERANCE, atol=1e-5):
        raise ValueError(
            f"{type(encoder).__name__}: the embedding is not the mean of the last map over its places, so that places "
            "have no projection of their own; take method 'gradcam' or 'occlusion'"
        )
    if upsample > 1:
        maps = functional.interpolate(maps, scale_factor=upsample, mode="bilinear", align_corners=False)
    return _projected(model, "cmr", maps[0].permute(1, 2, 0))


def _projected(model: LoadedModel, modality: str, parts: Tensor) -> Tensor:
    projection = module_of(model, f"{modality}_projection")
    made = functional.normalize(projection(parts.reshape(-1, parts.shape[-1])), dim=-1)
    return made.reshape(*parts.shape[:-1], -1)
