"""Damaged files of every format: a typed error that names the file, or a recording; in bounded time and memory."""

from __future__ import annotations

import random
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import ecg_format_writers as write
import h5py
import numpy as np
import pytest
import scipy.io
import wfdb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgcmr.ecg import EcgRecording, open_ecg
from ecgcmr.ecg.leads import LEADS

X = write.ecg_mv(400)
SECONDS, MEGABYTES = 20.0, 64.0  # whatever a file of 100 kB claims; the machine may be busy
DECLARED = {"unit": "mV", "rate_hz": 500, "leads": LEADS}
INTERESTING = (
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    b"\xff\xff\xff\xff",
    b"9999",
    b"-1",
    b"\x00",
    b"<!--",
    b"nan",
    b"1e9",
)


def _npz(path: Path) -> Path:
    np.savez_compressed(path, ecg=X, leads=np.array(LEADS))
    return path


def _npy(path: Path) -> Path:
    np.save(path, X)
    return path


def _mat(version: str, compress: bool = False) -> Callable[[Path], Path]:
    def made(path: Path) -> Path:
        scipy.io.savemat(path, {"fs": 500.0, "ecg": X}, format=version, do_compression=compress)
        return path

    return made


def _hdf5(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("ecg", data=X.astype(np.float32), compression="gzip")
        file.attrs["fs"] = 500.0
    return path


def _table(path: Path) -> Path:
    np.savetxt(path, X.T, delimiter=",", header=",".join(LEADS), comments="", fmt="%.4f")
    return path


def _wfdb(fmt: str) -> Callable[[Path], Path]:
    def made(path: Path) -> Path:
        wfdb.wrsamp(
            path.stem, fs=500, units=["mV"] * 12, sig_name=list(LEADS), fmt=[fmt] * 12, adc_gain=[100.0] * 12,
            p_signal=X.T * (0.1 if fmt == "80" else 1.0), baseline=[0] * 12, write_dir=str(path.parent),
        )  # fmt: skip
        return path

    return made


def _segments(path: Path) -> Path:
    for name in ("part1", "part2"):
        _wfdb("16")(path.with_name(f"{name}.hea"))
    path.write_text(f"{path.stem}/3 12 500 900 10:11:12 03/04/2021\npart1 400\n~ 100\npart2 400\n")
    return path


FORMATS: dict[str, tuple[str, Callable[[Path], Path], dict]] = {
    "ukb_xml": ("a.xml", lambda path: write.write_ukb_xml(path, X, median=X[:, :100]), {}),
    "muse_xml": ("a.xml", lambda path: write.write_muse_xml(path, X), {}),
    "aecg_xml": ("a.xml", lambda path: write.write_aecg_xml(path, X), {}),
    "sierra_xml": ("a.xml", lambda path: write.write_sierra_xml(path, X), {}),
    "dicom": ("a.dcm", lambda path: write.write_dicom(path, X), {}),
    "npz": ("a.npz", _npz, {"unit": "mV", "rate_hz": 500}),
    "npy": ("a.npy", _npy, DECLARED),
    "mat 4": ("a.mat", _mat("4"), {"unit": "mV"}),
    "mat 5": ("a.mat", _mat("5"), {"unit": "mV"}),
    "mat 7": ("a.mat", _mat("5", compress=True), {"unit": "mV"}),
    "hdf5": ("a.h5", _hdf5, {"unit": "mV"}),
    "table": ("a.csv", _table, {"unit": "mV", "rate_hz": 500}),
    "wfdb 16": ("rec.hea", _wfdb("16"), {}),
    "wfdb 212": ("rec.hea", _wfdb("212"), {}),
    "wfdb 80": ("rec.hea", _wfdb("80"), {}),
    "wfdb segments": ("whole.hea", _segments, {}),
    "vendor": ("a.ecg", lambda path: write.write_ishne(path, X), {}),
}

damage = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.floats(0, 1), st.binary(min_size=1, max_size=4)),
        st.tuples(st.just("set"), st.floats(0, 0.05), st.sampled_from(INTERESTING)),  # headers stand at the beginning
        st.tuples(st.just("insert"), st.floats(0, 1), st.sampled_from(INTERESTING)),
        st.tuples(st.just("delete"), st.floats(0, 1), st.integers(1, 300)),
        st.tuples(st.just("cut"), st.floats(0, 1), st.just(0)),
    ),
    min_size=1,
    max_size=3,
)


def apply(data: bytes, changes: list[tuple[str, float, object]]) -> bytes:
    out = bytearray(data)
    for kind, where, what in changes:
        at = int(where * len(out))
        if kind == "set" and isinstance(what, bytes):
            out[at : at + len(what)] = what
        elif kind == "insert" and isinstance(what, bytes):
            out[at:at] = what
        elif kind == "delete" and isinstance(what, int):
            del out[at : at + what]
        else:
            del out[at:]
    return bytes(out)


