"""From a study file to jobs: which training and which evaluation, where its results are, what must be there before.

A folder is named by a hash of all that its content depends on (resolved run file, weights it starts from, cohort,
evaluation). So a study that is changed or extended runs what is new and finds what is unchanged, and can never take
results of other settings for its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ecgcmr.study.config import EvaluateConfig, RunSpec, StudyConfig, merged_values, read_yaml
from ecgcmr.training.config import RunConfig, check_config


@dataclass(frozen=True)
class Job:
    """One piece of work of a worker.

    Attributes:
        key: Name, unique in the study.
        kind: train or evaluate.
        arm: Arm or stage.
        seed: Seed of the training, or of the label draw.
        folder: Run folder, or folder of the evaluation.
        weights: Weights folder that a training leaves, or that is evaluated.
        needs: Jobs that must be done before.
        config: The run, for a training.
    """

    key: str
    kind: Literal["train", "evaluate"]
    arm: str
    seed: int
    folder: Path
    weights: Path
    needs: tuple[str, ...] = ()
    config: RunConfig | None = None

    @property
    def is_done(self) -> bool:
        """Whether its results are there; they appear whole or not at all."""
        return (self.folder / ("summary.json" if self.kind == "train" else "done.json")).is_file()


@dataclass(frozen=True)
class Plan:
    """A study with its places.

    Attributes:
        study: The study file.
        out: Output folder.
        cohort: Folder of the cohort.
        jobs: In an order in which they can be run one after the other.
    """

    study: StudyConfig
    out: Path
    cohort: Path
    jobs: tuple[Job, ...]

    def evaluations(self, arm: str) -> dict[int, Job]:
        """Seed -> evaluation of an arm."""
        return {job.seed: job for job in self.jobs if job.kind == "evaluate" and job.arm == arm}

    def trainings(self, name: str) -> list[Job]:
        """Trainings of an arm or a stage."""
        return [job for job in self.jobs if job.kind == "train" and job.arm == name]


def make_plan(study: StudyConfig, source: Path, out: Path) -> Plan:
    """Resolve all runs of a study; whatever is wrong in a run file is found here, before anything is run.

    Args:
        study: The study.
        source: Its file: run files are named relative to it.
        out: Output folder.

    Raises:
        FileNotFoundError: If a run file is not there.
        ValueError: If a run file with its changes is no valid run; names study, arm and key.
    """
    cohort = _cohort_folder(study, out)
    jobs: list[Job] = []
    for seed in study.seeds:
        weights: dict[str, tuple[Path, str]] = {}  # stage -> weights folder and job
        for stage in study.stage_order():
            job = _training(study, (source, out, cohort), stage, study.stages[stage], seed, weights)
            weights[stage] = job.weights, job.key
            jobs.append(job)
        for arm, spec in study.arms.items():
            if spec.stage is not None:
                trained, needed = weights[spec.stage]
            else:
                assert spec.training is not None, "an arm has a stage or a training"
                job = _training(study, (source, out, cohort), arm, spec.training, seed, weights)
                jobs.append(job)
                trained, needed = job.weights, job.key
            jobs.append(_evaluation(study.evaluate, (out, arm, seed), trained, needed))
    return Plan(study, out, cohort, tuple(jobs))


def fingerprint(value: Any) -> str:
    """Eight digits of the hash of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _cohort_folder(study: StudyConfig, out: Path) -> Path:
    if study.cohort.path is not None:
        return Path(study.cohort.path)
    assert study.cohort.simulate is not None, "checked by the config"
    return out / f"cohort-{fingerprint(study.cohort.simulate.model_dump())}"


def _training(
    study: StudyConfig,
    places: tuple[Path, Path, Path],
    name: str,
    spec: RunSpec,
    seed: int,
    weights: Mapping[str, tuple[Path, str]],
) -> Job:
    source, out, cohort = places
    recipe = source.parent / spec.recipe
    if not recipe.is_file():
        raise FileNotFoundError(f"{source}: {name}: there is no run file {recipe}; name it relative to the study file")
    own: dict[str, Any] = {
        "name": f"{name}-{seed}",
        "seed": seed,
        "out": None,
        "data": {"cohort": str(cohort), "split": study.cohort.split},
        "init": {which: str(weights[stage][0]) for which, stage in spec.start.items()},
        # One thread for each worker: nets of this size gain more from a second net than from a second thread.
        "train": {"threads": 1, "processes": 1},
    }
    tree = merged_values(read_yaml(recipe)[0], {"init": {"ecg": None, "cmr": None}}, study.base, spec.values, own)
    config = check_config(tree, f"{source}, {name} ({spec.recipe})")
    key = f"{name}-{seed}-{_settings(config, spec, weights, study)}"
    folder = out / "runs" / key
    needs = tuple(weights[stage][1] for stage in dict.fromkeys(spec.start.values()))
    config = config.with_values(out=str(folder))
    return Job(key, "train", name, seed, folder, folder / "weights", needs, config)


def _settings(config: RunConfig, spec: RunSpec, weights: Mapping[str, tuple[Path, str]], study: StudyConfig) -> str:
    """Hash of what a training depends on, without where things are."""
    tree = config.model_dump(mode="json")
    tree["init"] = {**tree["init"], **{which: weights[stage][1] for which, stage in spec.start.items()}}
    tree["data"] = {**tree["data"], "cohort": study.cohort.model_dump(mode="json")}
    return fingerprint(tree)


def _evaluation(evaluate: EvaluateConfig, place: tuple[Path, str, int], weights: Path, trained: str) -> Job:
    out, arm, seed = place
    settings = fingerprint([evaluate.model_dump(mode="json", exclude={"gallery", "bootstrap_draws"}), trained])
    key = f"{arm}-{seed}-{settings}"
    return Job(f"evaluate-{key}", "evaluate", arm, seed, out / "evaluations" / key, weights, (trained,))
