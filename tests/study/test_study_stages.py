"""Stages: what is done stays done, what failed is repeated, and a marker is there whole or not at all."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from ecgcmr.study.stages import Report, Stage, StageLog, run_stages


class Job:
    """Three stages that write down when they ran; the middle one may fail."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.broken = False

    def stages(self) -> list[Stage]:
        return [Stage(key, f"do {key}", share, self._work(key)) for key, share in (("a", 1.0), ("b", 8.0), ("c", 1.0))]

    def _work(self, key: str):
        def work(report: Report) -> None:
            report(0.5)
            self.ran.append(key)
            if key == "b" and self.broken:
                raise RuntimeError("no space left")
            report(7.0)  # a stage that counts wrong must not run over the bar

        return work


def quiet() -> Console:
    return Console(file=io.StringIO(), width=120)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_run_stages__repeats_the_stage_that_raised_and_none_that_is_done(tmp_path: Path) -> None:
    job = Job()
    job.broken = True
    with pytest.raises(RuntimeError, match="no space left"):
        run_stages(job.stages(), tmp_path, quiet())
    assert job.ran == ["a", "b"]
    assert set(json.loads((tmp_path / "stages.json").read_text())) == {"a"}
    job.broken = False
    console = quiet()
    run_stages(job.stages(), tmp_path, console)
    assert job.ran == ["a", "b", "b", "c"]
    assert "1/3 do a: done before" in shown(console)
    assert "2/3 do b: 0 s" in shown(console)


def test_run_stages__does_nothing_when_all_is_done(tmp_path: Path) -> None:
    job = Job()
    log = run_stages(job.stages(), tmp_path, quiet())
    before = (tmp_path / "stages.json").read_bytes()
    again = run_stages(job.stages(), tmp_path, quiet())
    assert job.ran == ["a", "b", "c"]
    assert again.done == log.done
    assert (tmp_path / "stages.json").read_bytes() == before


def test_run_stages__writes_down_what_each_stage_cost(tmp_path: Path) -> None:
    log = run_stages(Job().stages(), tmp_path, quiet())
    assert list(log.done) == ["a", "b", "c"]
    for cost in log.done.values():
        assert cost["seconds"] >= 0
        assert 1 < cost["peak_memory_mib"] < 1e6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stages.json"]


def test_stage_log__killed_before_the_rename_keeps_the_old_markers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    StageLog(tmp_path).add("a", 1.0, 10.0)
    before = (tmp_path / "stages.json").read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            StageLog(tmp_path).add("b", 2.0, 10.0)
    assert (tmp_path / "stages.json").read_bytes() == before
    assert set(StageLog(tmp_path).done) == {"a"}


def test_stage_log__a_half_written_marker_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "stages.partial").write_text('{"a": {"sec')
    job = Job()
    run_stages(job.stages(), tmp_path, quiet())
    assert job.ran == ["a", "b", "c"]
