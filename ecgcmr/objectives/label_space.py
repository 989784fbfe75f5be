"""Labels as coordinates of subjects: standardised, with missing ones, and the distances and similarities they give."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ecgcmr.cohort.batch import Batch
from ecgcmr.objectives.facts import DataFacts

Seen = tuple[Tensor, Tensor]
"""Labels (B, K), 0 where missing, and whether they are observed (B, K)."""


class LabelSpace(nn.Module):
    """Standardises measurements by the training subjects; other labels stay as they are. Nothing is saved."""

    mean: Tensor
    std: Tensor

    def __init__(self, facts: DataFacts, objective: str, measurements_only: bool = False) -> None:
        """Take the statistics.

        Args:
            facts: With the labels.
            objective: Name of the objective, for messages.
            measurements_only: Refuse labels that are not measurements.

        Raises:
            ValueError: If there are no labels, or some that this objective cannot use.
        """
        super().__init__()
        if not facts.labels:
            raise ValueError(
                f"objective.name={objective} needs labels to tell who is similar; name them in data.labels"
            )
        others = [fact.name for fact in facts.labels if fact.kind != "regression"]
        if measurements_only and others:
            raise ValueError(
                f"objective.name={objective} reads measurements; {', '.join(others)} in data.labels "
                f"{'is none' if len(others) == 1 else 'are none'}: leave out what is not measured"
            )
        measured = [fact.kind == "regression" for fact in facts.labels]
        means = [fact.mean if is_measured else 0.0 for fact, is_measured in zip(facts.labels, measured, strict=True)]
        stds = [fact.std if is_measured else 1.0 for fact, is_measured in zip(facts.labels, measured, strict=True)]
        self.register_buffer("mean", torch.tensor(means), persistent=False)
        self.register_buffer("std", torch.tensor(stds), persistent=False)

    def forward(self, batch: Batch, like: Tensor) -> Seen:
        """Give the labels of a batch in standard deviations, in the type of `like`, 0 where missing, and the mask."""
        seen = batch["label_mask"]
        return torch.where(seen, (batch["labels"].to(like.dtype) - self.mean) / self.std, 0.0), seen


def label_distance(rows: Seen, columns: Seen) -> tuple[Tensor, Tensor]:
    """Mean squared difference (B, G) of the labels that both have, and how many those are (B, G)."""
    (a, seen_a), (b, seen_b) = rows, columns
    ma, mb = seen_a.to(a.dtype), seen_b.to(b.dtype)
    a, b = a * ma, b * mb
    shared = ma @ mb.T
    distance = (a.square() @ mb.T + ma @ b.square().T - 2 * a @ b.T).clamp(min=0) / shared.clamp(min=1)
    return distance, shared


def gaussian_similarity(rows: Seen, columns: Seen, width: float) -> Tensor:
    """exp(-d / (2 width^2)) of the distance d of labels, (B, G) in [0, 1]; 0 where two share no label."""
    distance, shared = label_distance(rows, columns)
    return torch.where(shared > 0, (-distance / (2 * width**2)).exp(), torch.zeros_like(distance))


def cosine_similarity(rows: Seen, columns: Seen) -> Tensor:
    """Cosine (B, G) of the labels that both have, in standard deviations; 0 where they share none or one is all 0."""
    (a, seen_a), (b, seen_b) = rows, columns
    ma, mb = seen_a.to(a.dtype), seen_b.to(b.dtype)
    a, b = a * ma, b * mb
    squares = (a.square() @ mb.T) * (ma @ b.square().T)
    product = a @ b.T
    return torch.where(squares > 0, product / squares.clamp(min=1e-30).sqrt(), torch.zeros_like(product)).clamp(-1, 1)
