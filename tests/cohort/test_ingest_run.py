"""The run of an ingest: dying and hanging readers, kills, parts, quality, pairs, duplicates, a cluster."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ingest_files import beats, write_wfdb
from test_cohort_ingest import write_dicom
from test_cohort_writer import digest

from ecgcmr.cohort.ingest import ingest
from ecgcmr.cohort.ingest_options import IngestOptions
from ecgcmr.cohort.ingest_parts import merge_parts
from ecgcmr.cohort.pairing import pair
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.validate import validate_cohort

ROOT = Path(__file__).parents[2]


@pytest.fixture
def records(tmp_path, monkeypatch) -> Path:
    """Nine records in chunks of two."""
    monkeypatch.setattr("ecgcmr.cohort.ingest_plan.CHUNK_ITEMS", {"ecg": 2, "cmr": 1})
    folder = tmp_path / "ecg"
    for k in range(9):
        write_wfdb(folder / f"r{k}", beats(seed=k))
    return folder


def ingest_with(tmp_path: Path, records: Path, what: str, workers: int, limit: float) -> Path:
    """Run the command where opening r3.hea does something terrible, in whichever process does it."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import io, os, signal, time\n_open = io.open\n"
        "def trap(file, *a, **k):\n    if str(file).endswith('r3.hea'):\n"
        f"        {what}\n    return _open(file, *a, **k)\n"
        "io.open = trap\n"
    )
    command = [sys.executable, "-m", "ecgcmr.cli.main", "ingest", "--ecg", str(records), "--out", str(tmp_path / "out")]
    command += ["--workers", str(workers), "--time-limit", str(limit)]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{ROOT}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tmp_path / "out"


def reasons(out: Path) -> dict[str, str]:
    ledger = Cohort.open(out).ledger
    return ledger[ledger["status"] == "dropped"].set_index("item")["reason"].to_dict()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("what", "limit", "reason"),
    [("time.sleep(1000)", 20, "reader_timeout"), ("os.kill(os.getpid(), signal.SIGKILL)", 200, "reader_crashed")],
)
def test_reader_that_hangs_or_kills_its_process__is_named(records, tmp_path, workers, what, limit, reason):
    for k in range(9, 140 * (workers - 1)):  # two chunks for two workers
        for suffix in (".hea", ".dat"):
            shutil.copy(records / f"r1{suffix}", records / f"x{k}{suffix}")
        header = records / f"x{k}.hea"
        header.write_text(header.read_text().replace("r1", f"x{k}"))
    out = ingest_with(tmp_path, records, what, workers, limit)
    assert reasons(out) == {"r3.hea": reason}
    assert len(Cohort.open(out).recordings) == len(list(records.glob("*.hea"))) - 1
    assert validate_cohort(out) == []


