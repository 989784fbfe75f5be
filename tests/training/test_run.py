"""Whole runs on 24 subjects: files, resuming, stopping, refusing."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.hub import folder as folder_module
from ecgcmr.hub.weights import load_weights
from ecgcmr.objectives.base import Objective
from ecgcmr.training import keeper, loop, run
from ecgcmr.training.config import RunConfig, load_config
from ecgcmr.training.progress import ProgressEvent
from ecgcmr.training.run import finetune, pretrain
from ecgcmr.training.runfolder import read_metrics
from ecgcmr.training.signals import RunInterrupted

MakeConfig = Callable[..., RunConfig]
LABELS = ["LVEDV", "LVM"]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def supervised(make_config: MakeConfig, **dotted: Any) -> RunConfig:
    return make_config(**{"objective": {"name": "supervised"}, "data.labels": LABELS, **dotted})


def test_pretrain__writes_exactly(make_config: MakeConfig) -> None:
    config = make_config()
    folder = pretrain(config)
    weights = ["README.md", "config.json", "expected.json", "model.safetensors", "preprocess.json"]
    assert files(folder) == [
        "checkpoints/best/meta.json",
        "checkpoints/best/model.safetensors",
        "checkpoints/last/meta.json",
        "checkpoints/last/model.safetensors",
        "checkpoints/last/train_state.pt",
        "config.yaml",
        "learning_curves.svg",
        "metrics.jsonl",
        "summary.json",
        "train.log",
        *[f"weights/{name}" for name in weights],
    ]
    assert load_config(folder / "config.yaml") == config
    rows = read_metrics(folder)
    assert [row["event"] for row in rows] == ["train", "val"] * 3
    assert [row["epoch"] for row in rows] == [1, 1, 2, 2, 3, 3]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 6
    assert summary["status"] == "finished"
    assert 0 < summary["wait_share"] < 1
    assert summary["best"]["value"] == min(row["loss"] for row in rows if row["event"] == "val")
    assert "finished in" in (folder / "train.log").read_text()


@pytest.mark.parametrize(
    ("objective", "modules"),
    [
        ({"name": "cmr_simclr"}, {"cmr", "cmr_projection"}),
        ({"name": "clip_align", "ecg_augment": "light"}, {"ecg", "cmr", "ecg_projection", "cmr_projection"}),
        ({"name": "supervised", "modality": "cmr"}, {"cmr", "head"}),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_pretrain__runs_every_objective(make_config: MakeConfig, objective: dict[str, Any], modules: set[str]) -> None:
    labels = LABELS if objective["name"] == "supervised" else []
    folder = pretrain(make_config(objective=objective, **{"data.labels": labels, "train.max_steps": 2}))
    assert set(load_weights(folder / "weights").modules) == modules
    assert all(torch.tensor(row["loss"]).isfinite() for row in read_metrics(folder))


def test_finetune__exports_a_head_in_units_and_learns_validation_correlations(make_config: MakeConfig) -> None:
    folder = finetune(supervised(make_config))
    weights = load_weights(folder / "weights")
    assert [label["name"] for label in weights.config["labels"]] == LABELS
    assert weights.config["labels"][1]["unit"] == "g"
    row = read_metrics(folder, "val")[-1]
    assert {"r", "r_LVEDV", "r_LVM"} <= set(row)
    facts = json.loads((folder / "summary.json").read_text())["facts"]["labels"]
    assert torch.allclose(weights.modules["head"].mean, torch.tensor([fact["mean"] for fact in facts]))  # type: ignore[arg-type]


def test_finetune__without_labels_is_refused(make_config: MakeConfig) -> None:
    with pytest.raises(ValueError, match=r"data\.labels is empty"):
        finetune(make_config())


def interrupt_at(step: int) -> Callable[[ProgressEvent], None]:
    def watch(event: ProgressEvent) -> None:
        if event.done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return watch


@pytest.mark.parametrize("step", [1, 3, 4])
def test_resume__is_bitwise_equal_to_never_stopping(make_config: MakeConfig, tmp_path: Path, step: int) -> None:
    """With stochastic depth, augmentation and a window of metrics that crosses the interruption."""
    options = {"train.log_every": 4, "objective": {"name": "supervised"}, "data.labels": LABELS}
    whole = pretrain(make_config(out=str(tmp_path / "whole"), **options))
    config = make_config(out=str(tmp_path / "parts"), **options)
    with pytest.raises(RunInterrupted, match="--resume") as caught:
        pretrain(config, progress=interrupt_at(step))
    assert caught.value.step == step + 1  # the step that was under way when the signal was seen is finished
    parts = pretrain(config, resume=True)
    for name in ("metrics.jsonl", "checkpoints/last/model.safetensors", "checkpoints/best/model.safetensors"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name
    assert (parts / "weights/model.safetensors").read_bytes() == (whole / "weights/model.safetensors").read_bytes()
    first, second = (torch.load(f / "checkpoints/last/train_state.pt")["optimizer"]["state"] for f in (whole, parts))
    for key, state in first.items():
        for name, value in state.items():
            assert torch.equal(value, second[key][name]), (key, name)


def test_resume__drops_rows_after_the_checkpoint(make_config: MakeConfig) -> None:
    config = make_config()
    with pytest.raises(RunInterrupted):
        pretrain(config, progress=interrupt_at(3))
    with (config.folder / "metrics.jsonl").open("a") as file:
        file.write('{"event": "train", "step": 99}\n')
    pretrain(config, resume=True)
    assert [row["step"] for row in read_metrics(config.folder)] == [2, 2, 4, 4, 6, 6]


def test_resume__other_configuration_is_refused(make_config: MakeConfig) -> None:
    with pytest.raises(RunInterrupted):
        pretrain(make_config(), progress=interrupt_at(1))
    with pytest.raises(ValueError, match=r"optim\.lr was 0\.001, now 0\.002"):
        pretrain(make_config(**{"optim.lr": 2e-3}), resume=True)
    pretrain(make_config(**{"train.save_seconds": 60.0}), resume=True)


def test_resume__corrupt_checkpoint_is_refused_by_name(make_config: MakeConfig) -> None:
    config = make_config()
    with pytest.raises(RunInterrupted):
        pretrain(config, progress=interrupt_at(1))
    path = config.folder / "checkpoints/last/model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"last/model\.safetensors: corrupt"):
        pretrain(config, resume=True)


def test_resume__goes_on_from_the_checkpoint_before_a_broken_one(make_config: MakeConfig, tmp_path: Path) -> None:
    """To the same weights and metrics as a run that was never stopped."""
    whole = pretrain(make_config(out=str(tmp_path / "whole")))
    config = make_config(out=str(tmp_path / "parts"), **{"train.keep_every": 1})
    with pytest.raises(RunInterrupted):
        pretrain(config, progress=interrupt_at(4))
    checkpoints = config.folder / "checkpoints"
    assert {path.name for path in checkpoints.iterdir()} == {"best", "last", "previous", "epoch-00001", "epoch-00002"}
    (checkpoints / "last/train_state.pt").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"last/train_state\.pt: corrupt.*--resume-from (previous|epoch-00002)"):
        pretrain(config, resume=True)
    parts = pretrain(config, resume="epoch-00001")
    for name in ("metrics.jsonl", "checkpoints/last/model.safetensors", "weights/model.safetensors"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name


def test_pretrain__micro_batches_change_no_number(make_config: MakeConfig, tmp_path: Path) -> None:
    """With stochastic depth, augmentations and masks; the loss of each step to float32 rounding."""
    options = {"train.log_every": 1, "train.max_steps": 2}
    folders = [
        pretrain(make_config(out=str(tmp_path / str(parts)), **options, **{"train.micro_batches": parts}))
        for parts in (1, 4)
    ]
    rows = [read_metrics(folder) for folder in folders]
    assert len(rows[0]) == 3
    for one, four in zip(*rows, strict=True):
        assert four.pop("event") == one.pop("event")
        assert four == pytest.approx(one, rel=1e-4)


def test_data__orders_by_group_and_weight(make_config: MakeConfig) -> None:
    from ecgcmr.training.data import open_feeds
    from ecgcmr.training.sources import open_source

    def order(**data: Any) -> Any:
        config = make_config(**{f"data.{key}": value for key, value in data.items()}).data
        return open_feeds(open_source(config), config, {"ecg"})

    assert order().order is None
    feeds = order(group="sex", balance=1.0)
    taken = feeds.train.group_codes[feeds.order(3, 0)]
    assert abs(2 * taken.mean() - 1) <= 1.001 / len(taken)
    assert len(set(feeds.train.batch([0, 1, 2, 3, 4, 5, 6, 7])["group"].tolist())) == 2
    older = order(weight="age_years")
    ages = older.train.subject_column("age_years").to_numpy()
    assert abs(ages[older.order(3, 0)].mean() - (ages**2).sum() / ages.sum()) < ages.std() / 2
    with pytest.raises(ValueError, match=r"data\.weight: column 'sex' of the subjects"):
        order(weight="sex")
    with pytest.raises(ValueError, match="no group column 'shoe_size'; have"):
        order(group="shoe_size", balance=0.5)
    with pytest.raises(ValueError, match="balance needs group"):
        order(balance=0.5)


def test_pretrain__existing_run_is_not_overwritten(make_config: MakeConfig) -> None:
    config = make_config(**{"train.max_steps": 1})
    folder = pretrain(config)
    before = {name: (folder / name).read_bytes() for name in files(folder)}
    with pytest.raises(ValueError, match=r"holds a run already.*--resume"):
        pretrain(config)
    assert pretrain(config, resume=True) == folder
    assert {name: (folder / name).read_bytes() for name in files(folder)} == before


def test_pretrain__foreign_folder_is_left_alone(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="is not a run folder"):
        pretrain(make_config())
    assert files(tmp_path / "run") == ["thesis.tex"]


@pytest.mark.parametrize(
    ("dotted", "message"),
    [
        ({"data.cohort": "nowhere"}, "nowhere is not a cohort"),
        ({"data.split": "other"}, "splits.*default"),
        ({"data.ecg": {"pipeline": "magic"}}, "unknown ECG pipeline 'magic'"),
        ({"data.ecg": {"pipeline": "highpass", "crop_samples": 5000}}, r"crop_samples is 5000.*gives 1000"),
        ({"data.labels": ["LVEDV", "shoe_size"]}, "no label 'shoe_size'"),
        ({"data.train_subjects": 10_000}, r"data\.train_subjects is 10000, but \d+ train subjects"),
        ({"init": {"ecg": "nowhere"}}, "nowhere.: no weights folder"),
        ({"train.trackers": ["nowhere"]}, "train.trackers: 'nowhere' is unknown"),
        ({"train.processes": 4}, "train.processes is 4, but 1 process has started"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_pretrain__wrong_input_leaves_no_folder(make_config: MakeConfig, dotted: dict[str, Any], message: str) -> None:
    config = make_config(**dotted)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        pretrain(config)
    assert not config.folder.exists()


def test_pretrain__full_disk_keeps_the_checkpoint_before(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    real, calls = keeper.save_checkpoint, []

    def full(folder: Path, *args: Any, **more: Any) -> None:
        calls.append(folder.name)
        if len(calls) > 2:
            raise OSError(28, "the disk is full: free space and continue with --resume", str(folder))
        real(folder, *args, **more)

    monkeypatch.setattr(keeper, "save_checkpoint", full)
    with pytest.raises(OSError, match="the disk is full"):
        pretrain(config)
    monkeypatch.undo()
    assert "the disk is full" in (config.folder / "train.log").read_text()
    pretrain(config, resume=True)
    assert [row["step"] for row in read_metrics(config.folder)] == [2, 2, 4, 4, 6, 6]


@pytest.mark.parametrize("failing", ["config.yaml", "summary.json"])
def test_pretrain__full_disk_leaves_no_half_file(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    real = folder_module.write_synced

    def full(path: Path, data: bytes) -> None:
        if failing in path.name:
            path.write_bytes(data[:9])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, data)

    monkeypatch.setattr(folder_module, "write_synced", full)
    config = make_config()
    with pytest.raises(OSError, match=rf"{failing} was not written: No space left") as caught:
        pretrain(config)
    assert caught.value.errno == errno.ENOSPC
    assert not any(failing in name for name in files(config.folder))
    monkeypatch.undo()
    folder = pretrain(config, resume=True)
    assert json.loads((folder / "summary.json").read_text())["status"] == "finished"


def test_finetune__a_diagnosis_of_one_class_is_told(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    item_labels = PairedDataset._item_labels

    def healthy(dataset: PairedDataset) -> Any:
        return item_labels(dataset) * [1.0 if name != "mi" else 0.0 for name in dataset.label_names]

    monkeypatch.setattr(PairedDataset, "_item_labels", healthy)
    config = supervised(
        make_config, **{"data.labels": ["mi"], "train.monitor": "auroc", "train.mode": "max", "train.epochs": 1}
    )
    with pytest.raises(ValueError, match=r"train\.monitor is 'auroc'.*differs among the validation subjects"):
        finetune(config)
    assert "'mi' is 0 in all 17 observed training items" in caplog.text


def test_evaluate__best_differs_from_last(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr(loop, "evaluate", lambda *args: {"loss": next(values)})
    states = {}
    real = loop.Trainer._evaluate

    def keep(self: loop.Trainer) -> None:
        states[self.position.epoch] = {k: v.clone() for k, v in self.objective.state_dict().items()}
        real(self)

    monkeypatch.setattr(loop.Trainer, "_evaluate", keep)
    folder = pretrain(make_config())
    best, last = (load_file(folder / "checkpoints" / name / "model.safetensors") for name in ("best", "last"))
    assert all(torch.equal(best[key], states[2][key]) for key in best)
    assert all(torch.equal(last[key], states[3][key]) for key in last)
    assert any(not torch.equal(best[key], last[key]) for key in best)
    exported = load_weights(folder / "weights").modules["ecg"].state_dict()
    assert all(torch.equal(value, best[f"mae.encoder.{key}"]) for key, value in exported.items())


def test_evaluate__stops_early(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([1.0, 1.05, 1.2, 1.2, 0.0])
    monkeypatch.setattr(loop, "evaluate", lambda *args: {"loss": next(values)})
    folder = pretrain(make_config(**{"train.epochs": 5, "train.patience": 1, "train.max_delta": 0.1}))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["epochs"] == 4
    assert summary["stopped_early"]
    assert summary["best"] == {"monitor": "loss", "value": 1.0, "epoch": 1}


def test_evaluate__unknown_monitor_names_what_there_is(make_config: MakeConfig) -> None:
    with pytest.raises(ValueError, match=r"train\.monitor is 'auroc', the validation gives: .*loss_mse"):
        pretrain(make_config(**{"train.monitor": "auroc", "train.mode": "max"}))


class Spoiled:
    """Makes the loss of chosen steps NaN, as a broken recording would."""

    def __init__(self, steps: set[int]) -> None:
        self.steps, self.count = steps, 0

    def __call__(self, objective: Objective) -> Objective:
        forward = objective.forward

        def spoiled(*args: Any, **kwargs: Any) -> Any:
            out = forward(*args, **kwargs)
            if objective.training:
                self.count += 1
                if self.count in self.steps:
                    out.losses["mse"] = out.losses["mse"] * float("nan")
            return out

        objective.forward = spoiled  # type: ignore[method-assign]
        return objective


def test_fit__skips_and_counts_steps_that_are_not_finite(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, build = Spoiled({2, 3}), run.build_objective
    monkeypatch.setattr(run, "build_objective", lambda *args: spoil(build(*args)))
    folder = pretrain(make_config())
    assert json.loads((folder / "summary.json").read_text())["skipped_steps"] == 2
    rows = read_metrics(folder, "train")
    assert [row["skipped"] for row in rows] == [1, 2, 2]
    assert all(torch.tensor(row["loss"]).isfinite() for row in rows)
    assert "step 1 skipped: loss nan" in (folder / "train.log").read_text()
    assert all(v.isfinite().all() for v in load_file(folder / "weights/model.safetensors").values())


def test_fit__stops_after_too_many(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil, build = Spoiled({2, 3, 4, 5, 6}), run.build_objective
    monkeypatch.setattr(run, "build_objective", lambda *args: spoil(build(*args)))
    config = make_config(**{"train.max_nonfinite": 2})
    with pytest.raises(ValueError, match=r"not finite in 3 steps in a row.*lower optim\.lr"):
        pretrain(config)
    assert not (config.folder / "weights").exists()


def test_pretrain__nothing_learned_is_no_success(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil, build = Spoiled(set(range(1, 7))), run.build_objective
    monkeypatch.setattr(run, "build_objective", lambda *args: spoil(build(*args)))
    config = make_config()
    with pytest.raises(ValueError, match=r"all 6 steps were skipped"):
        pretrain(config)
    assert not (config.folder / "weights").exists()
    assert not (config.folder / "summary.json").exists()


def test_pretrain__weights_that_are_not_finite_are_not_exported(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(trainer: loop.Trainer, stop: object) -> None:
        trainer.objective.mae.encoder.cls_token.data.fill_(float("nan"))  # type: ignore[union-attr,operator]

    monkeypatch.setattr(loop.Trainer, "fit", fit)
    config = make_config()
    with pytest.raises(ValueError, match=r"mae\.encoder\.cls_token is not finite"):
        pretrain(config)
    assert not (config.folder / "weights").exists()


def test_pretrain__learns(make_config: MakeConfig) -> None:
    folder = pretrain(make_config(**{"train.epochs": 12, "optim.lr": 5e-3}))
    losses = [row["loss"] for row in read_metrics(folder, "val")]
    assert losses[-1] < 0.9 * losses[0]


def test_data__draws_are_nested_and_batches_may_exceed_the_data(make_config: MakeConfig) -> None:
    from ecgcmr.training.data import open_feeds
    from ecgcmr.training.sources import open_source

    subjects = {}
    for n in (3, 6):
        config = make_config(**{"data.train_subjects": n, "data.draw_seed": 1})
        subjects[n] = set(open_feeds(open_source(config.data), config.data, {"ecg"}).train.unique_subjects.tolist())
    assert len(subjects[3]) == 3
    assert subjects[3] < subjects[6]
    folder = pretrain(make_config(**{"data.train_subjects": 3, "train.batch_size": 50, "train.epochs": 2}))
    assert json.loads((folder / "summary.json").read_text())["global_batch"] == 3


def test_init__starts_from_weights_and_refuses_those_of_other_data(make_config: MakeConfig, tmp_path: Path) -> None:
    source = pretrain(make_config(out=str(tmp_path / "mae"), **{"train.max_steps": 2}))
    init = {"ecg": f"local-dir:{source / 'weights'}"}
    tuned = finetune(supervised(make_config, out=str(tmp_path / "tuned"), init=init, **{"optim.lr": 1e-12}))
    mae, ours = (load_weights(f / "weights").modules["ecg"].state_dict() for f in (source, tuned))
    assert torch.allclose(mae["blocks.0.attn.qkv.weight"], ours["blocks.0.attn.qkv.weight"], atol=1e-6)
    other = {"pipeline": "highpass_z", "crop_samples": 200}
    with pytest.raises(ValueError, match=r"prepared by 'highpass'.*allow_other_pipeline"):
        finetune(supervised(make_config, init=init, **{"data.ecg": other}))
    with pytest.raises(ValueError, match=r"init\.cmr is set, but this objective trains ecg"):
        finetune(supervised(make_config, init={"cmr": str(source / "weights")}))
    with pytest.raises(ValueError, match=r"blocks.*model\.ecg of the run file"):
        finetune(
            supervised(make_config, init=init, **{"model.ecg": {"width": 64, "depth": 1, "heads": 2, "patch": 50}})
        )
    config = json.loads((source / "weights/config.json").read_text())
    config["run"]["split_sha256"] = "another"
    (source / "weights/config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"another split.*test subjects"):
        finetune(supervised(make_config, init=init))


def test_init__goes_on_with_the_decoder_unless_told_not_to_or_of_another_shape(
    make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = pretrain(make_config(out=str(tmp_path / "first"), **{"train.max_steps": 2}))
    theirs = load_weights(source / "weights").modules["ecg_decoder"].state_dict()

    def decoder(name: str, **dotted: Any) -> dict[str, torch.Tensor]:
        init = {"ecg": str(source / "weights"), **dotted.pop("init", {})}
        frozen = {"optim.lr": 1e-12, "train.max_steps": 1, "seed": 5}
        folder = pretrain(make_config(out=str(tmp_path / name), init=init, **{**frozen, **dotted}))
        return load_weights(folder / "weights").modules["ecg_decoder"].state_dict()

    assert torch.allclose(decoder("goes_on")["pred.weight"], theirs["pred.weight"], atol=1e-6)
    assert not torch.allclose(decoder("fresh", init={"decoder": False})["pred.weight"], theirs["pred.weight"])
    with caplog.at_level("INFO"):
        other = decoder("other", **{"objective.decoder": {"width": 8, "depth": 1, "heads": 1}})
    assert other["pred.weight"].shape != theirs["pred.weight"].shape
    assert "has one of another shape" in caplog.text
