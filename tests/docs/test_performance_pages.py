"""The tables of the pages about speed and scale are those of the results files, or say that they are missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import fill_performance as pages  # noqa: E402


@pytest.mark.parametrize(("page", "marker", "name", "make"), pages.PLACES, ids=lambda value: str(value)[:24])
def test_page__shows_the_numbers_of_the_results_file(page: str, marker: str, name: str, make: pages.Table) -> None:
    text = (ROOT / page).read_text()
    table = pages.table_of(make, pages.RESULTS / name)
    assert pages.filled(text, marker, table) == text, f"run scripts/fill_performance.py: {page} is behind {name}"


def test_performance__is_there_and_of_full_sizes() -> None:
    assert json.loads((pages.RESULTS / "performance.json").read_text())["quick"] is False


def test_missing_numbers__are_said(tmp_path: Path) -> None:
    assert pages.table_of(pages.targets_table, tmp_path / "none.json") == "Not measured yet (rows)."
    (tmp_path / "some.json").write_text(json.dumps({"rows": {}}))
    assert "must" in pages.table_of(pages.targets_table, tmp_path / "some.json")


@pytest.mark.slow
def test_targets__measure_and_fill_every_table_at_quick_sizes(tmp_path: Path) -> None:
    out = tmp_path / "performance.json"
    program = [sys.executable, str(ROOT / "benchmarks" / "targets.py"), "--out", str(out), "--rounds", "1"]
    environment = os.environ | {"ECGCMR_BENCH_QUICK": "1", "PYTHONPATH": str(ROOT)}
    only = ["--only", "mae_64", "align", "embed", "loader_mae", "loader_align", "opening", "profile"]
    done = subprocess.run([*program, *only], env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text())
    assert found["quick"] is True
    for title in ("MAE step bf16, batch 64, one view", "alignment step bf16, batch 16"):
        assert found["rows"][title]["agreement"]["loss"] < 2e-3
    exact = found["rows"]["alignment step fp32, batch 16"]["agreement"]
    assert exact["loss"] < 1e-5
    assert exact["gradient"] < 1e-3
    assert found["rows"]["ECG embeddings fp32, batch 64"]["agreement"]["difference"] < 1e-5
    assert found["rows"]["ECG embeddings bf16 (autocast), batch 64"]["agreement"]["cosine"] > 0.9999
    for page, marker, name, make in pages.PLACES:
        if name == "performance.json" and marker != "memory":
            assert "Not measured" not in pages.table_of(make, out), (page, marker)
    again = subprocess.run(
        [*program, "--only", "embed"], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert "take another --out" in again.stderr  # quick numbers do not mix with others
