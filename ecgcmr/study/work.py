"""What a worker does with a job: train an arm, or predict the labels of the held-out subjects from its embeddings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.cohort.locks import FolderLock
from ecgcmr.cohort.splits import Split, open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.evaluation.embeddings import Embeddings, embed, window_options
from ecgcmr.evaluation.label_draws import draw_labels
from ecgcmr.evaluation.predictions import make_predictions, write_predictions
from ecgcmr.evaluation.probes import LogisticProbe, RidgeProbe
from ecgcmr.hub import load_weights
from ecgcmr.hub.weights import Weights
from ecgcmr.study.config import EvaluateConfig
from ecgcmr.study.plan import Job
from ecgcmr.study.stages import Report
from ecgcmr.training.progress import ProgressEvent
from ecgcmr.training.run import pretrain

DONE = "done.json"
SHARED_SPACE = "shared_space.npz"
_PURPOSE_DRAW = 43


@dataclass(frozen=True)
class Worker:
    """The work of a study; it is sent to the processes that do it.

    Attributes:
        cohort: Folder of the cohort.
        split: Name of the split.
        evaluate: How arms are scored.
    """

    cohort: Path
    split: str
    evaluate: EvaluateConfig

    def __call__(self, job: Job, tell: Report) -> None:
        """Do a job that is not done; a worker of a killed study that still holds it is waited for."""
        locks = job.folder.parent / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(locks / job.key)
        lock.acquire()
        try:
            if job.is_done:
                return
            if job.kind == "train":
                train(job, tell)
            else:
                self.score(job, tell)
        finally:
            lock.release()

    def score(self, job: Job, tell: Report) -> None:
        """Write the predictions of every number of labels and, where there is one, the shared space."""
        cohort = Cohort.open(self.cohort)
        split = open_split(cohort, self.split)
        partial = job.folder.with_name(job.folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        weights = load_weights(job.weights)
        everyone = np.sort(np.concatenate(list(split.parts().values())))
        dataset = PairedDataset(cohort, everyone, weights.ecg_pipeline, None, labels=self.evaluate.labels)
        options = window_options(weights, "ecg", dataset.ecg_shape[-1], self.evaluate.windows)
        found = embed(weights, dataset, "ecg", options=options)
        tell(0.4)
        space = shared_space(weights, cohort, split)
        if space is not None:
            np.savez(partial / SHARED_SPACE, **space)  # type: ignore[arg-type]
        tell(0.6)
        kinds = {name: cohort.label_specs[name].kind for name in self.evaluate.labels}
        for number, count in enumerate(self.evaluate.counts):
            labelled = labelled_subjects(self.evaluate, found, split, kinds, job.seed, count)
            predict(partial / predictions_name(count), found, split, kinds, labelled)
            tell(0.6 + 0.4 * (number + 1) / len(self.evaluate.counts))
        (partial / DONE).write_text(json.dumps({"weights": weights.config["sha256"], "items": len(found.subjects)}))
        shutil.rmtree(job.folder, ignore_errors=True)
        partial.replace(job.folder)


def train(job: Job, tell: Report) -> None:
    """Run or continue a training."""

    def show(event: ProgressEvent) -> None:
        tell(event.done / max(event.total, 1))

    assert job.config is not None, "a training has a run file"
    pretrain(job.config, resume=job.folder.exists(), progress=show)


def predictions_name(count: int | None) -> str:
    """File of the predictions at a number of labels."""
    return f"{'all' if count is None else count}_labels.parquet"


def labelled_subjects(
    evaluate: EvaluateConfig,
    found: Embeddings,
    split: Split,
    kinds: Mapping[str, str],
    seed: int,
    count: int | None,
) -> NDArray[np.int64]:
    """Draw the labelled training subjects: nested, and the same for every arm."""
    pool, first = np.unique(found.subjects, return_index=True)
    training = np.isin(pool, split.train)
    pool, first = pool[training], first[training]
    binary = [name for name in evaluate.labels if kinds[name] == "binary"]
    columns = {name: found.labels[first, evaluate.labels.index(name)] for name in binary}
    sizes = [size for size in evaluate.counts if size is not None]
    if sizes and max(sizes) > len(pool):
        raise ValueError(f"evaluate.counts asks for {max(sizes)} labelled subjects; {len(pool)} can be used")
    drawn = draw_labels(pool, columns, sizes, np.random.default_rng([seed, _PURPOSE_DRAW]))
    return np.sort(drawn.subjects(count))


def predict(path: Path, found: Embeddings, split: Split, kinds: Mapping[str, str], labelled: NDArray[np.int64]) -> None:
    """Fit a ridge probe for measurements and a logistic one for diagnoses, and write what they say of the test part."""
    train, test = np.isin(found.subjects, labelled), np.isin(found.subjects, split.test)
    predicted = np.empty((int(test.sum()), len(kinds)))
    for kind in ("regression", "binary"):
        columns = [k for k, one in enumerate(kinds.values()) if one == kind]
        if not columns:
            continue
        probe = RidgeProbe(share_penalty=True) if kind == "regression" else LogisticProbe()
        names = [list(kinds)[k] for k in columns]
        probe.fit(found.values[train], found.labels[train][:, columns], found.subjects[train], names)
        predicted[:, columns] = probe.predict(found.values[test])
    arrays = found.labels[test], predicted
    table = make_predictions(found.subjects[test], list(kinds), arrays, "test", items=found.indices[test])
    write_predictions(path, table)


def shared_space(weights: Weights, cohort: Cohort, split: Split) -> dict[str, NDArray[np.generic]] | None:
    """Projections of the held-out subjects with both modalities, one pair for each; None without projections."""
    if not {"ecg_projection", "cmr_projection", "ecg", "cmr"} <= set(weights.modules):
        return None
    both: dict[str, Embeddings] = {}
    modalities: tuple[Literal["ecg", "cmr"], ...] = ("ecg", "cmr")
    for modality in modalities:
        pipelines = (weights.ecg_pipeline, None) if modality == "ecg" else (None, weights.cmr_pipeline)
        dataset = PairedDataset(cohort, split.test, *pipelines)
        options = window_options(weights, modality, dataset.ecg_shape[-1], windows=1)
        head = weights.modules[f"{modality}_projection"]
        both[modality] = embed(weights, dataset, modality, options=options, projection=head)
    subjects = np.intersect1d(both["ecg"].subjects, both["cmr"].subjects)
    space: dict[str, NDArray[np.generic]] = {"subjects": subjects}
    for name, one in both.items():
        place = {int(subject): row for row, subject in reversed(list(enumerate(one.subjects)))}  # the first of each
        space[name] = one.values[[place[int(subject)] for subject in subjects]]
    return space
