"""Folders with every ECG format become one cohort, without a name, a number or a date in it."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

sys.path.insert(0, str(Path(__file__).parents[1] / "ecg"))
import ecg_format_writers as write

from ecgcmr.cohort.ingest import ingest
from ecgcmr.cohort.ingest_options import IngestOptions
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.validate import validate_cohort
from ecgcmr.ecg.leads import LEADS

X = write.ecg_mv(1000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ecg = tmp_path / "ecg"
    for name in ("ukb", "muse", "aecg", "sierra"):
        (ecg / name).mkdir(parents=True)
    write.write_ukb_xml(ecg / "ukb" / "u.xml", X, median=X[:, :600])
    write.write_muse_xml(ecg / "muse" / "m.xml", X)
    write.write_aecg_xml(ecg / "aecg" / "a.xml", X)
    write.write_sierra_xml(ecg / "sierra" / "s.xml", X)
    write.write_sierra_xml(ecg / "sierra" / "old.xml", X, version="1.02")
    write.write_dicom(ecg / "d.dcm", X)
    scipy.io.savemat(ecg / "single.mat", {"ecg": X})
    with h5py.File(ecg / "part.h5", "w") as file:
        file["tracings"] = np.stack([X.T, X.T])
        file["exam_id"] = [21, 22]
    (ecg / "labels.csv").write_text("id,age\n1,50\n")
    return ecg


def test_ingest__takes_every_format_of_a_folder(tmp_path: Path, folder: Path) -> None:
    report = ingest(IngestOptions(out=tmp_path / "cohort", ecg=folder, unit="mV", rate_hz=500))
    assert report.out is not None
    ledger = Cohort.open(report.out).ledger.set_index("item")
    assert ledger["reason"].to_dict() == {
        "aecg/a.xml": "",
        "d.dcm": "",
        "muse/m.xml": "",
        "labels.csv": "not_a_signal",
        "part.h5 row 0": "",
        "part.h5 row 1": "",
        "sierra/old.xml": "unsupported_format",
        "sierra/s.xml": "",
        "single.mat": "",
        "ukb/u.xml": "",
    }
    assert report.ignored == {".csv": 1}
    assert validate_cohort(report.out) == []
    cohort = Cohort.open(report.out)
    for row in range(8):
        recording = cohort.recording(row)
        assert recording.leads == LEADS
        np.testing.assert_allclose(recording.samples, X, atol=0.006)
        assert recording.recorded_at is None


def test_ingest__stores_no_name_number_or_date(tmp_path: Path, folder: Path) -> None:
    out = ingest(IngestOptions(out=tmp_path / "cohort", ecg=folder, unit="mV", rate_hz=500)).out
    assert out is not None
    content = b"".join(path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file())
    for planted in (
        write.NAME,
        write.NUMBER,
        "1961",
        "2016-06",
        "20160621",
        "2025-08",
        "2019-02",
        "2018-05",
        "2017-03",
    ):
        assert planted.encode() not in content, planted
