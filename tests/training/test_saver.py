"""A save holds a step up for the copy of the state only; what is written never goes back in time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ecgcmr.training import keeper
from ecgcmr.training.checkpoint import load_checkpoint
from ecgcmr.training.config import RunConfig
from ecgcmr.training.early_stopping import EarlyStopping
from ecgcmr.training.losses import Meter
from ecgcmr.training.position import Position
from ecgcmr.training.rows import open_rows
from ecgcmr.training.saver import Saver
from ecgcmr.training.state import RunState
from ecgcmr.training.writer import BackgroundWriter

MakeConfig = Callable[..., RunConfig]


class SlowDisk:
    """Lets a checkpoint through only when told to, or refuses it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.go, self.begun, self.written, self.error = threading.Event(), threading.Event(), [], None
        real = keeper.save_checkpoint

        def save(folder: Path, *args: Any, **more: Any) -> None:
            self.begun.set()
            assert self.go.wait(20)
            if self.error is not None:
                raise self.error
            real(folder, *args, **more)
            self.written.append((folder.name, load_checkpoint(folder).meta["position"]["step"]))

        patch.setattr(keeper, "save_checkpoint", save)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    slow = SlowDisk(monkeypatch)
    yield slow
    slow.go.set()


def a_state() -> RunState:
    layer = nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return RunState(layer, optimizer, Meter(extra={"norm": 1.0}), EarlyStopping(), Position(step=1))  # type: ignore[arg-type]


def a_saver(config: RunConfig) -> Saver:
    config.folder.mkdir()
    return Saver(config, open_rows(config.folder, {}), {"global_batch": 8})


def train_on(state: RunState) -> None:
    """Change all that a step changes."""
    with torch.no_grad():
        for parameter in state.objective.parameters():
            parameter.add_(1)
        for values in state.optimizer.state.values():
            for value in values.values():
                value.add_(1)
    state.meter.extra["norm"] = 2.0
    state.position.step += 1


def test_save__goes_on_while_the_disk_is_busy_and_holds_what_was_then(make_config: MakeConfig, disk: SlowDisk) -> None:
    config, state = make_config(), a_state()
    saver = a_saver(config)
    weight, moment = state.objective.weight.clone(), state.optimizer.state_dict()["state"][0]["exp_avg"].clone()  # type: ignore[operator]
    with saver:
        saver.save(state, epoch_done=1)
        assert disk.begun.wait(20)
        assert disk.written == []
        train_on(state)
        assert not saver.is_due(None), "a step is not held up by the writing that is under way"
        disk.go.set()
    found = load_checkpoint(config.folder / "checkpoints/last")
    assert torch.equal(found.model["weight"], weight)
    assert torch.equal(found.train["optimizer"]["state"][0]["exp_avg"], moment)
    assert found.train["meter"]["extra"] == {"norm": 1.0}
    assert found.meta["position"]["step"] == 1


def test_save__one_at_a_time_and_in_order(make_config: MakeConfig, disk: SlowDisk) -> None:
    saver, state, before = a_saver(make_config()), a_state(), threading.active_count()
    threading.Timer(0.1, disk.go.set).start()
    with saver:
        saver.set_best({"weight": torch.ones(1)})
        for epoch in (1, 2, 3):
            saver.save(state, epoch)
            train_on(state)
            assert threading.active_count() <= before + 2  # the timer and one writer
    assert disk.written == [("best", 1), ("last", 1), ("last", 2), ("last", 3)]


def test_save__rows_are_on_the_disk_before_the_checkpoint_that_counts_them(
    make_config: MakeConfig, disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, state, events = make_config(), a_state(), []
    saver = a_saver(config)
    rows = saver._rows
    assert rows.metrics is not None
    monkeypatch.setattr(type(rows), "sync", lambda self: events.append(("sync", len(disk.written))))
    rows.metrics.add({"step": 1})
    disk.go.set()
    with saver:
        saver.save(state)
        rows.metrics.add({"step": 2})
    length = load_checkpoint(config.folder / "checkpoints/last").meta["metrics_bytes"]
    assert (config.folder / "metrics.jsonl").read_bytes()[:length] == b'{"step": 1}\n'
    assert events == [("sync", 0)]


def at_the_next_save(saver: Saver, state: RunState) -> None:
    saver.save(state)


def at_the_next_step(saver: Saver, state: RunState) -> None:
    while saver._writer.busy:
        pass
    saver.is_due(None)


def at_the_end(saver: Saver, state: RunState) -> None:
    with saver:
        pass


@pytest.mark.parametrize("go_on", [at_the_next_save, at_the_next_step, at_the_end])
def test_save__an_error_of_the_writer_stops_the_run_as_it_is(
    make_config: MakeConfig, disk: SlowDisk, go_on: Callable[[Saver, RunState], None]
) -> None:
    config, state = make_config(), a_state()
    disk.go.set()
    saver = a_saver(config)
    saver.save(state)
    saver.wait()
    disk.error = OSError(28, "the disk is full", "last")
    train_on(state)
    saver.save(state)
    with pytest.raises(OSError, match="the disk is full") as caught:
        go_on(saver, state)
    assert caught.value is disk.error
    assert load_checkpoint(config.folder / "checkpoints/last").meta["position"]["step"] == 1
    saver.wait()  # it was told once


def test_writer__an_error_under_way_is_not_hidden_by_that_of_the_writer(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise OSError(28, "the disk is full")

    writer = BackgroundWriter()
    writer.submit(fail)
    with pytest.raises(ValueError, match="invalid literal"), writer:
        int("not a number")
    assert "failed too: [Errno 28] the disk is full" in caplog.text


@pytest.mark.parametrize("background", [True, False])
def test_writer__does_all_jobs_in_order(background: bool) -> None:
    done: list[int] = []
    with BackgroundWriter(background) as writer:
        for number in range(20):
            writer.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    assert done == list(range(20))
    assert not writer.busy
