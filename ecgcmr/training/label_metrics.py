"""How well labels are predicted on the validation subjects, to choose the best weights."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ecgcmr.cohort.batch import Batch
from ecgcmr.models.distributed import gather_rows


@runtime_checkable
class PredictsLabels(Protocol):
    """An objective that predicts the labels of a batch, (B, K) in their units."""

    def predict(self, batch: Batch) -> Tensor:
        """Predict in evaluation mode."""


class LabelTable:
    """Predictions and truths of all processes, batch by batch."""

    def __init__(self, objective: PredictsLabels) -> None:
        self._objective = objective
        self._rows: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, batch: Batch) -> None:
        """Predict one batch; every process must call it alike."""
        predicted = self._objective.predict(batch).float()
        parts = (predicted, batch["labels"], batch["label_mask"])
        self._rows.append(tuple(gather_rows(part).cpu() for part in parts))  # type: ignore[arg-type]

    def row(self, names: tuple[str, ...]) -> dict[str, float]:
        """Give r or AUROC of each label, and `r` and `auroc`, their means; a label without variation is left out."""
        predicted, truth, observed = (np.concatenate([row[part].numpy() for row in self._rows]) for part in range(3))
        found: dict[str, float] = {}
        means: dict[str, list[float]] = {"r": [], "auroc": []}
        for k, name in enumerate(names):
            seen = observed[:, k].astype(bool)
            kind, value = _score(truth[seen, k], predicted[seen, k])
            if value is not None:
                found[f"{kind}_{name}"] = value
                means[kind].append(value)
        return {kind: float(np.mean(values)) for kind, values in means.items() if values} | found


def _score(truth: NDArray[np.float32], predicted: NDArray[np.float32]) -> tuple[str, float | None]:
    values = np.unique(truth)
    if len(values) == 2 and set(values.tolist()) == {0.0, 1.0}:
        if not np.isfinite(predicted).all():
            return "auroc", None
        return "auroc", float(roc_auc_score(truth, predicted))
    if len(values) < 2 or not np.std(predicted) > 0:
        return "r", None
    return "r", float(np.corrcoef(truth, predicted)[0, 1])
