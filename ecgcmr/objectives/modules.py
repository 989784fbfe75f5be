"""Building an objective's modules so that they fit the data, and freezing them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ecgcmr.models.cine import CineTransformer
from ecgcmr.models.cmr import TimmEncoder, build_cmr_encoder
from ecgcmr.models.config import HeadConfig, HeadLabel, ModelConfig, TabularConfig
from ecgcmr.models.ecg_vit import EcgViT
from ecgcmr.models.heads import PredictionHead
from ecgcmr.models.projection import ProjectionHead
from ecgcmr.models.tabular import TabularEncoder
from ecgcmr.objectives.facts import DataFacts


def make_ecg_encoder(model: ModelConfig, facts: DataFacts) -> EcgViT:
    """Build the ECG encoder for the input length of the data.

    Raises:
        ValueError: If the model's own `n_samples` is another, or the length is no multiple of the patch.
    """
    wanted = model.ecg.n_samples
    if wanted is not None and wanted != facts.ecg_samples:
        raise ValueError(
            f"model.ecg.n_samples is {wanted} but the data gives {facts.ecg_samples} samples after the crop; "
            "leave n_samples unset or change the crop"
        )
    return EcgViT({**model.ecg.model_dump(), "n_samples": facts.ecg_samples})


def make_cmr_encoder(model: ModelConfig, facts: DataFacts) -> TimmEncoder | CineTransformer:
    """Build the CMR encoder for the shape of the studies.

    Raises:
        ValueError: If the data holds no CMR, or another number of channels than the model's own.
    """
    if facts.cmr_shape is None:
        raise ValueError("this objective needs CMR studies, but the data has none (facts.cmr_shape is None)")
    channels = math.prod(facts.cmr_shape[:-2])
    wanted = model.cmr.in_channels
    if wanted is not None and wanted != channels:
        raise ValueError(
            f"model.cmr.in_channels is {wanted} but a study of shape {facts.cmr_shape} has {channels} frames; "
            "leave in_channels unset or change the CMR pipeline"
        )
    return build_cmr_encoder({**model.cmr.model_dump(), "in_channels": channels})


def make_projection(model: ModelConfig, in_features: int) -> ProjectionHead:
    """Build a projection head behind an encoder of that width."""
    return ProjectionHead.from_config({**model.projection.model_dump(), "in_features": in_features})


def make_tabular_encoder(model: ModelConfig, facts: DataFacts) -> TabularEncoder:
    """Build the encoder of the tabular inputs of the data.

    Raises:
        ValueError: If the data has none, or the model names columns of its own.
    """
    if not facts.tabular:
        raise ValueError("this objective reads tabular inputs; name columns in data.tabular, for instance [age_years]")
    if model.tabular.columns:
        raise ValueError("model.tabular.columns follow from data.tabular; leave them out")
    return TabularEncoder(TabularConfig.model_validate({**model.tabular.model_dump(), "columns": facts.tabular}))


def make_head(model: ModelConfig, in_features: int, facts: DataFacts) -> PredictionHead:
    """Build the prediction head with the training statistics of the labels.

    Raises:
        ValueError: If the data has no labels, or labels of an outcome with follow-up.
    """
    if not facts.labels:
        raise ValueError("supervised learning needs labels; name them in data.labels")
    labels = []
    for fact in facts.labels:
        if fact.kind == "time" or fact.kind == "event":
            raise ValueError(f"label {fact.name!r} is of kind {fact.kind!r}; objective.name=survival learns outcomes")
        labels.append(HeadLabel(name=fact.name, kind=fact.kind, unit=fact.unit, one_of=fact.one_of))
    config = HeadConfig.model_validate({**model.head.model_dump(), "in_features": in_features, "labels": labels})
    head = PredictionHead(config)
    head.set_statistics([fact.mean for fact in facts.labels], [fact.std for fact in facts.labels])
    return head


def freeze(module: nn.Module) -> None:
    """Take a module out of training: no gradients, and statistics and stochastic layers as in evaluation."""
    module.requires_grad_(False)
    module.eval()


def full_precision(like: Tensor) -> torch.autocast:
    """Switch autocast off for a block: geometry, similarities and softmax statistics are not for bfloat16."""
    return torch.autocast(like.device.type, enabled=False)


def wide(x: Tensor) -> Tensor:
    """Compute losses in float32 at least, whatever autocast chose."""
    return x if x.element_size() == 8 else x.float()
