"""A fixed input, made by formulas, and the embedding that a weights folder must give for it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
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
from ecgcmr.hub.weights import load_weights

RECIPE = "beats_and_ring_v1"
TOLERANCE = 1e-3
"""Largest relative error of an embedding: other processors round differently, other weights give about 1."""

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


@torch.no_grad()
def compute_expected(
    modules: Mapping[str, nn.Module],
    ecg_pipeline: EcgPipeline | None,
    cmr_pipeline: CmrPipeline | None,
    config: Mapping[str, Any],
) -> dict[str, Any]:
    """Give the content of expected.json: recipe, tolerance, and the embedding (D,) of each encoder."""
    values: dict[str, list[float]] = {}
    if "ecg" in modules and ecg_pipeline is not None:
        ecg = torch.from_numpy(ecg_pipeline(synthetic_recording()))[None, :, : config["ecg"]["n_samples"]]
        values["ecg"] = _embed(modules["ecg"], ecg)
    if "cmr" in modules and cmr_pipeline is not None:
        cmr = torch.from_numpy(cmr_pipeline(synthetic_cine()))[None].float() / 255.0
        values["cmr"] = _embed(modules["cmr"], cmr)
    return {"recipe": RECIPE, "tolerance": TOLERANCE, "embeddings": values}


def verify_weights(source: str | Path) -> dict[str, float]:
    """Recompute the embeddings of the recipe and compare.

    Args:
        source: `local-dir:PATH` or a path.

    Returns:
        Relative error of each encoder's embedding.

    Raises:
        ValueError: If an error is above the tolerance, or the recipe is not known here; the message has the numbers.
    """
    weights = load_weights(source)
    if weights.expected.get("recipe") != RECIPE:
        raise ValueError(
            f"{weights.folder / 'expected.json'}: recipe {weights.expected.get('recipe')!r} is not known here"
        )
    found = compute_expected(weights.modules, weights.ecg_pipeline, weights.cmr_pipeline, weights.config)["embeddings"]
    stated, tolerance = weights.expected["embeddings"], float(weights.expected["tolerance"])
    if set(found) != set(stated):
        raise ValueError(f"{weights.folder}: expected.json is about {sorted(stated)}, the folder has {sorted(found)}")
    errors = {name: _relative_error(found[name], stated[name]) for name in found}
    wrong = {name: error for name, error in errors.items() if not error <= tolerance}
    if wrong:
        text = ", ".join(f"{name} {error:.2g}" for name, error in wrong.items())
        raise ValueError(
            f"{weights.folder}: the embeddings of the recipe differ from expected.json (relative error {text}, allowed "
            f"{tolerance:g}): other weights, other preprocessing, or a library that computes something else"
        )
    return errors


def _embed(module: nn.Module, x: Tensor) -> list[float]:
    # A copy on the CPU: the module may be in training, on a GPU, or in another precision.
    encoder = copy.deepcopy(module).to("cpu", torch.float32).eval()
    embedding: list[float] = encoder(x)[0].double().tolist()
    return embedding


def _relative_error(found: list[float], stated: list[float]) -> float:
    if len(found) != len(stated):
        return float("inf")
    difference = np.linalg.norm(np.subtract(found, stated))
    return float(difference / max(float(np.linalg.norm(stated)), 1e-12))
