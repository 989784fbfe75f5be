"""Prediction head: phenotypes in their own units and probabilities of diagnoses, from one embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ecgcmr.models.config import ClassHeadConfig, HeadConfig


class PredictionHead(nn.Module):
    """Maps an embedding to one output for each label.

    `forward` gives raw outputs: the standardized value of a regression label, the logit of a binary one. `predict`
    gives original units and probabilities, which of the values of one category sum to 1; mean and standard deviation
    of the training targets are buffers, so that they travel with the weights.
    """

    mean: Tensor
    std: Tensor
    is_binary: Tensor

    def __init__(self, config: HeadConfig | dict[str, Any]) -> None:
        super().__init__()
        config = HeadConfig.model_validate(config)
        if config.in_features is None or not config.labels:
            raise ValueError(
                "HeadConfig.in_features and .labels must be set: the embedding width and at least one label"
            )
        self.config: dict[str, Any] = config.model_dump()
        self.label_names = tuple(label.name for label in config.labels)
        n_labels = len(config.labels)
        if config.hidden is None:
            self.layers = nn.Sequential(nn.Linear(config.in_features, n_labels))
        else:
            self.layers = nn.Sequential(
                nn.Linear(config.in_features, config.hidden), nn.GELU(), nn.Linear(config.hidden, n_labels)
            )
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.trunc_normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
        self.register_buffer("mean", torch.zeros(n_labels))
        self.register_buffer("std", torch.ones(n_labels))
        binary = torch.tensor([label.kind == "binary" for label in config.labels])
        self.register_buffer("is_binary", binary, persistent=False)
        members: dict[str, list[int]] = {}
        for place, label in enumerate(config.labels):
            if label.one_of:
                members.setdefault(label.one_of, []).append(place)
        self.categories = {name: tuple(places) for name, places in members.items()}

    def set_statistics(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set mean and standard deviation [unit of the label] of the training targets; a binary label keeps 0 and 1."""
        if not len(mean) == len(std) == len(self.label_names):
            raise ValueError(f"got {len(mean)} means and {len(std)} deviations for {len(self.label_names)} labels")
        self.mean.copy_(torch.where(self.is_binary, 0.0, torch.tensor(mean, dtype=torch.float64)))
        self.std.copy_(torch.where(self.is_binary, 1.0, torch.tensor(std, dtype=torch.float64)))

    def standardize(self, labels: Tensor) -> Tensor:
        """Turn labels [units] (B, K) into targets: (label - mean) / std; binary labels stay 0 or 1."""
        return (labels - self.mean) / self.std

    def forward(self, embedding: Tensor) -> Tensor:
        """Give raw outputs, (B, D) to (B, K)."""
        in_features = self.config["in_features"]
        if embedding.ndim != 2 or embedding.shape[1] != in_features:
            raise ValueError(f"head input has shape {tuple(embedding.shape)}, expected (B, {in_features})")
        return self.layers(embedding)

    def predict(self, embedding: Tensor) -> Tensor:
        """Give predictions, (B, D) to (B, K): original units for regression labels, probabilities for binary ones."""
        return self.in_units(self.forward(embedding))

    def in_units(self, raw: Tensor) -> Tensor:
        """Turn raw outputs (B, K) into original units and probabilities."""
        values = torch.where(self.is_binary, raw.sigmoid(), raw * self.std + self.mean)
        if not self.categories:
            return values
        columns = list(values.unbind(1))
        for places in self.categories.values():
            for place, share in zip(places, raw[:, places].softmax(1).unbind(1), strict=True):
                columns[place] = share
        return torch.stack(columns, 1)


class ClassHead(PredictionHead):
    """Classes that exclude each other: `forward` gives a logit for each, `predict` the softmax over them."""

    def __init__(self, config: ClassHeadConfig | dict[str, Any]) -> None:
        config = ClassHeadConfig.model_validate(config)
        super().__init__(HeadConfig(in_features=config.in_features, labels=config.labels))
        self.config = config.model_dump()

    def predict(self, embedding: Tensor) -> Tensor:
        """Give probabilities, (B, D) to (B, K); each row sums to 1."""
        return self.forward(embedding).softmax(dim=-1)
