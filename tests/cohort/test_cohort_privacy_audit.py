"""The audit finds planted identifiers of every kind in every kind of file, shows none of them, and finds no others."""

from __future__ import annotations

import datetime
import json
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from typer.testing import CliRunner

from ecgcmr.cli.main import app
from ecgcmr.cohort.privacy_audit import Finding, audit, scan
from ecgcmr.cohort.privacy_patterns import counts_something, identifying_name, looks_identifying, redact

NUMBER = str(3 * 10**6 + 141592)  # as a biobank would number a subject
PLANTED = {
    "long number": f"subject {NUMBER} was read",
    "UK Biobank file name": f"{NUMBER}_20205_2_0.xml",
    "date": "scanned on 2016-11-05, in the morning",
    "e-mail address": "ask jane.doe@hospital.example.org",
    "person's name": "Doe^Jane^Mary",
    "identifying tag": "PatientBirthDate: unknown-to-us",
    "medical record number": "MRN 88A1204",
    "social security number": "078-05-1120",
    "DICOM UID": "1.2.840.113619.2.55.3.604688119.971",
    "path of a person or machine": "could not read /home/jane/ecg/one.dat",
}
HARMLESS = [
    "loss 0.12345678 after 1200 steps, lr 1e-7, 12.3456789 s",
    "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "Wagner et al. 2020, doi:10.13026/kfzx-aw45, doi 10.1056/NEJM198710223171717, arXiv 2308.05764",
    "21384960 parameters, 104857600 bytes",
    "subject 12 ecg; visit 3; 500 Hz; 12 x 5000 samples; 2.5 x 2.5 mm",
    "V1 to V6, aVR -0.5; I,II,III; 10-20 %; 1/2; 3.0.1; 2026-11",
    "seed 0x7FEB352D, 12-34, 1:2:3, 10.0.0.1, <1> <2>",
    "https://doi.org/10.13026/eegm-h675 and ./runs/demo/cohort/arrays/ecg.bin in /tmp/runs",
]


def _kinds(folder: Path) -> set[str]:
    return {finding.kind for finding in audit(folder)}


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("suffix", [".txt", ".json", ".jsonl", ".csv", ".tsv", ".yaml", ".log", ".parquet", ".npy",
                                    ".npz", ".png", ".safetensors", ".nii", ".pt", ".hea", ""])  # fmt: skip
def test_audit__finds_each_kind_in_each_file(tmp_path: Path, kind: str, suffix: str) -> None:
    text, path = PLANTED[kind], tmp_path / f"table{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps({"a": [{"note": text}]}))
    elif suffix == ".jsonl":
        path.write_text(json.dumps({"step": 1}) + "\n" + json.dumps({"note": text}) + "\n")
    elif suffix in (".csv", ".tsv"):
        pd.DataFrame({"a": [1, 2], "note": ["x", text]}).to_csv(
            path, index=False, sep="," if suffix == ".csv" else "\t"
        )
    elif suffix == ".parquet":
        pd.DataFrame({"a": [1, 2], "note": ["x", text]}).to_parquet(path)
    elif suffix == ".npy":
        np.save(path, np.array(["x", text]))
    elif suffix == ".npz":
        np.savez(path, names=np.array(["x", text]), ecg=np.zeros(3))
    elif suffix == ".png":
        path.write_bytes(_png(b"Comment", text.encode()))
    elif suffix == ".safetensors":
        save_file({"w": np.zeros(2, np.float32)}, path, metadata={"note": text})
    elif suffix == ".nii":
        path.write_bytes(struct.pack("<i", 348) + b"\0" * 144 + text.encode()[:80].ljust(80, b"\0") + b"\0" * 400)
    elif suffix == ".pt":
        torch.save({"note": text}, path)
    else:
        path.write_text(f"first line\n{text}\n")
    found = [finding for finding in audit(tmp_path) if finding.kind == kind]
    assert found, f"{kind} in {suffix}: {audit(tmp_path)}"
    if suffix in (".csv", ".tsv", ".parquet"):
        assert (found[0].place, found[0].row) == ("note", 2)
    if suffix in (".txt", ".jsonl", ".log"):
        assert found[0].row == 2
    for shown in map(str, audit(tmp_path)):
        assert NUMBER not in shown
        assert "jane" not in shown.lower()
        assert "2016-11-05" not in shown


