"""A run that is killed again and again ends with the weights, optimizer and metrics of one that was left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ecgcmr.training.config import RunConfig, save_config

ROOT = Path(__file__).parents[2]
MakeConfig = Callable[..., RunConfig]

# ECGCMR_KILLS=200 is the whole of it (about two minutes on an idle machine); CI does fewer.
KILLS = int(os.environ.get("ECGCMR_KILLS", "40"))

OFTEN = {"train.save_seconds": 0.01, "train.keep_every": 3, "train.log_every": 3, "train.ema_decay": 0.9}
STAGES: dict[str, dict[str, Any]] = {
    "mae": {},
    "simclr": {"objective": {"name": "cmr_simclr"}},
    "align": {"objective": {"name": "clip_align", "learn_temperature": True, "ecg_augment": "light"}},
    "supervised": {"objective": {"name": "supervised"}, "data.labels": ["LVEDV", "LVM"]},
}


def kill(folder: Path, configs: dict[str, RunConfig], kills: int, signals: str) -> dict[str, dict[str, Any]]:
    """Run `kill_runs.py` on these runs, one after the other."""
    files = []
    for name, config in configs.items():
        files.append(str(folder / f"{name}.yaml"))
        save_config(config, Path(files[-1]))
    program = [sys.executable, str(ROOT / "tests/training/kill_runs.py"), ",".join(files), str(folder / "runs")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*program, str(kills), "1", signals], capture_output=True, text=True, env=environment, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    print(done.stdout)
    reports: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return reports


@pytest.mark.slow
def test_pretrain__killed_five_times_in_each_stage_ends_as_if_never_killed(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    configs = {name: make_config(**OFTEN, **options, **{"train.epochs": 5}) for name, options in STAGES.items()}
    reports = kill(tmp_path, configs, 5, "kill")
    assert {name: report["differing"] for name, report in reports.items()} == {name: [] for name in STAGES}
    assert all(report["ends"] == {"-9": 5} for report in reports.values())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_pretrain__pre_empted_again_and_again_ends_as_if_never_interrupted(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    """SIGKILL and SIGTERM, while starting, training, evaluating, saving and exporting."""
    options = {**OFTEN, **STAGES["supervised"], "train.epochs": max(5, KILLS // 2)}
    report = kill(tmp_path, {"often": make_config(**options)}, KILLS, "mixed")["often"]
    assert report["differing"] == []
    assert sum(report["ends"].values()) == KILLS
    assert report["ends"].get("-9", 0) > KILLS // 5
    assert report["moved_on"] > KILLS // 5, "most kills hit before anything was saved: they tested nothing"
