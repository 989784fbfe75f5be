"""How well labels are predicted on the validation subjects, to choose the best weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ecgcmr.cohort.batch import Batch


@runtime_checkable
class PredictsLabels(Protocol):
    """An objective whose representations give predictions of the labels, (B, K) in their units."""

    def label_values(self, rows: Mapping[str, Tensor]) -> Tensor:
        """Predict."""


def label_row(predicted: Tensor, batch: Batch, names: tuple[str, ...]) -> dict[str, float]:
    """Give r or AUROC of each label, and `r` and `auroc`, their means; a label without variation is left out.

    Args:
        predicted: (N, K), of all validation samples.
        batch: The same samples, with labels and their mask.
        names: The K labels.
    """
    values, truth = predicted.cpu().numpy(), batch["labels"].cpu().numpy()
    observed = batch["label_mask"].cpu().numpy()
    found: dict[str, float] = {}
    means: dict[str, list[float]] = {"r": [], "auroc": []}
    for k, name in enumerate(names):
        seen = observed[:, k]
        kind, value = _score(truth[seen, k], values[seen, k])
        if value is not None:
            found[f"{kind}_{name}"] = value
            means[kind].append(value)
    return {kind: float(np.mean(each)) for kind, each in means.items() if each} | found


def _score(truth: NDArray[np.float32], predicted: NDArray[np.float32]) -> tuple[str, float | None]:
    values = np.unique(truth)
    if len(values) == 2 and set(values.tolist()) == {0.0, 1.0}:
        if not np.isfinite(predicted).all():
            return "auroc", None
        return "auroc", float(roc_auc_score(truth, predicted))
    if len(values) < 2 or not np.std(predicted) > 0:
        return "r", None
    return "r", float(np.corrcoef(truth, predicted)[0, 1])
