"""From a weights folder and a cohort to scores: planted signals, degenerate labels, killed and repeated runs."""

import json
import shutil
import sys

import numpy as np
import pytest
from planted_cohort import binary, latent, regression, write_planted, write_weights

from ecgcmr.cohort.splits import Split, write_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.evaluation import evaluate_weights, headline_table, read_evaluation
from ecgcmr.evaluation import item_embeddings as cached
from ecgcmr.evaluation.evaluated import read_about
from ecgcmr.evaluation.item_embeddings import read_embeddings
from ecgcmr.evaluation.metrics import choose_threshold, compute
from ecgcmr.evaluation.results import ROW_KEYS

FEW = {"n_draws": 200, "n_permutations": 40}
EVERYTHING = [regression("mass"), binary("old_mi"), regression("absent", "ml"), regression("flat", "ml"),
              binary("one_class"), regression("few", "ml"), regression("elsewhere")]  # fmt: skip
FILES = {"predictions.parquet", "predictions_covariates.parquet", "predictions_both.parquet", "results.json",
         "audit.json", "evaluation.json", "embeddings.npz"}  # fmt: skip


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Folder with a cohort of 300 subjects and three weights folders."""
    folder = tmp_path_factory.mktemp("planted")
    cohort = write_planted(folder / "cohort", 300)
    write_weights(folder / "labels", cohort, EVERYTHING)
    write_weights(folder / "outcomes", cohort, [regression("hf", "log hazard"), regression("late", "log hazard")])
    hazards = [binary(f"hf_{a}_to_{b}") for a, b in ((0, 2), (2, 5))]
    write_weights(folder / "hazards", cohort, hazards)
    write_weights(folder / "classes", cohort, [binary(name) | {"class": "1"} for name in ("none", "mild", "severe")])
    return folder


@pytest.fixture(scope="module")
def evaluated(planted):
    return read_evaluation(evaluate_weights(planted / "labels", planted / "cohort", "default", planted / "out", **FEW))


def row(found, target, metric, arm="ECG", against=None):
    r = found.results
    r = r[(r["target"] == target) & (r["metric"] == metric) & (r["arm"] == arm)]
    r = r[r["compared_to"].isna() if against is None else r["compared_to"] == against]
    assert len(r) == 1, (target, metric, arm, len(r))
    return r.iloc[0]


def test_evaluate_weights__writes_these_files_and_no_other(planted, evaluated):
    assert {path.name for path in (planted / "out").iterdir()} == FILES
    assert set(evaluated.results.columns) == set(ROW_KEYS)
    assert evaluated.about["arms"] == {
        "model": "ECG", "covariates": "age + sex + BMI", "both": "ECG + age + sex + BMI"}  # fmt: skip
    text = (planted / "out" / "evaluation.json").read_text()
    assert str(planted) not in text  # no path of a machine
    assert evaluated.about["weights"]["without_label"] == ["elsewhere"]


def test_evaluate_weights__finds_the_planted_value_of_the_ecg(evaluated):
    both, base = "ECG + age + sex + BMI", "age + sex + BMI"
    assert row(evaluated, "mass", "r2").value > 0.5
    added = row(evaluated, "mass", "r2_diff", both, base)
    assert added.lo > 0.3
    assert row(evaluated, "mass", "mae_diff", both, base).hi < 0
    total = row(evaluated, "mass", "r2", both).value - row(evaluated, "mass", "r2", base).value
    assert added.value == pytest.approx(total)
    # Age and sex know something that the ECG does not.
    assert row(evaluated, "mass", "r2_diff", both, "ECG").lo > 0
    assert row(evaluated, "old_mi", "auroc_diff", both, base).value > 0.1
    assert "calibration_slope_diff" not in set(evaluated.results["metric"])


def test_evaluate_weights__numbers_are_those_of_the_table(planted, evaluated):
    table = evaluated.tables["model"]
    split = json.loads((planted / "cohort" / "splits" / "default.json").read_text())
    test = table[(table["target"] == "mass") & (table["split"] == "test")]
    assert set(test["subject"]) == set(split["test"]) - {299}  # the last subject has no recording
    assert set(table["split"]) == {"val", "test"}
    assert row(evaluated, "mass", "r2").value == pytest.approx(compute("r2", test["truth"], test["prediction"]))
    assert np.corrcoef(latent(300)["z"][test["subject"]], test["prediction"])[0, 1] > 0.9
    mi = table[table["target"] == "old_mi"]
    val, test = (mi[mi["split"] == part] for part in ("val", "test"))
    cut = choose_threshold(val["truth"], val["prediction"], "val")
    assert evaluated.about["thresholds"]["ECG"]["old_mi"]["balanced"] == cut
    expected = compute("sensitivity", test["truth"], test["prediction"], cut)
    assert row(evaluated, "old_mi", "sensitivity").value == pytest.approx(expected)
    assert {"sex", "age_band", "site"} <= set(table.columns)
    assert set(table["age_band"]) <= {"<45", "45-54", "55-64", "65-74", ">=75"}


@pytest.mark.parametrize(
    ("target", "metric", "why"),
    [
        ("absent", "r2", "no test subject has a label"),
        ("few", "mae", "fewer than 10, so not reported"),
        ("flat", "r2", "all test subjects have the value 7"),
        ("one_class", "auroc", "one class only: 0 of"),
    ],
)
def test_evaluate_weights__flags_instead_of_wrong_numbers(evaluated, target, metric, why):
    found = row(evaluated, target, metric)
    assert np.isnan(found.value)
    assert np.isnan(found.lo)
    flags = [flag for flag in evaluated.about["flags"] if flag["target"] == target and flag["arm"] == "ECG"]
    assert any(why in flag["why"] for flag in flags), flags
    cells = {line["target"]: line for line in headline_table(evaluated.folder)}
    assert cells["absent"]["ECG"] == "–"


def test_evaluate_weights__flow_counts_everybody(evaluated):
    stages = {stage["stage"]: stage for stage in evaluated.about["flow"]}
    seen = stages["ECG files seen"]
    assert (seen["n"], seen["lost"]) == (300, [{"why": "shorter than one second", "n": 1}])
    assert stages["Subjects in the cohort"]["lost"] == [{"why": "without a kept ECG", "n": 1}]
    last = evaluated.about["flow"][-1]
    assert sum(last["parts"].values()) == last["n"] == 299
    assert last["targets"]["absent"] == 0
    assert last["targets"]["mass"] == row(evaluated, "mass", "r2").n_subjects


def test_evaluate_weights__audits_groups_by_default(evaluated):
    rows = evaluated.audit
    assert {r["attribute"] for r in rows} == {"sex", "age_band", "site"}
    assert {r["metric"] for r in rows if r["target"] == "old_mi"} >= {"auroc", "sensitivity", "observed_expected"}
    assert any(r["level"] == "gap" and r["p"] is not None for r in rows)
    assert not any(r["target"] == "absent" for r in rows)


def test_evaluate_weights__cox_head_gets_probabilities_and_a_group_audit(planted):
    out = evaluate_weights(planted / "outcomes", planted / "cohort", "default", planted / "out_cox", **FEW)
    found = read_evaluation(out)
    assert row(found, "hf", "harrell_c").lo > 0.5
    horizons = found.about["targets"][0]["horizons"]
    assert len(horizons) == 4
    ratio = row(found, "hf", f"observed_expected_at_{horizons[1]:g}", "age + sex + BMI")
    assert ratio.lo < 1 < ratio.hi
    assert row(found, "hf", "harrell_c_diff", "ECG + age + sex + BMI", "age + sex + BMI").value > 0
    assert np.isnan(row(found, "late", "harrell_c").value)  # censored only
    assert any("none of" in flag["why"] and flag["target"] == "late" for flag in found.about["flags"])
    audited = {r["metric"] for r in found.audit if r["target"] == "hf"}
    assert audited == {"harrell_c", f"observed_expected_at_{horizons[1]:g}"}
    assert set(found.tables["model"]["split"]) <= {"train", "val", "test"}


def test_evaluate_weights__hazards_of_intervals_and_classes(planted):
    out = evaluate_weights(planted / "hazards", planted / "cohort", "default", planted / "out_hazards", **FEW)
    found = read_evaluation(out)
    assert found.about["targets"][0]["horizons"] == [2.0, 5.0]
    assert found.about["stacks"]["hf"]["model"] > 0
    assert set(found.tables["model"]["horizon"].dropna()) == {2.0, 5.0}
    assert row(found, "hf", "uno_c_diff", "ECG + age + sex + BMI", "age + sex + BMI").n_subjects > 40
    out = evaluate_weights(planted / "classes", planted / "cohort", "default", planted / "out_classes", **FEW)
    found = read_evaluation(out)
    table = found.tables["model"]
    both = table.groupby(["subject", "item"])[["truth", "prediction"]].sum()
    assert both["truth"].eq(1).all()
    assert both["prediction"].to_numpy() == pytest.approx(np.ones(len(both)), abs=1e-6)
    assert row(found, "severe", "auroc").value > 0.9
    assert row(found, "macro", "auroc").value > 0.8


def test_evaluate_weights__is_deterministic_and_reads_its_embeddings_again(planted, evaluated, monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise AssertionError("embedded again")

    before = {name: (planted / "out" / name).read_bytes() for name in FILES - {"evaluation.json"}}
    monkeypatch.setattr(cached, "embed", refuse)
    evaluate_weights(planted / "labels", planted / "cohort", "default", planted / "out", **FEW)
    assert {name: (planted / "out" / name).read_bytes() for name in before} == before
    monkeypatch.undo()
    other = evaluate_weights(planted / "labels", planted / "cohort", "default", tmp_path / "new", **FEW)
    assert (other / "results.json").read_bytes() == before["results.json"]
    assert (other / "audit.json").read_bytes() == before["audit.json"]
    seeded = evaluate_weights(planted / "labels", planted / "cohort", "default", tmp_path / "new", **FEW, seed=1)
    assert (seeded / "results.json").read_bytes() != before["results.json"]


def test_evaluate_weights__goes_on_after_a_kill(planted, evaluated, monkeypatch, tmp_path):
    calls = []
    real = cached.embed

    def dies(weights, dataset, modality, rows, options):
        calls.append(len(rows))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(weights, dataset, modality, rows, options)

    monkeypatch.setattr(cached, "CHUNK", 32)
    monkeypatch.setattr(cached, "embed", dies)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        evaluate_weights(planted / "labels", planted / "cohort", "default", out, **FEW)
    with pytest.raises(FileNotFoundError, match="no finished evaluation"):
        read_about(out)
    evaluate_weights(planted / "labels", planted / "cohort", "default", out, **FEW)
    assert sum(calls) == len(read_embeddings(out / "embeddings.npz")[0]) + calls[2]  # only what was missing
    assert {path.name for path in out.iterdir()} == FILES
    ours, theirs = read_evaluation(out), evaluated
    # A batch of another size may round differently; nothing else may.
    assert ours.tables["both"]["prediction"].to_numpy() == pytest.approx(
        theirs.tables["both"]["prediction"].to_numpy(), rel=1e-4
    )


def test_evaluate_weights__broken_embeddings_are_made_again(planted, evaluated, tmp_path):
    out = shutil.copytree(planted / "out", tmp_path / "out")
    (out / "embeddings.npz").write_bytes(b"half of a file")
    evaluate_weights(planted / "labels", planted / "cohort", "default", out, **FEW)
    assert (out / "results.json").read_bytes() == (planted / "out" / "results.json").read_bytes()


def test_evaluate_weights__refuses(planted, tmp_path):
    how = (planted / "cohort", "default", tmp_path / "out")
    with pytest.raises(ValueError, match="no group column 'colour'"):
        evaluate_weights(planted / "labels", *how, groups=["colour"])
    with pytest.raises(ValueError, match="must hold 'test'"):
        evaluate_weights(planted / "labels", *how, parts=("val",))
    with pytest.raises(FileNotFoundError, match="splits"):
        evaluate_weights(planted / "labels", planted / "cohort", "other", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"thesis\.txt, which no evaluation wrote"):
        evaluate_weights(planted / "labels", planted / "cohort", "default", tmp_path / "full")
    elsewhere = write_weights(tmp_path / "elsewhere", planted / "cohort", [regression("elsewhere")])
    with pytest.raises(ValueError, match="has none of the labels that elsewhere predicts"):
        evaluate_weights(elsewhere, *how)
    litres = write_weights(tmp_path / "litres", planted / "cohort", [regression("mass", "kg")])
    with pytest.raises(ValueError, match="label 'mass' has the unit 'g', but litres predicts it with the unit 'kg'"):
        evaluate_weights(litres, *how)
    assert not (tmp_path / "out").exists()


def test_evaluate_weights__refuses_a_split_that_the_weights_were_not_trained_with(planted, tmp_path):
    cohort = Cohort.open(planted / "cohort")
    run = {"cohort": "planted", "split": "another", "split_sha256": "0" * 16}
    leaky = write_weights(tmp_path / "leaky", planted / "cohort", [regression("mass")], run)
    with pytest.raises(ValueError, match="may have been trained on"):
        evaluate_weights(leaky, planted / "cohort", "default", tmp_path / "out")
    hashed = cohort.schema.files["splits/default.json"][:16]
    fine = write_weights(
        tmp_path / "fine", planted / "cohort", [regression("mass")], run | {"split": "default", "split_sha256": hashed}
    )
    assert evaluate_weights(fine, planted / "cohort", "default", tmp_path / "out", **FEW).is_dir()


def test_evaluate_weights__three_test_subjects(planted, tmp_path):
    cohort = shutil.copytree(planted / "cohort", tmp_path / "cohort")
    everyone = np.arange(299)
    write_split(Cohort.open(cohort), Split("three", everyone[:200], everyone[200:296], everyone[296:]))
    found = read_evaluation(evaluate_weights(planted / "labels", cohort, "three", tmp_path / "out", **FEW))
    assert found.results["value"].isna().all()
    assert all(r["value"] is None for r in found.audit)
    assert any("fewer than 10, so not reported" in flag["why"] for flag in found.about["flags"])


def test_evaluate_weights__several_recordings_of_a_subject_stay_together(planted, tmp_path):
    cohort = write_planted(tmp_path / "cohort", 120, recordings=3)
    weights = write_weights(tmp_path / "w", cohort, [regression("mass")])
    found = read_evaluation(evaluate_weights(weights, cohort, "default", tmp_path / "out", **FEW))
    mass = row(found, "mass", "r2")
    table = found.tables["model"]
    test = table[table["split"] == "test"]
    assert len(test) == 3 * mass.n_subjects
    assert len(found.tables["both"]) == len(table)


def test_importing_evaluation__does_not_import_torch():
    import subprocess

    program = "import sys; import ecgcmr.evaluation; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_flow__a_subject_with_another_usable_recording_is_not_lost(planted):
    from ecgcmr.cohort.dataset import Dropped, PairedDataset
    from ecgcmr.cohort.splits import open_split
    from ecgcmr.ecg.preprocessing import named_pipeline
    from ecgcmr.evaluation.flow import MOST_REASONS, cohort_flow

    cohort = Cohort.open(planted / "cohort")
    split = open_split(cohort)
    dataset = PairedDataset(cohort, np.arange(250), named_pipeline("highpass"))
    # Subject 3 has another recording; 260 has two that are refused, and there are more reasons than are listed.
    dataset.dropped = [Dropped("ecg", 1, 3, "flat"), Dropped("ecg", 2, 260, "flat"), Dropped("ecg", 4, 260, "short")]
    dataset.dropped += [Dropped("ecg", 10 + k, 261 + k, f"reason {k}") for k in range(8)]
    stages = cohort_flow(cohort, split, dataset, "ecg", {})
    lost = next(stage for stage in stages if stage["stage"] == "in the split")["lost"]
    assert sum(one["n"] for one in lost) == 9
    assert lost[-1] == {"why": "for other reasons", "n": 9 - MOST_REASONS}
    assert len(lost) == MOST_REASONS + 1


def test_groups__intersections_of_two_columns(planted):
    from ecgcmr.evaluation.group_columns import find_groups

    cohort = Cohort.open(planted / "cohort")
    found, left_out = find_groups(cohort, ["sex:age_band", "sex"])
    assert not left_out
    assert set(found["sex:age_band"].dropna()) == {f"{a}, {b}" for a in ("female", "male") for b in
                                                   ("<45", "45-54", "55-64", "65-74", ">=75")}  # fmt: skip
    with pytest.raises(ValueError, match="intersections of two columns at most"):
        find_groups(cohort, ["sex:site:age_band"])
    with pytest.raises(ValueError, match="no group column 'colour'"):
        find_groups(cohort, ["sex:colour"])


@pytest.mark.slow
def test_evaluate_weights__of_a_cmr_encoder(tiny_cohort, tmp_path):
    from pathlib import Path

    from ecgcmr.training.config import load_config
    from ecgcmr.training.run import finetune

    recipe = Path(__file__).parents[2] / "configs" / "finetune" / "phenotypes.yaml"
    small = ["objective.modality=cmr", "model.cmr.name=test_resnet.r160_in1k", "data.cmr.size=32", "train.max_steps=1",
             "train.batch_size=8", "train.precision=no", "train.monitor=loss", "train.mode=min"]  # fmt: skip
    folder = finetune(load_config(recipe, [*small, f"data.cohort={tiny_cohort}", f"out={tmp_path / 'run'}"]))
    found = read_evaluation(evaluate_weights(folder / "weights", tiny_cohort, "default", tmp_path / "out", **FEW))
    assert found.about["modality"] == "cmr"
    assert found.about["arms"]["model"] == "CMR"
    assert found.about["flow"][-1]["stage"] == "with a CMR that the model takes"
    assert len(found.tables["model"]) == 4 * (found.about["flow"][-1]["n"] - found.about["flow"][-1]["parts"]["train"])
