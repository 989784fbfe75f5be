"""Embeddings of a whole dataset by one encoder, in float32 and in a fixed order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ecgcmr.cohort.batch import Batch

Modality = Literal["ecg", "cmr"]


class BatchSource(Protocol):
    """What is embedded: anything with a length that gives a batch for a list of indices (see cohort.dataset)."""

    def __len__(self) -> int: ...

    def batch(self, indices: Any) -> Batch:
        """Prepared arrays of these items."""
        ...


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of the items that have the modality.

    Attributes:
        values: (n, D) float32.
        subjects: Subject of each row (n,).
        indices: Index of each row in the dataset (n,).
        labels: Labels in original units (n, K), NaN where unobserved.
    """

    values: NDArray[np.float32]
    subjects: NDArray[np.int64]
    indices: NDArray[np.int64]
    labels: NDArray[np.float64]


@dataclass(frozen=True)
class EmbedOptions:
    """How to run the encoder.

    Attributes:
        batch_size: Items for each forward pass.
        device: Where to run.
        precision: `fp32`, or `bf16` for autocast.
        crop_samples: For ECG encoders that take fewer samples than the pipeline gives: length of the crop.
        crop_starts: Starts of the crops; the embedding is the mean over crops. Evaluation of the reference: (0,).
    """

    batch_size: int = 256
    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    crop_samples: int | None = None
    crop_starts: Sequence[int] = (0,)


def encoder_of(weights: Any, modality: Modality) -> nn.Module:
    """The encoder of a modality: a module itself, or that of a weights folder or a mapping of modules.

    Raises:
        ValueError: When there is no such encoder, naming what there is.
    """
    if isinstance(weights, nn.Module):
        return weights
    modules = weights if isinstance(weights, Mapping) else getattr(weights, "modules", None)
    if not isinstance(modules, Mapping):
        raise ValueError(f"expected a module, a mapping of modules or loaded weights, got {type(weights).__name__}")
    for name in (modality, f"{modality}_encoder", f"encoder_{modality}"):
        if name in modules:
            found = modules[name]
            assert isinstance(found, nn.Module), "modules hold modules"
            return found
    raise ValueError(f"these weights hold no {modality} encoder; they hold {sorted(modules)}")


def embed(
    weights: Any,
    dataset: BatchSource,
    modality: Modality = "ecg",
    indices: ArrayLike | None = None,
    options: EmbedOptions | None = None,
    projection: nn.Module | None = None,
) -> Embeddings:
    """Embed a dataset.

    The module is put into eval mode for the time of the call and runs under `torch.inference_mode`; nothing is
    augmented, so two calls give the same numbers.

    Args:
        weights: Encoder, or what `encoder_of` takes; its forward maps (B, ...) to (B, D).
        dataset: See `BatchSource`.
        modality: `ecg` or `cmr`; items without it are left out.
        indices: Items to embed, in this order; all when absent.
        options: See `EmbedOptions`.
        projection: Head that is applied after the encoder (for retrieval in the shared space).

    Raises:
        ValueError: When no item has the modality, or an embedding is not finite.
    """
    if modality not in ("ecg", "cmr"):
        raise ValueError(f"modality must be 'ecg' or 'cmr', got {modality!r}")
    options = options or EmbedOptions()
    chain = [encoder_of(weights, modality)] + ([] if projection is None else [projection])
    wanted = np.arange(len(dataset)) if indices is None else np.asarray(indices, dtype=np.int64)
    was_training = [[(m, m.training) for m in module.modules()] for module in chain]
    parts: list[tuple[NDArray[Any], ...]] = []
    try:
        for module in chain:
            module.to(options.device).eval()
        for start in range(0, len(wanted), options.batch_size):
            rows = wanted[start : start + options.batch_size]
            part = _embed_batch(chain, dataset.batch(rows), rows, modality, options)
            if len(part[0]):  # a batch in which nobody has the modality has no width either
                parts.append(part)
    finally:
        for states in was_training:
            for module, training in states:
                module.training = training
    if not parts:
        raise ValueError(f"none of the {len(wanted)} items has {modality.upper()} data")
    values, subjects, kept, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise ValueError(f"{int(bad.sum())} embedding(s) are not finite, first for item {int(kept[bad][0])}")
    return Embeddings(values, subjects, kept, labels)


def input_length(weights: Any) -> int:
    """Samples that the ECG encoder of loaded weights takes."""
    config: Any = encoder_of(weights, "ecg").config
    return int(config["n_samples"])


def window_options(weights: Any, modality: Modality, n_samples: int, windows: int = 4) -> EmbedOptions:
    """Options that cover a recording with windows side by side: the embedding is their mean.

    Args:
        weights: See `encoder_of`.
        modality: Studies have no windows.
        n_samples: Length of a prepared recording [samples].
        windows: At most this many, from the start on.
    """
    if modality == "cmr":
        return EmbedOptions()
    length = input_length(weights)
    return EmbedOptions(crop_samples=length, crop_starts=tuple(range(0, n_samples - length + 1, length))[:windows])


def _embed_batch(
    chain: Sequence[nn.Module], batch: Batch, rows: NDArray[np.int64], modality: Modality, options: EmbedOptions
) -> tuple[NDArray[Any], ...]:
    has = batch["has_ecg"] if modality == "ecg" else batch["has_cmr"]
    x = (batch["ecg"] if modality == "ecg" else batch["cmr"])[has]
    labels = torch.where(batch["label_mask"], batch["labels"].double(), torch.nan)[has]
    keep = has.cpu().numpy()
    if not keep.any():
        return np.zeros((0, 0), np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64), labels.cpu().numpy()
    with torch.inference_mode(), _autocast(options):
        total: Tensor | None = None
        crops = _crops(x, options) if modality == "ecg" else [x]
        for crop in crops:
            out = crop.to(options.device, non_blocking=True)
            for module in chain:
                out = module(out)
            total = out.float() if total is None else total + out.float()
    assert total is not None, "there is at least one crop"
    values = (total / len(crops)).cpu().numpy().astype(np.float32)
    subjects = batch["subject"][has].cpu().numpy().astype(np.int64)
    return values, subjects, rows[keep], labels.cpu().numpy()


def _crops(ecg_BLT: Tensor, options: EmbedOptions) -> list[Tensor]:
    length = options.crop_samples
    if length is None:
        return [ecg_BLT]
    available = ecg_BLT.shape[-1]
    outside = [start for start in options.crop_starts if start < 0 or start + length > available]
    if outside or not options.crop_starts:
        raise ValueError(f"crops of {length} samples at {tuple(options.crop_starts)} leave the {available} samples")
    return [ecg_BLT[..., start : start + length] for start in options.crop_starts]


def _autocast(options: EmbedOptions) -> AbstractContextManager[Any]:
    if options.precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(options.device).type, dtype=torch.bfloat16)
