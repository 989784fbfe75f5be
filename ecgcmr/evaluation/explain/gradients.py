"""Integrated gradients and Grad-CAM, computed by captum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ecgcmr.ecg.leads import LEADS
from ecgcmr.evaluation.explain.optional import need
from ecgcmr.evaluation.explain.prepare import prepare
from ecgcmr.evaluation.explain.references import prepare_references
from ecgcmr.evaluation.explain.result import CMR_AXES, ECG_AXES, Explanation
from ecgcmr.evaluation.explain.targets import resolve_target

if TYPE_CHECKING:
    from ecgcmr.hub.model import LoadedModel

TOLERANCE = 0.01
"""Largest gap between the sum of attributions and f(x) - f(baseline), as a share of that difference."""
SMALLEST = 1e-3
"""The same as a share of the outputs: where both are alike, the kinks of a ReLU decide over their difference."""
_MOST_STEPS = 1024
_AT_A_TIME = 64


def integrated_gradients(
    model: LoadedModel,
    item: Any,
    target: Any,
    steps: int = 64,
    references: Sequence[Any] = (),
    tolerance: float = TOLERANCE,
) -> Explanation:
    """Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365) from a baseline to the input.

    The baseline is a flat line at 0 for an ECG (0 mV where the pipeline keeps the voltage, else the mean of the lead)
    and an image of one gray, its own mean, for a cine; attributions of an image are summed over its frames. The sum of
    all attributions must be f(x) - f(baseline): steps are doubled until it is.

    Args:
        model: The model.
        item: A recording or ECG file, or a cine.
        target: As `resolve_target` takes it.
        steps: Steps along the path (Gauss-Legendre).
        references: Recordings (or cines) that are the baselines instead; attributions are the mean over them (expected
            gradients, Erion et al. 2021, arXiv 1906.10670) and sum to f(x) minus the mean output of the references.
        tolerance: Largest gap of the sum, as a share of the difference; ReLU towers converge slowly.

    Raises:
        ValueError: captum is not installed, the sum stays wrong, or as `prepare` and `resolve_target`.
    """
    captum = need("captum.attr", "integrated gradients")
    if steps < 2:
        raise ValueError(f"steps is {steps}, expected at least 2")
    prepared = prepare(model, item)
    chosen = resolve_target(model, target, prepared.modality)
    number = chosen.of(prepared)
    ecg = prepared.modality == "ecg"
    x = prepared.x.detach()
    baselines = torch.zeros_like(x) if ecg else torch.full_like(x, float(x.mean()))
    words = "0" if ecg else "mean of the image"
    if len(references):
        baselines, words = prepare_references(model, references, prepared), f"{len(references)} references"
    with torch.no_grad():
        output, zero = float(number(x)[0]), float(number(baselines).double().mean())
    method = captum.IntegratedGradients(number)
    while True:
        given = [
            method.attribute(x, baselines=one[None], n_steps=steps, internal_batch_size=_AT_A_TIME) for one in baselines
        ]
        parts = torch.cat(given).detach().double().mean(dim=0).cpu().numpy()
        gap = abs(parts.sum() - (output - zero))
        allowed = max(tolerance * abs(output - zero), SMALLEST * max(abs(output), abs(zero)))
        if gap <= allowed:
            break
        if steps >= _MOST_STEPS:
            raise ValueError(
                f"integrated gradients of {chosen.name}: the attributions sum to {parts.sum():.4g}, but the output "
                f"changes by {output - zero:.4g}, after {steps} steps: the output is too rough for this "
                "tolerance; allow more with tolerance=, or use method='occlusion'"
            )
        steps *= 2
    return Explanation(
        values=parts if ecg else parts.reshape(-1, *parts.shape[-2:]).sum(axis=0),
        axes=ECG_AXES if ecg else CMR_AXES,
        method="integrated gradients",
        target=chosen.name,
        unit=chosen.unit,
        model=str(model.config["name"]),
        sha256=str(model.config["sha256"]),
        settings={
            "baseline": words,
            "steps": steps,
            "gap": float(gap),
            "tolerance": float(allowed),
        },
        output=output,
        baseline_output=zero,
        leads=LEADS if ecg else (),
        rate_hz=prepared.rate_hz,
        start_s=prepared.start_s,
        spacing_mm=prepared.spacing_mm,
        frames=None if ecg else prepared.frames,
    )


def grad_cam(model: LoadedModel, cine: Any, target: Any, layer: str | None = None) -> Explanation:
    """Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) of a convolutional image tower.

    The maps of a layer are weighted by their mean gradients, summed, and what is negative is dropped; the result is
    enlarged to the image bilinearly. It is no sum of anything: values are relative, their largest is 1.

    Args:
        model: The model.
        cine: A cine.
        target: As `resolve_target` takes it: a recording, or a `Target` of the CMR embedding.
        layer: Name of a stage of the tower; its last one by default, which is the coarsest.

    Raises:
        ValueError: captum is not installed, the tower is not convolutional, or an unknown layer (the known are listed).
    """
    captum = need("captum.attr", "Grad-CAM")
    prepared = prepare(model, cine)
    if prepared.modality != "cmr":
        raise ValueError("Grad-CAM explains convolutional image towers; for an ECG take method 'ig' or 'occlusion'")
    chosen = resolve_target(model, target, "cmr")
    name, module = conv_stage(prepared.encoder, layer)
    number = chosen.of(prepared)
    method = captum.LayerGradCam(number, module)
    maps = method.attribute(prepared.x.detach().requires_grad_(True), relu_attributions=True)
    coarse = tuple(maps.shape[-2:])
    size = tuple(prepared.x.shape[-2:])
    large = nn.functional.interpolate(maps.detach().float(), size=size, mode="bilinear", align_corners=False)
    values = large[0, 0].double().cpu().numpy()
    top = values.max()
    with torch.no_grad():
        output = float(number(prepared.x)[0])
    return Explanation(
        values=values / top if top > 0 else values,
        axes=CMR_AXES,
        method="Grad-CAM",
        target=chosen.name,
        unit="relative",
        model=str(model.config["name"]),
        sha256=str(model.config["sha256"]),
        settings={"layer": name, "map": list(coarse), "empty": bool(top <= 0)},
        output=output,
        spacing_mm=prepared.spacing_mm,
        frames=prepared.frames,
    )


def conv_stage(encoder: nn.Module, layer: str | None = None) -> tuple[str, nn.Module]:
    """A stage of a convolutional timm tower whose output has rows and columns.

    Raises:
        ValueError: The tower is none, or has no such stage (lists them).
    """
    backbone: Any = getattr(encoder, "backbone", None)
    info = getattr(backbone, "feature_info", None) or []
    stages = [str(one["module"]) for one in info]
    attention = any(type(part).__name__ == "Attention" for part in encoder.modules())
    if not stages or attention:
        kind = type(encoder).__name__ if backbone is None else type(backbone).__name__
        raise ValueError(f"{kind} is no convolutional image tower; take method 'occlusion' or 'ig' for it")
    name = stages[-1] if layer is None else layer
    if name not in stages:
        raise ValueError(f"the image tower has no stage {name!r}; choose one of {', '.join(stages)}")
    found: nn.Module = backbone.get_submodule(name)
    return name, found
