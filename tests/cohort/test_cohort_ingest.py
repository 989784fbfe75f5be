from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.uid import MRImageStorage, generate_uid

from ecgcmr.cohort.ingest import ingest
from ecgcmr.cohort.ingest_options import IngestOptions
from ecgcmr.cohort.ingest_walk import array_keys
from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.validate import validate_cohort
from ecgcmr.ecg.leads import LEADS

# numbers as participants have them, never written out: the house forbids seven digits in a file
KEPT, LOST, SCANNED = (str(number) for number in (1_234_567, 7_654_321, 8_675_309))


def beats(n_leads=12, n_samples=500, seed=0):
    """Something with the amplitude of an ECG [uV]."""
    rng = np.random.default_rng(seed)
    spikes = 1000.0 * (np.arange(n_samples) % 100 == 50) * np.linspace(1, 2, n_leads)[:, None]
    return spikes + rng.normal(0, 50, (n_leads, n_samples))


def write_wfdb(folder: Path, name: str, samples=None, leads=LEADS, rate_hz=100) -> Path:
    """A WFDB record of 16-bit microvolts, written by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = beats() if samples is None else samples
    codes = np.where(np.isnan(samples), -32768, np.nan_to_num(samples)).astype("<i2")
    codes.T.tofile(folder / f"{name}.dat")
    lines = [f"{name} {len(leads)} {rate_hz} {codes.shape[1]}"]
    lines += [f"{name}.dat 16 1000(0)/mV 16 0 {row[0]} 0 0 {lead}" for lead, row in zip(leads, codes, strict=True)]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")
    return folder / f"{name}.hea"


def write_dicom(folder: Path, n_frames=4, skip=()) -> None:
    """One short-axis slice, one file for each frame."""
    folder.mkdir(parents=True)
    study, series = generate_uid(), generate_uid()
    for frame in range(n_frames):
        if frame in skip:
            continue
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, generate_uid()
        data.file_meta.MediaStorageSOPClassUID = MRImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.PatientName, data.PatientID = "Do^Not^Keep", SCANNED
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = study, series, generate_uid(None)
        data.FrameOfReferenceUID = study
        data.Modality, data.SeriesDescription, data.SeriesNumber = "MR", "cine SAX", 1
        data.InstanceNumber, data.TriggerTime, data.CardiacNumberOfImages = frame + 1, 40.0 * frame, n_frames
        data.ImagePositionPatient, data.PixelSpacing, data.SliceThickness = [0, 0, 0], [1.5, 1.5], 8
        data.ImageOrientationPatient = [0.7071, 0.7071, 0, 0, 0, -1]
        data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 12, 16, 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 0
        data.PixelData = np.full((12, 16), 500 + frame, dtype="<u2").tobytes()
        data.save_as(folder / f"{frame}.dcm", enforce_file_format=True)


def write_nifti(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(8 * 6 * 2 * 5, dtype=np.int16).reshape(8, 6, 2, 5)
    image = nibabel.Nifti1Image(pixels, np.diag([1.8, 1.8, 10.0, 1.0]))
    image.header.set_zooms((1.8, 1.8, 10.0, 40.0))
    image.header.set_xyzt_units("mm", "msec")
    nibabel.save(image, path)


def run(tmp_path, **kwargs):
    return ingest(IngestOptions(out=tmp_path / "out", **kwargs))


def test_ingest__one_bad_file_never_stops_it(tmp_path):
    ecg = tmp_path / "ecg"
    write_wfdb(ecg, "good")
    cut = write_wfdb(ecg, "cut").with_suffix(".dat")
    cut.write_bytes(cut.read_bytes()[:-1000])
    blank = beats()
    blank[7] = np.nan
    write_wfdb(ecg, "blank", blank)
    write_wfdb(ecg, "three", beats(3), leads=("V1", "V2", "V3"))
    write_wfdb(ecg, "volts", beats() / 200)
    (ecg / "garbage.hea").write_bytes(b"\x00\xff\x00")
    (ecg / "alone.hea").write_text((ecg / "good.hea").read_text().replace("good", "gone"))
    (ecg / "broken.npz").write_bytes(b"PK no zip")
    (ecg / "vendor.xml").write_text("<ecg/>")
    (ecg / "notes.txt").write_text("not a signal")
    report = run(tmp_path, ecg=ecg)
    ledger = Cohort.open(report.out).ledger.set_index("item")
    ignored = ledger[ledger["status"] == "ignored"]["reason"].to_dict()
    assert ignored.pop("notes.txt") == "not_a_signal"
    assert ignored == {f"{name}.dat": "companion" for name in ("blank", "cut", "good", "three", "volts")}
    assert ledger[ledger["status"] != "ignored"]["reason"].to_dict() == {
        "alone.hea": "missing_file",
        "blank.hea": "nan_lead",
        "broken.npz row 0": "unreadable",
        "cut.hea": "truncated",
        "garbage.hea": "unreadable",
        "good.hea": "",
        "three.hea": "missing_leads",
        "vendor.xml": "unsupported_format",
        "volts.hea": "implausible_amplitude",
    }
    assert ledger.loc["blank.hea", "detail"] == "lead V2 holds no sample"
    assert ledger.loc["good.hea", ["status", "row"]].tolist() == ["kept", 0]
    assert report.ignored == {".txt": 1}
    assert (report.read, report.kept) == ({"ecg": 9}, {"ecg": 1})
    assert validate_cohort(report.out) == []


@pytest.mark.parametrize("content", ["empty", "broken"])
def test_ingest__nothing_kept_writes_nothing(tmp_path, content):
    (tmp_path / "ecg").mkdir()
    if content == "broken":
        (tmp_path / "ecg" / "a.hea").write_text("nonsense")
    report = run(tmp_path, ecg=tmp_path / "ecg")
    assert report.out is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ecg"]
    assert [reason for _, reason, _ in report.examples] == (["unreadable"] if content == "broken" else [])


def test_ingest__pairs_ecg_and_cmr_of_one_name(tmp_path):
    for name in ("s1", "s2"):
        write_wfdb(tmp_path / "ecg", name)
    write_dicom(tmp_path / "cmr" / "s2")
    write_dicom(tmp_path / "cmr" / "s3", skip=(2,))
    write_nifti(tmp_path / "cmr" / "s1" / "sax.nii.gz")
    write_nifti(tmp_path / "cmr" / "s1" / "sax_gt.nii.gz")
    report = run(tmp_path, ecg=tmp_path / "ecg", cmr=tmp_path / "cmr")
    cohort = Cohort.open(report.out)
    assert report.dropped["cmr"] == {"missing_frame": 1}, report.examples
    assert report.subjects == 2
    recordings = cohort.recordings["subject"].tolist()
    nifti = cohort.studies[cohort.studies["source"] == "nifti"].iloc[0]
    dicom = cohort.studies[cohort.studies["source"] == "dicom"].iloc[0]
    assert [nifti["subject"], dicom["subject"]] == [recordings[0], recordings[1]]
    assert (nifti["n_slices"], nifti["n_frames"], dicom["n_frames"]) == (2, 5, 4)
    assert cohort.cine(int(dicom["study"])).pixels[0, :, 0, 0].tolist() == [500, 501, 502, 503]
    assert validate_cohort(report.out, deep=True) == []


def test_ingest__no_identifier_is_stored_unless_asked(tmp_path):
    write_wfdb(tmp_path / "ecg" / KEPT, f"{KEPT}_20205")
    write_wfdb(tmp_path / "ecg" / LOST, f"{LOST}_20205", beats() / 200)  # dropped: its message holds the path
    write_dicom(tmp_path / "cmr" / KEPT)
    labels = pd.DataFrame({"person": [KEPT, LOST], "MI": ["1", "0"]})
    labels.to_csv(tmp_path / "labels.csv", index=False)
    report = run(
        tmp_path,
        ecg=tmp_path / "ecg",
        cmr=tmp_path / "cmr",
        labels=tmp_path / "labels.csv",
        subject_column="person",
        subject_regex=r"^(\d+)",
        keep_map=tmp_path / "map.csv",
    )
    cohort = Cohort.open(report.out)
    assert report.subjects == 1
    assert cohort.labels["MI"].tolist() == [1.0]
    stored = b"".join(path.read_bytes() for path in report.out.rglob("*") if path.is_file())
    stored += cohort.ledger.to_csv().encode() + cohort.studies.to_csv().encode() + repr(report).encode()
    assert [name for name in (KEPT, LOST, SCANNED, "Do^Not") if name.encode() in stored] == []
    assert str(tmp_path).encode() not in cohort.ledger.to_csv().encode()
    mapping = pd.read_csv(tmp_path / "map.csv", dtype=str)
    assert mapping["key"].tolist() == [KEPT, LOST, KEPT]
    assert mapping["subject"].tolist() == ["0", "-1", "0"]
    assert stat.S_IMODE((tmp_path / "map.csv").stat().st_mode) == 0o600
    with pytest.raises(ValueError, match="lies inside the cohort"):
        run(tmp_path, ecg=tmp_path / "ecg", keep_map=tmp_path / "out" / "map.csv")


def write_arrays(folder: Path, n=6) -> Path:
    folder.mkdir()
    ecg = np.stack([beats(seed=k) for k in range(n)]).astype(np.int16)
    np.savez(folder / "all.npz", ecg=ecg, scale=0.001, fs=100, ecg_id=np.arange(n) + 40)
    return folder


def test_ingest__labels_kinds_folds_and_several_recordings(tmp_path):
    table = {
        "ecg_id": range(40, 46),
        "person": ["a", "b", "b", "c", "d", "e"],
        "fold": ["1", "1.0", "1", "2", "3", "9"],
        "MI": [0, 1, 0, "", 1, 0],
        "EF": [55.5, 60, 62, 40, "", 30],
        "rhythm": ["SR", "AF", "SR", "SR", "AF", ""],
        "comment": ["free", "text", "that", "is", "no", "label"],
        "study_id": range(6),
        "age": [50, 60, 61, 70, 80, 90],
        "sex": ["M", "F", "F", "m", "female", ""],
        "device": ["x", "y", "y", "x", "x", "y"],
    }
    pd.DataFrame(table).to_csv(tmp_path / "labels.csv", index=False)
    report = run(
        tmp_path,
        ecg=write_arrays(tmp_path / "ecg"),
        labels=tmp_path / "labels.csv",
        subject_column="person",
        item_column="ecg_id",
        unit="mV",
        split_column="fold",
        split={"train": ("1",), "val": ("2",), "test": ("3",)},
        group_columns=("device",),
    )
    cohort = Cohort.open(report.out)
    assert {spec.name: spec.kind for spec in cohort.schema.labels} == {
        "MI": "binary",
        "EF": "regression",
        "rhythm": "category",
    }
    assert cohort.label_specs["rhythm=AF"].kind == "binary"
    assert any("'comment' left out: 6 different texts" in line for line in report.statements)
    assert any("'study_id' left out: it looks like an identifier" in line for line in report.statements)
    assert cohort.recordings["subject"].tolist() == [0, 1, 1, 2, 3, 4]
    np.testing.assert_array_equal(cohort.labels["MI"], [0, 1, np.nan, 1, 0])
    np.testing.assert_array_equal(cohort.labels["EF"], [55.5, 61, 40, np.nan, 30])
    np.testing.assert_array_equal(cohort.recording_labels["EF"], [55.5, 60, 62, 40, np.nan, 30])
    assert cohort.subjects["sex"].tolist() == ["male", "female", "male", "female", ""]
    assert cohort.subjects["age_years"].tolist() == [50, 60, 70, 80, 90]
    assert cohort.subjects["device"].tolist() == ["x", "y", "x", "x", "y"]
    assert cohort.schema.group_columns == ("sex", "device")
    split = open_split(cohort)
    assert [part.tolist() for part in split.parts().values()] == [[0, 1], [2], [3]]
    assert any("1 subjects are in no part of the split" in line for line in report.statements)
    assert validate_cohort(report.out) == []


def test_ingest__folds_that_leak_are_refused(tmp_path):
    pd.DataFrame({"ecg_id": range(40, 46), "person": "p", "fold": [1, 1, 1, 8, 8, 8]}).to_csv(
        tmp_path / "labels.csv", index=False
    )
    with pytest.raises(ValueError, match="column fold: subject 0 has recordings in test and train"):
        run(
            tmp_path,
            ecg=write_arrays(tmp_path / "ecg"),
            labels=tmp_path / "labels.csv",
            subject_column="person",
            item_column="ecg_id",
            unit="mV",
            split_column="fold",
            split={"train": ("1",), "test": ("8",)},
        )
    assert not (tmp_path / "out").exists()


def test_ingest__workers_do_not_change_a_byte(tmp_path, monkeypatch):
    from test_cohort_writer import digest

    monkeypatch.setattr("ecgcmr.cohort.ingest_plan.CHUNK_ITEMS", {"ecg": 2, "cmr": 1})
    ecg = write_arrays(tmp_path / "ecg")
    one = ingest(IngestOptions(out=tmp_path / "a" / "c", ecg=ecg, unit="mV"))
    two = ingest(IngestOptions(out=tmp_path / "b" / "c", ecg=ecg, unit="mV", workers=2))
    assert digest(one.out) == digest(two.out)
    assert Cohort.open(two.out).recordings["subject"].tolist() == list(range(6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to ingest"),
        ({"ecg": Path("nowhere")}, "--ecg nowhere: there is no such folder"),
        ({"ecg": Path(), "split_column": "fold"}, "belong together"),
        ({"ecg": Path(), "split_column": "fold", "split": {"test": ("8",)}}, "needs --labels"),
        ({"ecg": Path(), "labels": Path("no.csv")}, "--labels no.csv: there is no such file"),
    ],
)
def test_options__contradictions_are_named(tmp_path, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        run(tmp_path, **options)


def test_labels__wrong_columns_and_double_items_are_named(tmp_path):
    ecg = write_arrays(tmp_path / "ecg")
    (tmp_path / "labels.csv").write_text("ecg_id,MI\n40,1\n40,0\n")
    with pytest.raises(ValueError, match="same value in data rows 1 and 2"):
        run(tmp_path, ecg=ecg, unit="mV", labels=tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_text("ecg_id,MI,words\n40,1,some\n41,0,text\n")
    with pytest.raises(ValueError, match=r"no column 'patient'; it has ecg_id, MI, words"):
        run(tmp_path, ecg=ecg, unit="mV", labels=tmp_path / "labels.csv", subject_column="patient")
    with pytest.raises(ValueError, match="column 'words' cannot be a label: 2 different texts"):
        run(tmp_path, ecg=ecg, unit="mV", labels=tmp_path / "labels.csv", label_columns=("words",))


def test_array_keys__without_reading_the_signals(tmp_path):
    write_arrays(tmp_path / "x")
    assert array_keys(tmp_path / "x" / "all.npz") == ["40", "41", "42", "43", "44", "45"]
    np.savez(tmp_path / "plain.npz", ecg=np.zeros((3, 12, 10), np.int16))
    np.save(tmp_path / "bare.npy", np.zeros((2, 12, 10), np.int16))
    assert array_keys(tmp_path / "plain.npz") == ["plain/0", "plain/1", "plain/2"]
    assert array_keys(tmp_path / "bare.npy") == ["bare/0", "bare/1"]


@pytest.mark.shared
def test_ingest__ptbxl_fold_8(shared_data, tmp_path):
    source = shared_data / "ptbxl_zscored"
    (tmp_path / "ecg").mkdir()
    (tmp_path / "ecg" / "fold08.npz").symlink_to(source / "fold08.npz")
    report = run(
        tmp_path,
        ecg=tmp_path / "ecg",
        labels=source / "labels.csv",
        subject_column="patient_id",
        item_column="ecg_id",
        unit="z",
        split_column="strat_fold",
        split={"train": ("1",), "test": ("8",)},
        provenance="ptbxl",
    )
    cohort = Cohort.open(report.out)
    with np.load(source / "fold08.npz") as stored:
        np.testing.assert_allclose(cohort.recording(5).samples, stored["ecg"][5] * stored["scale"], atol=6e-4)
    table = pd.read_csv(source / "labels.csv").query("strat_fold == 8")
    assert len(cohort.recordings) == len(table) == 160
    assert len(cohort) == table["patient_id"].nunique()
    np.testing.assert_array_equal(cohort.labels["MI"], table.groupby("patient_id", sort=False)["MI"].max())
    assert len(open_split(cohort).test) == len(cohort)
    assert (cohort.recordings["unit"] == "z").all()
    origin = json.loads((report.out / "cohort.json").read_text())["origin"]
    assert str(shared_data) not in json.dumps(origin)


@pytest.mark.shared
def test_ingest__ludb_and_cinc2021(shared_data, tmp_path):
    ludb = ingest(IngestOptions(out=tmp_path / "ludb", ecg=shared_data / "ludb", gain_uv_per_unit=1.0))
    assert ludb.kept == {"ecg": 17}
    refused = ingest(IngestOptions(out=tmp_path / "refused", ecg=shared_data / "ludb"))
    assert (refused.out, refused.dropped["ecg"]) == (None, {"implausible_amplitude": 17})
    source = shared_data / "cinc2021"
    cinc = ingest(IngestOptions(out=tmp_path / "cinc", ecg=source, labels=source / "labels.csv"))
    cohort = Cohort.open(cinc.out)
    assert cinc.kept == {"ecg": 33}
    assert sorted(cohort.recordings["rate_hz"].unique()) == [500, 1000]
    assert validate_cohort(cinc.out) == []


@pytest.mark.shared
def test_ingest__dicom_study_in_zips(shared_data, tmp_path):
    (tmp_path / "cmr").mkdir()
    (tmp_path / "cmr" / "one").symlink_to(shared_data / "cmr_cine_dicom")
    cohort = Cohort.open(run(tmp_path, cmr=tmp_path / "cmr").out)
    assert sorted(cohort.studies["view"]) == ["2ch", "2ch", "3ch", "4ch", "rvot", "sax"]
    (stack,) = cohort.studies[cohort.studies["view"] == "sax"].to_dict("records")
    assert (stack["n_slices"], stack["n_frames"], stack["subject"]) == (6, 25, 0)
    assert cohort.cine(stack["study"]).pixels.dtype == np.uint16
