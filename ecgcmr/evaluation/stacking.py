"""Combining two predictions of one target: stacked generalization with non-negative weights and a prior.

truth ~ intercept + w1 * covariates + w2 * model, on the scale of the target (values, log-odds, log hazards), by least
squares, logistic or Cox regression (Wolpert, Neural Networks 1992, 10.1016/S0893-6080(05)80023-1). Weights are not
negative (Breiman, Machine Learning 1996, 10.1007/BF00117832): a combination that turns a prediction upside down has
learned noise. They have normal priors around (1, 0), that is the covariates alone, with standard deviations
`PRIOR_SD`. Some dozens of subjects can not prove much, and then the combination stays close to the covariates; a
model whose outputs hardly vary is not blown up; with hundreds of subjects the prior is not felt.

The validation subjects have usually chosen the checkpoint of the model too, which looks a little better on them than
it is: a combination that is fitted on few of them trusts the model too much rather than too little.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from ecgcmr.evaluation.cox import PartialLikelihood

Array = NDArray[np.float64]
Loss = Callable[[Array], tuple[float, Array]]

PRIOR_SD = (0.5, 1.0)
"""Of the weights of the covariates and of the model."""


class Stack(NamedTuple):
    """A fitted combination on the linear scale.

    Attributes:
        intercept: 0 for log hazards.
        covariates: Weight of the prediction of the covariates.
        model: Weight of the prediction of the model.
    """

    intercept: float
    covariates: float
    model: float

    def combine(self, covariates: Array, model: Array) -> Array:
        """The combination (N,) of two predictions (N,)."""
        return np.asarray(self.intercept + self.covariates * covariates + self.model * model)


def fit_stack(kind: str, inputs: tuple[Array, Array], truth: Array, time: Array) -> Stack:
    """Fit a combination.

    Args:
        kind: `regression`, `binary` or `survival`.
        inputs: Predictions of the covariates and of the model on the linear scale, each (N,).
        truth: Value, 0 or 1, or the event (N,).
        time: Follow-up (N,), read for outcomes only.
    """
    x = np.stack(inputs, axis=1)
    mean, spread = x.mean(axis=0), x.std(axis=0)
    # An input without spread has nothing to add.
    z = (x - mean) / np.where(spread > 1e-12 * (1 + np.abs(mean)), spread, np.inf)
    unit = float(np.std(truth - inputs[0])) if kind == "regression" else 1.0
    unit = unit if unit > 0 else 1.0
    expected = np.array([spread[0] / unit, 0.0])
    width = np.maximum(np.array(PRIOR_SD) * spread / unit, 1e-9)
    loss = _loss(kind, z, (truth - mean[0]) / unit if kind == "regression" else truth, time)

    def total(parameters: Array) -> tuple[float, Array]:
        value, slope = loss(parameters)
        away = (parameters[1:] - expected) / width
        return value + 0.5 * float(away @ away), slope + np.concatenate([[0.0], away / width])

    share = np.clip(truth.mean(), 1e-3, 1 - 1e-3) if kind == "binary" else 0.5
    start = np.array([np.log(share / (1 - share)), *expected])
    found = minimize(total, start, jac=True, method="L-BFGS-B", bounds=[(None, None), (0, None), (0, None)],
                     options={"maxiter": 500, "ftol": 1e-14, "gtol": 1e-9})  # fmt: skip
    slopes = found.x[1:] * unit / np.where(spread > 0, spread, np.inf)
    if kind == "survival":
        return Stack(0.0, float(slopes[0]), float(slopes[1]))
    level = found.x[0] * unit + (mean[0] if kind == "regression" else 0.0)
    return Stack(float(level - slopes @ mean), float(slopes[0]), float(slopes[1]))


def _loss(kind: str, z: Array, truth: Array, time: Array) -> Loss:
    """Minus the log likelihood of (intercept, two weights), with its gradient (3,)."""
    design = np.concatenate([np.ones((len(z), 1)), z], axis=1)
    if kind == "survival":
        likelihood = PartialLikelihood(z, time, truth > 0.5)

        def cox(parameters: Array) -> tuple[float, Array]:
            value, slope, _ = likelihood(parameters[1:])
            return -value, np.concatenate([[0.0], -slope])

        return cox

    def linear(parameters: Array) -> tuple[float, Array]:
        score = design @ parameters
        if kind == "regression":
            return 0.5 * float(((truth - score) ** 2).sum()), design.T @ (score - truth)
        mean = 1 / (1 + np.exp(-np.clip(score, -500, 500)))
        return float((np.logaddexp(0.0, score) - truth * score).sum()), design.T @ (mean - truth)

    return linear
