"""Random labels cannot be predicted for held-out subjects, however well their recordings are remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import KNeighborsRegressor

from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.cohort.label_building.own_example import write_own_example
from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.evaluation.embeddings import EmbedOptions, embed
from ecgcmr.evaluation.metrics import compute
from ecgcmr.evaluation.probes import RidgeProbe
from ecgcmr.hub.weights import load_weights
from ecgcmr.own_labels.parts import make_parts
from ecgcmr.own_labels.recordings import ingest_recordings
from ecgcmr.own_labels.request import FinetuneRequest
from ecgcmr.own_labels.table import read_own_labels

LABELS = [f"coin{k}" for k in range(6)]


@pytest.mark.slow
def test_random_labels__are_not_predicted_but_where_recordings_are_split(tmp_path: Path) -> None:
    """Six coins tossed for each of 240 subjects, who have three near-identical recordings each.

    A split by subject gives AUROC .5 +- .05 on the mean of the coins (standard error .025); a split by recording, which
    this package never makes, would give far more: so the test can see a leak.
    """
    rng = np.random.default_rng(8)
    write_own_example(tmp_path / "own", 240, rng)
    recordings = [f"rec{k:04d}" for k in range(1, 241)]
    coins = pd.DataFrame(rng.integers(0, 2, (240, len(LABELS))), columns=LABELS)
    own = pd.concat([pd.DataFrame({"recording": recordings, "subject": [f"S{k}" for k in range(240)]}), coins], axis=1)
    own.to_csv(tmp_path / "labels.csv", index=False)
    request = FinetuneRequest(
        out=tmp_path / "out", model="ecg_nano_aligned", ecg=tmp_path / "own" / "ecg", test_share=0.4
    )
    table = read_own_labels(tmp_path / "labels.csv", request)
    cohort = Cohort.open(ingest_recordings(table, request, {}, tmp_path / "cohort", None)[0])
    make_parts(cohort, LABELS, request, official=False)
    split = open_split(cohort, "finetune")
    weights = load_weights("ecg_nano_aligned", leave_out=("cmr", "cmr_projection"))
    dataset = PairedDataset(cohort, np.arange(len(cohort)), weights.ecg_pipeline, None, labels=LABELS)
    seconds = [
        embed(weights, dataset, "ecg", options=EmbedOptions(crop_samples=500, crop_starts=(start,)))
        for start in (0, 250, 500)
    ]  # three recordings of each subject
    values = np.concatenate([one.values for one in seconds])
    labels = np.concatenate([one.labels for one in seconds])
    subjects = np.concatenate([one.subjects for one in seconds])

    def auroc(probe: Any, train: np.ndarray, test: np.ndarray) -> float:
        scale = values[train].std(axis=0)
        probe.fit(values[train] / scale, labels[train])
        predicted = probe.predict(values[test] / scale)
        return float(np.mean([compute("auroc", labels[test, k], predicted[:, k]) for k in range(len(LABELS))]))

    by_subject = np.isin(subjects, split.train), np.isin(subjects, split.test)
    assert abs(auroc(RidgeProbe(), *by_subject) - 0.5) < 0.05
    assert abs(auroc(KNeighborsRegressor(3), *by_subject) - 0.5) < 0.05
    first_two = np.repeat([True, True, False], len(subjects) // 3)
    assert auroc(KNeighborsRegressor(3), first_two, ~first_two) > 0.6
