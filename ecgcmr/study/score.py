"""From the predictions of all arms and seeds to results.json: intervals, and paired differences to one arm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.evaluation.bootstrap import draw_subjects
from ecgcmr.evaluation.macro import macro_mean
from ecgcmr.evaluation.predictions import read_predictions
from ecgcmr.evaluation.results import write_results
from ecgcmr.evaluation.retrieval import retrieve_both_ways
from ecgcmr.evaluation.scores import ArmKey, Score, difference, rows, score_predictions, score_retrieval
from ecgcmr.study.plan import Plan
from ecgcmr.study.stages import Report
from ecgcmr.study.work import SHARED_SPACE, predictions_name

METRICS = ("r2", "mae", "pearson_r", "auroc", "auprc")
MAIN_METRIC = {"regression": "r2", "binary": "auroc"}
PROBE, RETRIEVAL = "probe", "retrieval"
_PURPOSE_TEST, _PURPOSE_GALLERY, _PURPOSE_QUERIES = 17, 23, 29


def score_study(plan: Plan, report: Report) -> Path:
    """Score every arm on the held-out subjects with the same subject draws, seeds and label draws.

    Returns:
        results.json.
    """
    study, result = plan.study, []
    cohort = Cohort.open(plan.cohort)
    split = open_split(cohort, study.cohort.split)
    kinds = {name: cohort.label_specs[name].kind for name in study.evaluate.labels}
    draws = draw_subjects(split.test, study.evaluate.bootstrap_draws, np.random.default_rng(_PURPOSE_TEST))
    for number, count in enumerate(study.evaluate.counts):
        report(number / (len(study.evaluate.counts) + 1))
        scores: dict[str, list[Score]] = {}
        for arm in study.arms:
            tables = {
                seed: read_predictions(job.folder / predictions_name(count))
                for seed, job in plan.evaluations(arm).items()
            }
            key = ArmKey(arm, PROBE, len(split.train) if count is None else count)
            found = score_predictions(tables, kinds, draws, key, METRICS)
            macros = [macro_mean(found, metric) for kind, metric in MAIN_METRIC.items() if kind in kinds.values()]
            scores[arm] = [*found, *macros]
        result += _with_differences(scores, study.compare_to)
    for found_both in _retrievals(plan):
        result += _with_differences(found_both, study.compare_to)
    return write_results(plan.out / "results.json", result)


def _with_differences(scores: Mapping[str, list[Score]], compare_to: str) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    for arm, found in scores.items():
        result += rows(found)
        if arm != compare_to and compare_to in scores:
            result += rows(difference(found, scores[compare_to]), per_seed=False)
    return result


def _retrievals(plan: Plan) -> list[dict[str, list[Score]]]:
    """Scores of every arm that has a shared space, for either direction; one gallery for all arms and seeds."""
    spaces: dict[str, dict[int, Mapping[str, NDArray[Any]]]] = {}
    for arm in plan.study.arms:
        files = {seed: job.folder / SHARED_SPACE for seed, job in plan.evaluations(arm).items()}
        if all(file.is_file() for file in files.values()):
            spaces[arm] = {seed: dict(np.load(file)) for seed, file in files.items()}
    if not spaces:
        return []
    common: NDArray[np.int64] | None = None
    for by_seed in spaces.values():
        for space in by_seed.values():
            common = space["subjects"] if common is None else np.intersect1d(common, space["subjects"])
    assert common is not None, "there is a space"
    order = np.random.default_rng(_PURPOSE_GALLERY).permutation(np.sort(common))
    gallery = np.sort(order[: plan.study.evaluate.gallery])
    if len(gallery) < 2:
        return []
    draws = draw_subjects(gallery, plan.study.evaluate.bootstrap_draws, np.random.default_rng(_PURPOSE_QUERIES))
    result: list[dict[str, list[Score]]] = [{}, {}]
    for arm, by_seed in spaces.items():
        both = {seed: _retrieve(space, gallery) for seed, space in by_seed.items()}
        for direction in (0, 1):
            found = {seed: pair[direction] for seed, pair in both.items()}
            result[direction][arm] = score_retrieval(found, draws, ArmKey(arm, RETRIEVAL))
    return result


def _retrieve(space: Mapping[str, NDArray[Any]], gallery: NDArray[np.int64]) -> Any:
    place = np.searchsorted(space["subjects"], gallery)
    return retrieve_both_ways(space["ecg"][place], space["cmr"][place], gallery)
