"""The same job on real ECGs: what do simulated hearts teach an encoder about PTB-XL?

Five encoders are compared on fold 8 of a public sample of PTB-XL (Wagner et al. 2020,
doi:10.1038/s41597-020-0495-6): from scratch, after masked modelling of real ECGs, of simulated ones, after alignment on
simulated pairs, and after simulated then real masked modelling.
Folds 1-6 train, fold 7 selects (early stopping, thresholds), fold 8 is looked at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.demo.arms import Predict
from ecgcmr.evaluation.bootstrap import draw_subjects
from ecgcmr.evaluation.embeddings import Embeddings, EmbedOptions, embed, input_length
from ecgcmr.evaluation.predictions import make_predictions
from ecgcmr.evaluation.probes import LogisticProbe
from ecgcmr.evaluation.results import write_results
from ecgcmr.evaluation.scores import ArmKey, Score, difference, rows, score_predictions
from ecgcmr.hub import load_weights
from ecgcmr.training.config import load_config
from ecgcmr.training.run import finetune, pretrain

LABELS = ("MI", "STTC", "CD", "NORM")
CROPS = (0, 250, 500, 750)  # four windows of 2.5 s cover the recording; embeddings and predictions are their means
ARMS = ("scratch", "mae_real", "mae_simulated", "aligned_simulated", "mae_simulated_then_real")


@dataclass(frozen=True)
class RealStudy:
    """Where things are.

    Attributes:
        real: Cohort of real ECGs with the labels and a split.
        simulated: Simulated cohort with pairs.
        out: Output folder.
        configs: The folder `configs/real_ecg`.
        seeds: Seeds of the fine-tuning runs.
        steps: Optimizer steps of each pretraining; None keeps those of the recipes.
    """

    real: Path
    simulated: Path
    out: Path
    configs: Path
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int | None = None

    def weights(self, run: str) -> Path:
        """Weights folder of a run."""
        return self.out / "runs" / run / "weights"


def pretrain_arms(study: RealStudy, progress: bool = True) -> None:
    """Run the four pretrainings; what is finished is left as it is."""
    _stage(study, "mae", "mae_real", study.real, None, progress)
    _stage(study, "mae", "mae_simulated", study.simulated, None, progress)
    _stage(study, "align", "aligned_simulated", study.simulated, "mae_simulated", progress)
    _stage(study, "mae", "mae_simulated_then_real", study.real, "mae_simulated", progress)


def _stage(study: RealStudy, recipe: str, run: str, cohort: Path, init: str | None, progress: bool) -> None:
    if study.weights(run).exists():
        return
    values: dict[str, object] = {
        "name": run,
        "out": str(study.out / "runs" / run),
        "data.cohort": str(cohort),
        "init.ecg": None if init is None else str(study.weights(init)),
    }
    if study.steps is not None:
        values["train.max_steps"] = study.steps
    config = load_config(study.configs / f"{recipe}.yaml").with_values(**values)
    pretrain(config, resume=config.folder.exists(), progress=progress)


def evaluate_arms(study: RealStudy, bootstrap_draws: int = 2000) -> Path:
    """Probe and fine-tune every arm, score fold 8 and write results.json with paired differences to `scratch`."""
    test = open_split(Cohort.open(study.real)).test
    draws = draw_subjects(test, bootstrap_draws, np.random.default_rng(17))
    kinds = dict.fromkeys(LABELS, "binary")
    result = []
    scores: dict[tuple[str, str], list[Score]] = {}
    for arm in ARMS:
        tables = {"finetune": {seed: _finetuned(study, arm, seed) for seed in study.seeds}}
        if arm != "scratch":
            tables["probe"] = {0: _probed(study, arm)}
        for protocol, by_seed in tables.items():
            found = score_predictions(by_seed, kinds, draws, ArmKey(arm, protocol))
            scores[arm, protocol] = found
            result += rows(found, per_seed=len(by_seed) > 1)
    for arm in ARMS[1:]:
        result += rows(difference(scores[arm, "finetune"], scores["scratch", "finetune"]), per_seed=False)
    return write_results(study.out / "results.json", result)


def _embedded(study: RealStudy, weights_folder: Path, part: str, head: bool) -> Embeddings:
    weights = load_weights(weights_folder)
    cohort = Cohort.open(study.real)
    dataset = PairedDataset(cohort, open_split(cohort).part(part), weights.ecg_pipeline, None, labels=LABELS)
    options = EmbedOptions(crop_samples=input_length(weights), crop_starts=CROPS)
    return embed(
        weights, dataset, "ecg", options=options, projection=Predict(weights.modules["head"]) if head else None
    )


def _probed(study: RealStudy, arm: str) -> pd.DataFrame:
    parts = {part: _embedded(study, study.weights(arm), part, head=False) for part in ("train", "val", "test")}
    train = parts["train"]
    probe = LogisticProbe().fit(train.values, train.labels, train.subjects, LABELS)
    return _table({part: (found, probe.predict(found.values)) for part, found in parts.items() if part != "train"})


def _finetuned(study: RealStudy, arm: str, seed: int) -> pd.DataFrame:
    run = f"finetune_{arm}_{seed}"
    if not study.weights(run).exists():
        values = {
            "name": run,
            "seed": seed,
            "out": str(study.out / "runs" / run),
            "data.cohort": str(study.real),
            "init.ecg": None if arm == "scratch" else str(study.weights(arm)),
        }
        config = load_config(study.configs / "finetune.yaml").with_values(**values)
        if study.steps is not None:
            config = config.with_values(**{"train.max_steps": study.steps})
        finetune(config, resume=config.folder.exists())
    found = {part: _embedded(study, study.weights(run), part, head=True) for part in ("val", "test")}
    return _table({part: (one, one.values) for part, one in found.items()})


def _table(parts: Mapping[str, tuple[Embeddings, np.ndarray]]) -> pd.DataFrame:
    subjects = np.concatenate([found.subjects for found, _ in parts.values()])
    items = np.concatenate([found.indices + 100_000 * k for k, (found, _) in enumerate(parts.values())])
    truth = np.concatenate([found.labels for found, _ in parts.values()])
    predicted = np.concatenate([values for _, values in parts.values()])
    where = np.concatenate([np.full(len(found.subjects), part) for part, (found, _) in parts.items()])
    return make_predictions(subjects, LABELS, (truth, predicted), [str(part) for part in where], items=items)
