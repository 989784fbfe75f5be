from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_cohort_writer import digest

from ecgcmr.cohort import simulate
from ecgcmr.cohort.simulate import simulate_cohort
from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.validate import validate_cohort

ROOT = Path(__file__).parents[2]
KILLED_RUN = """
import sys
from pathlib import Path
from ecgcmr.cohort import simulate
simulate.CHUNK_SUBJECTS["none"] = 2
simulate.simulate_cohort(Path(sys.argv[1]), 20, seed=5, cine="none", workers=int(sys.argv[2]))
"""


def test_simulate__cohort_is_valid_and_complete(tiny_cohort):
    cohort = Cohort.open(tiny_cohort)
    assert validate_cohort(tiny_cohort, deep=True) == []
    assert len(cohort) == len(cohort.recordings) == len(cohort.studies) == 24
    assert set(cohort.recordings["unit"]) == {"mV"}
    assert cohort.ecg_block(np.arange(24)).shape == (24, 12, 5000)
    cine = cohort.cine(0)
    assert cine.pixels.shape[:2] == (1, 3)
    assert cine.masks is not None
    assert cohort.label_specs["LVEDV"].ukb_field == 24100
    assert cohort.label_specs["LVEDV"].unit == "ml"
    assert {spec.kind for spec in cohort.schema.labels} == {"regression", "binary", "time", "event"}
    assert {"sex", "site", "scanner", "age_band", "group"} <= set(cohort.schema.group_columns)
    assert not {"bmi", "age_years", "bsa_m2"} & set(cohort.schema.group_columns)
    assert cohort.schema.provenance == "simulated"
    assert cohort.schema.origin["seed"] == 7
    split = open_split(cohort)
    assert [len(part) for part in split.parts().values()] == [17, 2, 5]


def test_simulate__stores_what_the_simulator_gave(tiny_cohort):
    from ecgcmr.simulation.design import Design
    from ecgcmr.simulation.subject import simulate_subject

    cohort = Cohort.open(tiny_cohort)
    made = simulate_subject(Design(), 7, 11, cine="mid3")
    np.testing.assert_allclose(cohort.recording(11).samples, made.ecg.samples, atol=0.51e-3)
    np.testing.assert_array_equal(cohort.cine(11).pixels, made.sax.pixels)
    np.testing.assert_array_equal(cohort.cine(11).masks, made.sax.masks)
    for name, value in {**made.phenotypes, **made.diagnoses, **made.outcomes}.items():
        np.testing.assert_equal(cohort.labels.loc[11, name], value)
    assert cohort.subjects.loc[11, "age_years"] == made.groups["age_years"]


def test_simulate__larger_cohort_begins_with_the_same_subjects(tiny_cohort, tmp_path):
    small = Cohort.open(simulate_cohort(tmp_path / "small", 2, seed=7, cine="none"))
    np.testing.assert_array_equal(small.ecg_block(np.arange(2)), Cohort.open(tiny_cohort).ecg_block(np.arange(2)))
    assert small.studies.empty


def test_simulate__workers_do_not_change_a_byte(tmp_path, monkeypatch):
    monkeypatch.setitem(simulate.CHUNK_SUBJECTS, "mid3", 2)
    seen = []
    one = simulate_cohort(tmp_path / "a" / "c", 5, seed=3, cine="mid3", progress=lambda *done: seen.append(done))
    two = simulate_cohort(tmp_path / "b" / "c", 5, seed=3, cine="mid3", workers=2)
    assert digest(one) == digest(two)
    assert seen == [(0, 5), (2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_simulate__killed_run_resumes_byte_for_byte(tmp_path, workers):
    out, reference = tmp_path / "a" / "c", tmp_path / "b" / "c"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED_RUN, str(out), str(workers)]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    state = out.with_name("c.partial") / "state.json"
    deadline = time.monotonic() + 120
    while not (state.is_file() and '"merged": 0' not in state.read_text()):
        assert process.poll() is None, "finished before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    subprocess.run(command, env=environment, check=True, timeout=200)
    subprocess.run([*command[:-2], str(reference), "1"], env=environment, check=True, timeout=200)
    assert digest(out) == digest(reference)
    assert sorted(item.name for item in out.parent.iterdir()) == ["c"]


@pytest.mark.slow
def test_simulate__full_cohort_has_both_views_with_masks(tmp_path):
    out = simulate_cohort(tmp_path / "c", 3, seed=1, cine="full", workers=2)
    cohort = Cohort.open(out)
    assert validate_cohort(out, deep=True) == []
    assert cohort.studies["view"].tolist() == ["sax", "4ch"] * 3
    assert (cohort.studies["mask_offset"] >= 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_subjects": 0}, "need subjects >= 1"),
        ({"workers": 0}, "workers >= 1"),
        ({"cine": "movie"}, "cine must be one of"),
    ],
)
def test_simulate__bad_arguments_are_named(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        simulate_cohort(tmp_path / "c", **{"n_subjects": 1, "seed": 0, **arguments})
    assert not (tmp_path / "c.partial").exists()


def test_simulate__workers_start_without_torch():
    command = "import sys, ecgcmr.cohort.simulate, ecgcmr.simulation.subject; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", command], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
