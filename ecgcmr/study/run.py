"""`ecgcmr study`: the cohort, the trainings and evaluations that are missing, results.json and the pages."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ecgcmr.cohort.locks import FolderLock
from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.study.config import load_study
from ecgcmr.study.page import write_pages
from ecgcmr.study.plan import Plan, make_plan
from ecgcmr.study.score import MAIN_METRIC, score_study
from ecgcmr.study.stages import Report, Stage, run_stages
from ecgcmr.study.work import Worker
from ecgcmr.study.workers import run_jobs


def run_study(
    config: Path, out: Path, workers: int = 0, overrides: Sequence[str] = (), console: Console | None = None
) -> Path:
    """Run what a study file asks for and is not there yet.

    Args:
        config: Study file.
        out: Folder for the cohort, runs, evaluations, results.json, table.md and report.html.
        workers: Processes; 0 takes one for each core.
        overrides: KEY=VALUE for the study file.
        console: Where progress is shown.

    Returns:
        results.json.

    Raises:
        FileNotFoundError: If a file that is named is not there.
        ValueError: If the study, one of its run files or the cohort does not fit; nothing was trained then.
        BlockingIOError: If the folder is in use by another study.
        RuntimeError: If a training failed.
        KeyboardInterrupt: After Ctrl-C; the same call goes on where it stopped.
    """
    console = console or Console()
    study = load_study(config, overrides)
    plan = make_plan(study, config, out)
    if study.cohort.path is not None:
        check_cohort(plan)
    workers = workers or os.cpu_count() or 1
    out.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(out / ".lock")
    lock.acquire(busy=f"{out} is in use by another study; wait for it, or choose another --out")
    logger = logging.getLogger("ecgcmr")
    level = logger.level
    logger.setLevel(logging.ERROR)  # one bar tells it all; details are in each run's train.log
    try:
        run_stages(_stages(plan, workers, _command(config, out, overrides)), out, console, skip_done=False)
    finally:
        logger.setLevel(level)
        lock.release()
    console.print(f"\nresults  {out / 'results.json'}\nreport   {out / 'report.html'}", highlight=False, soft_wrap=True)
    console.print(f"table    {out / 'table.md'}", highlight=False, soft_wrap=True)
    return out / "results.json"


def _stages(plan: Plan, workers: int, command: str) -> list[Stage]:
    worker = Worker(plan.cohort, plan.study.cohort.split, plan.study.evaluate)

    def simulate(tell: Report) -> None:
        _simulate(plan, workers, tell)
        check_cohort(plan)
        prepare(plan)

    def learn(tell: Report) -> None:
        run_jobs(plan.jobs, worker, workers, tell)

    def score(tell: Report) -> None:
        score_study(plan, tell)

    return [
        Stage("cohort", "open the cohort", 60, simulate),
        Stage("learn", f"train and probe {len(plan.study.arms)} arms", 1500, learn),
        Stage("score", "score with intervals", 20, score),
        Stage("pages", "write table and report", 5, lambda _: write_pages(plan, command)),
    ]


def _simulate(plan: Plan, workers: int, tell: Report) -> None:
    from ecgcmr.cohort.simulate import simulate_cohort

    wanted = plan.study.cohort.simulate
    if wanted is None or plan.cohort.exists():
        return
    total = wanted.subjects

    def progress(done: int, _: int) -> None:
        tell(done / total)

    simulate_cohort(plan.cohort, total, wanted.seed, workers=workers, cine=wanted.cine, progress=progress)


def check_cohort(plan: Plan) -> None:
    """Refuse a study that its cohort cannot answer, before anything is trained.

    Raises:
        FileNotFoundError: If there is no such cohort or split.
        ValueError: If a label is unknown or of a kind that probes do not predict, or there are too few subjects.
    """
    cohort = Cohort.open(plan.cohort)
    split = open_split(cohort, plan.study.cohort.split)
    specs, evaluate = cohort.label_specs, plan.study.evaluate
    for name in evaluate.labels:
        if name not in specs:
            raise ValueError(f"evaluate.labels: {cohort.path} has no label {name!r}; it has {', '.join(specs)}")
        if specs[name].kind not in MAIN_METRIC:
            kinds = " and ".join(MAIN_METRIC)
            raise ValueError(
                f"evaluate.labels: {name!r} is of kind {specs[name].kind!r}; probes predict {kinds} labels"
            )
    largest = max((count for count in evaluate.counts if count is not None), default=0)
    if largest > len(split.train):
        raise ValueError(f"evaluate.counts: {largest} labelled subjects of {len(split.train)} training subjects")
    if len(split.test) < 2:
        raise ValueError(
            f"split {split.name!r} of {cohort.path} holds {len(split.test)} test subjects; scores need more"
        )


def prepare(plan: Plan) -> None:
    """Run each preprocessing over the cohort once, so that the workers find it done."""
    from ecgcmr.cohort.dataset import DatasetOptions
    from ecgcmr.cohort.several_views import paired_dataset
    from ecgcmr.training.sources import open_source

    seen = set()
    for job in plan.jobs:
        if job.config is None:
            continue
        source, data = open_source(job.config.data), job.config.data
        pipelines = source.ecg_pipeline, source.cmr_pipeline
        key = *(pipeline.fingerprint() for pipeline in pipelines), data.ecg.dtype, data.cmr.views
        if key not in seen:
            seen.add(key)
            options = DatasetOptions(ecg_dtype=data.ecg.dtype)
            for one in source.cohorts:
                paired_dataset(data.cmr.views, one.cohort, one.split.train, pipelines, (), options)


def _command(config: Path, out: Path, overrides: Sequence[str]) -> str:
    """The command, without the folders of this machine."""
    return " ".join(["ecgcmr study --config", config.name, "--out", out.name, *overrides])