def _png(key: bytes, text: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    image = zlib.compress(b"\0\0")
    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"tEXt", key + b"\0" + text) + chunk(b"IDAT", image)


@pytest.mark.parametrize("text", HARMLESS)
def test_looks_identifying__leaves_harmless_text_alone(text: str) -> None:
    assert list(looks_identifying(text)) == []


@settings(max_examples=200, deadline=None)
@given(st.floats(-1e5, 1e5), st.integers(-999_999, 999_999), st.binary(min_size=16, max_size=32))
def test_looks_identifying__no_number_that_a_run_writes(value: float, count: int, digest: bytes) -> None:
    name = digest.hex()
    text = f"{value!r} {value:.3f} {count} {name if any(c.isalpha() for c in name) else ''}"
    assert list(looks_identifying(text)) == []


@settings(max_examples=200, deadline=None)
@given(st.integers(10**6, 10**11), st.sampled_from(["{}", "x_{}.xml", "id={}", "sub-{}_visit2", "({})", "{}.0", "A{}"]))
def test_looks_identifying__every_long_number_is_found(number: int, around: str) -> None:
    assert list(looks_identifying(around.format(number)))


@settings(max_examples=100, deadline=None)
@given(st.dates(datetime.date(1901, 1, 1), datetime.date(2099, 12, 31)),
       st.sampled_from(["%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%Y%m%d", "%d-%b-%Y", "%d %B %Y"]))  # fmt: skip
def test_looks_identifying__every_date_is_found(day: datetime.date, form: str) -> None:
    assert "date" in [kind for kind, _ in looks_identifying(f"on {day.strftime(form)} or so")]


def test_names_of_columns() -> None:
    for name in ("eid", "patient_id", "PatientID", "DateOfBirth", "birth_date", "MRN", "Patient Name", "eid_1"):
        assert identifying_name(name), name
    for name in ("subject", "patients", "recording", "age_years", "sex", "visit_days", "name", "id", "birth_weight_kg"):
        assert not identifying_name(name), name
    assert counts_something("arrays.ecg.bytes")
    assert counts_something("mask_offset")
    assert not counts_something("subject")


@given(st.text(min_size=1, max_size=40))
def test_redact__shows_two_characters_at_most(text: str) -> None:
    shown = redact(text)
    assert sum(character != "*" for character in shown) <= 2
    assert len(shown) <= 12


def test_audit__a_simulated_cohort_has_nothing(tiny_cohort: Path) -> None:
    report = scan(tiny_cohort)
    assert report.findings == ()
    assert report.files >= 8
    assert report.skipped == {}


def test_audit__identifiers_in_the_tables_of_a_cohort(tiny_cohort: Path, tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    shutil.copytree(tiny_cohort, cohort)
    labels = cohort / "labels.parquet"
    table = pq.read_table(labels)
    real = pa.array([int(NUMBER) + k for k in range(table.num_rows)], pa.int64())
    born = pa.array([datetime.date(1950, 1, 1 + k) for k in range(table.num_rows)])
    pq.write_table(table.append_column("code", real).append_column("born", born).append_column("eid", real), labels)
    found = {(finding.place, finding.kind): finding for finding in audit(cohort)}
    assert found["code", "long number"].count == 24
    assert found["code", "long number"].row == 1
    assert ("born", "date") in found
    assert ("eid", "identifying column") in found
    assert {finding.file for finding in found.values()} == {"labels.parquet"}


def test_audit__whole_numbers_as_floats_and_lists_of_numbers(tmp_path: Path) -> None:
    pd.DataFrame({"who": [float(NUMBER), None]}).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "split.json").write_text(json.dumps({"train": [int(NUMBER), int(NUMBER) + 1], "bytes": 10**9}))
    found = audit(tmp_path)
    assert {(f.file, f.place, f.count) for f in found} == {("a.parquet", "who", 1), ("split.json", "train", 2)}


