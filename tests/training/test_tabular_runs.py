"""Runs with tabular inputs: refused where they leak or nothing reads them, exported with what inference needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from ecgcmr.cli.main import app
from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.cohort.store import Cohort
from ecgcmr.evaluation import evaluate_weights, read_predictions
from ecgcmr.hub import load_model, verify_weights
from ecgcmr.hub.bulk import write_table
from ecgcmr.hub.covariates import read_covariates
from ecgcmr.hub.exporting import export_weights
from ecgcmr.hub.pack import pack
from ecgcmr.hub.stream import StreamOptions
from ecgcmr.hub.weights import load_weights
from ecgcmr.models.tabular import tabular_input
from ecgcmr.training.config import RunConfig, load_config
from ecgcmr.training.run import finetune, pretrain

ROOT = Path(__file__).parents[2]
MakeConfig = Callable[..., RunConfig]
TABULAR = ["age_years", "sex", "hypertension"]


def fused(make_config: MakeConfig, **dotted: Any) -> RunConfig:
    fields = {"objective": {"name": "supervised"}, "data.labels": ["LVEDV", "LVM"], "data.tabular": TABULAR}
    return make_config(**{**fields, **dotted})


_FUSED: list[Path] = []


@pytest.fixture
def weights(make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights whose head reads age, sex and hypertension beside the ECG; made once."""
    if not _FUSED:
        _FUSED.append(finetune(fused(make_config, out=str(tmp_path_factory.mktemp("fused") / "run"))) / "weights")
    return _FUSED[0]


def table_of(cohort: Cohort) -> pd.DataFrame:
    return cohort.subjects.merge(cohort.labels["hypertension"].reset_index(), on="subject")


def test_finetune__exports_what_the_head_needs(weights: Path, tiny_cohort: Path) -> None:
    loaded = load_weights(weights)
    assert set(loaded.modules) == {"ecg", "head", "tabular"}
    assert loaded.config["head_options"] == {"tabular": True}
    verify_weights(weights)
    facts = json.loads((weights.parent / "summary.json").read_text())["facts"]
    assert [column["name"] for column in facts["tabular"]] == TABULAR
    assert "tabular_marginals" not in facts
    train = json.loads((tiny_cohort / "splits/default.json").read_text())["train"]
    ages = Cohort.open(tiny_cohort).subjects.set_index("subject")["age_years"].loc[train]
    assert loaded.modules["tabular"].config["columns"][0]["mean"] == pytest.approx(ages.mean())


def test_predict__with_covariates_is_what_the_modules_give(weights: Path, tiny_cohort: Path) -> None:
    cohort, loaded, model = Cohort.open(tiny_cohort), load_weights(weights), load_model(str(weights))
    found = model.predict(cohort, covariates=table_of(cohort))
    data = PairedDataset(cohort, cohort.subjects["subject"], loaded.ecg_pipeline)
    encoder: Any = loaded.modules["tabular"]
    batch = data.with_tabular(encoder.columns).batch(range(len(data)))
    with torch.no_grad():
        embedding = loaded.modules["ecg"](batch["ecg"][:, :, :200])
        beside = encoder(tabular_input(batch["tabular"], batch["tabular_mask"]))
        expected = loaded.modules["head"].predict(torch.cat([embedding, beside], 1))  # type: ignore[operator]
    assert found["subject"].tolist() == data.subjects.tolist()
    # The cache of the data set holds float16.
    np.testing.assert_allclose(found[["LVEDV", "LVM"]].to_numpy(), expected.numpy(), rtol=2e-3)


