"""`list_runs` tells the state of real runs in each way they can end, and survives folders that are broken."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ecgcmr.cohort.locks import FolderLock
from ecgcmr.training.config import RunConfig, save_config
from ecgcmr.training.progress import ProgressEvent
from ecgcmr.training.run import pretrain
from ecgcmr.training.runs import LOCK, RECENT_SECONDS, describe_run, list_runs
from ecgcmr.training.signals import RunInterrupted

MakeConfig = Callable[..., RunConfig]

HOLD = """
import fcntl, json, os, sys, time
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
open(sys.argv[1], "w").write(json.dumps({"process": os.getpid(), "host": "node7", "since": "now"}))
print("held", flush=True)
time.sleep(60)
"""


def age(folder: Path, seconds: float) -> None:
    before = time.time() - seconds
    for path in folder.rglob("*"):
        os.utime(path, (before, before))


def bare_run(make_config: MakeConfig, folder: Path, *lines: str) -> Path:
    """A run folder as a run that was killed early leaves it."""
    folder.mkdir(parents=True)
    save_config(make_config(out=str(folder)), folder / "config.yaml")
    (folder / "train.log").write_text("".join(f"2026-01-01 00:00:00,000 INFO {line}\n" for line in lines))
    return folder


def test_finished_run__has_steps_best_value_and_age(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = pretrain(make_config(**{"out": str(tmp_path / "runs" / "deep" / "one"), "train.max_steps": 2}))
    (run,) = list_runs(tmp_path / "runs")
    assert (run.folder, run.name, run.objective, run.state) == (folder, "small", "masked_ecg", "finished")
    assert (run.step, run.total) == (2, 2)
    summary = json.loads((folder / "summary.json").read_text())
    assert run.best == summary["best"]["value"]
    assert run.age_words.endswith("s ago")
    assert (folder / "learning_curves.svg").is_file()


def test_interrupted_run__is_told_from_a_failed_one(make_config: MakeConfig, tmp_path: Path) -> None:
    def stop(event: ProgressEvent) -> None:
        if event.done == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped, failed = make_config(out=str(tmp_path / "stopped")), make_config(out=str(tmp_path / "failed"))
    with pytest.raises(RunInterrupted):
        pretrain(stopped, progress=stop)

    def fail(event: object) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        pretrain(failed, progress=fail)
    found = {run.folder.name: run for run in list_runs(tmp_path)}
    assert found["stopped"].state == "interrupted"
    assert "--resume" in found["stopped"].note
    assert found["stopped"].step in (1, 2)
    assert found["stopped"].total > 1
    assert found["failed"].state == "failed"
    assert "the disk is full" in found["failed"].note


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
def test_lock__decides_between_running_and_killed(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = bare_run(make_config, tmp_path / "run", "30 steps of 8 samples; learning rate 0.001")
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder / LOCK)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        age(folder, 10 * RECENT_SECONDS)
        run = describe_run(folder)
        assert (run.state, run.note, run.total) == ("running", f"process {holder.pid} on node7", 30)
        assert run.age_words == "2 h ago"
    finally:
        holder.kill()
        holder.wait()
    assert describe_run(folder).state == "interrupted"
    lock = FolderLock(folder / LOCK)
    lock.acquire(busy="nobody holds it")  # looking has not taken it
    lock.release()


def test_without_a_lock_file__age_decides(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = bare_run(make_config, tmp_path / "run", "continues at step 3 of 30")
    assert describe_run(folder).state == "running"
    age(folder, 2 * RECENT_SECONDS)
    assert describe_run(folder).state == "interrupted"


def test_best__is_taken_by_mode_from_rows_that_are_there(make_config: MakeConfig, tmp_path: Path) -> None:
    folder = bare_run(make_config, tmp_path / "run", "x")
    config = make_config(**{"out": str(folder), "train.monitor": "ncc", "train.mode": "max"})
    save_config(config, folder / "config.yaml")
    rows = [{"event": "val", "step": s, "ncc": v, "loss": 0.0} for s, v in ((10, 0.1), (20, 0.4), (30, 0.3))]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"event": "val", "ste')
    run = describe_run(folder)
    assert (run.best, run.monitor, run.step) == (0.4, "ncc", 30)


def test_broken_folders__are_rows_and_no_errors(make_config: MakeConfig, tmp_path: Path) -> None:
    cases = {
        "no yaml": ("config.yaml", b"\xff\xfe\x00"),
        "a list": ("config.yaml", b"- 1\n- 2\n"),
        "bad summary": ("summary.json", b'{"status": '),
        "summary list": ("summary.json", b"[1]"),
        "bad metrics": ("metrics.jsonl", b"\x00\x01\n[]\n3\n"),
        "bad log": ("train.log", b"\xff" * 100),
        "wrong types": ("summary.json", b'{"status": "finished", "best": 3, "steps": "many", "steps_planned": null}'),
    }
    for name, (file, content) in cases.items():
        (bare_run(make_config, tmp_path / name, "x") / file).write_bytes(content)
    empty = tmp_path / "not a run"
    empty.mkdir()
    (empty / "config.yaml").write_text("name: recipe\n")
    states = {run.folder.name: run.state for run in list_runs(tmp_path)}
    assert set(states) == set(cases)
    assert states["no yaml"] == states["a list"] == "broken"
    assert states["wrong types"] == "finished"


def test_no_folder__is_an_error_that_says_where_runs_are_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="`out` of their run file"):
        list_runs(tmp_path / "nowhere")
