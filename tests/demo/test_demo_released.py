"""The study of released encoders: the same labels and subjects on both sides, and nobody from the scored fold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecgcmr.cohort.simulate import simulate_cohort
from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.demo.released import ReleasedStudy, _settings, make_label_splits, predict_arm, score_arms
from ecgcmr.ecg.preprocessing import named_pipeline
from ecgcmr.evaluation.results import read_results
from ecgcmr.hub import save_weights
from ecgcmr.models.ecg_vit import create_ecg_encoder

RECIPE = Path(__file__).parents[2] / "configs" / "release" / "finetune_real.yaml"
CARD = {"name": "some", "stage": "test", "license": "MIT", "provenance": "simulated", "trained_on": "nothing"}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> ReleasedStudy:
    folder = tmp_path_factory.mktemp("released")
    cohort = simulate_cohort(folder / "cohort", n_subjects=240, seed=3, cine="none")
    encoder = create_ecg_encoder("nano", 500, 50, width=16, depth=1, heads=2)
    weights = save_weights(folder / "some", {"ecg": encoder}, named_pipeline("highpass"), None, CARD)
    labels = ("hypertension", "mi")
    return ReleasedStudy(
        cohort, folder / "out", RECIPE, {"some": weights}, (20, None), (0, 1), steps=(2, 2), labels=labels
    )


@pytest.mark.parametrize("score", ["test", "val"])
def test_labels__are_nested_and_counted_and_nobody_scored_is_among_them(study, score):
    other = ReleasedStudy(**{**study.__dict__, "score": score})
    make_label_splits(other)
    cohort = Cohort.open(study.cohort)
    base = open_split(cohort)
    for seed in study.seeds:
        few, all_ = (open_split(cohort, other.split_name(count, seed)) for count in (20, None))
        labelled = np.union1d(few.train, few.val)
        assert (len(few.train), len(few.val)) == (16, 4)
        assert np.isin(labelled, np.union1d(all_.train, all_.val)).all()
        np.testing.assert_array_equal(few.test, base.part(score))
        pool = base.train if score == "val" else np.union1d(base.train, base.val)
        np.testing.assert_array_equal(np.union1d(all_.train, all_.val), pool)
        assert not np.isin(base.test, labelled).any()


def test_study__compares_with_the_same_network_untrained_and_goes_on_after_a_kill(study):
    make_label_splits(study)
    released = predict_arm(study, "some", "probe", 20, 0)
    scratch = predict_arm(study, "scratch:some", "probe", 20, 0)
    np.testing.assert_array_equal(released["subject"], scratch["subject"])
    np.testing.assert_array_equal(released["truth"], scratch["truth"])
    assert not np.allclose(released["prediction"], scratch["prediction"])
    (cached,) = (study.out / "predictions").glob("some-probe-test_20_0-*.parquet")
    before = cached.stat().st_mtime_ns
    np.testing.assert_array_equal(predict_arm(study, "some", "probe", 20, 0)["prediction"], released["prediction"])
    assert cached.stat().st_mtime_ns == before


@pytest.mark.slow
def test_study__writes_every_number_with_an_interval_and_leaves_no_runs(study):
    make_label_splits(study)
    table = read_results(score_arms(study, bootstrap_draws=50))
    macro = table[table["target"] == "macro"]
    compared = macro[macro["metric"] == "auroc_diff"]
    assert len(compared) == 2 * 3  # probe, fine-tuning, and probe against the fine-tuned rival; at two counts
    assert compared[["value", "lo", "hi"]].notna().all().all()
    both = macro[(macro["protocol"] == "finetune") & (macro["n_labels"] == 20) & (macro["metric"] == "auroc")]
    values = both.set_index("arm")["value"]
    row = compared[(compared["protocol"] == "finetune") & (compared["n_labels"] == 20)].iloc[0]
    assert row["value"] == pytest.approx(values["some"] - values["scratch:some"], abs=1e-9)
    assert not list((study.out / "runs").iterdir())


def test_steps__belong_to_counts(study):
    with pytest.raises(ValueError, match="1 numbers of steps for 2 numbers of labels"):
        ReleasedStudy(**{**study.__dict__, "steps": (5,)})


def test_settings__of_another_study_do_not_find_old_predictions(study):
    def name(protocol: str, **changes) -> str:
        return _settings(ReleasedStudy(**{**study.__dict__, **changes}), "some", protocol, 20)

    assert name("finetune") == name("finetune")
    for changes in ({"steps": (3, 2)}, {"overrides": ("seed=7",)}, {"labels": ("mi",)}):
        assert name("finetune", **changes) != name("finetune")
    assert name("probe", steps=(3, 2)) == name("probe"), "a probe has no steps"
