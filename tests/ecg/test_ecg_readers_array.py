"""Arrays of recordings: declared facts, laziness, and the PTB-XL samples."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.preprocessing import named_pipeline
from ecgcmr.ecg.readers import ArrayFile, iter_array


def _stored(n: int = 5, t: int = 400) -> np.ndarray:
    return np.random.default_rng(0).integers(-900, 900, (n, 12, t)).astype(np.int16)


def _npz(folder: Path, **changes: object) -> Path:
    members = {
        "ecg": _stored(),
        "scale": np.float32(0.001),
        "fs": 100,
        "leads": np.array(LEADS),
        "ecg_id": np.arange(5) + 70,
    }
    members.update(changes)
    path = folder / "ecg.npz"
    np.savez_compressed(path, **{k: v for k, v in members.items() if v is not None})  # type: ignore[arg-type]
    return path


def test_iter_array__yields_keys_and_scaled_recordings_in_order(tmp_path: Path) -> None:
    items = list(iter_array(_npz(tmp_path), unit="mV"))
    assert [key for key, _ in items] == ["70", "71", "72", "73", "74"]
    for (_, recording), stored in zip(items, _stored(), strict=True):
        np.testing.assert_allclose(recording.samples, stored * 1e-3, atol=1e-6)
        assert (recording.rate_hz, recording.leads, recording.unit) == (100.0, LEADS, "mV")


def test_iter_array__converts_microvolts(tmp_path: Path) -> None:
    path = _npz(tmp_path, scale=None, unit=np.array("uV"))
    _, recording = next(iter_array(path))
    np.testing.assert_allclose(recording.samples, _stored()[0] * 1e-3, atol=1e-6)


def test_array_file__npy_with_everything_declared_is_memory_mapped(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((2000, 12, 400), np.int16))
    tracemalloc.start()
    file = ArrayFile(path, unit="uV", rate_hz=100, leads=("avf", *LEADS[1:5], "DI", *LEADS[6:]))
    recording = file[1999]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000  # the file holds 19 MB
    assert len(file) == 2000
    assert recording.leads[0] == "aVF"
    assert recording.leads[5] == "I"


def test_iter_array__never_holds_all_as_floating_point(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(-900, 900, (400, 12, 500)).astype(np.int16)
    path = _npz(tmp_path, ecg=stored, ecg_id=None)
    tracemalloc.start()
    for _, recording in iter_array(path, unit="mV"):
        assert recording.samples.dtype == np.float32
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * stored.nbytes + 1_000_000


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, {}, "states no unit"),
        ({"fs": None}, {"unit": "mV"}, "states no sampling rate"),
        ({"leads": np.array(LEADS[:5])}, {"unit": "mV"}, "12 rows a recording but 5 lead names"),
        ({"ecg": np.zeros((5, 8, 400), np.int16), "leads": None}, {"unit": "mV"}, "names no leads"),
        ({"ecg": np.zeros(400, np.int16)}, {"unit": "mV"}, r"shape \(recordings, leads, time\)"),
        ({"ecg_id": np.arange(3)}, {"unit": "mV"}, "5 recordings but 3 keys"),
        ({}, {"unit": "adu"}, "unknown unit of voltage 'adu'"),
        ({"ecg": None, "data": _stored()}, {"unit": "mV"}, "no array named"),
    ],
)
def test_array_file__refuses_what_is_not_declared(tmp_path: Path, changes: dict, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ArrayFile(_npz(tmp_path, **changes), **arguments)


def test_iter_array__refuses_a_wrong_unit_and_names_the_recording(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"recording 70: .*probably in uV"):
        next(iter_array(_npz(tmp_path, scale=None), unit="mV"))


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.97])
def test_array_file__damaged_files_are_named(tmp_path: Path, kept: float) -> None:
    path = _npz(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ValueError, match=r"ecg\.npz"):
        ArrayFile(path, unit="mV")
    flipped = bytearray(data)
    flipped[len(data) // 3 : len(data) // 3 + 40] = bytes(40)
    path.write_bytes(bytes(flipped))
    with pytest.raises(ValueError, match=r"ecg\.npz"):
        ArrayFile(path, unit="mV")
    with pytest.raises(FileNotFoundError):
        ArrayFile(tmp_path / "absent.npz", unit="mV")


@pytest.mark.shared
def test_array_file__ptbxl_standardised(shared_data: Path) -> None:
    file = ArrayFile(shared_data / "ptbxl_zscored" / "fold01.npz", unit="z")
    assert (len(file), file.rate_hz, file.leads, file.unit) == (169, 250.0, LEADS, "z")
    recording = file[3]
    assert float(recording.samples.std()) == pytest.approx(1.0, abs=0.05)
    assert named_pipeline("highpass_z")(recording).shape == (12, 1000)
    with pytest.raises(ValueError, match="needs voltages"):
        named_pipeline("highpass")(recording)


@pytest.mark.shared
def test_array_file__ptbxl_in_millivolts_obeys_einthoven(shared_data: Path) -> None:
    count = 0
    for _, recording in iter_array(shared_data / "ptbxl_raw_100hz" / "ecg.npz", unit="mV"):
        x = recording.samples
        assert np.abs(x[1] - x[0] - x[2]).max() < 0.02
        count += 1
    assert count == 67