def test_audit__names_of_files_and_folders_are_looked_at_and_hidden(tmp_path: Path) -> None:
    folder = tmp_path / f"sub-{NUMBER}"
    folder.mkdir()
    (folder / f"{NUMBER}_20209_2_0.bin").write_bytes(b"\0" * 10)
    found = audit(tmp_path)
    assert {finding.kind for finding in found} == {"long number", "UK Biobank file name"}
    assert not any(NUMBER in str(finding) for finding in found)


def test_audit__dicom_tags(tmp_path: Path) -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = meta.MediaStorageSOPInstanceUID = "1.2.3"
    image = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    image.PatientName, image.PatientID, image.StudyDate, image.Rows = "Doe^Jane", "K17", "20161105", 4
    for name in ("one.dcm", "without_suffix"):
        image.save_as(tmp_path / name, enforce_file_format=True)
    found = audit(tmp_path)
    for name in ("one.dcm", "without_suffix"):
        assert {f.place for f in found if f.file == name} == {"PatientName", "PatientID", "StudyDate"}
    assert {finding.kind for finding in found} == {"identifying tag"}


def test_audit__a_broken_file_is_told_and_does_not_stop_it(tmp_path: Path) -> None:
    for name in ("a.json", "b.parquet", "c.npz", "d.safetensors", "e.dcm", "f.png", "g.npy"):
        (tmp_path / name).write_bytes(b"\x01broken\xff")
    (tmp_path / "z.txt").write_text(PLANTED["date"])
    found = audit(tmp_path)
    assert {finding.file for finding in found if finding.kind == "cannot be read"} == {
        "a.json", "b.parquet", "c.npz", "d.safetensors", "e.dcm", "f.png", "g.npy",
    }  # fmt: skip
    assert found[-1] == Finding("z.txt", "", 1, "date", "2********5")


_TABLES, _OTHERS = ".json .csv .parquet .txt .jsonl", ".npz .npy .png .jpg .dcm .nii .gz .safetensors .pt .pkl"
SUFFIXES = [*_TABLES.split(), *_OTHERS.split()]


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([*SUFFIXES, ""]))
def test_audit__never_raises_on_a_file(tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / f"file{suffix}").write_bytes(data)
    scan(folder)


def test_audit__never_loads_a_pickle(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "executed",))  # type: ignore[return-value]

    torch.save({"x": Evil()}, tmp_path / "a.pt")
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(Evil()))
    np.save(tmp_path / "c.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    scan(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_audit__links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text(PLANTED["date"])
    folder = tmp_path / "inside"
    folder.mkdir()
    (folder / "link.txt").symlink_to(outside)
    assert audit(folder) == []
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        audit(tmp_path / "absent")


def test_command__exit_code_tells_whether_something_was_found(tiny_cohort: Path, tmp_path: Path) -> None:
    run = CliRunner()
    clean = run.invoke(app, ["cohort", "audit-privacy", str(tiny_cohort)])
    assert clean.exit_code == 0, clean.output
    assert "nothing that looks like an identifier" in clean.output
    (tmp_path / "notes.txt").write_text(f"{PLANTED['date']}\nsee {NUMBER}\n")
    (tmp_path / "weights.onnx").write_bytes(b"\0\1\2")
    dirty = run.invoke(app, ["cohort", "audit-privacy", str(tmp_path), "--show", "1"])
    assert dirty.exit_code == 1
    assert "notes.txt, row 1: date: 2********5" in dirty.output
    assert "... and 1 more; see all of them with --show 2" in dirty.output
    assert "not looked into: 1 .onnx" in dirty.output
    assert NUMBER not in dirty.output
    assert run.invoke(app, ["cohort", "audit-privacy", str(tmp_path / "absent")]).exit_code == 2
