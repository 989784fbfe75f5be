"""The run file: every key is known, every message says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecgcmr.cohort.store import Cohort
from ecgcmr.config_errors import nearest, valid_names
from ecgcmr.training.config import (
    DataConfig,
    InitConfig,
    OptimConfig,
    ProbeConfig,
    RunConfig,
    TrainConfig,
    load_config,
    save_config,
)
from ecgcmr.training.data import check_labels, learned_kinds
from ecgcmr.training.sources import open_source

ROOT = Path(__file__).parents[2]
RECIPES = sorted([*(ROOT / "configs/pretrain").glob("*.yaml"), *(ROOT / "configs/finetune").glob("*.yaml")])
MINIMAL = "name: a\ndata: {cohort: somewhere}\nobjective: {name: masked_ecg}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(MINIMAL)
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_load_config__every_recipe_is_valid_and_feeds_back(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    save_config(config, tmp_path / "again.yaml")
    assert load_config(tmp_path / "again.yaml") == config


@pytest.mark.parametrize("path", sorted((ROOT / "configs/finetune").glob("*.yaml")), ids=lambda path: path.stem)
def test_finetune_recipes__name_labels_that_a_simulated_cohort_has(path: Path, tiny_cohort: Path) -> None:
    assert set(load_config(path).data.labels) <= set(Cohort.open(tiny_cohort).label_specs)


def test_load_config__overrides_win_and_have_yaml_types(file: Path) -> None:
    config = load_config(file, ["train.epochs=5", "optim.lr=1e-5", "data.labels=[LVEF, LVM]", "train.patience=null"])
    assert config.train.epochs == 5
    assert config.optim.lr == 1e-5
    assert config.data.labels == ("LVEF", "LVM")
    assert config.train.patience is None
    assert load_config(file, ["train.precision=no"]).train.precision == "no"  # YAML reads a bare no as false


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.epoch=5", "train.epochs"),
        ("optim.learning_rate=1", "optim"),
        ("epochs=5", "train.epochs"),
        ("train.lr=1", "optim.lr"),
        ("objective.mask_ration=.5", "objective.mask_ratio"),
        ("model.ecg.widht=8", "model.ecg.width"),
        ("objective.decoder.dept=1", "objective.decoder.depth"),
    ],
)
def test_load_config__unknown_key_names_the_nearest(file: Path, override: str, expected: str) -> None:
    with pytest.raises(ValueError, match="unknown key") as caught:
        load_config(file, [override])
    message = str(caught.value)
    assert override.split("=")[0] in message
    assert expected in message
    assert "command line" in message


def test_load_config__unknown_key_in_the_file_names_the_file(file: Path) -> None:
    file.write_text(MINIMAL + "train: {bach_size: 3}\n")
    with pytest.raises(ValueError, match=r"run\.yaml: unknown key 'train\.bach_size'.*'train\.batch_size'"):
        load_config(file)


def test_load_config__keys_of_another_objective_are_unknown(file: Path) -> None:
    with pytest.raises(ValueError, match=r"objective\.mask_ratio"):
        load_config(file, ["objective.name=clip_align", "objective.mask_ratio=0.5"])


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.epochs=many", ("train.epochs", "'many'", "integer")),
        ("train.epochs=-1", ("train.epochs", "-1", "greater than 0")),
        ("train.precision=fp8", ("train.precision", "'fp8'", "'bf16'")),
        ("objective.mask_ratio=1.5", ("objective.mask_ratio", "1.5", "less than 1")),
        ("objective.name=guess", ("objective.name", "guess", "masked_ecg")),
        ("data.ecg=5", ("data.ecg", "5")),
        ("name=../up", ("name", "../up")),
    ],
)
def test_load_config__wrong_value_names_field_value_expected(file: Path, override: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="command line") as caught:
        load_config(file, [override])
    for part in parts:
        assert part in str(caught.value)


def test_load_config__missing_and_broken(file: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.yaml: no such run file"):
        load_config(tmp_path / "nothing.yaml")
    with pytest.raises(ValueError, match="not KEY=VALUE"):
        load_config(file, ["--fast"])
    file.write_text("name: [")
    with pytest.raises(ValueError, match="cannot be read"):
        load_config(file)
    file.write_text("- a\n- b\n")
    with pytest.raises(ValueError, match="expected keys and values"):
        load_config(file)
    file.write_text("name: a\nobjective: {name: masked_ecg}\n")
    with pytest.raises(ValueError, match="'data' is missing"):
        load_config(file)


def test_load_config__label_twice(file: Path) -> None:
    with pytest.raises(ValueError, match="LVEF more than once"):
        load_config(file, ["data.labels=[LVEF,LVM,LVEF]"])


def test_with_values__is_checked(file: Path) -> None:
    config = load_config(file)
    assert config.with_values(**{"train.precision": "bf16"}).train.precision == "bf16"
    with pytest.raises(ValueError, match=r"train\.precision"):
        config.with_values(**{"train.precision": "half"})


def test_nearest__prefers_the_section_then_the_word() -> None:
    names = ["train", "train.epochs", "optim", "optim.lr", "optim.min_lr"]
    assert "'train.epochs'" in nearest("train.epocs", names)
    assert "'optim.lr'" in nearest("lr", names)
    assert nearest("zzz", names) == "valid here: train, optim"


def test_keys__are_frozen() -> None:
    """A key that is renamed or removed breaks the run files of users: change this list in a commit that says why."""
    sections = {
        "data": DataConfig, "init": InitConfig, "optim": OptimConfig, "train": TrainConfig, "probe": ProbeConfig,
    }  # fmt: skip
    found = {name: valid_names(section, {}) for name, section in sections.items()}
    assert list(RunConfig.model_fields) == [
        "name", "seed", "out", "license", "data", "model", "objective", "init", "optim", "train", "probe",
    ]  # fmt: skip
    assert found == {
        "data": [
            "cohort", "split", "sources", "sources.cohort", "sources.split", "sources.weight", "sources.name",
            "sources.val", "ecg", "ecg.pipeline", "ecg.crop_samples", "ecg.dtype", "cmr", "cmr.pipeline",
            "cmr.crop_mm", "cmr.size", "cmr.slices", "cmr.frames", "cmr.views", "labels", "tabular",
            "train_subjects", "train_share", "undersample", "val_subjects", "draw_seed", "group", "balance", "weight",
        ],
        "init": ["ecg", "cmr", "decoder", "allow_other_pipeline", "allow_other_split", "fresh_fc_norm"],
        "optim": [
            "name", "lr", "lr_rule", "betas", "weight_decay", "decay_all", "decay_tokens", "schedule", "warmup_epochs",
            "min_lr", "layer_decay", "lr_multipliers", "clip_grad",
        ],
        "train": [
            "epochs", "max_steps", "batch_size", "micro_batches", "micro_batch_norm", "eval_batch_size", "processes",
            "threads", "precision", "products", "log_every", "eval_every", "label_metrics", "monitor", "mode",
            "patience", "max_delta", "max_nonfinite", "save_seconds", "keep_every", "keep", "async_save", "ema_decay",
            "ema_warmup", "grad_checkpointing", "timeout_seconds", "trackers",
        ],
        "probe": ["epochs", "lr", "patience"],
    }  # fmt: skip


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes__name_labels_that_a_simulated_cohort_has(path: Path, tiny_cohort: Path) -> None:
    config = load_config(path, [f"data.cohort={tiny_cohort}"])
    check_labels(open_source(config.data), config.data, learned_kinds(config.objective.name))


@pytest.mark.parametrize("value", [".inf", "inf", ".nan"])
def test_load_config__numbers_must_be_finite(file: Path, value: str) -> None:
    with pytest.raises(ValueError, match=r"the command line: optim\.lr is .* input should be"):
        load_config(file, [f"optim.lr={value}"])


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [("r", "min"), ("r_LVM", "min"), ("auroc", "min"), ("ncc", "min"), ("ecg_to_cmr_top5", "min"), ("loss", "max"),
     ("loss_ncc", "max"), ("mse", "max"), ("binary_loss", "max"), ("c_index", "min"), ("c_index_mi", "min")],
)  # fmt: skip
def test_load_config__monitor_in_the_wrong_direction_is_refused(file: Path, monitor: str, mode: str) -> None:
    right = {"min": "max", "max": "min"}[mode]
    with pytest.raises(ValueError, match=rf"train: monitor={monitor} .* mode={mode}; set train\.mode={right}"):
        load_config(file, [f"train.monitor={monitor}", f"train.mode={mode}"])
    assert load_config(file, [f"train.monitor={monitor}", f"train.mode={right}"]).train.mode == right
    for either in ("min", "max"):
        load_config(file, ["train.monitor=temperature", f"train.mode={either}"])
