"""What released encoders are worth on real ECGs with few labels: fold 8 of a PTB-XL sample, at 50, 200 and all labels.

An encoder is compared with the same network from scratch, which gets the same labels, the same optimizer steps and
the same test subjects. Two protocols: `probe`, logistic regression on the frozen embedding (from scratch: of the
untrained network), and `finetune`, all weights. The n labels are all that an arm sees: fine-tuning selects on a fifth
of them, the probe chooses its penalty within them. PTB-XL: doi:10.1038/s41597-020-0495-6.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.cohort.splits import Split, open_split, write_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.demo.arms import Predict
from ecgcmr.evaluation.bootstrap import draw_subjects
from ecgcmr.evaluation.embeddings import Embeddings, EmbedOptions, embed, input_length
from ecgcmr.evaluation.label_draws import draw_labels
from ecgcmr.evaluation.macro import MACRO, macro_mean
from ecgcmr.evaluation.predictions import make_predictions, read_predictions, write_predictions
from ecgcmr.evaluation.probes import LogisticProbe
from ecgcmr.evaluation.results import write_results
from ecgcmr.evaluation.scores import ArmKey, Score, difference, rows, score_predictions
from ecgcmr.hub import load_weights
from ecgcmr.hub.weights import Weights
from ecgcmr.models.build import build_module
from ecgcmr.training.config import load_config
from ecgcmr.training.run import finetune

__all__ = ["MACRO", "ReleasedStudy", "make_label_splits", "predict_arm", "score_arms"]

LABELS = ("NORM", "STTC", "CD", "MI")
VAL_SHARE = 5  # fine-tuning selects its epoch on one label of five
PROTOCOLS = ("probe", "finetune")


@dataclass(frozen=True)
class ReleasedStudy:
    """What is compared, and where things are.

    Attributes:
        cohort: Cohort of real ECGs with the labels and a split.
        out: Output folder.
        recipe: Run file of the fine-tuning.
        arms: Encoder -> weights folder.
        counts: Numbers of labelled subjects; None stands for all.
        seeds: Label draws, which also seed the training.
        score: test: labels come from the training and validation folds, the test fold is scored. val: labels come
            from the training folds and the validation fold is scored, to choose settings by.
        steps: Optimizer steps of a fine-tuning at each of `counts`.
        labels: Binary labels of the cohort.
        overrides: Further KEY=VALUE for the run file, the same for both sides.
    """

    cohort: Path
    out: Path
    recipe: Path
    arms: Mapping[str, Path]
    counts: tuple[int | None, ...] = (50, 200, None)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    score: Literal["test", "val"] = "test"
    steps: tuple[int, ...] = (100, 150, 400)
    labels: tuple[str, ...] = LABELS
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.counts):
            raise ValueError(f"{len(self.steps)} numbers of steps for {len(self.counts)} numbers of labels")

    def draws(self) -> list[tuple[int | None, int]]:
        """All (number of labels, seed)."""
        return [(count, seed) for count in self.counts for seed in self.seeds]

    def split_name(self, count: int | None, seed: int) -> str:
        """Name of the split of a label draw."""
        return f"{self.score}_{'all' if count is None else count}_{seed}"


def make_label_splits(study: ReleasedStudy) -> None:
    """Write the split of every label draw into the cohort: nested draws, the same for every arm."""
    cohort = Cohort.open(study.cohort)
    base = open_split(cohort)
    pool = base.train if study.score == "val" else np.sort(np.concatenate([base.train, base.val]))
    scored = base.part(study.score)
    positive = {name: cohort.labels.loc[pool, name].to_numpy() for name in study.labels}
    for seed in study.seeds:
        sizes = [n for n in study.counts if n is not None]
        order = draw_labels(pool, positive, sizes, np.random.default_rng([seed, 41]))
        for count in study.counts:
            chosen = order.subjects(count)
            val = np.sort(chosen[VAL_SHARE - 1 :: VAL_SHARE])
            how = {"drawn_from": "default", "labels": len(chosen), "draw": seed}
            train = np.setdiff1d(chosen, val)
            write_split(cohort, Split(study.split_name(count, seed), train, val, scored, how))


def predict_arm(study: ReleasedStudy, arm: str, protocol: str, count: int | None, seed: int) -> pd.DataFrame:
    """Predictions of one arm at one label draw; cached on disk, so that a killed study goes on where it was.

    Args:
        study: The study.
        arm: Name of an arm, or of an arm with `scratch:` before it for the same network from scratch.
        protocol: probe or finetune.
        count: Number of labels; None for all.
        seed: Label draw.
    """
    name = (
        f"{arm.replace(':', '-')}-{protocol}-{study.split_name(count, seed)}-{_settings(study, arm, protocol, count)}"
    )
    path = study.out / "predictions" / f"{name}.parquet"
    if path.exists():
        return read_predictions(path)
    make = _probed if protocol == "probe" else _finetuned
    found, values = make(study, arm, count, seed)
    where = ["test"] * len(found.subjects)
    table = make_predictions(found.subjects, study.labels, (found.labels, values), where, items=found.indices)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_predictions(path, table)
    return table


def _settings(study: ReleasedStudy, arm: str, protocol: str, count: int | None) -> str:
    """What the predictions depend on besides arm and labels, so that a study with other settings finds no old ones."""
    folder = study.arms[arm.removeprefix("scratch:")]
    values = [load_weights(folder).config["sha256"], *study.labels]
    if protocol == "finetune":
        values += [study.recipe.read_text(), *study.overrides, str(study.steps[study.counts.index(count)])]
    return hashlib.sha256("\n".join(values).encode()).hexdigest()[:8]


def score_arms(study: ReleasedStudy, bootstrap_draws: int = 2000) -> Path:
    """Score all arms and write results.json with macro means and paired differences to the network from scratch."""
    scored = open_split(Cohort.open(study.cohort)).part(study.score)
    draws = draw_subjects(scored, bootstrap_draws, np.random.default_rng(17))
    kinds = dict.fromkeys(study.labels, "binary")
    result = []
    for arm in study.arms:
        for count in study.counts:
            found: dict[tuple[str, str], list[Score]] = {}
            for name in (arm, f"scratch:{arm}"):
                for protocol in PROTOCOLS:
                    tables = {seed: predict_arm(study, name, protocol, count, seed) for seed in study.seeds}
                    key = ArmKey(name, protocol, count)
                    scores = score_predictions(tables, kinds, draws, key, metrics=("auroc",))
                    found[name, protocol] = [*scores, macro_mean(scores, "auroc")]
                    result += rows(found[name, protocol], per_seed=False)
            for protocol in PROTOCOLS:
                result += rows(difference(found[arm, protocol], found[f"scratch:{arm}", protocol]), per_seed=False)
            # The rival that a user has: the network trained on the same labels, against a probe of the released one.
            against = difference(found[arm, "probe"], found[f"scratch:{arm}", "finetune"])
            against = [replace(one, compared_to=f"scratch:{arm} fine-tuned") for one in against]
            result += rows(against, per_seed=False)
    return write_results(study.out / "results.json", result)


def _probed(study: ReleasedStudy, arm: str, count: int | None, seed: int) -> tuple[Embeddings, NDArray[np.floating]]:
    released = load_weights(study.arms[arm.removeprefix("scratch:")])
    weights = _untrained(released, seed) if arm.startswith("scratch:") else released
    split = open_split(Cohort.open(study.cohort), study.split_name(count, seed))
    train = _embedded(study, weights, np.sort(np.concatenate([split.train, split.val])))
    probe = LogisticProbe().fit(train.values, train.labels, train.subjects, study.labels)
    test = _embedded(study, weights, split.test)
    return test, probe.predict(test.values)


def _untrained(weights: Weights, seed: int) -> Weights:
    """The same network with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build_module(weights.config["modules"]["ecg"]).eval()
    return replace(weights, modules={"ecg": encoder})


