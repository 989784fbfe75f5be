"""Trackers get the rows of metrics.jsonl, value by value."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from ecgcmr.training.config import RunConfig
from ecgcmr.training.distributed import check_trackers
from ecgcmr.training.run import pretrain

pytest.importorskip("tensorboard")


def test_tensorboard__holds_what_metrics_jsonl_holds(make_config: Callable[..., RunConfig]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = make_config(**{"train.trackers": ["tensorboard"], "train.max_steps": 4, "train.log_every": 1})
    folder = pretrain(config)
    written: dict[tuple[str, int], float] = {}
    for file in folder.rglob("events.out.tfevents*"):
        events = EventAccumulator(str(file))
        events.Reload()
        for tag in events.Tags()["scalars"]:
            written |= {(tag, point.step): point.value for point in events.Scalars(tag)}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    expected = {
        (f"{row['event']}/{key}", row["step"]): value
        for row in rows
        for key, value in row.items()
        if key not in ("event", "epoch", "step") and value is not None
    }
    assert len(expected) > 12
    assert set(written) == set(expected)
    for key, value in expected.items():
        assert written[key] == pytest.approx(value, rel=1e-6), key  # tensorboard keeps float32


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio", "mlflow"])
def test_tracker__is_known_by_name_and_told_when_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import accelerate.tracking as tracking

    assert name in tracking.LOGGER_TYPE_TO_CLASS
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: [name])
    check_trackers([name])
    monkeypatch.setattr(tracking, "get_available_trackers", list)
    with pytest.raises(ValueError, match=f"pip install {name}"):
        check_trackers([name])
