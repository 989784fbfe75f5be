"""The figure of a run tells what metrics.jsonl holds, and never costs a run."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from ecgcmr.training.learning_curves import MAX_PANELS, MAX_POINTS, curves_figure, draw_learning_curves, read_curves

SVG = "{http://www.w3.org/2000/svg}"


def write_rows(folder: Path, rows: list[dict[str, object]], tail: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    return folder


def rows_of(n: int, **keys: float) -> list[dict[str, object]]:
    train = [{"event": "train", "epoch": s / 2, "step": s, "loss": 1 / s, **keys} for s in range(1, n + 1)]
    return [*train, {"event": "val", "epoch": n / 2, "step": n, "loss": 0.25, "r": 0.5}]


def test_figure__has_a_panel_for_each_key_and_the_values_in_place(tmp_path: Path) -> None:
    folder = write_rows(tmp_path / "run", rows_of(4, lr=1e-3, grad_norm=2.0))
    drawn = draw_learning_curves(folder)
    assert drawn == folder / "learning_curves.svg"
    root = ElementTree.fromstring(drawn.read_text())
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert {"loss", "r", "lr", "grad_norm", "training", "validation", "run"} <= set(texts)
    assert "skipped" not in texts
    assert "epoch" not in texts
    assert "loss ends at 0.25" in root.attrib["aria-label"]
    # 1/s falls: the curve must fall too (y grows downward), and step s lies at equal distances.
    panel = next(group for group in root.iter(f"{SVG}g") if "loss" in [t.text for t in group.iter(f"{SVG}text")])
    path = next(panel.iter(f"{SVG}path")).attrib["d"]
    points = np.array([[float(v) for v in pair.split()] for pair in path[1:].split("L")])
    assert np.all(np.diff(points[:, 1]) > 0)
    assert np.ptp(np.diff(points[:, 0])) < 0.05
    drop = (points[1:, 1] - points[0, 1]) / (points[-1, 1] - points[0, 1])
    assert drop == pytest.approx([(1 - 1 / s) / (1 - 1 / 4) for s in (2, 3, 4)], abs=0.01)


def test_read_curves__passes_over_cut_rows_and_values_that_are_none(tmp_path: Path) -> None:
    rows = [{"event": "train", "step": 1, "loss": None, "mse": 2.0}, {"event": "other", "step": 1, "loss": 9.0}]
    folder = write_rows(tmp_path / "run", rows, tail='{"event": "train", "step": 2, "mse": 1.')
    assert read_curves(folder / "metrics.jsonl") == {"mse": {"train": [(1.0, 2.0)]}}


def test_draw__of_nothing_or_of_what_cannot_be_written_raises_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert draw_learning_curves(tmp_path) is None
    folder = write_rows(tmp_path / "run", rows_of(2))
    (folder / "learning_curves.svg").mkdir()
    (folder / "learning_curves.svg" / "in the way").touch()
    assert draw_learning_curves(folder) is None
    assert "was not drawn" in caplog.text
    assert not list(folder.glob(".*partial"))


def test_figure__of_very_many_steps_and_keys_stays_small(tmp_path: Path) -> None:
    keys = {f"m{k:02d}": [("train", k)] for k in range(40)}
    many = {key: {"train": [(float(s), float(s % 7)) for s in range(5000)]} for key in keys}
    svg = str(curves_figure(many, "long"))
    assert len(svg) < MAX_PANELS * MAX_POINTS * 20 + 100_000
    assert f"m{MAX_PANELS:02d}" in svg.partition("not drawn: ")[2].partition("<")[0]
    assert svg.count("<path") == MAX_PANELS


def test_figure__is_drawn_for_one_value_and_for_equal_values(tmp_path: Path) -> None:
    folder = write_rows(tmp_path / "one", [{"event": "val", "step": 3, "loss": 0.0}])
    assert "<circle" in draw_learning_curves(folder).read_text()
    flat = write_rows(tmp_path / "flat", [{"event": "train", "step": s, "loss": 2.0} for s in (1, 2, 3)])
    assert draw_learning_curves(flat) is not None
