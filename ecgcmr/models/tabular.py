"""Tabular inputs to an embedding: age, sex, body mass index and whatever else a run names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ecgcmr.cohort.tabular import feature_names
from ecgcmr.models.config import TabularConfig


def tabular_input(values: Tensor, known: Tensor) -> Tensor:
    """Put features (B, C) and which are known (B, C) side by side, (B, 2 C); what is missing is 0, the mean."""
    values = torch.where(known, values, torch.zeros((), dtype=values.dtype, device=values.device))
    return torch.cat([values, known.to(values.dtype)], dim=1)


class TabularEncoder(nn.Module):
    """Linear, GELU, dropout, Linear over features and masks, so that a missing value is told from the mean."""

    def __init__(self, config: TabularConfig | dict[str, Any]) -> None:
        super().__init__()
        config = TabularConfig.model_validate(config)
        if not config.columns:
            raise ValueError("TabularConfig.columns is empty: name the columns in data.tabular")
        self.config: dict[str, Any] = config.model_dump()
        self.columns = config.columns
        self.features = feature_names(config.columns)
        self.embed_dim = config.width
        self.layers = nn.Sequential(
            nn.Linear(2 * len(self.features), config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.width),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Embed what `tabular_input` gives, (B, 2 C) to (B, width)."""
        wanted = 2 * len(self.features)
        if features.ndim != 2 or features.shape[1] != wanted:
            raise ValueError(
                f"tabular input has shape {tuple(features.shape)}, expected (B, {wanted}): values and masks of "
                f"{', '.join(self.features)}"
            )
        return self.layers(features)

    def unknown(self, rows: int) -> Tensor:
        """Give the input of which nothing is known (B, 2 C)."""
        return next(self.parameters()).new_zeros((rows, 2 * len(self.features)))
