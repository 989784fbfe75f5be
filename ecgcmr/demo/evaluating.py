"""The main arm with all labels, fine-tuned and evaluated as any weights folder is: what it adds, to whom, and why.

One run learns the measurements and diagnoses, another the incident outcomes. Both are evaluated by what
`ecgcmr evaluate` calls, beside age, sex and BMI, and by group. Because the hearts are simulated, it is also known where
the scars are: maps of infarction are held to that.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.demo import arms, learning
from ecgcmr.demo.context import MAIN, PRETRAINED, DemoContext
from ecgcmr.evaluation.evaluate import ABOUT, evaluate_weights
from ecgcmr.evaluation.explain.planted import PlantedCheck
from ecgcmr.evaluation.explain.references import healthy_recordings
from ecgcmr.evaluation.explain.scar_leads import AMPLITUDE, planted_leads
from ecgcmr.hub.model import load_model
from ecgcmr.study.stages import Report

OUTCOMES = ("mi", "hf", "af")
FOLLOW_UP = tuple(f"{name}_{column}" for name in OUTCOMES for column in ("time_years", "event"))
INFARCTION = "mi"
MOST_SCARS, FEWEST_SCARS = 60, 3
N_HEALTHY = 8
"""Healthy recordings that stand in for a lead that is taken away."""


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned run, and the split that it was trained with.

    Attributes:
        run: Name of the run.
        split: Name of the split.
        folder: Where its evaluation is.
    """

    run: str
    split: str
    folder: Path


def phenotypes(context: DemoContext) -> Tuned:
    """The run that predicts measurements and diagnoses, trained on all labels."""
    run = f"finetune/{MAIN}-{context.name_count(None)}-0"
    return Tuned(run, arms.split_name(context, None, 0), context.out / "evaluation" / "phenotypes")


def outcomes(context: DemoContext) -> Tuned:
    """The run that predicts incident outcomes."""
    return Tuned("finetune/outcomes", "default", context.out / "evaluation" / "outcomes")


def tune_phenotypes(context: DemoContext, report: Report) -> None:
    """Fine-tune the main arm on all labels; where the demo fine-tunes all arms, this is one of those runs."""
    arm = next(arm for arm in PRETRAINED if arm.key == MAIN)
    assert arms.tune(context, arm, None, 0, report) == phenotypes(context).run


def tune_outcomes(context: DemoContext, report: Report) -> None:
    """Fine-tune the main arm on the follow-up of all training subjects who were at risk."""
    tuned, steps = outcomes(context), context.preset.outcome_steps
    values: dict[str, Any] = {"init__ecg": str(context.weights(MAIN)), "name": f"{MAIN}-outcomes"}
    learning.supervise(context, tuned.run, tuned.split, FOLLOW_UP, steps, report, "outcomes", **values)


def evaluate_main(context: DemoContext, report: Report) -> None:
    """Evaluate both runs on the held-out subjects, and check maps against the planted scars; what is done is kept."""
    draws = context.preset.bootstrap_draws
    for number, tuned in enumerate((phenotypes(context), outcomes(context))):
        report(number / 3)
        if (tuned.folder / ABOUT).is_file():  # written last
            continue
        evaluate_weights(
            context.weights(tuned.run),
            context.cohort,
            tuned.split,
            tuned.folder,
            n_draws=draws,
            n_permutations=draws,
            seed=context.seed,
        )
    report(2 / 3)
    check_scars(context)


def scars_path(context: DemoContext) -> Path:
    """File with the rows of the scar check."""
    return context.out / "evaluation" / "scar_check.json"


def held_out_scars(context: DemoContext) -> NDArray[np.int64]:
    """Held-out subjects (n,) with an old infarction and an ECG, rising."""
    cohort = Cohort.open(context.cohort)
    test = np.intersect1d(open_split(cohort).test, cohort.recordings["subject"].to_numpy(dtype=np.int64))
    return test[cohort.labels.loc[test, INFARCTION].to_numpy() == 1]


def check_scars(context: DemoContext) -> Path:
    """Do maps of infarction point to the leads that carry the scar? Writes scar_check.json, unless it is there.

    Returns:
        The file: a list of rows with the numbers of `PlantedCheck` and the subjects; empty with fewer than three
        scars.
    """
    path = scars_path(context)
    if path.exists():
        return path
    who, rows = held_out_scars(context)[:MOST_SCARS], []
    if len(who) >= FEWEST_SCARS:
        model = load_model(context.weights(phenotypes(context).run), device="cpu")
        cohort = Cohort.open(context.cohort)
        healthy = healthy_recordings(cohort, N_HEALTHY)
        options: dict[str, dict[str, Any]] = {"occlusion": {"references": healthy}, AMPLITUDE: {}}
        for method, more in options.items():
            for check in planted_leads(model, cohort, INFARCTION, method, who, **more):
                rows.append(check.row() | {"subjects": check.subjects.tolist()})
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def read_scars(context: DemoContext) -> list[PlantedCheck]:
    """The checks of scar_check.json, without the maps."""
    found = []
    for row in json.loads(scars_path(context).read_text(encoding="utf-8")):
        numbers = {key: value for key, value in row.items() if key not in ("n", "verdict", "subjects")}
        empty = np.empty((len(row["subjects"]), 0))
        found.append(PlantedCheck(**numbers, subjects=np.array(row["subjects"]), profiles=empty, truth=empty))
    return found
