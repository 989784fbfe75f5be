"""From predictions to results.json: every arm with its interval, paired differences, retrieval both ways."""

from __future__ import annotations

from typing import Any

import numpy as np

from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.demo.arms import ArmEmbedding, embed_arm, label_draws, predictions_path
from ecgcmr.demo.context import KINDS, MAIN, RIVALS, SCRATCH, Arm, DemoContext
from ecgcmr.evaluation.bootstrap import SubjectDraws, draw_subjects
from ecgcmr.evaluation.predictions import read_predictions
from ecgcmr.evaluation.results import make_row, write_results
from ecgcmr.evaluation.retrieval import Retrieval, retrieve_both_ways
from ecgcmr.evaluation.scores import ArmKey, Score, difference, rows, score_predictions
from ecgcmr.study.stages import Report

METRICS = ("r2", "mae", "pearson_r", "auroc", "auprc", "balanced_accuracy", "brier")


def compare(context: DemoContext, report: Report) -> None:
    """Score every arm on the held-out subjects with the same subject draws and write results.json."""
    split = open_split(Cohort.open(context.cohort))
    draws = draw_subjects(split.test, context.preset.bootstrap_draws, np.random.default_rng([context.seed, 17]))
    result: list[dict[str, Any]] = []
    for number, count in enumerate(context.preset.label_counts):
        report(number / (len(context.preset.label_counts) + 1))
        scores = _score_count(context, count, draws)
        for found in scores.values():
            result += rows(found)
        for rival in RIVALS:
            protocol = "finetune" if rival == SCRATCH.key else "probe"
            result += rows(difference(scores[MAIN, "probe"], scores[rival, protocol]))
            if context.preset.finetune_pretrained:
                result += rows(difference(scores[MAIN, "finetune"], scores[rival, "finetune"]))
    result += retrieval_rows(context)
    write_results(context.out / "results.json", result)


def _score_count(context: DemoContext, count: int | None, draws: SubjectDraws) -> dict[tuple[str, str], list[Score]]:
    scores = {}
    for arm, protocol in scored_arms(context):
        tables = {
            seed: read_predictions(predictions_path(context, arm.key, protocol, count, seed))
            for one, seed in label_draws(context)
            if one == count
        }
        n_labels = _labelled(context) if count is None else count
        key = ArmKey(arm.key, protocol, n_labels)
        scores[arm.key, protocol] = score_predictions(tables, KINDS, draws, key, METRICS)
    return scores


def scored_arms(context: DemoContext) -> list[tuple[Arm, str]]:
    """All (arm, protocol) that have predictions."""
    tuned = [(arm, "finetune") for arm in context.arms() if arm.modality == "ecg"]
    probed = [(arm, "probe") for arm in context.arms()]
    return [(SCRATCH, "finetune"), *probed, *(tuned if context.preset.finetune_pretrained else [])]


def _labelled(context: DemoContext) -> int:
    return len(open_split(Cohort.open(context.cohort)).train)


def gallery(context: DemoContext) -> np.ndarray:
    """Held-out subjects of the retrieval gallery (G,)."""
    test = open_split(Cohort.open(context.cohort)).test
    size = min(context.preset.gallery, len(test))
    return np.sort(np.random.default_rng([context.seed, 23]).permutation(test)[:size])


def shared_space(context: DemoContext, run: str) -> tuple[ArmEmbedding, ArmEmbedding]:
    """Projections of both modalities of an aligned run, over all subjects."""
    ecg = next(arm for arm in context.arms() if arm.run == run and arm.modality == "ecg")
    return embed_arm(context, ecg), embed_arm(context, Arm(f"cmr_of_{run}", ecg.title, run, "cmr"))


def retrieve_pairs(context: DemoContext, run: str) -> tuple[Retrieval, Retrieval]:
    """Retrieval both ways within the gallery."""
    ecg, cmr = shared_space(context, run)
    assert ecg.projection is not None, "an aligned run has projections"
    assert cmr.projection is not None, "an aligned run has projections"
    who = gallery(context)
    return retrieve_both_ways(ecg.projection[ecg.rows(who)], cmr.projection[cmr.rows(who)], who)


def retrieval_rows(context: DemoContext) -> list[dict[str, Any]]:
    """Recall at 1, 5, 10 and median rank of every aligned arm, both ways, with intervals over the queries."""
    result = []
    for arm in context.arms():
        if arm.modality != "ecg" or arm.run == "ecg_mae":
            continue
        for found in retrieve_pairs(context, str(arm.run)):
            draws = draw_subjects(
                found.subjects, context.preset.bootstrap_draws, np.random.default_rng([context.seed, 29])
            )
            for metric, boot in found.summarise(draws).items():
                interval = boot.interval()
                result.append(
                    make_row(
                        arm=arm.key,
                        protocol="retrieval",
                        target=found.direction,
                        metric=metric,
                        value=interval.value,
                        lo=interval.lo,
                        hi=interval.hi,
                        n_subjects=boot.n_subjects,
                    )
                )
    return result
