"""Cox regression with a few covariates: Newton's method on the partial likelihood, ties after Efron.

For risk scores of age and sex, and for combining two scores. The likelihood is concave, so Newton steps that are
halved where it would fall always arrive (Cox, JRSS B 1972, 10.1111/j.2517-6161.1972.tb00899.x; ties: Efron, JASA 1977,
10.1080/01621459.1977.10480613). The gradient of a network is another matter and lives in `objectives.survival`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_MAX_STEPS = 50
_MAX_HALVINGS = 30
_SETTLED = 1e-10


class CoxFit(NamedTuple):
    """A fitted Cox model: log relative hazard = (x - mean) @ coefficients.

    Attributes:
        coefficients: Log hazard ratio for each unit of each covariate (D,).
        mean: Mean of the covariates (D,).
        n: Rows.
        n_events: Events among them.
    """

    coefficients: Array
    mean: Array
    n: int
    n_events: int

    def score(self, x: ArrayLike) -> Array:
        """Log relative hazard (N,) of covariates (N, D)."""
        return np.asarray((np.asarray(x, dtype=np.float64) - self.mean) @ self.coefficients)


def fit_cox(x: ArrayLike, time: ArrayLike, event: ArrayLike, penalty: float = 0.0) -> CoxFit:
    """Fit by maximum partial likelihood.

    Args:
        x: Covariates (N, D), finite.
        time: Follow-up (N,).
        event: 1 seen, 0 censored (N,).
        penalty: Weight of half the squared coefficients of standardized covariates: 1 is a normal prior with a
            standard deviation of 1, which decides only where there are hardly any events.

    Raises:
        ValueError: Shapes that do not fit, values that are not finite, no event, or a likelihood without a maximum
            (a covariate that orders all events; a penalty gives it one).
    """
    features, t, seen = np.asarray(x, dtype=np.float64), np.asarray(time, np.float64), np.asarray(event) > 0.5
    if features.ndim != 2 or t.shape != (len(features),) or seen.shape != t.shape:
        raise ValueError(
            f"covariates {features.shape}, time {t.shape} and event {seen.shape} must be (N, D), (N,), (N,)"
        )
    if not (np.isfinite(features).all() and np.isfinite(t).all()):
        raise ValueError("covariates and follow-up times must be finite; leave out rows that were not at risk")
    if not seen.any():
        raise ValueError(f"no event among {len(t)} rows: a Cox model cannot be fitted")
    mean, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 1e-12 * (1 + np.abs(mean)), spread, np.inf)  # a constant column gets a coefficient of 0
    risk = PartialLikelihood((features - mean) / spread, t, seen, penalty)
    beta = np.zeros(features.shape[1])
    value, gradient, curvature = risk(beta)
    for _ in range(_MAX_STEPS):
        step = np.linalg.pinv(curvature, hermitian=True) @ gradient
        for _ in range(_MAX_HALVINGS):
            new, *slopes = risk(beta + step)
            if new >= value - 1e-12 * (1 + abs(value)):
                break
            step /= 2
        beta, value, (gradient, curvature) = beta + step, new, slopes
        if np.abs(beta).max(initial=0.0) > 50:
            break
        if np.abs(step).max(initial=0.0) < _SETTLED:
            return CoxFit(beta / spread, mean, len(t), int(seen.sum()))
    raise ValueError(
        f"the partial likelihood of {int(seen.sum())} events among {len(t)} rows has no maximum: a covariate orders "
        "them all; use fewer covariates or a penalty"
    )


class PartialLikelihood:
    """The log partial likelihood with its gradient and minus its Hessian, for rows that are sorted once."""

    def __init__(self, z: Array, time: Array, seen: NDArray[np.bool_], penalty: float = 0.0) -> None:
        order = np.argsort(-time, kind="stable")
        self.z, self.seen, self.penalty = z[order], seen[order], penalty
        falling = -time[order]
        # Risk set of a row: everybody sorted before the end of the rows with its time.
        self.end = np.searchsorted(falling, falling[self.seen], side="right")
        _, first, group, count = np.unique(
            falling[self.seen], return_index=True, return_inverse=True, return_counts=True
        )
        self.group = group
        # Efron: of m events at one time, number l counts the m tied ones only by the share 1 - l / m.
        self.share = (np.arange(len(group)) - first[group]) / count[group]

    def __call__(self, beta: Array) -> tuple[float, Array, Array]:
        """Value, gradient (D,) and minus the Hessian (D, D) at coefficients (D,)."""
        score = self.z @ beta
        shift = score.max()
        hazard = np.exp(score - shift)
        events = self.z[self.seen]
        first = hazard[:, None] * self.z
        second = first[:, :, None] * self.z[:, None, :]
        sums = [self._left(column) for column in (hazard, first, second)]
        total, slope = sums[0], sums[1] / sums[0][:, None]
        value = float(score[self.seen].sum() - (np.log(total) + shift).sum() - 0.5 * self.penalty * beta @ beta)
        gradient = events.sum(axis=0) - slope.sum(axis=0) - self.penalty * beta
        curvature = (sums[2] / total[:, None, None]).sum(axis=0) - slope.T @ slope + self.penalty * np.eye(len(beta))
        return value, gradient, curvature

    def _left(self, column: Array) -> Array:
        """Sum over the risk set of each event, less Efron's share of the events of that time (E, ...)."""
        at_risk = column.cumsum(axis=0)[self.end - 1]
        died = np.zeros((self.group.max() + 1, *column.shape[1:]))
        np.add.at(died, self.group, column[self.seen])
        share = self.share.reshape(-1, *(1,) * (column.ndim - 1))
        return np.asarray(at_risk - share * died[self.group])
