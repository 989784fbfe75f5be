"""Projection heads of the contrastive objectives (arXiv 2002.05709)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ecgcmr.models.config import NormProjectionConfig, ProjectionConfig


class ProjectionHead(nn.Module):
    """Linear, ReLU, Linear with biases; with `batch_norm`, a BatchNorm after each linear layer instead of its bias.

    The reference has no BatchNorm (later versions of its library do): the default follows the reference.
    """

    def __init__(self, in_features: int, hidden: int = 2048, out: int = 128, batch_norm: bool = False) -> None:
        super().__init__()
        config = ProjectionConfig(in_features=in_features, hidden=hidden, out=out, batch_norm=batch_norm)
        self.config: dict[str, Any] = config.model_dump()
        norm = nn.BatchNorm1d if batch_norm else None
        layers: list[nn.Module] = [nn.Linear(in_features, hidden, bias=not batch_norm)]
        layers += [norm(hidden)] if norm else []
        layers += [nn.ReLU(), nn.Linear(hidden, out, bias=not batch_norm)]
        layers += [norm(out)] if norm else []
        self.layers = nn.Sequential(*layers)

    @classmethod
    def from_config(cls, config: ProjectionConfig | dict[str, Any]) -> ProjectionHead:
        """Build from a configuration whose `in_features` is set."""
        config = ProjectionConfig.model_validate(config)
        if config.in_features is None:
            raise ValueError("ProjectionConfig.in_features is not set; it is the embedding width of the encoder")
        return cls(config.in_features, config.hidden, config.out, config.batch_norm)

    def forward(self, embedding: Tensor) -> Tensor:
        """Project, (B, D) to (B, out)."""
        _check_embedding(embedding, self.config["in_features"])
        return self.layers(embedding)


class NormProjection(nn.Module):
    """LayerNorm, Dropout, Linear: the projection head of CARDIAC-FM (doi 10.64898/2026.03.16.26348526)."""

    def __init__(self, config: NormProjectionConfig | dict[str, Any]) -> None:
        super().__init__()
        config = NormProjectionConfig.model_validate(config)
        self.config: dict[str, Any] = config.model_dump()
        self.norm = nn.LayerNorm(config.in_features)
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(config.in_features, config.out)

    def forward(self, embedding: Tensor) -> Tensor:
        """Project, (B, D) to (B, out)."""
        _check_embedding(embedding, self.config["in_features"])
        return self.linear(self.dropout(self.norm(embedding)))


def _check_embedding(embedding: Tensor, in_features: int) -> None:
    if embedding.ndim != 2 or embedding.shape[1] != in_features:
        raise ValueError(f"projection input has shape {tuple(embedding.shape)}, expected (B, {in_features})")
