"""Numbers of the model cards: equal to an independent computation, with intervals, and labelled by their data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import r2_score

from ecgcmr.cmr.preprocessing import named_pipeline as cmr_pipeline
from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.cohort.simulate import simulate_cohort
from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.demo.release_metrics import real_metrics, simulated_metrics
from ecgcmr.ecg.preprocessing import named_pipeline
from ecgcmr.evaluation.results import make_row, results_table
from ecgcmr.hub import load_weights, save_weights
from ecgcmr.models.build import build_module
from ecgcmr.models.ecg_vit import create_ecg_encoder

CARD = {"name": "some", "stage": "test", "license": "MIT", "provenance": "simulated", "trained_on": "nothing"}
LABELS = [{"name": "LVEDV", "kind": "regression", "unit": "ml"}, {"name": "hypertension", "kind": "binary"}]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return simulate_cohort(tmp_path_factory.mktemp("metrics") / "cohort", n_subjects=200, seed=4, cine="mid3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    images = cmr_pipeline("three_frames")
    cmr = build_module(
        {"kind": "cmr_encoder", "name": "resnet10t", "in_channels": images.shape[0],
         "timm_args": {"channels": [8, 8, 8, 8], "stem_width": 8}}
    )  # fmt: skip
    head = build_module({"kind": "prediction_head", "in_features": 16, "labels": LABELS})
    head.set_statistics([150.0, 0.0], [40.0, 1.0])
    modules = {
        "ecg": create_ecg_encoder("nano", 500, 50, width=16, depth=1, heads=2),
        "cmr": cmr,
        "ecg_projection": build_module({"kind": "projection_head", "in_features": 16, "hidden": 8, "out": 4}),
        "cmr_projection": build_module({"kind": "projection_head", "in_features": 8, "hidden": 8, "out": 4}),
        "head": head,
    }
    return save_weights(tmp_path_factory.mktemp("w") / "some", modules, named_pipeline("highpass"), images, CARD)


def test_simulated__r2_of_the_head_equals_scikit_learn(cohort, folder):
    found = {row["name"]: row for row in simulated_metrics(folder, cohort, 100, gallery=20, n_draws=200)}
    weights, opened = load_weights(folder), Cohort.open(cohort)
    test = open_split(opened).test
    data = PairedDataset(opened, test, weights.ecg_pipeline, None, labels=("LVEDV",))
    batch = data.batch(list(range(len(data))))
    ecg = torch.as_tensor(batch["ecg"]).float()
    with torch.no_grad():
        windows = [
            weights.modules["head"].predict(weights.modules["ecg"](ecg[:, :, s : s + 500]))[:, 0] for s in (0, 500)
        ]
    truth = torch.as_tensor(batch["labels"])[:, 0].numpy()
    expected = r2_score(truth, torch.stack(windows).mean(0).numpy())
    row = found["R² of LVEDV (head)"]
    assert row["value"] == pytest.approx(expected, abs=2e-3)
    assert row["lo"] < row["value"] < row["hi"]
    assert (row["n"], row["where"]) == (len(test), "held-out simulated subjects")
    assert found["recall at 10, ECG → CMR"]["value"] == pytest.approx(0.5, abs=0.2)  # random weights: chance is 10/20
    assert found["R² of LVM (probe of the embedding)"]["note"] == "probe fitted on 100 training subjects"


def test_real__names_the_rival_of_every_difference():
    shared = {"arm": "some", "n_labels": 50, "target": "macro", "value": 0.1, "lo": 0.05, "hi": 0.15, "n_subjects": 159}
    rows = [
        make_row(**shared, protocol="probe", metric="auroc"),
        make_row(**shared, protocol="probe", metric="auroc_diff", compared_to="scratch:some"),
        make_row(**shared, protocol="probe", metric="auroc_diff", compared_to="scratch:some fine-tuned"),
        make_row(**shared, protocol="finetune", metric="auroc_diff", compared_to="scratch:some"),
        make_row(**{**shared, "arm": "another"}, protocol="probe", metric="auroc"),
        make_row(**{**shared, "target": "MI"}, protocol="probe", metric="auroc"),
    ]
    found = real_metrics(results_table(rows), "some")
    assert [row["name"] for row in found] == [
        "macro AUROC, logistic probe, 50 labels",
        "macro AUROC, logistic probe, 50 labels − a probe of the untrained network",
        "macro AUROC, logistic probe, 50 labels − the same network trained from scratch",
        "macro AUROC, fine-tuned, 50 labels − the same network trained from scratch",
    ]
    assert all(np.isfinite([row["lo"], row["hi"]]).all() for row in found)
    assert real_metrics(results_table(rows), "nobody") == []
    assert isinstance(results_table(rows), pd.DataFrame)
