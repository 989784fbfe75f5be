"""Decision curve: the net benefit of treating those whose predicted risk reaches a threshold.

At the threshold t a true positive is worth as much as (1 - t)/t false positives, so the net benefit is
TP/n - FP/n * t/(1 - t). It is compared with treating everybody and with treating nobody (net benefit 0); a model is
useful at t where it beats both (Vickers & Elkin, Medical Decision Making 2006, 10.1177/0272989X06295361). The
thresholds are preferences, not results: choose them before looking, and within the range that a clinic would use.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ecgcmr.evaluation.bootstrap import Bootstrapped, Interval, SubjectDraws, observed_rows
from ecgcmr.evaluation.moments import ratio, refuse_scores
from ecgcmr.evaluation.weighting import weighted_sums

Array = NDArray[np.float64]

DECISION_COLUMNS = (
    "threshold",
    "net_benefit",
    "lo",
    "hi",
    "treat_all",
    "treat_all_lo",
    "treat_all_hi",
    "gain",
    "gain_lo",
    "gain_hi",
    "n_subjects",
)


def decision_curve(
    columns: tuple[ArrayLike, ArrayLike],
    subjects: ArrayLike,
    draws: SubjectDraws,
    thresholds: Sequence[float] = tuple(np.round(np.arange(0.01, 0.51, 0.01), 2)),
) -> pd.DataFrame:
    """Net benefit with intervals over subjects.

    Args:
        columns: (truth, probability), each (N,); rows with NaN truth are left out.
        subjects: Subject of each row (N,).
        draws: From `draw_subjects`.
        thresholds: Risks at which one would treat, each in (0, 1).

    Returns:
        Columns `DECISION_COLUMNS`, a row for each threshold. `gain` is the net benefit minus that of the better of
        the two defaults, treating all or none; in each draw the better one is found anew.

    Raises:
        ValueError: For a threshold outside (0, 1), or predictions that are no probabilities.
    """
    model, everyone = net_benefits(columns, subjects, draws, thresholds)
    records = []
    for cut, one, all_treated in zip(thresholds, model, everyone, strict=True):
        gain = Bootstrapped(
            one.value - max(all_treated.value, 0.0),
            one.draws - np.maximum(all_treated.draws, 0.0),
            one.n_subjects,
            one.n_items,
        )
        intervals: list[Interval] = [found.interval() for found in (one, all_treated, gain)]
        numbers = [number for found in intervals for number in (found.value, found.lo, found.hi)]
        records.append((float(cut), *numbers, one.n_subjects))
    return pd.DataFrame(records, columns=list(DECISION_COLUMNS))


def net_benefits(
    columns: tuple[ArrayLike, ArrayLike], subjects: ArrayLike, draws: SubjectDraws, thresholds: Sequence[float]
) -> tuple[list[Bootstrapped], list[Bootstrapped]]:
    """Net benefit of the model and of treating everybody at each threshold, draw by draw.

    Two arms that were given the same draws can be subtracted with `paired_difference`.
    """
    cuts = np.asarray(thresholds, dtype=np.float64)
    if cuts.ndim != 1 or not cuts.size or not ((cuts > 0) & (cuts < 1)).all():
        raise ValueError(f"thresholds of a decision curve must lie between 0 and 1, got {list(thresholds)}")
    y, p, rows, n_subjects = observed_rows(columns, subjects, draws, "binary")
    refuse_scores(p)
    # At each threshold a called row counts 1 when positive, and minus the odds when negative.
    odds = cuts / (1 - cuts)
    worth = np.where(y[:, None] > 0.5, 1.0, -odds)
    called = worth * (p[:, None] >= cuts)
    terms = np.concatenate([np.ones((len(y), 1)), y[:, None], called], axis=1)
    both = [weighted_sums(terms, rows, part) for part in (np.ones((1, draws.counts.shape[1]), np.uint16), draws.counts)]
    sums = np.concatenate(both)
    total = sums[:, 0]
    prevalence = ratio(sums[:, 1], total)
    model: list[Bootstrapped] = []
    everyone: list[Bootstrapped] = []
    for k, odd in enumerate(odds):
        for found, values in (
            (model, ratio(sums[:, 2 + k], total)),
            (everyone, prevalence - (1 - prevalence) * odd),
        ):
            found.append(Bootstrapped(float(values[0]), values[1:], n_subjects, len(y)))
    return model, everyone
