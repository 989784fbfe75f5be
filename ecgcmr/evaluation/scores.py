"""From predictions tables to result rows: arms, label-draw seeds, paired differences.

An arm is scored once for each seed of the label draw, always on the same test subjects with the same subject draws.
The reported number is the mean over seeds. Its interval holds two sources of chance:

* which subjects were tested: in bootstrap draw b the metric is averaged over seeds, so what the seeds share (the
  subjects) does not average out;
* which subjects were labelled: the seeds are resampled too. The mean of R resampled seed deviations has variance
  (R-1)/R of what it should be, so deviations are stretched by sqrt(R/(R-1)). With one seed this part is not
  estimable and the interval is conditional on that label draw.

Both parts are linear in the metric, and the resampled seeds are the same for every arm, so a difference of two arms
is paired in subjects and in label draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.evaluation.bootstrap import Bootstrapped, Interval, SubjectDraws, bootstrap_metrics, percentile_interval
from ecgcmr.evaluation.metrics import choose_threshold, get_metric, metrics_for, threshold_at_specificity
from ecgcmr.evaluation.results import DIFFERENCE, make_row

if TYPE_CHECKING:
    from ecgcmr.evaluation.retrieval import Retrieval


@dataclass(frozen=True)
class ArmKey:
    """What was evaluated: the arm, the protocol (probe, finetune, ...) and the number of labelled subjects."""

    arm: str
    protocol: str
    n_labels: int | None = None


@dataclass(frozen=True)
class Score:
    """One metric of one target of one arm, for all seeds and all subject draws.

    Attributes:
        key: Arm, protocol and number of labels.
        target: Name of the label.
        metric: Name of the metric; ends in `_diff` for a difference.
        seeds: Seeds of the label draw (R,).
        values: Point estimate of each seed (R,).
        draws: Bootstrap draws (R, draws).
        n_subjects: Test subjects with an observed label.
        compared_to: The subtracted arm, for differences.
    """

    key: ArmKey
    target: str
    metric: str
    seeds: tuple[int, ...]
    values: NDArray[np.float64]
    draws: NDArray[np.float64]
    n_subjects: int
    compared_to: str | None = None

    def interval(self, level: float = 0.95, label_draws: bool = True) -> Interval:
        """Mean over seeds with its percentile interval; `label_draws=False` leaves out the chance of the label draw."""
        value = float(self.values.mean())
        return percentile_interval(value, _combined_draws(self.values, self.draws, label_draws), level)


def score_predictions(
    tables: Mapping[int, pd.DataFrame],
    kinds: Mapping[str, str],
    draws: SubjectDraws,
    key: ArmKey,
    metrics: Sequence[str] | None = None,
) -> list[Score]:
    """Score the test rows of an arm, one predictions table for each seed of the label draw.

    Metrics at a threshold are computed when the table also has `val` rows (or else `train` rows) with both classes:
    the threshold is chosen there. They are left out when there are none.

    Args:
        tables: Seed -> predictions table.
        kinds: Target -> `regression` or `binary`; targets that are not named are not scored.
        draws: Subject draws of the test subjects.
        key: What the arm is.
        metrics: Names of the metrics to compute; all of the kind when absent.

    Returns:
        A score for each (target, metric).
    """
    if not tables:
        raise ValueError(f"no predictions for arm {key.arm!r}")
    scores: list[Score] = []
    for target, kind in kinds.items():
        by_seed = [_score_target(table, target, kind, draws, metrics) for table in tables.values()]
        scores += stack_seeds(key, target, tuple(tables), by_seed)
    return scores


def stack_seeds(
    key: ArmKey, target: str, seeds: tuple[int, ...], by_seed: Sequence[Mapping[str, Bootstrapped]]
) -> list[Score]:
    """A score for each metric that all seeds have.

    Raises:
        ValueError: When the seeds were tested on different rows.
    """
    scores = []
    for name in (name for name in by_seed[0] if all(name in other for other in by_seed)):
        found = [seed_scores[name] for seed_scores in by_seed]
        if len({one.n_items for one in found}) != 1:
            raise ValueError(f"arm {key.arm!r}, target {target!r}: seeds were tested on different rows")
        values = np.array([one.value for one in found])
        stacked = np.stack([one.draws for one in found])
        scores.append(Score(key, target, name, seeds, values, stacked, found[0].n_subjects))
    return scores


def _score_target(
    table: pd.DataFrame, target: str, kind: str, draws: SubjectDraws, metrics: Sequence[str] | None
) -> dict[str, Any]:
    rows = table[table["target"] == target]
    test = rows[rows["split"] == "test"]
    if test.empty:
        raise ValueError(f"the predictions table has no test rows of target {target!r}")
    thresholds = chosen_thresholds(rows) if kind == "binary" else {}
    names = [name for name in metrics_for(kind, threshold=bool(thresholds)) if metrics is None or name in metrics]
    columns = (test["truth"].to_numpy(), test["prediction"].to_numpy())
    found: dict[str, Any] = {}
    # Metrics without a threshold are computed with those of the first rule.
    for rule in dict.fromkeys((get_metric(name).rule or "balanced") for name in names):
        chosen = [name for name in names if (get_metric(name).rule or "balanced") == rule]
        found |= bootstrap_metrics(chosen, columns, test["subject"].to_numpy(), draws, thresholds.get(rule))
    return {name: found[name] for name in names}


def chosen_thresholds(rows: pd.DataFrame) -> dict[str, float]:
    """Threshold by rule, from validation rows, or else training rows, with both classes; empty without any.

    Args:
        rows: Rows of one binary target of a predictions table.
    """
    for split in ("val", "train"):
        part = rows[(rows["split"] == split) & rows["truth"].notna()]
        if part["truth"].nunique() == 2:
            columns = (part["truth"].to_numpy(), part["prediction"].to_numpy(), split)
            return {"balanced": choose_threshold(*columns), "specificity": threshold_at_specificity(*columns)}
    return {}


def score_retrieval(found: Mapping[int, Retrieval], draws: SubjectDraws, key: ArmKey) -> list[Score]:
    """Scores `recall_at_k` and `median_rank` of one direction, which is the target, one retrieval for each seed."""
    if not found or len({(one.direction, one.gallery) for one in found.values()}) != 1:
        raise ValueError(f"arm {key.arm!r}: seeds must be retrievals of one direction and one size of gallery")
    summaries = [one.summarise(draws) for one in found.values()]
    direction = next(iter(found.values())).direction
    scores = []
    for name in summaries[0]:
        each = [summary[name] for summary in summaries]
        values, stacked = np.array([one.value for one in each]), np.stack([one.draws for one in each])
        scores.append(Score(key, direction, name, tuple(found), values, stacked, each[0].n_subjects))
    return scores


def difference(first: Sequence[Score], second: Sequence[Score]) -> list[Score]:
    """Paired differences, first minus second, of all (target, metric) that both arms have.

    Raises:
        ValueError: When the two were not scored with the same seeds, draws and subjects.
    """
    other = {(score.target, score.metric): score for score in second}
    result = []
    for a in first:
        b = other.get((a.target, a.metric))
        if b is None:
            continue
        if a.seeds != b.seeds or a.draws.shape != b.draws.shape or a.n_subjects != b.n_subjects:
            raise ValueError(
                f"{a.key.arm!r} and {b.key.arm!r} are no pair for {a.target!r}: seeds {a.seeds} and {b.seeds}, "
                f"draws {a.draws.shape} and {b.draws.shape}, subjects {a.n_subjects} and {b.n_subjects}"
            )
        name = a.metric + DIFFERENCE
        values, draws = a.values - b.values, a.draws - b.draws
        result.append(Score(a.key, a.target, name, a.seeds, values, draws, a.n_subjects, b.key.arm))
    return result


def rows(scores: Sequence[Score], per_seed: bool = True, label_draws: bool = True) -> list[dict[str, Any]]:
    """Result rows: one with seed null for the mean over seeds, and one for each seed.

    Args:
        scores: From `score_predictions` or `difference`.
        per_seed: Whether to add the rows of single seeds (their intervals are over subjects only).
        label_draws: Whether the interval of the mean holds the chance of the label draw.
    """
    result = []
    for score in scores:
        common = {
            "arm": score.key.arm,
            "protocol": score.key.protocol,
            "n_labels": score.key.n_labels,
            "target": score.target,
            "metric": score.metric,
            "n_subjects": score.n_subjects,
            "compared_to": score.compared_to,
        }
        intervals: list[tuple[int | None, Interval]] = [(None, score.interval(label_draws=label_draws))]
        if per_seed:
            each = zip(score.seeds, score.values, score.draws, strict=True)
            intervals += [(seed, percentile_interval(float(value), draws)) for seed, value, draws in each]
        for seed, found in intervals:
            result.append(make_row(**common, seed=seed, value=found.value, lo=found.lo, hi=found.hi))
    return result


def is_better(metric: str, value: float) -> bool:
    """Whether a difference of that sign is an improvement of the metric (`r2`, or `r2_diff`).

    Raises:
        ValueError: For signed errors and slopes, where neither sign is an improvement by itself.
    """
    name = metric.removesuffix(DIFFERENCE)
    if name.startswith("recall_at_") or name == "median_rank":
        return value < 0 if name == "median_rank" else value > 0
    if name.startswith("observed_expected_at_"):
        name = "observed_expected"
    if name.startswith(("harrell_c", "uno_c", "auc_at_", "ipa", "brier_at_", "ibs")):
        return value < 0 if name.startswith(("brier_at_", "ibs")) else value > 0
    better = get_metric(name).better
    if better in ("zero", "one"):
        raise ValueError(f"{name} is best at {better}: the sign of a difference does not say which arm is better")
    return value < 0 if better == "lower" else value > 0


def _combined_draws(values: NDArray[np.float64], draws: NDArray[np.float64], label_draws: bool) -> NDArray[np.float64]:
    """Draws (draws,) of the mean over seeds, from values (R,) and subject draws (R, draws)."""
    mean = draws.mean(axis=0)
    n_seeds, n_draws = draws.shape
    if not label_draws or n_seeds == 1:
        return mean
    # A fixed stream: every arm resamples the same seeds in the same draw, which is what makes differences paired.
    picked = np.random.default_rng([n_seeds, n_draws]).integers(0, n_seeds, (n_draws, n_seeds))
    deviation = (values - values.mean())[picked].mean(axis=1)
    return mean + deviation * np.sqrt(n_seeds / (n_seeds - 1))
