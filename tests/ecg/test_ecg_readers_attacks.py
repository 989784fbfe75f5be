"""Files made to do harm: bombs, ways out of the folder, pickles, lies about sizes. All are refused, cheaply."""

from __future__ import annotations

import os
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ecg_format_writers as write
import h5py
import numpy as np
import pytest
import scipy.io

from ecgcmr.ecg import open_ecg
from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.readers import hdf5, matlab, xml_tools
from ecgcmr.ecg.readers.matlab import MatMembers
from ecgcmr.ecg.readers.sniff import XML_ROOTS

X = write.ecg_mv()
DECLARED = {"unit": "mV", "rate_hz": 500}
SECRET = "the secret of another file"


@contextmanager
def memory_below(megabytes: float) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < megabytes * 1e6


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text(SECRET)
    return tmp_path / "secret.txt"


@pytest.mark.parametrize("root", sorted(XML_ROOTS))
def test_xml__entity_bombs(tmp_path: Path, root: str) -> None:
    steps = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10))
    path = tmp_path / "a.xml"
    path.write_text(f'<?xml version="1.0"?><!DOCTYPE {root} [<!ENTITY e0 "ha">{steps}]><{root}>&e9;</{root}>')
    with memory_below(20), pytest.raises(ValueError, match=r"a\.xml is refused: it declares entities"):
        open_ecg(path)