def test_predict__finds_the_row_of_each_recording(weights: Path, tiny_cohort: Path) -> None:
    cohort, model = Cohort.open(tiny_cohort), load_model(str(weights))
    table = table_of(cohort)
    whole = model.predict(cohort, covariates=table)
    shuffled = model.predict(cohort, covariates=table.sample(frac=1, random_state=3))
    pd.testing.assert_frame_equal(whole, shuffled)
    recordings = [cohort.recording(row) for row in (4, 9)]
    two = model.predict(recordings, covariates=table.iloc[[4, 9]][TABULAR])  # in the order of the recordings
    np.testing.assert_allclose(two["LVM"], whole["LVM"].iloc[[4, 9]], rtol=1e-5)
    one = model.predict(recordings[1], covariates=dict(table.iloc[9][TABULAR]))
    np.testing.assert_allclose(one["LVM"], whole["LVM"].iloc[[9]], rtol=1e-5)
    nobody = model.predict(recordings[1], covariates=dict.fromkeys(TABULAR))
    assert np.isfinite(nobody["LVM"]).all()
    assert abs(nobody["LVM"][0] - one["LVM"][0]) > 1e-4
    named = model.predict(recordings, covariates=table.iloc[[9, 4]][TABULAR].assign(item=["1", "0"]))
    pd.testing.assert_frame_equal(named, two)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda table: None,
            r"covariates are missing: .* age_years \(a number.*sex \(one of female, male",
        ),
        (lambda table: table.drop(columns="sex"), r"no column sex; this head reads"),
        (lambda table: table[table["subject"] != 5], "no row with subject 5"),
        (lambda table: pd.concat([table, table.iloc[[3]]]), "subject 3 has two rows"),
        (lambda table: table[TABULAR], r"a column item, recording or subject that says whose a row is"),
        (lambda table: table.assign(hypertension=2.0), "'hypertension' holds 2, expected 0, 1 or nothing"),
        (lambda table: table.assign(age_years="old"), "'age_years' holds 'old', expected numbers"),
    ],
)
def test_predict__says_which_covariates_are_wrong(
    weights: Path, tiny_cohort: Path, change: Callable[[pd.DataFrame], pd.DataFrame | None], message: str
) -> None:
    cohort = Cohort.open(tiny_cohort)
    with pytest.raises(ValueError, match=message):
        load_model(str(weights)).predict(cohort, covariates=change(table_of(cohort)))


def test_embed__needs_no_covariates_and_other_heads_refuse_them(
    weights: Path, tiny_cohort: Path, make_config: MakeConfig, tmp_path: Path
) -> None:
    cohort, model = Cohort.open(tiny_cohort), load_model(str(weights))
    embedding = model.embed(cohort)
    assert embedding.shape == (24, 32)
    with pytest.raises(ValueError, match=r"covariates are missing: this head reads"):
        model.predict_from(torch.from_numpy(embedding))
    plain = finetune(make_config(objective={"name": "supervised"}, **{"data.labels": ["LVM"], "train.max_steps": 1}))
    with pytest.raises(ValueError, match="reads the ECG alone; leave them out"):
        load_model(str(plain / "weights")).predict(cohort, covariates=table_of(cohort))
    with pytest.warns(UserWarning, match="fitted on the embeddings"):
        lent = load_model(str(plain / "weights"), head=str(weights))
    assert list(lent.predict(cohort, covariates=table_of(cohort))[["LVEDV", "LVM"]].shape) == [24, 2]
    reset = load_weights(weights, reset_head=[{"name": "new", "kind": "binary"}])
    assert reset.modules["head"].config["in_features"] == 32, "a new head reads the embedding alone"  # type: ignore[index]
    with pytest.raises(ValueError, match=r"head_options \['tabular'\] are not known to the export"):
        export_weights(weights, tmp_path / "export")
    packed = pack([weights], tmp_path / "packed")
    assert set(load_weights(packed.folder).modules) == {"ecg", "head", "tabular"}
    with pytest.raises(ValueError, match="cannot be saved without the module 'tabular'"):
        pack([weights], tmp_path / "broken", modules=["ecg", "head"])


