"""Numbers in pages are the measured ones: tables are made of the results files that are kept beside them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ecgcmr.evaluation.results import read_results, write_results

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import fill_results  # noqa: E402


@pytest.mark.parametrize(("page", "marker", "name", "make"), fill_results.PLACES, ids=lambda value: str(value)[:24])
def test_page__shows_the_numbers_of_the_results_file(page: str, marker: str, name: str, make) -> None:
    text = (ROOT / page).read_text()
    table = make(read_results(fill_results.RESULTS / name))
    assert fill_results.filled(text, marker, table) == text, f"run scripts/fill_results.py: {page} is behind {name}"


def test_pages__have_no_place_left_to_fill() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        assert "@@" not in page.read_text(), page.name


def test_trim__keeps_values_and_reads_back(tmp_path: Path) -> None:
    rows = fill_results.trim(read_results(fill_results.RESULTS / "demo_standard.json"))
    path = write_results(tmp_path / "again.json", rows)
    assert fill_results.trim(read_results(path)) == rows
    assert all(row["seed"] is None for row in rows)


def test_filled__says_which_marker_is_missing() -> None:
    with pytest.raises(ValueError, match="nowhere"):
        fill_results.filled("text", "nowhere", "table")