def _embedded(
    study: ReleasedStudy, weights: Weights, subjects: NDArray[np.int64], head: torch.nn.Module | None = None
) -> Embeddings:
    """Embeddings, or predictions of a head, as means over windows that cover the ten seconds."""
    dataset = PairedDataset(Cohort.open(study.cohort), subjects, weights.ecg_pipeline, None, labels=study.labels)
    length = input_length(weights)
    starts = tuple(range(0, dataset.ecg_shape[-1] - length + 1, length))
    options = EmbedOptions(crop_samples=length, crop_starts=starts)
    return embed(weights, dataset, "ecg", options=options, projection=Predict(head) if head is not None else None)


def _epochs_between_evaluations(study: ReleasedStudy, count: int | None, seed: int) -> int:
    """About one evaluation in 25 steps: with forty subjects an epoch is one step."""
    split = open_split(Cohort.open(study.cohort), study.split_name(count, seed))
    batch = load_config(study.recipe).train.batch_size
    return max(1, round(25 / math.ceil(len(split.train) / batch)))


def _finetuned(study: ReleasedStudy, arm: str, count: int | None, seed: int) -> tuple[Embeddings, NDArray[np.floating]]:
    folder = study.arms[arm.removeprefix("scratch:")]
    theirs = load_weights(folder).config
    encoder = theirs["modules"]["ecg"]
    scratch = arm.startswith("scratch:")
    out = study.out / "runs" / f"{arm.replace(':', '-')}-{study.split_name(count, seed)}"
    overrides = {
        "name": out.name,
        "seed": seed,
        "out": out,
        "data.cohort": study.cohort,
        "data.split": study.split_name(count, seed),
        "data.labels": f"[{','.join(study.labels)}]",
        "data.ecg.pipeline": theirs["ecg"]["pipeline"],
        "data.ecg.crop_samples": encoder["n_samples"],
        **{f"model.ecg.{key}": encoder[key] for key in ("preset", "patch", "width", "depth", "heads", "mlp_ratio")},
        "init.ecg": "null" if scratch else folder,
        "train.max_steps": study.steps[study.counts.index(count)],
        "train.eval_every": _epochs_between_evaluations(study, count, seed),
    }
    config = load_config(study.recipe, [*(f"{key}={value}" for key, value in overrides.items()), *study.overrides])
    finetune(config, resume=out.exists(), progress=False)
    weights = load_weights(out / "weights")
    found = _embedded(
        study, weights, open_split(Cohort.open(study.cohort), config.data.split).test, weights.modules["head"]
    )
    shutil.rmtree(out)  # sixty runs of the larger network would fill a disk; the predictions are kept
    return found, found.values