def survives(path: Path, options: dict) -> str:
    """Read a damaged file; what came of it. Anything but a typed, named error or a sound recording fails."""
    began = time.monotonic()
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got = open_ecg(path, **options)
    except (ValueError, OSError) as error:
        outcome = type(error).__name__
        named = path.stem in str(error)
        message = str(error)
    else:
        outcome, named, message = "read", True, ""
        sound(got)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert named, f"the message does not name the file: {message}"
    assert message or outcome == "read"
    assert time.monotonic() - began < SECONDS
    assert peak < MEGABYTES * 1e6, f"{peak / 1e6:.0f} MB"
    return outcome


def sound(got: EcgRecording) -> None:
    """What a reader may return for any file: finite or missing samples of a plausible size, rate and names."""
    assert got.samples.dtype == np.float32
    assert not np.isinf(got.samples).any()
    assert np.nanmax(np.abs(got.samples), initial=0.0) <= 5000
    assert 10 <= got.rate_hz <= 100_000
    assert got.samples.shape[0] == len(got.leads) == len(set(got.leads)) or got.source == "wfdb"
    assert got.samples.shape[1] > 0


def prepare(folder: Path, name: str) -> tuple[Path, dict, bytes]:
    if name == "vendor":
        pytest.importorskip("ecgdatakit")
    file_name, make, options = FORMATS[name]
    path = make(folder / file_name)
    return path, options, path.read_bytes()


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_damaged_file__gives_a_typed_error_or_a_recording(tmp_path: Path, name: str) -> None:
    path, options, whole = prepare(tmp_path, name)
    sound(open_ecg(path, **options))

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(changes=damage)
    def attempt(changes: list[tuple[str, float, object]]) -> None:
        path.write_bytes(apply(whole, changes))
        survives(path, options)

    attempt()


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_cut_file__is_refused_or_is_shorter(tmp_path: Path, name: str) -> None:
    """A file cut off anywhere never gives as much as the whole one, except for what trails behind the samples."""
    path, options, whole = prepare(tmp_path, name)
    complete = open_ecg(path, **options).samples
    for part in (0.0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9):
        path.write_bytes(whole[: int(part * len(whole))])
        try:
            got = open_ecg(path, **options).samples
        except (ValueError, OSError):
            continue
        assert name in ("table", "vendor", "wfdb 16", "wfdb 212", "wfdb 80", "wfdb segments"), "nothing marks its end"
        assert got.size <= complete.size


def random_damage(rng: random.Random) -> list[tuple[str, float, object]]:
    kinds: list[tuple[str, float, object]] = []
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        where = rng.random() if rng.random() < 0.6 else rng.random() * 0.03
        what = bytes([rng.randrange(256)]) if rng.random() < 0.6 else rng.choice(INTERESTING)
        kind = rng.choices(("set", "insert", "delete", "cut"), (8, 2, 2, 1))[0]
        kinds.append((kind, where, rng.randrange(1, 300) if kind == "delete" else what))
    return kinds


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", sorted(FORMATS))
def test_thousands_of_damaged_files(tmp_path: Path, name: str) -> None:
    path, options, whole = prepare(tmp_path, name)
    rng = random.Random(name)
    outcomes = set()
    for _ in range(1000):
        path.write_bytes(apply(whole, random_damage(rng)))
        outcomes.add(survives(path, options))
    assert {"ValueError", "read"} <= outcomes


REAL = {
    "dicom_waveform/waveform_ecg.dcm": {},
    "ge_muse_xml_ecg2dcm/guangxi_teaching_sinus_rhythm.xml": {},
    "hl7_aecg/subject1_0.xml": {},
    "philips_sierra_xml/2020-5-18_15-48-11.xml": {},
    "../sph/SPH00001.h5": {"unit": "mV", "rate_hz": 500},
    "../cinc2021/records/Q0001.hea": {},
}


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", sorted(REAL))
def test_hundreds_of_damaged_real_files(tmp_path: Path, shared_data: Path, name: str) -> None:
    source = shared_data / "ecg_formats" / name
    path = tmp_path / source.name
    beside = source.with_suffix(".mat")
    if source.suffix == ".hea":
        (tmp_path / beside.name).write_bytes(beside.read_bytes())
    whole = source.read_bytes()
    rng = random.Random(name)
    for _ in range(300):
        path.write_bytes(apply(whole, random_damage(rng)))
        survives(path, REAL[name])


def test_wfdb_data__damaged_samples_are_read_noted_or_refused(tmp_path: Path) -> None:
    """The header is whole and the samples are not: the checksum tells."""
    path, _, _ = prepare(tmp_path, "wfdb 16")
    data = path.with_suffix(".dat")
    whole = data.read_bytes()
    rng = random.Random(3)
    for _ in range(60):
        at = rng.randrange(len(whole))
        changed = bytearray(whole)
        changed[at] ^= 1 << rng.randrange(8)
        data.write_bytes(bytes(changed))
        try:
            noticed = any("checksum" in note for note in open_ecg(path).notes)
        except ValueError:
            noticed = True
        assert noticed