def test_write_table__takes_covariates(weights: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    cohort, model = Cohort.open(tiny_cohort), load_model(str(weights))
    options = StreamOptions(covariates=table_of(cohort))
    write_table(model, "predict", [tiny_cohort], tmp_path / "out.parquet", options=options, items_of_a_part=7)
    whole = model.predict(cohort, covariates=table_of(cohort))
    np.testing.assert_allclose(pd.read_parquet(tmp_path / "out.parquet")["LVM"], whole["LVM"], rtol=1e-6)
    with pytest.raises(ValueError, match="covariates are missing"):
        write_table(model, "predict", [tiny_cohort], tmp_path / "none.parquet")
    assert not (tmp_path / "none.parquet").exists()


def test_command__predicts_with_a_table_of_covariates(weights: Path, tiny_cohort: Path, tmp_path: Path) -> None:
    table, out = table_of(Cohort.open(tiny_cohort)), tmp_path / "out.csv"
    table.to_csv(tmp_path / "about.csv", index=False)
    given = ["predict", str(tiny_cohort), "--model", str(weights), "--out", str(out), "--device", "cpu"]
    missing = CliRunner().invoke(app, given)
    assert missing.exit_code != 0
    assert "this head reads age_years" in " ".join((missing.output + str(missing.stderr)).split())
    done = CliRunner().invoke(app, [*given, "--covariates", str(tmp_path / "about.csv")])
    assert done.exit_code == 0, done.output
    expected = load_model(str(weights)).predict(Cohort.open(tiny_cohort), covariates=table)
    np.testing.assert_allclose(pd.read_csv(out)["LVM"], expected["LVM"], rtol=1e-5)
    for name, text, message in (("a.txt", "", "read from .csv and .parquet"), ("b.parquet", "x", "cannot be read")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=message):
            read_covariates(tmp_path / name)


def test_card__says_what_stands_beside_the_ecg(weights: Path) -> None:
    page = (weights / "README.md").read_text()
    assert "covariates={'age_years': None, 'sex': None, 'hypertension': None}" in page
    assert "| sex | female, male |" in page
    assert "| hypertension | 0 or 1 |" in page


@pytest.mark.parametrize(
    ("dotted", "message"),
    [
        ({"data.tabular": ["LVM"]}, "LVM, which labels names too: a target cannot be an input"),
        ({"data.tabular": ["sex", "sex"]}, "a column more than once"),
    ],
)
def test_config__refuses_leaks(make_config: MakeConfig, dotted: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fused(make_config, **dotted)


def test_run__refuses_what_nothing_reads(make_config: MakeConfig) -> None:
    with pytest.raises(ValueError, match=r"data\.tabular is set, but objective\.name=masked_ecg reads no tabular"):
        pretrain(make_config(**{"data.tabular": ["sex"]}))
    with pytest.raises(ValueError, match=r"'shoe_size' is neither a column of subjects\.parquet nor a label"):
        finetune(fused(make_config, **{"data.tabular": ["shoe_size"]}))
    with pytest.raises(ValueError, match=r"name columns in data\.tabular"):
        pretrain(make_config(objective={"name": "tabular_align"}))


def test_survival__with_covariates_runs_and_resumes(make_config: MakeConfig, tmp_path: Path) -> None:
    data = {"data.labels": ["hf_time_years", "hf_event"], "data.tabular": ["age_years", "sex"]}
    options = {"objective": {"name": "survival", "loss": "discrete", "cuts": [2.0, 5.0]}, "train.max_steps": 3}
    folder = finetune(make_config(out=str(tmp_path / "risk"), **data, **options))
    modules = load_weights(folder / "weights").modules
    assert modules["head"].config["in_features"] == 32 + modules["tabular"].embed_dim  # type: ignore[index,operator]


def test_late_fusion__learns_what_only_the_covariate_tells(make_config: MakeConfig) -> None:
    """Body mass index is copied into the target: the ECG alone cannot tell it, the fused head can."""
    real = PairedDataset._item_labels
    with pytest.MonkeyPatch.context() as patch:

        def planted(dataset: PairedDataset) -> Any:
            labels = real(dataset)
            labels[:, 0] = dataset.subject_column("bmi").to_numpy()
            return labels

        patch.setattr(PairedDataset, "_item_labels", planted)
        options = {"optim.lr": 1e-2, "train.epochs": 25, "train.monitor": "loss", "objective.freeze_encoder": True}
        folder = finetune(fused(make_config, **{"data.labels": ["LVEDV"], "data.tabular": ["bmi"], **options}))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["event"] == "val"]
    assert losses[-1] < 0.2 * losses[0]


def test_recipe__three_towers_on_the_cohort(tiny_cohort: Path, tmp_path: Path) -> None:
    small = ["model.ecg.preset=nano", "model.cmr.name=test_resnet.r160_in1k", "model.projection.hidden=16"]
    small += ["data.cmr.size=32", "train.max_steps=2", "train.batch_size=8", "train.precision=no"]
    recipe = ROOT / "configs/pretrain/align_tabular.yaml"
    folder = pretrain(load_config(recipe, [f"data.cohort={tiny_cohort}", f"out={tmp_path / 'run'}", *small]))
    weights = load_weights(folder / "weights")
    assert {"tabular", "tabular_projection", "ecg", "cmr"} <= set(weights.modules)
    assert "head_options" not in weights.config or not weights.config["head_options"]
    row = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"loss_cmr_ecg", "loss_cmr_tabular", "loss_ecg_tabular", "tabular_to_ecg_top5"} <= set(row)
    assert load_model(str(folder / "weights")).embed(Cohort.open(tiny_cohort)).shape[0] == 24


def test_evaluate__a_head_with_covariates_predicts_as_the_loaded_model(
    weights: Path, tiny_cohort: Path, tmp_path: Path
) -> None:
    out = evaluate_weights(weights, tiny_cohort, "default", tmp_path / "out", n_draws=20, n_permutations=5)
    table = read_predictions(out / "predictions.parquet")
    cohort = Cohort.open(tiny_cohort)
    told = load_model(str(weights)).predict(cohort, covariates=table_of(cohort)).set_index("subject")
    found = table[table["target"] == "LVM"].set_index("subject")["prediction"]
    assert len(found) > 1
    np.testing.assert_allclose(found.to_numpy(), told.loc[found.index, "LVM"].to_numpy(), rtol=2e-3)
