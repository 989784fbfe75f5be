"""Memory of a run does not grow with the signals of its cohort, and little with its tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from large_cohort import write_large_cohort
from numpy.lib.format import open_memmap

from ecgcmr.cohort import cache
from ecgcmr.cohort.cache import PreparedArray
from ecgcmr.cohort.store import Cohort

ROOT = Path(__file__).parents[2]
GIB = 1024  # [MiB]
RUNS: dict[str, dict[str, Any]] = {
    "masked": {"objective": {"name": "masked_ecg", "decoder": {"width": 16, "depth": 1, "heads": 2}}},
    "align": {"objective": {"name": "clip_align"}, "data": {"val_subjects": 5000}},
    "supervised": {
        "objective": {"name": "supervised"},
        "data": {"labels": [f"label_{k}" for k in range(82)], "group": "sex", "balance": 1.0},
    },
}
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory by kind is read from /proc")


def run_file(path: Path, cohort: Path, run: dict[str, Any]) -> Path:
    tree = {
        "name": "large",
        "out": str(path.with_suffix("")),
        "data": {
            "cohort": str(cohort),
            "ecg": {"crop_samples": 500},
            "cmr": {"size": 96},
            **run.get("data", {}),
        },
        "model": {
            "ecg": {"width": 32, "depth": 1, "heads": 2, "patch": 100},
            "cmr": {"name": "test_resnet.r160_in1k", "channels_last": False},
            "projection": {"hidden": 16, "out": 8},
        },
        "objective": run["objective"],
        "train": {"max_steps": 3, "batch_size": 64, "eval_batch_size": 128, "precision": "no", "threads": 1},
    }
    path.write_text(yaml.safe_dump(tree))
    return path


def measured(file: Path) -> dict[str, float]:
    """What the program `memory_of_a_run` found, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(Path(__file__).with_name("memory_of_a_run.py")), str(file)],
        capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@needs_proc
@pytest.mark.slow
def test_run__on_100_000_subjects_stays_below_3_gib(tmp_path: Path) -> None:
    """Signals and images of 600 GiB as sparse files, validation over thousands of subjects; prints what it took."""
    cohort = write_large_cohort(tmp_path / "cohort", 100_000, image_size=96)
    for name, run in RUNS.items():
        found = measured(run_file(tmp_path / f"{name}.yaml", cohort, run))
        print(name, {key: round(value, 1) for key, value in found.items()})
        assert found["all_mib"] < 3 * GIB, "resident, mapped files included"
        assert found["own_mib"] < 2 * GIB, "what nobody can take back"
        assert found["open_s"] + found["feeds_s"] < 60


@needs_proc
@pytest.mark.slow
def test_run__a_subject_more_costs_little(tmp_path: Path) -> None:
    """Ten thousand subjects more, with labels: less than 12 KiB each, tables while they are read included."""
    own = {}
    for n in (1_000, 11_000):
        cohort = write_large_cohort(tmp_path / f"cohort{n}", n, image_size=32)
        run = {**RUNS["masked"], "data": {"cmr": {"size": 32}, "val_subjects": 64, "train_subjects": 128}}
        own[n] = measured(run_file(tmp_path / f"{n}.yaml", cohort, run))["own_mib"]
    assert (own[11_000] - own[1_000]) * 1024 / 10_000 < 12


@needs_proc
def test_take__lets_go_of_what_it_has_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from memory_of_a_run import resident_mib

    size = 2**18
    open_memmap(tmp_path / "data.npy", "w+", dtype="uint8", shape=(4000, size))[17, 5] = 9
    array = PreparedArray(np.load(tmp_path / "data.npy", mmap_mode="r"), {}, None)
    monkeypatch.setattr(cache, "KEEP_MAPPED", 64 * 2**20)
    before, largest = resident_mib()["mapped"], 0.0
    order = np.random.default_rng(0).permutation(4000)
    for start in range(0, 800, 16):
        rows = array.take(order[start : start + 16])
        assert rows.shape == (16, size)
        largest = max(largest, resident_mib()["mapped"])
    assert largest < before + 100, "200 MiB have been read"
    assert array.take(np.array([17]))[0, 5] == 9, "what was let go comes back"


def test_columns__are_those_of_the_whole_table(tiny_cohort: Path) -> None:
    parts, whole = Cohort.open(tiny_cohort), Cohort.open(tiny_cohort)
    for table, names in (("studies", ["view", "subject"]), ("recordings", ["subject"]), ("labels", ["LVM", "mi"])):
        found = parts.columns(table, names)
        assert found.equals(getattr(whole, table)[names])
        assert whole.columns(table, names).equals(found), "of a table that was read before"
    assert "studies" not in parts.__dict__, "the rest of the table is not kept"
    with pytest.raises(ValueError, match=r"studies\.parquet: the column shoe_size is missing; run `ecgcmr cohort val"):
        parts.columns("studies", ["shoe_size"])
