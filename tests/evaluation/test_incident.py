"""From the recipe of incident risk to scores: a run of few steps on the cohort of 24 subjects."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ecgcmr.evaluation.bootstrap import draw_subjects
from ecgcmr.evaluation.incident import predict_incident
from ecgcmr.evaluation.kaplan_meier import add_cox_probabilities
from ecgcmr.evaluation.scores import ArmKey, rows
from ecgcmr.evaluation.survival import score_survival, survival_rows
from ecgcmr.hub import load_weights
from ecgcmr.training.config import load_config
from ecgcmr.training.run import finetune

RECIPE = Path(__file__).parents[2] / "configs" / "finetune" / "incident_risk.yaml"
SMALL = ["model.ecg.preset=nano", "train.max_steps=3", "train.batch_size=8", "train.precision=no"]


@pytest.fixture(scope="module")
def trained(tiny_cohort, tmp_path_factory):
    """Weights folders of a Cox run and of one with hazards of intervals."""
    folder = tmp_path_factory.mktemp("incident")
    kinds = {
        "cox": ["train.monitor=loss", "train.mode=min"],
        "discrete": ["objective.loss=discrete", "objective.cuts=[2,4,6]", "train.monitor=loss", "train.mode=min"],
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {
            kind: finetune(load_config(RECIPE, [*SMALL, *more, f"data.cohort={tiny_cohort}", f"out={folder / kind}"]))
            / "weights"
            for kind, more in kinds.items()
        }
    finally:
        torch.set_num_threads(threads)


def test_recipe__trains_and_is_scored(trained, tiny_cohort):
    table = predict_incident(trained["cox"], tiny_cohort)
    assert set(table["target"]) == {"mi", "hf", "af"}
    assert table["horizon"].isna().all()
    at_risk = table["truth"].notna()
    assert (at_risk == table["time"].notna()).all()
    assert not at_risk.all(), "who had the disease before is not at risk"
    test = table[table["split"] == "test"]
    draws = draw_subjects(test["subject"], 100, np.random.default_rng(0))
    both = add_cox_probabilities(table, "hf", (2.0, 4.0))
    found = {
        (r["target"], r["metric"]): r for r in rows(score_survival({0: both}, ["hf", "mi"], draws, ArmKey("a", "cox")))
    }
    assert 0 <= found["hf", "harrell_c"]["value"] <= 1  # one event among the test subjects
    assert ("hf", "ibs") in found
    assert found["mi", "harrell_c"]["value"] is None  # none: no number, and no error
    assert found["mi", "harrell_c"]["lo"] is None


def test_predict_incident__hazards_of_intervals_become_rising_risks(trained, tiny_cohort):
    table = predict_incident(trained["discrete"], tiny_cohort)
    data = survival_rows(table, "af", "train")
    assert data.horizons == (2.0, 4.0, 6.0)
    assert (np.diff(data.risks, axis=1) > 0).all()
    # The score is the cumulative hazard at the last horizon.
    assert 1 - np.exp(-data.score) == pytest.approx(data.risks[:, -1], rel=1e-6)
    head = load_weights(trained["discrete"]).modules["head"]
    assert head.label_names[:3] == ("mi_0_to_2", "mi_2_to_4", "mi_4_to_6")


def test_predict_incident__says_what_the_weights_lack(trained, tiny_cohort, tmp_path):
    weights = load_weights(trained["cox"])
    lacking = type(weights)(
        {"ecg": weights.modules["ecg"]}, weights.ecg_pipeline, None, weights.config, weights.expected, tmp_path
    )
    with pytest.raises(ValueError, match="needs an ECG encoder and a head"):
        predict_incident(lacking, tiny_cohort)
