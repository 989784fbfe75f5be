"""Scores of all targets of one arm, with a flag instead of a number where there is nothing to measure.

A target that nobody has a label of, or fewer than `MIN_SUBJECTS` test subjects, gets rows without values: with three
subjects a metric is an accident, and may tell who they are. Where one class is missing, nobody had the event or all
have one value, single metrics are not defined and stand without values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ecgcmr.evaluation.audit import MIN_SUBJECTS
from ecgcmr.evaluation.bootstrap import SubjectDraws
from ecgcmr.evaluation.macro import MACRO, macro_mean
from ecgcmr.evaluation.metrics import METRICS, metrics_for
from ecgcmr.evaluation.results import DIFFERENCE, make_row
from ecgcmr.evaluation.scores import ArmKey, Score, chosen_thresholds, difference, rows, score_predictions
from ecgcmr.evaluation.survival import score_survival

PRIMARY = {"regression": "r2", "binary": "auroc", "survival": "harrell_c"}
"""The metric that a kind of target is told by first: in forests, headlines and the macro mean."""
FEW = 10
"""Labels of the rarer class, or events, below which intervals are rough."""


@dataclass
class ArmScores:
    """Scores of one arm.

    Attributes:
        key: The arm.
        scores: One for each target and metric with a value.
        empty: Rows without values.
        flags: What stands in the way of a number: target, metric (or None for all) and why.
        thresholds: Target -> threshold by rule, chosen on validation subjects.
    """

    key: ArmKey
    scores: list[Score] = field(default_factory=list)
    empty: list[dict[str, Any]] = field(default_factory=list)
    flags: list[dict[str, Any]] = field(default_factory=list)
    thresholds: dict[str, dict[str, float]] = field(default_factory=dict)

    def flag(self, target: str, why: str, metric: str | None = None) -> None:
        """Note what stands in the way of a number."""
        self.flags.append({"arm": self.key.arm, "target": target, "metric": metric, "why": why})

    def result_rows(self) -> list[dict[str, Any]]:
        """Rows for results.json."""
        return [*rows(self.scores, per_seed=False), *self.empty]


def score_arm(
    table: pd.DataFrame,
    kinds: Mapping[str, str],
    draws: SubjectDraws,
    key: ArmKey,
    horizons: Mapping[str, Sequence[float]] | None = None,
) -> ArmScores:
    """Score the test rows of an arm; thresholds come from its `val` rows and from nowhere else.

    Args:
        table: Predictions table, with `time` and `horizon` where there are outcomes.
        kinds: Target -> `regression`, `binary` or `survival`.
        draws: Subject draws of the test subjects, the same for all arms.
        key: What the arm is.
        horizons: Outcome -> times, which must be the same for all arms that are compared.
    """
    found = ArmScores(key)
    table = table[table["split"] != "train"]
    for target, kind in kinds.items():
        part = table[table["target"] == target]
        test = part[(part["split"] == "test") & part["truth"].notna()]
        n = test["subject"].nunique()
        if n < MIN_SUBJECTS:
            few = f"test subjects with a label: {n}, fewer than {MIN_SUBJECTS}, so not reported"
            found.flag(target, few if n else "no test subject has a label")
            _empty(found, target, kind, n)
            continue
        _flag_sparse(found, target, kind, test)
        if kind == "survival":
            scores = score_survival({0: part}, [target], draws, key, (horizons or {}).get(target))
        else:
            scores = score_predictions({0: part}, {target: kind}, draws, key)
            if kind == "binary":
                found.thresholds[target] = chosen_thresholds(part)
                if not found.thresholds[target]:
                    found.flag(target, "no threshold: the validation subjects do not have both classes")
        found.scores += scores
    return found


def added_value(first: ArmScores, second: ArmScores) -> list[Score]:
    """Paired differences, first minus second, of the metrics that have a better side."""
    pairs = difference(first.scores, second.scores)
    return [one for one in pairs if _has_side(one.metric.removesuffix(DIFFERENCE))]


def _has_side(metric: str) -> bool:
    if metric in METRICS:
        return METRICS[metric].better in ("higher", "lower")
    return not metric.startswith("observed_expected_at_")


def _empty(found: ArmScores, target: str, kind: str, n: int) -> None:
    names: Sequence[str] = ("harrell_c", "uno_c") if kind == "survival" else metrics_for(kind)
    about = {"arm": found.key.arm, "protocol": found.key.protocol, "n_labels": found.key.n_labels}
    found.empty += [make_row(**about, target=target, metric=name, n_subjects=n) for name in names]


def _flag_sparse(found: ArmScores, target: str, kind: str, test: pd.DataFrame) -> None:
    truth = test["truth"].to_numpy()
    if kind == "regression":
        if np.ptp(truth) == 0:
            found.flag(target, f"all test subjects have the value {truth[0]:g}: no variance to explain")
        return
    first = test.drop_duplicates(["subject", "item"])["truth"]
    positive, n = int((first > 0.5).sum()), len(first)
    if kind == "survival":
        if positive == 0:
            found.flag(target, f"none of {n} had the event: nothing to compare")
        elif positive < FEW:
            found.flag(target, f"{positive} events among {n}: intervals are rough")
        return
    rarer = min(positive, n - positive)
    if rarer == 0:
        found.flag(target, f"one class only: {positive} of {n} are positive")
    elif rarer < FEW:
        found.flag(target, f"{rarer} of {n} test rows are of the rarer class: intervals are rough")


def add_macro(arms: Sequence[ArmScores], kinds: Mapping[str, str]) -> None:
    """Add to all arms the mean of the first metric over the targets of a kind that all of them have a value of."""
    for kind, metric in PRIMARY.items():
        by_arm = [
            {
                one.target: one
                for one in arm.scores
                if one.metric == metric and kinds[one.target] == kind and not np.isnan(one.values).any()
            }
            for arm in arms
        ]
        common = [target for target in kinds if all(target in scores for scores in by_arm)]
        if len(common) < 2:
            continue
        for arm, scores in zip(arms, by_arm, strict=True):
            arm.scores.append(macro_mean([scores[target] for target in common], metric))
            if len(common) < list(kinds.values()).count(kind):
                arm.flag(MACRO, f"mean of {metric} over {', '.join(common)} only", metric)