def test_time_limit__ends_a_process_that_no_signal_reaches(tmp_path):
    """A C library that computes on and on: Python's handler never runs, the watchdog ends the process."""
    program = (
        "import numpy as np; from ecgcmr.cohort.ingest_guard import time_limit\n"
        "with time_limit(1.0):\n    np.linalg.svd(np.random.default_rng(0).normal(size=(9000, 9000)))\n"
        "print('it got to the end')"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "got to the end" not in done.stdout


def test_parts__merge_to_the_bytes_of_one_run(records, tmp_path):
    for name in ("r0", "r7"):
        write_dicom(tmp_path / "cmr" / name)
    (records / "bad.hea").write_text("nonsense")
    (tmp_path / "labels.csv").write_text("item,MI,age\n" + "".join(f"r{k},{k % 2},{40 + k}\n" for k in range(8)))
    common = {"ecg": records, "cmr": tmp_path / "cmr", "labels": tmp_path / "labels.csv"}
    whole = ingest(IngestOptions(tmp_path / "a" / "cohort", keep_map=tmp_path / "whole.csv", **common))
    parts = []
    for k in (3, 1, 2):
        part = ingest(IngestOptions(tmp_path / f"part{k}", chunk=(k, 3), keep_map=tmp_path / "map.csv", **common))
        parts.append(part.out)
    merged = merge_parts(parts, tmp_path / "b" / "cohort", keep_map=tmp_path / "map.csv")
    assert digest(merged.out) == digest(whole.out)
    assert (merged.kept, merged.dropped, merged.subjects) == (whole.kept, whole.dropped, whole.subjects)
    assert (tmp_path / "map.csv").read_text() == (tmp_path / "whole.csv").read_text()
    assert validate_cohort(merged.out) == []


def test_merge__refuses_what_does_not_belong_together(records, tmp_path):
    one = ingest(IngestOptions(tmp_path / "one", ecg=records, chunk=(1, 2))).out
    with pytest.raises(ValueError, match="part 2/2 is missing"):
        merge_parts([one], tmp_path / "out")
    shutil.copytree(one, tmp_path / "copy")
    with pytest.raises(ValueError, match="part 1/2 is given twice; part 2/2 is missing"):
        merge_parts([one, tmp_path / "copy"], tmp_path / "out")
    other = ingest(IngestOptions(tmp_path / "other", ecg=records, chunk=(2, 2), seed=5)).out
    with pytest.raises(ValueError, match=r"parts of different runs \(seed differ\)"):
        merge_parts([one, other], tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"holds no part\.json"):
        merge_parts([records], tmp_path / "out")
    with pytest.raises(FileExistsError, match="is a finished part of a cohort"):
        ingest(IngestOptions(tmp_path / "one", ecg=records, chunk=(1, 2)))
    assert not (tmp_path / "out").exists()


def kill_and_resume(folder: Path, out: Path, kills: int, seed: int, workers: int) -> list[float]:
    """Run the command, kill its whole group at random moments, repeat it until it ends; returns the moments."""
    command = [sys.executable, "-m", "ecgcmr.cli.main", "ingest", "--ecg", str(folder), "--out", str(out)]
    rng, killed = np.random.default_rng(seed), []
    for _ in range(40):
        process = subprocess.Popen(
            [*command, "--workers", str(workers)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        chunks = len(list((out.with_name(out.name + ".partial") / "rows").glob("*")))
        if len(killed) < kills:
            # begin counting when it reads: imports take a while on a busy machine
            while process.poll() is None and not list(out.parent.glob("*.partial/chunks/*.tmp")):
                time.sleep(0.01)
            wait = float(rng.uniform(0.0, 1.0))
            time.sleep(wait)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                killed.append(wait)
                continue
        assert process.wait() == 0, chunks
        return killed
    raise AssertionError("it never ended")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_kills__end_in_the_same_bytes(tmp_path):
    source = tmp_path / "source"
    for k in range(8):
        write_wfdb(source / f"s{k}", beats(n_samples=1000, seed=k))
    folder = tmp_path / "ecg"
    for k in range(3000):
        place = folder / f"{k // 500}"
        place.mkdir(parents=True, exist_ok=True)
        os.link(source / f"s{k % 8}.dat", place / f"r{k}.dat")
        text = (source / f"s{k % 8}.hea").read_text().replace(f"s{k % 8}", f"r{k}")
        (place / f"r{k}.hea").write_text("broken" if k % 500 == 7 else text)
    whole = ingest(IngestOptions(tmp_path / "a" / "cohort", ecg=folder, workers=2))
    assert whole.kept == {"ecg": 2994}
    killed = kill_and_resume(folder, tmp_path / "b" / "cohort", 3, 1, 2)
    assert len(killed) == 3
    assert digest(tmp_path / "b" / "cohort") == digest(whole.out)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["cohort"]


def test_quality__flags_are_kept_dropped_or_reported(records, tmp_path):
    flat = beats(seed=1)
    flat[3] = 5.0
    write_wfdb(records / "r1", flat)
    short = write_wfdb(records / "r2", beats(n_samples=300))
    kept = Cohort.open(ingest(IngestOptions(tmp_path / "keep", ecg=records)).out)
    assert len(kept.recordings) == 9
    assert "flat_lead" in kept.recordings["flags"][1].split(",")
    assert "too_short" in kept.ledger.set_index("item").loc[short.name, "flags"].split(",")
    drop = ingest(IngestOptions(tmp_path / "drop", ecg=records, qc="drop"))
    assert reasons(drop.out)["r1.hea"] == reasons(drop.out)["r2.hea"] == "quality"
    row = Cohort.open(drop.out).ledger.set_index("item").loc["r1.hea"]
    assert "flat_lead: " in row["detail"]
    report = ingest(IngestOptions(tmp_path / "report", ecg=records, qc="report"))
    assert sorted(path.name for path in report.out.iterdir()) == ["ledger.parquet", "report.json"]
    assert report.flags["ecg"]["flat_lead"] == 1
    assert report.kept == {"ecg": 9}


def test_duplicates__same_name_and_bytes_in_two_folders_is_read_once(records, tmp_path):
    for name in ("r0", "r1"):
        for suffix in (".hea", ".dat"):
            (records / "again").mkdir(exist_ok=True)
            shutil.copy(records / f"{name}{suffix}", records / "again" / f"{name}{suffix}")
    changed = np.fromfile(records / "again" / "r1.dat", dtype="<i2")
    (changed + 1).tofile(records / "again" / "r1.dat")  # another recording under the same name
    report = ingest(IngestOptions(tmp_path / "out", ecg=records))
    ledger = Cohort.open(report.out).ledger
    assert ledger[ledger["reason"] == "duplicate"]["item"].tolist() == ["r0.hea"]
    assert report.kept == {"ecg": 10}


def test_ledger__has_every_file_once(records, tmp_path):
    (records / "notes.txt").write_text("x")
    report = ingest(IngestOptions(tmp_path / "out", ecg=records))
    items = Cohort.open(report.out).ledger["item"].tolist()
    assert sorted(items) == sorted(path.name for path in records.iterdir())


def frames(recordings, studies) -> tuple[pd.DataFrame, pd.DataFrame]:
    left = pd.DataFrame(recordings, columns=["subject", "visit_days"]).rename_axis("recording").reset_index()
    right = pd.DataFrame(studies, columns=["subject", "visit_days", "view"]).rename_axis("study").reset_index()
    return left, right


def test_pair__nearest_then_later_then_first(tmp_path):
    recordings = [(0, 100.0), (0, 500.0), (1, np.nan), (2, 0.0)]
    studies = [(0, 90.0, "sax"), (0, 110.0, "sax"), (0, 110.0, "sax"), (0, 495.0, "4ch"), (1, 0.0, "sax")]
    left, right = frames(recordings, studies)
    near = pair(left, right, 30.0)
    assert near[["recording", "study", "days_apart", "rank"]].to_numpy().tolist() == [
        [0, 1, 10, 0],
        [0, 2, 10, 1],
        [0, 0, -10, 2],
        [1, 3, -5, 0],
    ]
    everything = pair(left, right, None)
    assert len(everything) == 9
    # an unknown day pairs only without a limit
    assert everything[everything["recording"] == 2]["study"].tolist() == [4]


def test_dataset__takes_the_nearest_usable_study(tmp_path):
    from ecgcmr.cmr.preprocessing import named_pipeline as cmr_pipeline
    from ecgcmr.cohort.dataset import PairedDataset
    from ecgcmr.ecg.preprocessing import named_pipeline as ecg_pipeline

    for name in ("p_1", "p_2"):
        write_wfdb(tmp_path / "ecg" / name, beats(n_samples=1000, seed=len(name)))
        write_dicom(tmp_path / "cmr" / name, n_frames=20)
    (tmp_path / "table.csv").write_text("item,person,day\np_1,p,2020-01-01\np_2,p,2021-01-01\n")
    report = ingest(
        IngestOptions(
            tmp_path / "out",
            ecg=tmp_path / "ecg",
            cmr=tmp_path / "cmr",
            labels=tmp_path / "table.csv",
            subject_column="person",
            item_column="item",
            date_column="day",
            pair_days=40.0,
        )
    )
    cohort = Cohort.open(report.out)
    assert cohort.pairs[["recording", "study"]].to_numpy().tolist() == [[0, 0], [1, 1]]
    data = PairedDataset(cohort, [0], ecg_pipeline("highpass"), cmr_pipeline("three_frames"))
    assert data.study_rows.tolist() == [0, 1]


def test_ledger__quotes_nobody_whom_a_broken_header_names(tmp_path):
    (tmp_path / "ecg").mkdir()
    (tmp_path / "ecg" / "bad.hea").write_text("bad 12 500 DOE^JANE\n")
    report = ingest(IngestOptions(tmp_path / "out", ecg=tmp_path / "ecg"))
    assert report.out is None
    told = " ".join(" ".join(example) for example in report.examples)
    assert "bad.hea" in told
    assert "JANE" not in told


def test_salt__gives_the_same_pseudonyms_again(records, tmp_path):
    first = Cohort.open(ingest(IngestOptions(tmp_path / "a", ecg=records, salt=tmp_path / "salt")).out).subjects
    (records / "r0.hea").unlink()
    again = Cohort.open(ingest(IngestOptions(tmp_path / "b", ecg=records, salt=tmp_path / "salt")).out).subjects
    assert first["pseudonym"].is_unique
    assert again["pseudonym"].tolist() == first["pseudonym"].tolist()[1:]
    names = [Cohort.open(tmp_path / run).ledger["item"].tolist() for run in ("a", "b")]
    # Sixteen letters in place of r0 ... r2: not "begins with another letter", because a salt may draw that letter.
    assert all(re.fullmatch(r"[a-z2-7]{16}\.(hea|dat)", name) for name in names[0]), names[0]
    assert set(names[1]) < set(names[0])
    with pytest.raises(ValueError, match="salt would lie inside"):
        ingest(IngestOptions(tmp_path / "c", ecg=records, salt=tmp_path / "c" / "salt"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "dask"}, "--scheduler ADDRESS belong together"),
        ({"chunk": (3, 2)}, "--chunk 3/2: expected i/n"),
        ({"qc": "maybe"}, "--qc maybe: expected one of keep, drop, report"),
        ({"pair_days": -1.0}, "--pair-days -1.0"),
        ({"time_limit_s": 0.0}, "--time-limit 0.0"),
        ({"date_column": "day"}, "--date-column needs --labels"),
    ],
)
def test_options__are_checked(records, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        ingest(IngestOptions(tmp_path / "out", ecg=records, **options))


@pytest.mark.slow
def test_dask__gives_the_bytes_of_one_process(records, tmp_path):
    distributed = pytest.importorskip("distributed", reason="extra `cluster`")
    one = ingest(IngestOptions(tmp_path / "a" / "cohort", ecg=records))
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        options = IngestOptions(
            tmp_path / "b" / "cohort", ecg=records, backend="dask", scheduler=cluster.scheduler_address
        )
        two = ingest(options)
    assert digest(two.out) == digest(one.out)


def test_dask__no_scheduler_is_one_clear_error(records, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    options = IngestOptions(tmp_path / "out", ecg=records, backend="dask", scheduler="tcp://127.0.0.1:1")
    with pytest.raises(ValueError, match=r"pip install 'ecgcmr\[cluster\]'"):
        ingest(options)
