"""Zero-shot classification: the class whose mean embedding is most similar.

A prototype is the mean of the unit embeddings of a class of the gallery, scaled to length 1 (prototypical networks,
arXiv 1703.05175). With CMR prototypes an ECG is classified without a single labelled ECG. Cosines are no
probabilities: a slope and an offset for each class are fitted on validation subjects (Platt scaling; for two classes
it is logistic regression on the difference of the two cosines).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from ecgcmr.evaluation.neighbours.search import unit_rows

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Prototypes:
    """Mean embeddings of classes.

    Attributes:
        names: Names of the classes (C,).
        vectors: Prototypes (C, D), of length 1.
        counts: Rows of the gallery in each class (C,).
        slope: Factor of the cosines in the logits; None before `calibrate`.
        offsets: Offset of each class in the logits (C,), the first is 0.
    """

    names: tuple[str, ...]
    vectors: Array
    counts: tuple[int, ...]
    slope: float | None = None
    offsets: tuple[float, ...] = ()

    def cosines(self, embeddings: ArrayLike) -> Array:
        """Cosine of embeddings (Q, D) with each prototype, (Q, C)."""
        return np.asarray(unit_rows("embeddings", embeddings, np.float64) @ self.vectors.T)

    def choose(self, embeddings: ArrayLike) -> NDArray[np.int64]:
        """Number of the most similar class (Q,); needs no calibration."""
        return np.argmax(self.cosines(embeddings), axis=1).astype(np.int64)

    def calibrate(self, embeddings: ArrayLike, classes: ArrayLike) -> Prototypes:
        """Fit slope and offsets on validation subjects.

        Args:
            embeddings: (Q, D), of the modality that will be classified.
            classes: Class of each as in `fit_prototypes` (Q,); missing ones are left out.

        Raises:
            ValueError: A class of the prototypes does not occur.
        """
        codes = _codes(classes, self.names)
        seen = codes >= 0
        counts = np.bincount(codes[seen], minlength=len(self.names))
        if (counts == 0).any():
            missing = ", ".join(name for name, n in zip(self.names, counts, strict=True) if n == 0)
            raise ValueError(f"no validation subject of class {missing}: probabilities can not be calibrated")
        cosine, truth = self.cosines(embeddings)[seen], codes[seen]
        start = np.zeros(len(self.names))
        start[0] = 1.0
        fitted = minimize(_loss, start, (cosine, truth), jac=True, method="BFGS", options={"gtol": 1e-8})
        return replace(self, slope=float(fitted.x[0]), offsets=(0.0, *(float(b) for b in fitted.x[1:])))

    def probabilities(self, embeddings: ArrayLike) -> Array:
        """Calibrated probability of each class (Q, C).

        Raises:
            ValueError: Before `calibrate`.
        """
        if self.slope is None:
            raise ValueError("these prototypes give cosines, not probabilities: call calibrate on validation subjects")
        logits = self.slope * self.cosines(embeddings) + np.asarray(self.offsets)
        return _softmax(logits)


def fit_prototypes(vectors: ArrayLike, classes: ArrayLike, names: Sequence[str] | None = None) -> Prototypes:
    """Mean embedding of every class.

    Args:
        vectors: Embeddings of the gallery (N, D).
        classes: Class of each (N,): 0 and 1 for a diagnosis, or words; NaN, None and "" are left out.
        names: Names of the classes in order; by default the sorted classes that occur, "0" and "1" for a diagnosis.

    Raises:
        ValueError: Fewer than two classes, or one without a row.
    """
    v = unit_rows("gallery", vectors, np.float64)
    words = _words(classes)
    if len(words) != len(v):
        raise ValueError(f"{len(words)} classes for {len(v)} vectors")
    names = tuple(sorted({word for word in words if word})) if names is None else tuple(names)
    if len(names) < 2:
        raise ValueError(f"prototypes need at least two classes, got {', '.join(names) or 'none'}")
    codes = _codes(classes, names)
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    if (counts == 0).any():
        missing = ", ".join(name for name, n in zip(names, counts, strict=True) if n == 0)
        raise ValueError(f"the gallery has no subject of class {missing}")
    means = np.stack([v[codes == code].mean(axis=0) for code in range(len(names))])
    return Prototypes(names, np.asarray(unit_rows("prototypes", means, np.float64)), tuple(int(n) for n in counts))


def _words(classes: ArrayLike) -> list[str]:
    """Classes as words; "" where missing, whole numbers without decimals."""
    found = []
    for value in np.asarray(classes, dtype=object).tolist():
        if value is None or (isinstance(value, float) and np.isnan(value)):
            found.append("")
        elif isinstance(value, float | bool | int) and float(value).is_integer():
            found.append(str(int(value)))
        else:
            found.append(str(value))
    return found


def _codes(classes: ArrayLike, names: Sequence[str]) -> NDArray[np.int64]:
    place = {name: code for code, name in enumerate(names)}
    words = _words(classes)
    unknown = sorted({word for word in words if word and word not in place})
    if unknown:
        raise ValueError(f"class {unknown[0]!r} is none of {', '.join(names)}")
    return np.array([place.get(word, -1) for word in words], dtype=np.int64)


def _softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def _loss(parameters: Array, cosine: Array, truth: NDArray[np.int64]) -> tuple[float, Array]:
    """Mean negative log-likelihood and its gradient; a trace of ridge keeps separable classes finite."""
    offsets = np.concatenate([[0.0], parameters[1:]])
    p = _softmax(parameters[0] * cosine + offsets)
    n = len(truth)
    ridge = 1e-8
    loss = -np.log(np.maximum(p[np.arange(n), truth], 1e-300)).mean() + 0.5 * ridge * float(parameters @ parameters)
    error = p.copy()
    error[np.arange(n), truth] -= 1.0
    gradient = np.concatenate([[(error * cosine).sum()], error[:, 1:].sum(axis=0)]) / n + ridge * parameters
    return float(loss), gradient
