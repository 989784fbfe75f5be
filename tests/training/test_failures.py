"""What can go wrong around a run: a full disk, a clock that jumps, a second run in the same folder."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ecgcmr.training import run
from ecgcmr.training.checkpoint import load_checkpoint
from ecgcmr.training.config import RunConfig, save_config
from ecgcmr.training.keeper import Keeper
from ecgcmr.training.program import run_program
from ecgcmr.training.progress import ProgressEvent
from ecgcmr.training.run import pretrain
from ecgcmr.training.runfolder import MetricsLog, start_folder
from ecgcmr.training.runlock import LOCK, RunLock
from ecgcmr.training.signals import RunInterrupted

MakeConfig = Callable[..., RunConfig]
FILES = ("metrics.jsonl", "checkpoints/last/model.safetensors", "weights/model.safetensors")


def interrupt_at(step: int) -> Callable[[ProgressEvent], None]:
    return lambda event: os.kill(os.getpid(), signal.SIGTERM) if event.done == step else None


@pytest.mark.parametrize("in_background", [True, False])
def test_pretrain__disk_full_at_a_checkpoint(
    make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], in_background: bool
) -> None:
    """The system itself refuses to write more than 64 KiB into a file, as a full disk or a quota does."""
    options = {"train.async_save": in_background}
    whole = pretrain(make_config(out=str(tmp_path / "whole"), **options))
    config = make_config(out=str(tmp_path / "parts"), **options)
    save_config(config, tmp_path / "parts.yaml")
    with pytest.raises(RunInterrupted):
        pretrain(config, progress=interrupt_at(1))
    last = config.folder / "checkpoints/last"
    before = {path.name: path.read_bytes() for path in last.iterdir()}
    assert len(before["model.safetensors"]) > 2**16
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limits[1]))
    try:
        code = run_program(pretrain, "", ["--config", str(tmp_path / "parts.yaml"), "--resume"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1
    told = capsys.readouterr().err
    assert "error: [Errno 27] a file is larger than this process may write" in told
    assert "MiB for this folder were not written" in told
    assert "free space and continue with --resume" in told
    assert "Traceback" not in told
    assert {path.name: path.read_bytes() for path in last.iterdir()} == before
    assert not list(config.folder.rglob(".*.partial"))
    assert load_checkpoint(last).meta["position"]["step"] == 2
    pretrain(config, resume=True)
    assert all((config.folder / name).read_bytes() == (whole / name).read_bytes() for name in FILES)


def test_metrics_log__disk_full_at_a_row_names_the_file(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.add({"step": 1})
    kept = log.n_bytes
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kept + 4, limits[1]))
    try:
        with pytest.raises(OSError, match=r"a row was not written; free space.*metrics\.jsonl"):
            log.add({"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    again = MetricsLog(tmp_path / "metrics.jsonl", kept)
    again.add({"step": 2})
    again.close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n'


def test_pretrain__a_clock_that_jumps_changes_nothing(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of day goes back and forth by years; the machine sleeps for a day now and then."""
    whole = pretrain(make_config(out=str(tmp_path / "whole")))
    jumps, slept, monotonic = [0], [0.0], time.monotonic

    def time_of_day() -> float:
        jumps[0] += 1
        return 1e9 + (-1) ** jumps[0] * 3e8

    def asleep() -> float:
        slept[0] += 3600.0
        return monotonic() + slept[0]

    with monkeypatch.context() as patch:
        patch.setattr(time, "time", time_of_day)
        patch.setattr("ecgcmr.training.loop.time.monotonic", asleep)
        patch.setattr("ecgcmr.training.keeper.time.monotonic", asleep)
        config = make_config(out=str(tmp_path / "parts"), **{"train.save_seconds": 7200.0})
        with pytest.raises(RunInterrupted):
            pretrain(config, progress=interrupt_at(3))
        pretrain(config, resume=True)
    assert jumps[0] > 0
    assert slept[0] > 7200
    assert all((config.folder / name).read_bytes() == (whole / name).read_bytes() for name in FILES)


def test_keeper__its_timer_survives_a_clock_that_is_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e9)
    keeper = Keeper(tmp_path, 0.02)
    monkeypatch.setattr(time, "time", lambda: 1e6)
    assert not keeper.is_due(None)
    time.sleep(0.03)
    assert keeper.is_due(None)


def test_pretrain__a_second_run_in_the_folder_is_refused_by_name(make_config: MakeConfig, tmp_path: Path) -> None:
    whole = pretrain(make_config(out=str(tmp_path / "whole")))
    config, told = make_config(), []

    def second(event: ProgressEvent) -> None:
        for resume in (True, False):
            with pytest.raises(ValueError, match="is being trained by process") as caught:
                pretrain(config, resume=resume)
            told.append(str(caught.value))

    pretrain(config, progress=second)
    assert len(told) == 12
    assert str(config.folder) in told[0]
    assert f"by process {os.getpid()} on " in told[0]
    assert "since 20" in told[0]
    assert all((config.folder / name).read_bytes() == (whole / name).read_bytes() for name in FILES)
    assert not (config.folder / LOCK).exists()


def test_pretrain__one_of_two_that_start_together_is_refused_before_it_writes(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, other = make_config(), RunLock(make_config().folder)
    monkeypatch.setattr(run, "load_initial", lambda *args: other.acquire())
    with pytest.raises(ValueError, match="is being trained by process"):
        pretrain(config)
    assert [path.name for path in config.folder.iterdir()] == [LOCK]
    other.close()
    monkeypatch.setattr(run, "load_initial", lambda *args: start_folder(config))
    with pytest.raises(ValueError, match="holds a run already"):
        pretrain(config)
    assert [path.name for path in config.folder.iterdir()] == ["config.yaml"]


def test_pretrain__takes_over_the_lock_of_a_dead_process(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(**{"train.epochs": 1})
    child = os.fork()
    if not child:
        try:
            RunLock(config.folder).acquire()
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert f'"process": {child}' in (config.folder / LOCK).read_text()
    with caplog.at_level("INFO"):
        folder = pretrain(config)
    assert f"took over the lock of process {child} on " in caplog.text
    assert (folder / "summary.json").is_file()
    assert not (folder / LOCK).exists()


def test_run_lock__without_locks_in_the_file_system_the_run_goes_on_and_says_so(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import fcntl

    def unsupported(*args: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    lock = RunLock(make_config().folder)
    lock.acquire()
    lock.close()
    assert "cannot be locked (Operation not supported): start only one run in it" in caplog.text
