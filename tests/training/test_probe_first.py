"""LP-FT: the run starts from the head of its probe, and both can be resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ecgcmr.hub.weights import load_weights
from ecgcmr.training import run as run_module
from ecgcmr.training.config import RunConfig
from ecgcmr.training.run import finetune, pretrain
from ecgcmr.training.runfolder import read_metrics

MakeConfig = Callable[..., RunConfig]


@pytest.fixture
def lp_ft(make_config: MakeConfig, tmp_path: Path) -> RunConfig:
    """A run of two epochs after a probe of two, from an encoder that was pretrained a little."""
    start = pretrain(make_config(**{"out": str(tmp_path / "mae"), "train.epochs": 1}))
    values: dict[str, Any] = {
        "objective": {"name": "supervised", "ecg_augment": "none"},
        "data.labels": ["LVEDV", "mi"],
        "init.ecg": str(start / "weights"),
        "train.epochs": 2,
        "probe": {"epochs": 2, "lr": 1e-2},
    }
    return make_config(**values)


def test_probe__comes_first_and_leaves_the_encoder_alone(lp_ft: RunConfig) -> None:
    folder = finetune(lp_ft)
    start = load_weights(lp_ft.init.ecg or "")
    probe, tuned = load_weights(folder / "probe" / "weights"), load_weights(folder / "weights")
    for name, value in start.modules["ecg"].state_dict().items():
        assert torch.equal(probe.modules["ecg"].state_dict()[name], value), name
    assert any(
        not torch.equal(value, tuned.modules["ecg"].state_dict()[name])
        for name, value in start.modules["ecg"].state_dict().items()
    )
    assert len(read_metrics(folder / "probe", "val")) == len(read_metrics(folder, "val")) == 2


def test_probe__gives_the_run_its_head(lp_ft: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = {}

    def stop(config: RunConfig, source: object, objective: torch.nn.Module, *_: object) -> None:
        if config.probe is None:
            original(config, source, objective, *_)
            return
        begun.update({name: value.clone() for name, value in objective.state_dict().items()})
        raise KeyboardInterrupt

    original = run_module._train
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "_train", stop)
        with pytest.raises(KeyboardInterrupt):
            finetune(lp_ft)
    probe = load_weights(lp_ft.folder / "probe" / "weights")
    for name, value in probe.modules["head"].state_dict().items():
        assert torch.equal(begun[f"head.{name}"], value), name
    finetune(lp_ft, resume=True)
    assert (lp_ft.folder / "weights").is_dir()


def test_probe__killed_on_the_way_it_ends_with_the_same_weights(lp_ft: RunConfig, tmp_path: Path) -> None:
    """Killed in the probe, and again in the run."""
    whole = load_weights(finetune(lp_ft) / "weights")
    again = lp_ft.with_values(out=str(tmp_path / "again"))

    class Killed(Exception):
        pass

    for name in ("small_probe", "small"):

        def kill(event: Any, name: str = name) -> None:
            if event.name == name and event.done == 3:
                raise Killed

        with pytest.raises(Killed):
            finetune(again, resume=again.folder.exists(), progress=kill)
    ended = load_weights(finetune(again, resume=True) / "weights")
    for module in ("ecg", "head"):
        for name, value in whole.modules[module].state_dict().items():
            assert torch.equal(value, ended.modules[module].state_dict()[name]), name


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"init.ecg": None}, "a head on an encoder of random weights"),
        ({"objective": {"name": "supervised", "freeze_encoder": True}}, "trains the head only"),
        ({"objective": {"name": "clip_align"}, "data.labels": []}, "data.labels is empty"),
    ],
)
def test_probe__where_it_makes_no_sense_is_refused(
    make_config: MakeConfig, tmp_path: Path, values: dict[str, Any], words: str
) -> None:
    usual = {"objective": {"name": "supervised"}, "data.labels": ["mi"], "init.ecg": str(tmp_path), "probe": {}}
    with pytest.raises(ValueError, match=words):
        finetune(make_config(**{**usual, **values}))


def test_probe__goes_into_no_folder_of_others(lp_ft: RunConfig) -> None:
    lp_ft.folder.mkdir()
    (lp_ft.folder / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="is not a run folder"):
        finetune(lp_ft)
    assert [path.name for path in lp_ft.folder.iterdir()] == ["thesis.tex"]
