"""A fixed input, made by formulas, and the embedding that a weights folder must give for it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ecgcmr.cmr.cine import Cine
from ecgcmr.cmr.preprocessing import CmrPipeline
from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.preprocessing import EcgPipeline
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.hub.index import check_against_index
from ecgcmr.hub.weights import load_weights

RECIPE = "beats_and_ring_v1"
TOLERANCE = 1e-3
"""Largest relative error of an embedding: other processors round differently, other weights give about 1."""

_ENCODERS = ("ecg", "cmr")

# Waves as (phase of the beat, width, amplitude of lead II [mV]): P, Q, R, S, T.
_WAVES = ((0.20, 0.025, 0.12), (0.355, 0.008, -0.08), (0.375, 0.011, 1.0), (0.395, 0.009, -0.2), (0.62, 0.045, 0.28))
# Share of lead II that leads I and V1-V6 see; the rest follows from Einthoven and Goldberger.
_SHARES = {"I": 0.6, "V1": -0.4, "V2": -0.1, "V3": 0.5, "V4": 1.2, "V5": 1.1, "V6": 0.8}


def synthetic_recording(rate_hz: float = 500.0, seconds: float = 10.0) -> EcgRecording:
    """Give the 12-lead ECG of the recipe: Gaussian waves at 70 beats a minute, exact in Einthoven's law [mV]."""
    t = np.arange(round(rate_hz * seconds)) / rate_hz
    phase = np.mod(t * 70.0 / 60.0, 1.0)
    two = np.zeros_like(t)
    for center, width, amplitude in _WAVES:
        two += amplitude * np.exp(-0.5 * ((phase - center) / width) ** 2)
    one = _SHARES["I"] * two + 0.05 * np.sin(2 * np.pi * 0.3 * t)
    rows = {"I": one, "II": two, "III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
    rows |= {f"V{n}": _SHARES[f"V{n}"] * two + 0.01 * n * np.sin(2 * np.pi * 0.2 * n * t) for n in range(1, 7)}
    samples = np.stack([rows[lead] for lead in LEADS]).astype(np.float32)
    return EcgRecording(samples, rate_hz, LEADS, source="recipe")


def synthetic_cine(slices: int = 3, frames: int = 12, side: int = 96) -> Cine:
    """Give the cine of the recipe: a bright pool in a dark ring that contracts, on a slanting background."""
    rows, columns = np.mgrid[0:side, 0:side]
    pixels = np.empty((slices, frames, side, side), dtype=np.float32)
    for z in range(slices):
        distance = np.hypot(rows - 0.48 * side, columns - 0.53 * side) * 1.8
        for f in range(frames):
            radius = (26.0 - 4.0 * z) * (1.0 - 0.3 * np.sin(np.pi * min(f / (0.7 * frames), 1.0)) ** 2)
            pool = 1.0 / (1.0 + np.exp((distance - radius) / 1.5))
            heart = 1.0 / (1.0 + np.exp((distance - radius - 10.0) / 1.5))
            pixels[z, f] = 60.0 + 0.3 * rows + 0.2 * columns + 180.0 * pool - 40.0 * (heart - pool)
    times = np.linspace(0.0, 857.0, frames, endpoint=False, dtype=np.float64)
    affine = np.diag([1.8, 1.8, 8.0, 1.0])
    return Cine(pixels, (1.8, 1.8), 8.0, affine, times, "sax", source="recipe")


def compute_expected(
    modules: Mapping[str, nn.Module],
    ecg_pipeline: EcgPipeline | None,
    cmr_pipeline: CmrPipeline | None,
    config: Mapping[str, Any],
) -> dict[str, Any]:
    """Give the content of expected.json: recipe, tolerance, the embedding (D,) of each encoder, and what follows it.

    What follows are the projections (P,) and the predictions (K,) of the head, in its units and probabilities.
    """
    inputs = recipe_inputs(modules, ecg_pipeline, cmr_pipeline, config)
    values = {name: value[0].double().tolist() for name, value in recipe_outputs(modules, inputs, config).items()}
    return {
        "recipe": RECIPE,
        "tolerance": TOLERANCE,
        "embeddings": {name: value for name, value in values.items() if name in _ENCODERS},
        "outputs": {name: value for name, value in values.items() if name not in _ENCODERS},
    }


def recipe_inputs(
    modules: Mapping[str, nn.Module],
    ecg_pipeline: EcgPipeline | None,
    cmr_pipeline: CmrPipeline | None,
    config: Mapping[str, Any],
) -> dict[str, Tensor]:
    """Prepare the input of the recipe for each encoder: ecg (1, L, T), cmr (1, C, H, W)."""
    inputs: dict[str, Tensor] = {}
    if "ecg" in modules and ecg_pipeline is not None:
        inputs["ecg"] = torch.from_numpy(ecg_pipeline(synthetic_recording()))[None, :, : config["ecg"]["n_samples"]]
    if "cmr" in modules and cmr_pipeline is not None:
        inputs["cmr"] = torch.from_numpy(cmr_pipeline(synthetic_cine()))[None].float() / 255.0
    return inputs


@torch.no_grad()
def recipe_outputs(
    modules: Mapping[str, nn.Module], inputs: Mapping[str, Tensor], config: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Compute embeddings (B, D), projections (B, P) and predictions (B, K), by name of the module that gives them."""
    # Copies on the CPU: a module may be in training, on a GPU, or in another precision.
    quiet: dict[str, Any] = {name: copy.deepcopy(m).to("cpu", torch.float32).eval() for name, m in modules.items()}
    outputs: dict[str, Tensor] = {}
    for name, x in inputs.items():
        embedding = outputs[name] = quiet[name](x)
        if f"{name}_projection" in quiet:
            outputs[f"{name}_projection"] = quiet[f"{name}_projection"](embedding)
        if name == "ecg" and "head" in quiet:
            options = config.get("head_options", {})
            reads = quiet["ecg"].fc_norm(embedding) if options.get("double_fc_norm") else embedding
            if options.get("tabular"):  # of whom nothing else is known
                reads = torch.cat([reads, quiet["tabular"](quiet["tabular"].unknown(len(reads)))], dim=1)
            outputs["head"] = quiet["head"].predict(reads)
    return outputs


def verify_weights(source: str | Path) -> dict[str, float]:
    """Recompute the outputs of the recipe and compare.

    Args:
        source: As `load_weights`.

    Returns:
        Relative error of each encoder's embedding, and of each projection and the head where expected.json has them.

    Raises:
        ValueError: If an error is above the tolerance, the recipe is not known here, or the folder is not as the index
            beside it lists it; the message has the numbers.
    """
    weights = load_weights(source)
    check_against_index(weights.folder)
    path, expected = weights.folder / "expected.json", weights.expected
    if expected.get("recipe") != RECIPE:
        raise ValueError(f"{path}: recipe {expected.get('recipe')!r} is not known here")
    try:
        stated = {**expected["embeddings"], **expected.get("outputs", {})}
        tolerance = min(float(expected["tolerance"]), TOLERANCE)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: embeddings or tolerance is missing or broken ({error})") from None
    computed = compute_expected(weights.modules, weights.ecg_pipeline, weights.cmr_pipeline, weights.config)
    found = computed["embeddings"] | {name: v for name, v in computed["outputs"].items() if "outputs" in expected}
    if set(found) != set(stated):
        raise ValueError(f"{weights.folder}: expected.json is about {sorted(stated)}, the folder has {sorted(found)}")
    head = weights.modules.get("head")
    errors = {name: _error(name, found[name], stated[name], head) for name in found}
    wrong = {name: error for name, error in errors.items() if not error <= tolerance}
    if wrong:
        text = ", ".join(f"{name} {error:.2g}" for name, error in wrong.items())
        raise ValueError(
            f"{weights.folder}: the embeddings of the recipe differ from expected.json (relative error {text}, allowed "
            f"{tolerance:g}): other weights, other preprocessing, or a library that computes something else"
        )
    return errors


def largest_change(
    before: Mapping[str, nn.Module],
    after: Mapping[str, nn.Module],
    inputs: Mapping[str, Tensor],
    config: Mapping[str, Any],
) -> dict[str, float]:
    """Compare what two versions of the same modules give for the recipe and three variations of each input.

    Returns:
        By name of the module, the largest relative error over the inputs.
    """
    varied = {
        name: torch.cat([x, -x if name == "ecg" else x.flip(-2), x.flip(-1), x * 0.7]) for name, x in inputs.items()
    }
    old, new = recipe_outputs(before, varied, config), recipe_outputs(after, varied, config)
    head = before.get("head")
    return {name: max(map(partial(_error, name, head=head), new[name].tolist(), old[name].tolist())) for name in old}


def _error(name: str, found: list[float], stated: Any, head: nn.Module | None) -> float:
    if not isinstance(stated, list) or len(found) != len(stated):
        return float("inf")
    difference, reference = np.subtract(found, stated), np.asarray(stated, dtype=np.float64)
    if name == "head":
        # Each label for itself: a volume in ml must not hide a strain in %. Probabilities are on the scale of 1.
        parts: Any = head
        deviation, binary = parts.std.cpu().numpy(), parts.is_binary.cpu().numpy()
        scale = np.where(binary, 1.0, np.maximum(np.abs(reference), deviation))
        return float(np.max(np.abs(difference) / np.maximum(scale, 1e-12)))
    return float(np.linalg.norm(difference) / max(float(np.linalg.norm(reference)), 1e-12))