@pytest.mark.parametrize("root", sorted(XML_ROOTS))
@pytest.mark.parametrize("kind", ["SYSTEM", "PUBLIC 'x'"])
def test_xml__external_entities(tmp_path: Path, secret: Path, root: str, kind: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(f"<!DOCTYPE {root} [<!ENTITY x {kind} '{secret.as_uri()}'>]><{root}><a>&x;</a></{root}>")
    with pytest.raises(ValueError, match="it declares entities or external references") as caught:
        open_ecg(path)
    assert SECRET not in str(caught.value)


def test_xml__a_named_document_type_is_never_fetched(tmp_path: Path, secret: Path) -> None:
    path = write.write_muse_xml(tmp_path / "a.xml", X)
    text = path.read_text(encoding="latin-1")
    path.write_text(text.replace('SYSTEM "restecg.dtd"', f'SYSTEM "{secret.as_uri()}"'), encoding="latin-1")
    assert open_ecg(path).source == "muse_xml"


def test_xml__deep_numberless_and_large_trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.xml"
    path.write_text("<CardiologyXML>" + "<a>" * 200_000)
    with memory_below(20), pytest.raises(ValueError, match="nested deeper than 64"):
        open_ecg(path)
    monkeypatch.setattr(xml_tools, "MAX_ELEMENTS", 1000)
    path.write_text("<CardiologyXML>" + "<a/>" * 200_000)
    with memory_below(20), pytest.raises(ValueError, match="more than 1,000 elements"):
        open_ecg(path)
    path.write_text("<CardiologyXML>")
    os.truncate(path, 3 << 30)  # sparse: it takes no room
    with (
        memory_below(5),
        pytest.raises(ValueError, match=r"has 3,221,225,472 bytes; the reader takes up to 67,108,864"),
    ):
        open_ecg(path)


class Booby:
    """Writes a file when it is unpickled."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.trap,))


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_numpy__pickles_are_never_loaded(tmp_path: Path, name: str) -> None:
    trap = tmp_path / "trap"
    array = np.array([[Booby(trap)] * 3] * 12, dtype=object)
    np.save(tmp_path / name, array, allow_pickle=True) if name == "a.npy" else np.savez(tmp_path / name, ecg=array)
    with pytest.raises(ValueError, match=r"Python objects \(a pickle\), which are never loaded"):
        open_ecg(tmp_path / name, **DECLARED)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Booby(trap)))  # the trap works
    assert trap.exists()


def _npy(shape: tuple[int, ...], dtype: str = "<f4", body: bytes = b"") -> bytes:
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + body


@pytest.mark.parametrize("shape", [(12, 10**12), (10**9, 12, 10**9), (12, -5), (2**62, 12, 2**62)])
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_numpy__shapes_that_the_file_cannot_hold(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    data = _npy(shape, body=b"\0" * 4800)
    if name == "a.npy":
        (tmp_path / name).write_bytes(data)
    else:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("ecg.npy", data)
    with memory_below(5), pytest.raises(ValueError, match=r"a\.np[yz]"):
        open_ecg(tmp_path / name, **DECLARED)


def test_numpy__decompression_bombs(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    block = b"\0" * (1 << 20)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("ecg.npy", "w") as out,
    ):
        out.write(_npy((12, 25 << 20), "|i1"))
        for _ in range(300):
            out.write(block)
    with (
        memory_below(20),
        pytest.raises(ValueError, match=r"a\.npz: cannot read 'ecg' \(it expands \d+-fold: a decompression bomb"),
    ):
        open_ecg(path, **DECLARED)


def test_matlab__objects_are_named_and_never_built(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"val": {"inner": X}, "cells": np.array([[X, "x"]], dtype=object)})
    assert sorted(MatMembers(tmp_path / "a.mat").refused) == [("cells", "cell"), ("val", "struct")]
    with pytest.raises(
        ValueError, match=r"a\.mat has no array named .*not read, because they may hold any object: val struct"
    ):
        open_ecg(tmp_path / "a.mat", **DECLARED)


def test_matlab__decompression_bombs_and_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matlab, "MAX_SIGNAL_BYTES", 10 << 20)
    squeeze = zlib.compressobj()
    bomb = b"".join(squeeze.compress(b"\0" * (1 << 20)) for _ in range(200)) + squeeze.flush()
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    path = tmp_path / "a.mat"
    path.write_bytes(head + struct.pack("<II", 15, len(bomb)) + bomb)
    with memory_below(40), pytest.raises(ValueError, match=r"a\.mat is a damaged MATLAB file .*a bomb"):
        open_ecg(path, **DECLARED)
    lie = (
        struct.pack("<IIII", 6, 8, 6, 0)
        + struct.pack("<IIii", 5, 8, 12, 2**30)
        + struct.pack("<II", (3 << 16) | 1, 0x00676365)
    )
    lie += struct.pack("<II", 9, 16) + b"\0" * 16
    path.write_bytes(head + struct.pack("<II", 14, len(lie)) + lie)
    with (
        memory_below(5),
        pytest.raises(ValueError, match=r"a\.mat .*'ecg' of shape .* needs 103079215104 bytes, it has 16"),
    ):
        open_ecg(path, **DECLARED)


def test_hdf5__other_files_are_never_opened(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["ecg"] = X
    X.astype("<f8").tofile(tmp_path / "other.bin")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["ecg"] = h5py.ExternalLink("other.h5", "/ecg")
    with pytest.raises(ValueError, match=r"a\.h5 has no array named"):
        open_ecg(path, **DECLARED)
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout(X.shape, "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "ecg", shape=X.shape)
        file.create_virtual_dataset("ecg", layout)
    with pytest.raises(ValueError, match="takes its samples from other files"):
        open_ecg(path, **DECLARED)
    with h5py.File(path, "w") as file:
        file.create_dataset("ecg", X.shape, "f8", external=[(str(tmp_path / "other.bin"), 0, X.nbytes)])
    with pytest.raises(ValueError, match="takes its samples from other files"):
        open_ecg(path, **DECLARED)


def test_hdf5__sizes_that_are_announced_and_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("ecg", (12, 10**11), "f4", chunks=(12, 1000))  # nothing is stored
    with memory_below(20), pytest.raises(ValueError, match=r"'ecg' of shape \(12, 100000000000\) would need"):
        open_ecg(path, **DECLARED)


def test_hdf5__decompression_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "MAX_SIGNAL_BYTES", 10 << 20)
    path = tmp_path / "a.h5"
    squeeze = zlib.compressobj()
    bomb = b"".join(squeeze.compress(b"\0" * (1 << 20)) for _ in range(40)) + squeeze.flush()
    with h5py.File(path, "w") as file:
        made = file.create_dataset("ecg", (12, 1000), "f4", chunks=(12, 1000), compression="gzip")
        made.id.write_direct_chunk((0, 0), bomb)
    with memory_below(20), pytest.raises(ValueError, match=r"a\.h5: cannot read 'ecg' .*a decompression bomb"):
        open_ecg(path, **DECLARED)


def test_hdf5__references_are_not_resolved(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["other"] = X
        file.create_dataset("ecg", data=np.array([[file["other"].ref] * 3] * 12, dtype=h5py.ref_dtype))
    with pytest.raises(ValueError, match="references to objects, which are never resolved"):
        open_ecg(path, **DECLARED)


HEADER = "rec 12 500 1000\n" + "".join(f"{{name}} 16 1000/mV 16 0 0 0 0 {lead}\n" for lead in LEADS)


@pytest.mark.parametrize("name", ["../other.dat", "/dev/zero", "sub/rec.dat", "..", "..\\\\other.dat"])
def test_wfdb__data_files_outside_the_folder(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "inside"
    (inside / "sub").mkdir(parents=True)
    for other in (tmp_path / "other.dat", inside / "sub" / "rec.dat"):
        other.write_bytes(b"\1" * 24_000)
    (inside / "rec.hea").write_text(HEADER.format(name=name))
    with pytest.raises(ValueError, match=r"rec\.hea, line 2: it names the data file .* outside of its own folder"):
        open_ecg(inside / "rec.hea")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rec 12 500 1000", "rec 12 500 99999999999999"),
        ("rec 12 500 1000", "rec 999999999 500 1000"),
        ("rec 12 500 1000", "rec 12 1e300 1000"),
        ("rec 12 500 1000", "rec 12 inf 1000"),
        ("rec 12 500 1000", "rec/999999999 12 500 1000"),
        ("{name} 16 ", "{name} 16x999999999 "),
        ("{name} 16 ", "{name} 212x60000 "),
        ("{name} 16 ", "{name} 16:999999999 "),
        ("{name} 16 ", "{name} 16+99999999999 "),
        ("{name} 16 ", "{name} 516 "),
        ("1000/mV", "1e-300/mV"),
        ("1000/mV", "1e999/mV"),
        ("1000/mV", "1000(999999999999)/mV"),
    ],
)
def test_wfdb__lies_about_sizes(tmp_path: Path, old: str, new: str) -> None:
    (tmp_path / "rec.dat").write_bytes(np.round(X.T * 1e3).astype("<i2").tobytes())
    assert old in HEADER
    (tmp_path / "rec.hea").write_text(HEADER.replace(old, new).format(name="rec.dat"))
    with memory_below(60), pytest.raises((ValueError, OSError), match="rec"):
        open_ecg(tmp_path / "rec.hea")


def test_wfdb__a_header_of_gigabytes(tmp_path: Path) -> None:
    (tmp_path / "rec.hea").write_text("rec 12")
    os.truncate(tmp_path / "rec.hea", 2 << 30)
    with memory_below(5), pytest.raises(ValueError, match="the reader takes up to"):
        open_ecg(tmp_path / "rec.hea")


def test_dicom__lies_and_deflated_files(tmp_path: Path) -> None:
    import pydicom
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    path = write.write_dicom(tmp_path / "a.dcm", X)
    dataset = pydicom.dcmread(path)
    dataset.WaveformSequence[0].NumberOfWaveformSamples = 2**29
    dataset.save_as(path)
    with memory_below(20), pytest.raises(ValueError, match="need 12884901888 bytes, it has 24000"):
        open_ecg(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    with pytest.raises(ValueError, match=r"a\.dcm is no readable DICOM file .*deflated files are not read"):
        open_ecg(path)


@pytest.mark.parametrize("duration", ["1e15", "-5", "nan", "0", "99999999"])
def test_sierra__lies_about_the_duration(tmp_path: Path, duration: str) -> None:
    path = write.write_sierra_xml(tmp_path / "a.xml", X)
    text = path.read_text(encoding="utf-16").replace('durationperchannel="2000"', f'durationperchannel="{duration}"')
    path.write_text(text, encoding="utf-16")
    with memory_below(120), pytest.raises(ValueError, match=r"a\.xml: <parsedwaveforms"):
        open_ecg(path)


def test_table__a_million_columns_and_a_binary_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(",".join(["1"] * 1_000_000) + "\n")
    with memory_below(200), pytest.raises(ValueError, match=r"10{6} columns, expected one for each lead"):
        open_ecg(path, **DECLARED)
    path.write_bytes(b"I,II\n1,2\n" + b"\0" * 100)
    with pytest.raises(ValueError, match=r"a\.csv"):
        open_ecg(path, **DECLARED)


def test_open_ecg__pipes_and_folders_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.xml")
    with pytest.raises(ValueError, match="no regular file"):
        open_ecg(tmp_path / "a.xml")
    (tmp_path / "b.xml").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        open_ecg(tmp_path / "b.xml")
