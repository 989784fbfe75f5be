"""WFDB records: equality with the wfdb package, damaged files, units, and the real databases' traps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecgcmr.ecg.leads import LEADS, to_canonical
from ecgcmr.ecg.preprocessing import named_pipeline
from ecgcmr.ecg.readers import open_ecg
from ecgcmr.ecg.readers.wfdb_header import read_header


def _signals(n: int = 600, seed: int = 0) -> np.ndarray:
    """Physical samples (n, 12) [mV] that obey Einthoven."""
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.normal(0, 0.05, (n, 12)), axis=0)
    x -= x.mean(axis=0)
    x[:, 2] = x[:, 1] - x[:, 0]
    return x


def _write(folder: Path, fmt: str = "16", unit: str = "mV", scale: float = 1.0, name: str = "rec") -> Path:
    gain = 150.0 if fmt in ("212", "310") else 1000.0
    wfdb.wrsamp(
        name,
        fs=500,
        units=[unit] * 12,
        sig_name=list(LEADS),
        p_signal=_signals() * scale,
        fmt=[fmt] * 12,
        adc_gain=[gain / scale] * 12,
        baseline=[0] * 12,
        write_dir=str(folder),
    )
    return folder / f"{name}.hea"


def _edit(header: Path, old: str, new: str, count: int = -1) -> None:
    text = header.read_text()
    assert old in text
    header.write_text(text.replace(old, new, count))


@pytest.mark.parametrize("fmt", ["16", "212", "24", "32", "80"])
def test_read_wfdb__equals_the_wfdb_package(tmp_path: Path, fmt: str) -> None:
    if fmt == "80":  # 8 bits: keep the range small
        wfdb.wrsamp("rec", fs=500, units=["mV"] * 12, sig_name=list(LEADS), p_signal=_signals() * 0.1, fmt=["80"] * 12,
                    adc_gain=[100.0] * 12, baseline=[0] * 12, write_dir=str(tmp_path))  # fmt: skip
        header = tmp_path / "rec.hea"
    else:
        header = _write(tmp_path, fmt)
    expected = wfdb.rdrecord(str(tmp_path / "rec")).p_signal.T
    got = open_ecg(header)
    np.testing.assert_allclose(got.samples, expected, atol=1e-6)
    assert got.leads == LEADS
    assert got.rate_hz == 500.0
    assert got.source == "wfdb"


@pytest.mark.parametrize("suffix", ["", ".hea", ".dat", ".mat"])
def test_open_ecg__takes_any_name_of_a_record(tmp_path: Path, suffix: str) -> None:
    _write(tmp_path)
    assert open_ecg(str(tmp_path / f"rec{suffix}")).samples.shape == (12, 600)


@pytest.mark.parametrize(("unit", "scale"), [("uV", 1e3), ("V", 1e-3), ("mv", 1.0)])
def test_read_wfdb__converts_to_millivolts(tmp_path: Path, unit: str, scale: float) -> None:
    expected = open_ecg(_write(tmp_path, name="plain")).samples
    np.testing.assert_allclose(open_ecg(_write(tmp_path, unit=unit, scale=scale)).samples, expected, atol=2e-3)


def test_read_wfdb__missing_and_unknown_units_are_refused_until_declared(tmp_path: Path) -> None:
    header = _write(tmp_path)
    expected = open_ecg(header).samples
    _edit(header, "/mV", "")
    with pytest.raises(ValueError, match="signal I: the unit of voltage is missing"):
        open_ecg(header)
    np.testing.assert_array_equal(open_ecg(header, unit="mV").samples, expected)
    _edit(header, "1000.0(0)", "1000.0(0)/NU")
    with pytest.raises(ValueError, match="unknown unit of voltage 'NU'"):
        open_ecg(header)


def test_read_wfdb__refuses_microvolts_declared_as_millivolts(tmp_path: Path) -> None:
    header = _write(tmp_path)
    _edit(header, "1000.0(0)", "1.0(0)")
    with pytest.raises(ValueError, match=r"rec\.hea: .*probably in uV"):
        open_ecg(header)
    assert np.abs(open_ecg(header, unit="uV").samples).max() < 10


@pytest.mark.parametrize("fmt", ["16", "212"])
@pytest.mark.parametrize("lost", [1, 5000, "all"])
def test_read_wfdb__truncated_data_name_file_and_counts(tmp_path: Path, fmt: str, lost: int | str) -> None:
    header = _write(tmp_path, fmt)
    data = tmp_path / "rec.dat"
    whole = data.read_bytes()
    kept = 0 if lost == "all" else len(whole) - int(lost)
    data.write_bytes(whole[:kept])
    bytes_each = {"16": 24, "212": 18}[fmt]
    with pytest.raises(ValueError, match=rf"rec\.dat is truncated: .*600 samples.*holds {kept // bytes_each};"):
        open_ecg(header)


def test_read_wfdb__missing_files(tmp_path: Path) -> None:
    header = _write(tmp_path)
    (tmp_path / "rec.dat").unlink()
    with pytest.raises(FileNotFoundError, match=r"rec\.hea names the data file rec\.dat"):
        open_ecg(header)
    with pytest.raises(FileNotFoundError, match=r"no WFDB header .*other\.hea"):
        open_ecg(tmp_path / "other.hea")
    with pytest.raises(FileNotFoundError, match="no ECG file"):
        open_ecg(tmp_path / "other")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rec 12 500 600", "rec twelve 500 600", "line 1: cannot read the record line"),
        ("rec 12 500 600", "rec 13 500 600", "announces 13 signals but describes 12"),
        ("rec 12 500 600", "rec/30 12 500 600", "announces 30 segments but lists 12"),
        ("rec 12 500 600", "rec 12 0 600", "must be positive"),
        ("rec.dat 16", "rec.dat sixteen", "line 2: cannot read the signal line"),
    ],
)
def test_read_wfdb__malformed_headers_name_the_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    header = _write(tmp_path)
    _edit(header, old, new, 1)
    with pytest.raises(ValueError, match=message):
        open_ecg(header)
    header.write_text("# nothing\n")
    with pytest.raises(ValueError, match="is empty"):
        open_ecg(header)


@pytest.mark.parametrize("fmt", ["16", "212"])
def test_read_wfdb__dates_that_wfdb_refuses_do_no_harm_and_nothing_is_written(tmp_path: Path, fmt: str) -> None:
    header = _write(tmp_path, fmt)
    expected = open_ecg(header).samples
    _edit(header, "rec 12 500 600", "rec.mat 12 500 600 05-May-2020 14:50:55")
    with pytest.raises(Exception, match=r".*"):
        wfdb.rdrecord(str(tmp_path / "rec"))
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    np.testing.assert_array_equal(open_ecg(header).samples, expected)
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == before


def test_read_wfdb__missing_samples_stay_nan(tmp_path: Path) -> None:
    x = _signals()
    x[:, 8] = np.nan
    x[100:120, 3] = np.nan
    wfdb.wrsamp("rec", fs=500, units=["mV"] * 12, sig_name=list(LEADS), p_signal=x, fmt=["16"] * 12,
                adc_gain=[1000.0] * 12, baseline=[0] * 12, write_dir=str(tmp_path))  # fmt: skip
    got = open_ecg(tmp_path / "rec").samples
    np.testing.assert_array_equal(np.isnan(got), np.isnan(x.T))


def test_read_wfdb__length_from_the_data_where_the_header_has_none(tmp_path: Path) -> None:
    header = _write(tmp_path)
    expected = open_ecg(header).samples
    _edit(header, "rec 12 500 600", "rec 12 500")
    np.testing.assert_array_equal(open_ecg(header).samples, expected)


def test_read_wfdb__gains_that_break_einthoven_are_refused(tmp_path: Path) -> None:
    header = _write(tmp_path)
    lines = header.read_text().splitlines()
    for i, gain in ((1, 1716.0), (2, 1206.0), (3, 1229.0)):
        lines[i] = lines[i].replace("1000.0(0)", f"{gain}(0)")
    header.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match="break Einthoven's law"):
        open_ecg(header)
    got = open_ecg(header, gain_uv_per_unit=1.0).samples
    np.testing.assert_allclose(got, _signals().T, atol=6e-4)


def test_read_header__reads_no_date_and_applies_the_defaults_of_the_format(tmp_path: Path) -> None:
    (tmp_path / "r.hea").write_text("r 2\n# Name: somebody\nr.dat 212x2:3+24 0/uV 12 7 0 0 0 Lead I\nr.dat 16\n")
    header, _ = read_header(tmp_path / "r.hea")
    first, second = header.signals
    assert header.rate_hz == 250.0
    assert header.n_samples is None
    assert (first.format, first.per_frame, first.skew, first.offset) == ("212", 2, 3, 24)
    assert (first.gain, first.baseline, first.unit, first.name) == (200.0, 7, "uV", "Lead I")
    assert (second.gain, second.baseline, second.unit, second.name) == (200.0, 0, None, "")


def test_open_ecg__refuses_unknown_suffixes(tmp_path: Path) -> None:
    (tmp_path / "x.xyz").write_text("1 2 3")
    with pytest.raises(ValueError, match="no ECG reader"):
        open_ecg(tmp_path / "x.xyz")


@pytest.mark.shared
def test_open_ecg__every_challenge_record(shared_data: Path) -> None:
    headers = sorted((shared_data / "cinc2021" / "records").glob("*.hea"))
    assert len(headers) == 33
    pipelines = [named_pipeline(name) for name in ("reference", "highpass")]
    refused_by_wfdb = 0
    for header in headers:
        got = to_canonical(open_ecg(header))
        try:
            expected = wfdb.rdrecord(str(header.with_suffix(""))).p_signal.T
        except Exception:
            refused_by_wfdb += 1
        else:
            np.testing.assert_allclose(got.samples, expected, atol=1e-5)
        for pipeline in pipelines:
            assert np.isfinite(pipeline(got)).all()
    assert refused_by_wfdb == 3


@pytest.mark.shared
def test_open_ecg__ludb_gains_are_refused_and_its_digital_values_obey_einthoven(shared_data: Path) -> None:
    headers = sorted((shared_data / "ludb" / "data").glob("*.hea"))
    assert len(headers) == 17
    for header in headers:
        with pytest.raises(ValueError, match="not physical"):
            open_ecg(header)
        x = to_canonical(open_ecg(header, gain_uv_per_unit=1.0)).samples
        np.testing.assert_allclose(x[1] - x[0] - x[2], np.median(x[1] - x[0] - x[2]), atol=2e-3)
