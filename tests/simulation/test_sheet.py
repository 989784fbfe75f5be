"""The figure sheet is drawn, and finds the subjects it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecgcmr.simulation.sheet import CONDITIONS, Condition, draw_sheet, find_heart


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda condition: condition.title)
def test_find_heart__has_what_the_row_promises(condition: Condition) -> None:
    heart, _ = find_heart(condition, seed=1)
    assert all(getattr(heart, name) == value for name, value in condition.needs.items())


def test_find_heart__says_when_nobody_has_it() -> None:
    with pytest.raises(ValueError, match="another seed"):
        find_heart(Condition("nobody", {"sex": 2}, {}), seed=1)


def test_draw_sheet__writes_an_image(tmp_path: Path) -> None:
    path = draw_sheet(tmp_path / "sheet.png", seed=1, conditions=CONDITIONS[:1])
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert path.stat().st_size > 50_000
