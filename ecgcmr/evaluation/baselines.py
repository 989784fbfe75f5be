"""What the ECG has to beat: risk scores of age and sex, and what it adds to them.

Three arms are compared on the same test subjects:

* the model from the ECG;
* the covariates alone (ridge, logistic or Cox regression), fitted on training subjects;
* both together, a weighted sum of the two predictions (see `stacking`), fitted on validation subjects. The model has
  seen the labels of the training subjects, where its predictions look better than they are, so a combination that is
  fitted there would trust it too much. The covariates enter by their own score: two weights are all that a small
  validation part has to pay for.

The added value of the ECG is the third minus the second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecgcmr.evaluation.covariates import Covariates
from ecgcmr.evaluation.cox import fit_cox
from ecgcmr.evaluation.probes import LogisticProbe, RidgeProbe
from ecgcmr.evaluation.recalibration import logit
from ecgcmr.evaluation.stacking import Stack, fit_stack

Array = NDArray[np.float64]

MIN_STACK = {"regression": 10, "binary": 5, "survival": 5}
"""Validation rows, rows of the rarer class, and events from which a combination is fitted."""
PRIOR = 1.0
"""Penalty of the Cox models: it keeps them finite where hardly anybody had the event."""


@dataclass(frozen=True)
class Rows:
    """One target of all items.

    Attributes:
        name: Name of the target.
        kind: `regression`, `binary` or `survival`.
        subjects: Subject of each item (N,).
        split: train, val or test (N,).
        truth: Value, 0 or 1, or the event (N,); NaN where unobserved.
        time: Follow-up of outcomes (N,); NaN else.
    """

    name: str
    kind: str
    subjects: NDArray[np.int64]
    split: NDArray[np.str_]
    truth: Array
    time: Array

    def seen(self, part: str) -> NDArray[np.bool_]:
        """Rows (N,) of a part that have an observed label."""
        return (self.split == part) & ~np.isnan(self.truth)


class NotFitted(ValueError):
    """A baseline or a combination that cannot be fitted on these subjects; the message is for a flag in a table."""


def covariate_scores(rows: Rows, covariates: Covariates) -> Array:
    """Predictions (N,) of all items from the covariates alone, fitted on training subjects.

    A value, a probability, or a log relative hazard.

    Raises:
        NotFitted: Without covariates, or where the training labels do not allow a fit.
    """
    if not covariates.names:
        raise NotFitted("no covariates: the cohort knows neither age nor sex nor BMI")
    train = rows.seen("train")
    if not train.any():
        raise NotFitted("no training subject has a label")
    x = covariates.matrix(rows.subjects, rows.subjects[rows.split == "train"])
    return _fit_and_predict(x, rows, train)


def stacked_scores(rows: Rows, model: Array, covariates: Array) -> tuple[Array, Stack]:
    """Predictions (N,) of all items from those of the model and of the covariates, and how they were combined.

    Args:
        rows: The target.
        model: Predictions of the model (N,): values, probabilities or log hazards; NaN in parts that were not
            predicted, where the result is NaN too.
        covariates: Predictions of `covariate_scores` (N,).

    Raises:
        NotFitted: When too few validation subjects have a label.
    """
    val = rows.seen("val") & ~np.isnan(model)
    truth = rows.truth[val]
    have = {
        "regression": len(truth),
        "binary": int(min((truth > 0.5).sum(), (truth <= 0.5).sum())),
        "survival": int((truth > 0.5).sum()),
    }[rows.kind]
    if have < MIN_STACK[rows.kind]:
        what = {"regression": "labels", "binary": "labels of the rarer class", "survival": "events"}[rows.kind]
        raise NotFitted(f"{have} {what} among the validation subjects, fewer than {MIN_STACK[rows.kind]}")
    link = logit if rows.kind == "binary" else np.asarray
    inputs = (link(covariates), np.asarray(link(np.nan_to_num(model))))
    stack = fit_stack(rows.kind, (inputs[0][val], inputs[1][val]), truth, rows.time[val])
    linear = stack.combine(*inputs)
    result = 1 / (1 + np.exp(-linear)) if rows.kind == "binary" else linear
    return np.where(np.isnan(model), np.nan, result), stack


def _fit_and_predict(x: Array, rows: Rows, fitted_on: NDArray[np.bool_]) -> Array:
    y = rows.truth[fitted_on]
    if rows.kind == "survival":
        try:
            return fit_cox(x[fitted_on], rows.time[fitted_on], y, PRIOR).score(x)
        except ValueError as error:
            raise NotFitted(str(error)) from error
    probe = RidgeProbe() if rows.kind == "regression" else LogisticProbe()
    probe.fit(x[fitted_on], y, rows.subjects[fitted_on], [rows.name])
    if probe.reasons:
        raise NotFitted(probe.reasons[rows.name])
    return np.asarray(probe.predict(x)[:, 0])
