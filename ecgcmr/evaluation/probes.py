"""Probes on frozen embeddings: ridge for measurements, logistic regression for diagnoses.

The strength of the penalty is chosen within the training subjects, for each target: ridge by exact leave-one-out
(scikit-learn's generalised cross-validation), logistic regression by folds that are stratified and grouped by
subject. Where a subject has several rows, ridge is grouped too, because leaving out one row of a subject whose other
rows stay would choose too weak a penalty. Test subjects play no part.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GroupKFold, StratifiedKFold
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

Array = NDArray[np.float64]
logger = logging.getLogger(__name__)

ALPHAS = tuple(float(a) for a in np.logspace(-1, 6, 22))
INVERSE_PENALTIES = tuple(float(c) for c in np.logspace(-4, 1, 6))


class _Standardiser:
    """Zero mean and unit variance by training rows; a constant feature becomes 0."""

    def __init__(self, x: Array) -> None:
        self.mean = x.mean(axis=0)
        spread = x.std(axis=0)
        self.scale = np.where(spread > 1e-12 * (1 + np.abs(self.mean)), spread, np.inf)

    def __call__(self, x: Array) -> Array:
        return (x - self.mean) / self.scale


class RidgeProbe:
    """Ridge regression of several targets, each with its own missing labels and, unless shared, its own penalty.

    With a hundred labels the leave-one-out error of one target is too noisy to choose a penalty by: now and then it
    takes one that is far too weak. `share_penalty` takes the penalty with the smallest error summed over the targets
    that are observed in the same rows, each in units of its standard deviation. It has no effect where subjects have
    several rows.

    Attributes:
        alphas: Chosen penalty of each target (K,); NaN for a target that could not be fitted.
        reasons: Target name -> why it could not be fitted; its prediction is then the training mean.
    """

    def __init__(self, candidates: Sequence[float] = ALPHAS, n_folds: int = 5, share_penalty: bool = False) -> None:
        self.candidates = tuple(candidates)
        self.n_folds = n_folds
        self.share_penalty = share_penalty
        self.reasons: dict[str, str] = {}

    def fit(
        self, x: ArrayLike, y: ArrayLike, subjects: ArrayLike | None = None, names: Sequence[str] | None = None
    ) -> RidgeProbe:
        """Fit.

        Args:
            x: Embeddings (N, D).
            y: Targets (N, K) or (N,), NaN where unobserved.
            subjects: Subject of each row (N,); one subject a row when absent.
            names: Names of the targets (K,), for `reasons`.
        """
        features, targets, groups, labels = _check(x, y, subjects, names)
        self._standardise = _Standardiser(features)
        z = self._standardise(features)
        k = targets.shape[1]
        self.alphas, self.reasons = np.full(k, np.nan), {}
        self._weights, self._intercepts = np.zeros((z.shape[1], k)), np.zeros(k)
        seen = ~np.isnan(targets)
        patterns: dict[bytes, list[int]] = {}
        for j in range(k):
            observed = targets[seen[:, j], j]
            if observed.size < 3 or np.ptp(observed) == 0:
                self.reasons[labels[j]] = f"{observed.size} observed labels with {np.unique(observed).size} value(s)"
                self._intercepts[j] = observed.mean() if observed.size else 0.0
                logger.warning("ridge probe: %s is not fitted: %s", labels[j], self.reasons[labels[j]])
            else:
                patterns.setdefault(seen[:, j].tobytes(), []).append(j)
        # Targets that are observed in the same rows share one decomposition.
        for columns in patterns.values():
            rows = seen[:, columns[0]]
            self._fit_columns(z[rows], targets[rows], groups[rows], columns)
        return self

    def _fit_columns(self, z: Array, targets: Array, groups: NDArray[np.int64], columns: list[int]) -> None:
        n_groups = np.unique(groups).size
        if n_groups == len(groups):
            y = targets[:, columns]
            spread = y.std(axis=0)  # so that no target decides a shared penalty by its unit
            model = RidgeCV(alphas=self.candidates, alpha_per_target=not self.share_penalty).fit(z, y / spread)
            self.alphas[columns] = model.alpha_
            self._weights[:, columns] = np.reshape(model.coef_, (len(columns), -1)).T * spread
            self._intercepts[columns] = model.intercept_ * spread
            return
        folds = list(GroupKFold(max(2, min(self.n_folds, n_groups))).split(z, groups=groups)) if n_groups > 1 else None
        for j in columns:
            model = RidgeCV(alphas=self.candidates, cv=folds, scoring="neg_mean_squared_error").fit(z, targets[:, j])
            self.alphas[j] = model.alpha_
            self._weights[:, j] = model.coef_
            self._intercepts[j] = model.intercept_

    def predict(self, x: ArrayLike) -> Array:
        """Predictions (N, K) in the unit of the targets."""
        return self._standardise(np.asarray(x, dtype=np.float64)) @ self._weights + self._intercepts


class LogisticProbe:
    """Logistic regression of several binary targets (L2, lbfgs), each with its own penalty and missing labels.

    Attributes:
        inverse_penalties: Chosen C of each target (K,); NaN for a target that could not be fitted.
        reasons: Target name -> why it could not be fitted. Its prediction is then the constant (positives + 1/2) /
            (rows + 1), which has AUROC 0.5.
    """

    def __init__(self, candidates: Sequence[float] = INVERSE_PENALTIES, n_folds: int = 4) -> None:
        self.candidates = tuple(sorted(candidates))
        self.n_folds = n_folds
        self.reasons: dict[str, str] = {}

    def fit(
        self, x: ArrayLike, y: ArrayLike, subjects: ArrayLike | None = None, names: Sequence[str] | None = None
    ) -> LogisticProbe:
        """Fit.

        Args:
            x: Embeddings (N, D).
            y: 0/1 labels (N, K) or (N,), NaN where unobserved.
            subjects: Subject of each row (N,); one subject a row when absent.
            names: Names of the targets (K,), for `reasons`.
        """
        features, targets, groups, labels = _check(x, y, subjects, names)
        if not np.isin(targets[~np.isnan(targets)], (0.0, 1.0)).all():
            raise ValueError("labels of a logistic probe must be 0, 1 or NaN; use RidgeProbe for measurements")
        self._standardise = _Standardiser(features)
        z = self._standardise(features)
        k = targets.shape[1]
        self.inverse_penalties, self.reasons = np.full(k, np.nan), {}
        self._weights, self._intercepts = np.zeros((z.shape[1], k)), np.zeros(k)
        for j in range(k):
            rows = ~np.isnan(targets[:, j])
            label = targets[rows, j].astype(np.int64)
            if np.unique(label).size < 2:
                kind = f"all {label.size} have class {label[0]}" if label.size else "none is observed"
                self.reasons[labels[j]] = f"one class only among the training labels: {kind}"
                share = (label.sum() + 0.5) / (label.size + 1)
                self._intercepts[j] = np.log(share / (1 - share))
                logger.warning("logistic probe: %s is not fitted: %s", labels[j], self.reasons[labels[j]])
                continue
            self.inverse_penalties[j] = self._choose(z[rows], label, groups[rows])
            model = _logistic(z[rows], label, [self.inverse_penalties[j]], 1e-5)[0]
            self._weights[:, j], self._intercepts[j] = model
        return self

    def _choose(self, z: Array, label: NDArray[np.int64], groups: NDArray[np.int64]) -> float:
        """C of the smallest held-out log loss; the strongest penalty when a class has a single subject."""
        subjects, member = np.unique(groups, return_inverse=True)
        # A subject is of the positive stratum when any of its rows is: folds are made of subjects, not of rows.
        stratum = np.zeros(subjects.size, dtype=np.int64)
        np.maximum.at(stratum, member, label)
        rarest = int(np.bincount(stratum, minlength=2).min())
        if rarest < 2:
            return self.candidates[0]
        folds = StratifiedKFold(min(self.n_folds, rarest), shuffle=True, random_state=0)
        loss = np.zeros(len(self.candidates))
        for _, held_subjects in folds.split(stratum[:, None], stratum):
            held = np.isin(member, held_subjects)
            train = ~held
            if np.unique(label[train]).size < 2:
                continue
            for i, (weights, intercept) in enumerate(_logistic(z[train], label[train], self.candidates, 1e-4)):
                score = z[held] @ weights + intercept
                loss[i] += np.sum(np.logaddexp(0.0, score) - label[held] * score)
        return self.candidates[int(np.argmin(loss))]

    def predict(self, x: ArrayLike) -> Array:
        """Probabilities of the positive class (N, K)."""
        score = self._standardise(np.asarray(x, dtype=np.float64)) @ self._weights + self._intercepts
        return np.asarray(1 / (1 + np.exp(-np.clip(score, -500, 500))))


def _logistic(
    z: Array, label: NDArray[np.int64], penalties: Sequence[float], tolerance: float
) -> list[tuple[Array, float]]:
    """(weights, intercept) for rising C, each started from the one before."""
    model = LogisticRegression(solver="lbfgs", warm_start=True, tol=tolerance, max_iter=500)
    found = []
    # The products are small: a second BLAS thread costs five times what it saves.
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for c in penalties:
            model.set_params(C=c).fit(z, label)
            found.append((model.coef_[0].copy(), float(model.intercept_[0])))
    return found


def _check(
    x: ArrayLike, y: ArrayLike, subjects: ArrayLike | None, names: Sequence[str] | None
) -> tuple[Array, Array, NDArray[np.int64], list[str]]:
    features, targets = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    targets = targets[:, None] if targets.ndim == 1 else targets
    if features.ndim != 2 or targets.ndim != 2 or len(features) != len(targets) or not len(features):
        raise ValueError(
            f"embeddings {features.shape} and targets {targets.shape} must have the same rows (N, D), (N, K)"
        )
    if not np.isfinite(features).all():
        raise ValueError(f"{int((~np.isfinite(features)).any(axis=1).sum())} embeddings hold NaN or infinity")
    groups = np.arange(len(features)) if subjects is None else np.asarray(subjects, dtype=np.int64)
    labels = [f"target {j}" for j in range(targets.shape[1])] if names is None else list(names)
    if len(groups) != len(features) or len(labels) != targets.shape[1]:
        raise ValueError(f"{len(groups)} subjects and {len(labels)} names for targets of shape {targets.shape}")
    return features, targets, groups, labels
