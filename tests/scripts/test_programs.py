"""The programs that `accelerate launch` starts: messages, exit codes, killing, two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ecgcmr.training.program import EXIT_WRONG_INPUT, run_program
from ecgcmr.training.run import pretrain
from ecgcmr.training.runfolder import read_metrics
from ecgcmr.training.signals import EXIT_INTERRUPTED

ROOT = Path(__file__).parents[2]
MAE = str(ROOT / "configs/pretrain/ecg_mae.yaml")
ALIGN = str(ROOT / "configs/pretrain/align.yaml")
SMALL = [
    "model.ecg.preset=nano", "model.ecg.width=32", "model.ecg.depth=1", "model.ecg.heads=2", "train.precision=no",
    "data.ecg.crop_samples=200", "train.threads=1", "optim.warmup_epochs=0", "train.save_seconds=0",
]  # fmt: skip
MAE_SMALL = [*SMALL, "objective.decoder.width=16", "objective.decoder.depth=1", "objective.decoder.heads=2"]
ALIGN_SMALL = [
    *SMALL, "model.cmr.name=test_resnet.r160_in1k", "data.cmr.size=32", "model.projection.hidden=16",
    "model.projection.out=8", "model.projection.batch_norm=true",
]  # fmt: skip


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def start(program: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *program],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    out, errors = process.communicate(timeout=280)
    assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{errors[-3000:]}"
    return out + errors


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--config", "nothing.yaml"], ("nothing.yaml", "no such run file")),
        (["--config", MAE, "train.epoch=3"], ("'train.epoch'", "'train.epochs'")),
        (["--config", MAE, "data.cohort=nowhere"], ("nowhere is not a cohort",)),
        (["--config", MAE, "train.epochs=x"], ("train.epochs", "'x'")),
        (["--config", MAE, "data.cohort={cohort}", "model.ecg.patch=33"], ("error: n_samples 500 is not a multiple",)),
    ],
)
def test_run_program__wrong_input_is_one_message_and_code_2(
    arguments: list[str], parts: tuple[str, ...], capfd: pytest.CaptureFixture[str], tmp_path: Path, tiny_cohort: Path
) -> None:
    arguments = [text.format(cohort=tiny_cohort) for text in arguments]
    assert run_program(pretrain, "x", [*arguments, f"out={tmp_path / 'run'}"]) == EXIT_WRONG_INPUT
    shown = capfd.readouterr()
    assert "ValueError" not in shown.err  # told once
    errors = [line for line in shown.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert all(part in errors[0] for part in parts)
    assert "Traceback" not in shown.err
    assert shown.out == ""
    assert not (tmp_path / "run").exists()


def test_run_program__says_where_the_result_is(
    tiny_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    arguments = ["--config", MAE, *MAE_SMALL, f"data.cohort={tiny_cohort}", f"out={out}", "train.max_steps=1"]
    assert run_program(pretrain, "x", arguments) == 0
    assert capsys.readouterr().out.strip() == out
    assert run_program(pretrain, "x", arguments) == EXIT_WRONG_INPUT
    assert "--resume" in capsys.readouterr().err
    assert run_program(pretrain, "x", [*arguments[:2], "--resume", *arguments[2:]]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_pretrain__ended_by_a_signal_resumes_to_the_same_numbers(
    tiny_cohort: Path, tmp_path: Path, number: signal.Signals
) -> None:
    arguments = [str(ROOT / "scripts/pretrain.py"), "--config", MAE, *MAE_SMALL, f"data.cohort={tiny_cohort}"]
    arguments += ["train.epochs=60", "train.batch_size=4"]
    finish(start([*arguments, "out=whole"], tmp_path))
    ended = start([*arguments, "out=parts"], tmp_path)
    for _ in range(6000):
        if (tmp_path / "parts/checkpoints/last").is_dir():
            break
        time.sleep(0.01)
    ended.send_signal(number)
    shown = finish(ended, EXIT_INTERRUPTED if number == signal.SIGTERM else -signal.SIGKILL)
    assert not (tmp_path / "parts/summary.json").exists()
    if number == signal.SIGTERM:
        assert "--resume" in shown
        assert "Traceback" not in shown
    finish(start([*arguments, "out=parts", "--resume"], tmp_path))
    for name in ("metrics.jsonl", "checkpoints/last/model.safetensors", "weights/model.safetensors"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "small", "launcher"),
    [(MAE, MAE_SMALL, "cpu_2"), (ALIGN, ALIGN_SMALL, "cpu_2"), (ALIGN, ALIGN_SMALL, "fsdp_cpu_2")],
    ids=["ecg_mae", "align", "align sharded"],
)
def test_two_processes__equal_one_with_the_double_batch(
    tiny_cohort: Path, tmp_path: Path, recipe: str, small: list[str], launcher: str
) -> None:
    """Losses of each step and the final weights, through the real launcher, with evaluation shared unevenly."""
    common = ["--config", recipe, *small, f"data.cohort={tiny_cohort}", "train.epochs=3", "train.log_every=1"]
    common += ["optim.lr=1e-4"]  # Adam turns the rounding of tiny gradients into whole steps, of this size
    program = str(ROOT / "scripts/pretrain.py")
    finish(start([program, *common, "out=one", "train.batch_size=8"], tmp_path))
    two = ["train.batch_size=4", "train.processes=2", "out=two"]
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / f"configs/accelerate/{launcher}.yaml")]
    shown = finish(start([*launch, program, *common, *two], tmp_path))
    assert next(line for line in shown.splitlines() if line.endswith("two")) == "two", "the folder is told once"
    assert shown.count("finished in") == shown.count("steps of") == 1, "one process talks, not both"
    assert shown.count("parameters sharded over 2 processes") == int(launcher.startswith("fsdp"))
    rows = {name: read_metrics(tmp_path / name) for name in ("one", "two")}
    assert len(rows["one"]) == len(rows["two"]) > 6
    for one, both in zip(rows["one"], rows["two"], strict=True):
        assert (one["event"], one["step"]) == (both["event"], both["step"])
        # The first steps agree to float32 rounding, later ones as far as Adam lets them.
        assert both["loss"] == pytest.approx(one["loss"], rel=3e-6 if one["step"] == 1 else 5e-4), one
        if one["event"] == "train" and one["step"] == 1:
            assert both["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-5)
    summary = json.loads((tmp_path / "two/summary.json").read_text())
    assert (summary["processes"], summary["global_batch"]) == (2, 8)
    one_weights, two_weights = (load_file(tmp_path / name / "weights/model.safetensors") for name in ("one", "two"))
    for key, value in one_weights.items():
        assert torch.allclose(value.double(), two_weights[key].double(), atol=2e-3), key


@pytest.mark.slow
def test_launch__cpu_without_a_configuration_is_refused(tiny_cohort: Path, tmp_path: Path) -> None:
    """The trap: --cpu --num_processes 2 starts one plain process."""
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", str(ROOT / "scripts/pretrain.py")]
    arguments = ["--config", MAE, *MAE_SMALL, f"data.cohort={tiny_cohort}", "out=trapped"]
    shown = finish(start([*launch, *arguments], tmp_path), code=1)
    assert "cpu_2.yaml" in shown
    assert not (tmp_path / "trapped").exists()
