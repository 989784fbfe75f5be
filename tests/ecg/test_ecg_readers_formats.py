"""Every format from files written here: what is read, in which order and unit, and what is refused and why."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import ecg_format_writers as write
import h5py
import numpy as np
import pytest
import scipy.io
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcmr.ecg import EcgRecording, open_ecg, to_canonical
from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.measurements import MEASUREMENTS, measured
from ecgcmr.ecg.readers import READERS, ArrayFile, detect_format, reader_options
from ecgcmr.ecg.readers.matlab import MatMembers

X = write.ecg_mv()
ORDER = tuple(reversed(LEADS))
Writer = Callable[..., Path]


def rows(leads: tuple[str, ...]) -> np.ndarray:
    return X[[LEADS.index(lead) for lead in leads]]


@pytest.mark.parametrize(
    ("name", "writer", "source", "at", "step"),
    [
        ("a.xml", write.write_ukb_xml, "ukb_xml", datetime(2016, 6, 21, 11, 5, 9), 1e-6),
        ("a.xml", write.write_muse_xml, "muse_xml", datetime(2025, 8, 17, 9, 15, 11), 0.005),
        ("a.xml", write.write_aecg_xml, "aecg_xml", datetime(2019, 2, 3, 4, 5, 6), 1e-6),
        ("a.xml", write.write_sierra_xml, "sierra_xml", datetime(2018, 5, 6, 7, 8, 9), 1e-6),
        ("a.dcm", write.write_dicom, "dicom_waveform", datetime(2017, 3, 4, 5, 6, 7), 1e-6),
    ],
)
def test_open_ecg__reads_what_was_written_and_nobody_s_name(
    tmp_path: Path, name: str, writer: Writer, source: str, at: datetime, step: float
) -> None:
    path = writer(tmp_path / name, X)
    got = open_ecg(path)
    np.testing.assert_allclose(to_canonical(got).samples, X, atol=step)
    assert (got.rate_hz, got.unit, got.source, got.recorded_at) == (500.0, "mV", source, at)
    content = path.read_bytes().replace(b"\0", b"").decode("latin-1")
    assert write.NAME in content
    assert write.NUMBER in content
    told = repr((got, got.notes, dict(got.measurements)))
    assert not [planted for planted in (write.NAME, write.NUMBER, "1961", str(at.year)) if planted in told]
    assert set(got.measurements) <= set(MEASUREMENTS)


@pytest.mark.parametrize(
    ("name", "writer"),
    [("a.xml", write.write_ukb_xml), ("a.xml", write.write_aecg_xml), ("a.dcm", write.write_dicom)],
)
def test_open_ecg__leads_go_by_name_in_any_order(tmp_path: Path, name: str, writer: Writer) -> None:
    got = open_ecg(writer(tmp_path / name, rows(ORDER), leads=ORDER))
    assert got.leads == ORDER
    np.testing.assert_allclose(to_canonical(got).samples, X, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "writer"),
    [("a.xml", write.write_ukb_xml), ("a.xml", write.write_aecg_xml), ("a.dcm", write.write_dicom)],
)
def test_open_ecg__eight_leads_give_twelve(tmp_path: Path, name: str, writer: Writer) -> None:
    got = to_canonical(open_ecg(writer(tmp_path / name, rows(write.EIGHT), leads=write.EIGHT)))
    np.testing.assert_allclose(got.samples, X, atol=1e-6)
    assert any(note.startswith("derived III") for note in got.notes)


@pytest.mark.parametrize(
    ("name", "writer"),
    [("a.xml", write.write_ukb_xml), ("a.xml", write.write_aecg_xml), ("a.dcm", write.write_dicom)],
)
def test_open_ecg__a_lead_that_stands_twice_is_refused(tmp_path: Path, name: str, writer: Writer) -> None:
    with pytest.raises(ValueError, match="lead V1 occurs twice"):
        open_ecg(writer(tmp_path / name, X, leads=(*LEADS[:7], "V1", *LEADS[8:])))


@pytest.mark.parametrize(
    ("writer", "wrong", "probably"),
    [
        (lambda p: write.write_ukb_xml(p, X, units="mVperLsb"), "declared as mV", "probably in uV"),
        (lambda p: write.write_ukb_xml(p, X, units="nVperLsb"), "declared as nV", "probably in uV"),
        (lambda p: write.write_muse_xml(p, X, units="MILLIVOLTS"), "declared as mV", "probably in uV"),
        (lambda p: write.write_aecg_xml(p, X, unit="mV"), "declared as mV", "probably in uV"),
        (lambda p: write.write_aecg_xml(p, X, unit="nV"), "declared as nV", "probably in uV"),
    ],
)
def test_open_ecg__a_unit_that_the_amplitude_contradicts_is_refused(
    tmp_path: Path, writer: Writer, wrong: str, probably: str
) -> None:
    with pytest.raises(ValueError, match=rf"a\.xml: .*{wrong} .*amplitude.*{probably}"):
        open_ecg(writer(tmp_path / "a.xml"))


def test_dicom__millivolts_that_carry_microvolts_and_units_that_are_no_voltage(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"amplitude is .* above 50 mV"):
        open_ecg(write.write_dicom(tmp_path / "a.dcm", X, unit="mV"))
    with pytest.raises(ValueError, match="unknown unit of voltage 'mm\\[Hg\\]'"):
        open_ecg(write.write_dicom(tmp_path / "b.dcm", X, unit="mm[Hg]"))
    path = write.write_dicom(tmp_path / "c.dcm", X * 2.5, unit=None)
    with pytest.raises(ValueError, match="unit of voltage is missing"):
        open_ecg(path)
    np.testing.assert_allclose(open_ecg(path, unit="uV").samples, X, atol=2e-3)


def test_ukb__measurements_and_median_beats(tmp_path: Path) -> None:
    got = open_ecg(write.write_ukb_xml(tmp_path / "a.xml", X, median=X[:, :600]))
    assert got.median_beats is not None
    np.testing.assert_allclose(got.median_beats.samples, X[:, :600], atol=1e-6)
    assert (got.median_beats.rate_hz, got.median_beats.leads) == (500.0, LEADS)
    assert dict(got.measurements) == {
        "heart_rate_bpm": 61.0, "rr_ms": 984.0, "p_duration_ms": 104.0, "pr_ms": 158.0, "qrs_ms": 88.0,
        "qt_ms": 402.0, "qtc_ms": 405.0, "p_axis_deg": 44.0, "qrs_axis_deg": -12.0, "sokolov_lyon_mv": 1.9,
        "highpass_hz": 0.04, "lowpass_hz": 150.0, "notch_hz": 50.0,
    }  # fmt: skip  # PPInterval is 32767 and TAxis `Failed`: not measured


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<Resolution units='uVperLsb'>5</Resolution>", "", r"<StripData> has no <Resolution>"),
        ("<Resolution units='uVperLsb'>", "<Resolution>", r"<StripData/Resolution>: the unit of voltage is missing"),
        (
            "<Resolution units='uVperLsb'>5",
            "<Resolution units='uVperLsb'>five",
            r"Resolution> is 'five', expected a number",
        ),
        ("<SampleRate units='Hz'>500</SampleRate>", "", r"<StripData> has no <SampleRate>"),
        ("<SampleRate units='Hz'>500", "<SampleRate units='Hz'>0", r"0 Hz|must be positive"),
        ("<SampleRate units='Hz'>", "<SampleRate units='mm'>", r"in 'mm', expected Hz"),
        ("CountTotal>1000<", "CountTotal>5000<", r"truncated: it announces 5000 samples of each lead and holds 1000"),
        ("<NumberOfLeads>12<", "<NumberOfLeads>13<", r"announces 13 leads and holds 12"),
        ('lead="V3"', "", r"names no lead"),
        ('lead="V3"', 'lead="V2"', r"lead V2 occurs twice"),
        ("StripData", "Stripe", r"has no <StripData>"),
        ("StripData", "FullDisclosure", r"exercise test \(UK Biobank field 6025\)"),
    ],
)
def test_ukb__what_is_missing_or_odd_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write.write_ukb_xml(tmp_path / "a.xml", X)
    text = path.read_text(encoding="latin-1")
    assert old in text
    path.write_text(text.replace(old, new), encoding="latin-1")
    with pytest.raises(ValueError, match=message) as caught:
        open_ecg(path)
    assert str(path) in str(caught.value)


def test_ukb__samples_that_are_no_numbers_are_named_and_a_broken_beat_costs_the_beat_only(tmp_path: Path) -> None:
    path = write.write_ukb_xml(tmp_path / "a.xml", X, median=X[:, :600])
    text = path.read_text(encoding="latin-1")
    head, _, tail = text.partition("</MedianSamples>")
    path.write_text(head.replace(",", ",x", 1) + "</MedianSamples>" + tail, encoding="latin-1")
    got = open_ecg(path)
    assert got.median_beats is None
    assert any("median beats left out" in note for note in got.notes)
    path.write_text(head + "</MedianSamples>" + tail.replace(",", ",x", 1), encoding="latin-1")
    with pytest.raises(ValueError, match=r"<StripData/WaveformData lead='I'> holds something that is no number"):
        open_ecg(path)


def test_muse__damage_is_noticed(tmp_path: Path) -> None:
    path = write.write_muse_xml(tmp_path / "a.xml", X)
    text = path.read_text(encoding="latin-1")
    for old, new, message in (
        ("LeadSampleCountTotal>1000<", "LeadSampleCountTotal>1001<", "announces 1001 samples and holds 1000"),
        ("MICROVOLTS", "PARSECS", "unknown unit of voltage 'PARSECS'"),
        ("<WaveformType>Rhythm<", "<WaveformType>Blues<", r"no <Waveform> of type Rhythm \(types: median, blues\)"),
        ("<LeadSampleSize>2<", "<LeadSampleSize>4<", "only samples of 2 bytes"),
        ("CONTINUOUS_SAMPLES", "SPARSE", "is 'SPARSE'"),
        ("<LeadAmplitudeUnitsPerBit>4.88<", "<LeadAmplitudeUnitsPerBit>0<", "is 0, expected about 4.88"),
    ):
        assert old in text
        path.write_text(text.replace(old, new), encoding="latin-1")
        with pytest.raises(ValueError, match=message):
            open_ecg(path)
    changed = re.sub(
        r"(Rhythm.*?<WaveFormData>....)", lambda found: found.group(1)[:-4] + "AAEA", text, count=1, flags=re.S
    )
    path.write_text(changed, encoding="latin-1")
    assert open_ecg(path).notes == ("checksum does not fit: I",)


@pytest.mark.parametrize(("version", "kind"), [("1.05", "PhilipsECG"), ("1.04", "MortaraECG"), ("", "SierraECG")])
def test_sierra__other_documents_are_refused(tmp_path: Path, version: str, kind: str) -> None:
    with pytest.raises(ValueError, match=r"a\.xml: <document(type|version)> is '(MortaraECG|1\.05|)'"):
        open_ecg(write.write_sierra_xml(tmp_path / "a.xml", X, version=version, kind=kind))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(3, 200), size=st.sampled_from([0.05, 1.0, 6.0]))
def test_sierra__any_signal_survives_compression(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n: int, size: float
) -> None:
    rng = np.random.default_rng(seed)
    i, ii, *chest = np.round(rng.normal(0, size, (8, n)) * 200)
    iii = ii - i
    x = np.stack([i, ii, iii, -((i + ii) // 2), (i - iii) // 2, (ii + iii) // 2, *chest]) / 200
    got = open_ecg(write.write_sierra_xml(tmp_path_factory.mktemp("xli") / "a.xml", x))
    np.testing.assert_allclose(np.nan_to_num(got.samples, nan=9e9), x, atol=1e-4)


def test_vendor__an_ishne_file_through_the_extra(tmp_path: Path) -> None:
    pytest.importorskip("ecgdatakit")
    got = open_ecg(write.write_ishne(tmp_path / "a.ecg", X))
    np.testing.assert_allclose(got.samples, X[[1, 6, 10]], atol=1e-5)
    assert (got.leads, got.rate_hz, got.source) == (("II", "V1", "V5"), 500.0, "vendor")
    assert got.recorded_at == datetime(2018, 5, 4, 7, 8, 9)
    assert write.NAME not in repr((got, got.notes, got.measurements))


def test_vendor__without_the_extra_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    path = write.write_ishne(tmp_path / "a.ecg", X)
    monkeypatch.setitem(sys.modules, "ecgdatakit.parsing.parser", None)
    with pytest.raises(ValueError, match=r"a\.ecg: .*extra `formats`: pip install 'ecgcmr\[formats\]'"):
        open_ecg(path)


def test_table__units_and_times_in_the_head_and_every_separator(tmp_path: Path) -> None:
    t = np.arange(X.shape[1]) / 500
    heads = ["time_s", *(f"{lead} (uV)" for lead in ORDER)]
    for separator, decimal in ((",", "."), (";", ","), ("\t", "."), (" ", ".")):
        names = [head.replace(" ", "") if separator == " " else head for head in heads]
        lines = ["# made up", separator.join(names)]
        table = np.vstack([t, rows(ORDER) * 1e3]).T
        lines += [separator.join(f"{value:.6g}".replace(".", decimal) for value in line) for line in table]
        path = tmp_path / "a.csv"
        path.write_text("\n".join(lines) + "\n")
        got = open_ecg(path)
        assert (got.rate_hz, got.leads) == (500.0, ORDER)
        np.testing.assert_allclose(to_canonical(got).samples, X, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("I,II\n1,2\n3,x\n", {}, r"a\.csv, line 3, column 2: 'x' is no number"),
        ("I,II\n1,2\n3,4\n", {}, "states no sampling rate"),
        ("I,II\n1,2\n3,4\n", {"rate_hz": 500}, "states no unit"),
        ("I (mV),II (uV)\n1,2\n3,4\n", {}, "columns in mV and uV; expected one unit"),
        ("I (bar),II (bar)\n1,2\n3,4\n", {}, "unknown unit of voltage 'bar'"),
        ("1,2\n3,4\n5,6\n", {"rate_hz": 500, "unit": "mV"}, "names no leads"),
        ("time_s,I,II\n0,1,2\n5,1,2\n6,1,2\n7,1,2\n", {}, "does not rise evenly"),
        ("# nothing\n", {}, "holds no line of numbers"),
        ("I,II\n", {}, "holds no sample"),
        ("I,II\n1,2,3\n1,2,3\n", {}, "2 columns in the first line, 3 in line 2"),
    ],
)
def test_table__what_is_missing_or_odd_is_named(tmp_path: Path, text: str, options: dict, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        open_ecg(path, **options)
    assert str(path) in str(caught.value)


DECLARED = {"unit": "mV", "rate_hz": 500}


@pytest.mark.parametrize("layout", ["leads first", "time first"])
@pytest.mark.parametrize("kind", ["npy", "npz", "h5", "mat 4", "mat 5", "mat 7", "mat 7.3", "csv"])
def test_arrays__of_one_recording_in_either_layout(tmp_path: Path, kind: str, layout: str) -> None:
    x = X if layout == "leads first" else X.T
    suffix = kind.split()[0]
    path = tmp_path / f"one.{suffix}"
    if kind == "npy":
        np.save(path, x)
    elif kind == "npz":
        np.savez(path, ecg=x)
    elif kind in ("h5", "mat 7.3"):
        with h5py.File(path, "w", userblock_size=512 if suffix == "mat" else 0) as file:
            file["group/ecg"] = x
        if suffix == "mat":
            with path.open("r+b") as stream:
                stream.write(b"MATLAB 7.3 MAT-file, Platform: none".ljust(124) + b"\x00\x02IM")
    elif kind == "csv":
        np.savetxt(path, X.T, delimiter=",")
    else:
        scipy.io.savemat(path, {"ecg": x}, format="4" if kind[-1] == "4" else "5", do_compression=kind[-1] == "7")
    got = open_ecg(path, **DECLARED)
    np.testing.assert_allclose(got.samples, X, atol=1e-6)
    assert got.leads == LEADS
    assert any("canonical order" in note for note in got.notes)
    named = open_ecg(path, leads=ORDER, **DECLARED)
    assert named.leads == ORDER
    assert named.notes == ()
    np.testing.assert_allclose(open_ecg(path, rate_hz=500, gain_uv_per_unit=1000.0).samples, X, atol=1e-6)


def test_arrays__of_many_in_hdf5_are_read_row_by_row(tmp_path: Path) -> None:
    path = tmp_path / "part.h5"
    with h5py.File(path, "w") as file:  # the layout of CODE-15
        file["tracings"] = np.stack([X.T * scale for scale in (1.0, 2.0, 3.0)]).astype(np.float32)
        file["exam_id"] = [11, 22, 33]
    file_of_three = ArrayFile(path, **DECLARED)
    assert file_of_three.keys == ["11", "22", "33"]
    np.testing.assert_allclose(open_ecg(path, row=2, **DECLARED).samples, 3 * X, atol=1e-5)
    with pytest.raises(ValueError, match=r"holds 3 recordings.*row=0"):
        open_ecg(path, **DECLARED)
    with pytest.raises(ValueError, match="holds 3 recordings, there is no row 7"):
        open_ecg(path, row=7, **DECLARED)
    with pytest.raises(ValueError, match=r"recording 22: .*probably in mV"):
        open_ecg(path, row=1, unit="uV", rate_hz=500)


def test_arrays__attributes_of_hdf5_state_rate_unit_and_leads(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["ecg"] = rows(ORDER) * 1e3
        file["ecg"].attrs.update(fs=500.0, unit="uV", leads=list(ORDER))
    got = open_ecg(path)
    assert (got.leads, got.rate_hz) == (ORDER, 500.0)
    np.testing.assert_allclose(to_canonical(got).samples, X, atol=1e-5)


def test_arrays__standardised_samples_have_no_amplitude_to_check(tmp_path: Path) -> None:
    path = tmp_path / "z.npy"
    np.save(path, X * 1e3)
    assert open_ecg(path, unit="z", rate_hz=500).unit == "z"
    with pytest.raises(ValueError, match="probably in uV"):
        open_ecg(path, unit="mV", rate_hz=500)


def test_arrays__a_rate_that_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, ecg=X, fs=100)
    assert open_ecg(path, unit="mV", rate_hz=100).rate_hz == 100.0
    with pytest.raises(ValueError, match="states a sampling rate of 100 Hz, but 500 Hz was declared"):
        open_ecg(path, **DECLARED)


def test_arrays__square_ones_and_other_names_are_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, ecg=X[:, :12])
    with pytest.raises(ValueError, match="12 x 12 samples do not tell leads from time"):
        open_ecg(path, **DECLARED)
    np.savez(path, heartbeats=X)
    with pytest.raises(ValueError, match=r"no array named .*; it has heartbeats: name it with signal="):
        open_ecg(path, **DECLARED)
    np.testing.assert_allclose(open_ecg(path, signal="heartbeats", **DECLARED).samples, X, atol=1e-6)


@pytest.mark.parametrize("dtype", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
@pytest.mark.parametrize("compressed", [False, True])
def test_matlab__every_type_as_scipy_writes_it(tmp_path: Path, dtype: str, compressed: bool) -> None:
    x = np.arange(-20, 40).reshape(3, 20).astype(dtype)
    wanted = {
        "x": x,
        "text": "V1",
        "lines": np.array(["I", "aVR"]),
        "cube": np.ones((2, 3, 4), dtype),
        "empty": np.empty((0, 3)),
    }
    scipy.io.savemat(tmp_path / "a.mat", wanted, do_compression=compressed, oned_as="row")
    got = MatMembers(tmp_path / "a.mat")
    expected = scipy.io.loadmat(tmp_path / "a.mat")
    for name in ("x", "cube"):
        np.testing.assert_array_equal(got[name], expected[name])
        assert got[name].dtype == expected[name].dtype
    assert list(got["text"]) == ["V1"]
    assert list(got["lines"]) == ["I", "aVR"]
    assert "empty" not in got


@pytest.mark.parametrize("name", sorted(READERS))
def test_reader_options__are_what_the_readers_take(name: str) -> None:
    from ecgcmr.ecg.readers import _options, _reader

    assert _options(_reader(name)) <= {"unit", "rate_hz", "leads", "gain_uv_per_unit", "signal", "row"}


def test_open_ecg__options_that_a_format_does_not_take_are_named(tmp_path: Path) -> None:
    path = write.write_sierra_xml(tmp_path / "a.xml", X)
    assert reader_options(path) == frozenset()
    with pytest.raises(ValueError, match="read as sierra_xml, which takes no option rate_hz, unit; it takes: none"):
        open_ecg(path, rate_hz=500, unit="mV")


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (write.write_dicom, "a.xml", r"a\.xml is called \.xml, which would be .*ukb_xml.*, but it holds dicom"),
        (write.write_ukb_xml, "a.dcm", r"is called \.dcm, which would be dicom, but it holds ukb_xml"),
        (write.write_muse_xml, "a.csv", r"which would be table, but it holds muse_xml"),
        (write.write_ishne, "a.h5", r"which would be hdf5, but it holds vendor"),
        (lambda p, x: p.write_text("<html><body/></html>"), "a.xml", r"but it holds XML with root <html>"),
        (lambda p, x: p.write_text("plain words"), "a.xml", r"but it holds data of an unknown kind"),
        (lambda p, x: p.write_bytes(b""), "a.xml", r"but it holds nothing \(0 bytes\)"),
        (
            lambda p, x: p.write_bytes(bytes(range(256))),
            "a.xyz",
            r"no ECG reader: .*a\.xyz holds data of an unknown kind",
        ),
    ],
)
def test_open_ecg__content_and_suffix_that_disagree(tmp_path: Path, content: Writer, name: str, message: str) -> None:
    content(tmp_path / name, X)
    with pytest.raises(ValueError, match=message):
        open_ecg(tmp_path / name)


@pytest.mark.parametrize("name", ["no_suffix", "export.bin", "a.aecg"])
def test_open_ecg__unknown_suffixes_are_read_by_content(tmp_path: Path, name: str) -> None:
    path = write.write_aecg_xml(tmp_path / name, X)
    assert detect_format(path) == "aecg_xml"
    np.testing.assert_allclose(open_ecg(path).samples, X, atol=1e-6)


def test_open_ecg__mat_is_wfdb_only_beside_its_header(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "rec.mat", {"val": np.round(X * 1e3).astype(np.int16)}, format="4")
    assert open_ecg(tmp_path / "rec.mat", unit="uV", rate_hz=500).source == "array"
    lines = [f"rec.mat 16+24 1000/mV 16 0 0 0 0 {lead}" for lead in LEADS]
    (tmp_path / "rec.hea").write_text("\n".join([f"rec 12 500 {X.shape[1]} 05-May-2020 14:50:55", *lines]) + "\n")
    got = open_ecg(tmp_path / "rec.mat")
    assert (got.source, got.recorded_at) == ("wfdb", datetime(2020, 5, 5, 14, 50, 55))
    np.testing.assert_allclose(got.samples, X, atol=6e-4)


@pytest.fixture
def segments(tmp_path: Path) -> Path:
    """A record of two segments with a gap between them; the second has its leads in another order."""
    for name, order, part in (("s1", LEADS, X[:, :400]), ("s2", ORDER, X[:, 600:])):
        wfdb.wrsamp(
            name, fs=500, units=["mV"] * 12, sig_name=list(order), fmt=["16"] * 12, adc_gain=[1000.0] * 12,
            p_signal=part[[LEADS.index(lead) for lead in order]].T, baseline=[0] * 12, write_dir=str(tmp_path),
        )  # fmt: skip
    (tmp_path / "all.hea").write_text("all/3 12 500 1000 10:11:12 03/04/2021\ns1 400\n~ 200\ns2 400\n")
    return tmp_path / "all.hea"


def test_segments__are_joined_by_name_with_gaps_missing(segments: Path) -> None:
    got = open_ecg(segments)
    np.testing.assert_allclose(got.samples[:, :400], X[:, :400], atol=6e-4)
    np.testing.assert_allclose(got.samples[:, 600:], X[:, 600:], atol=6e-4)
    assert np.isnan(got.samples[:, 400:600]).all()
    assert got.notes == ("joined of 2 segments", "0.4 s are gaps")
    assert got.recorded_at == datetime(2021, 4, 3, 10, 11, 12)


def test_segments__of_fixed_layout_as_the_wfdb_package_joins_them(segments: Path) -> None:
    wfdb.wrsamp(
        "s3", fs=500, units=["mV"] * 12, sig_name=list(LEADS), fmt=["212"] * 12, adc_gain=[200.0] * 12,
        p_signal=X[:, 100:300].T, baseline=[0] * 12, write_dir=str(segments.parent),
    )  # fmt: skip
    segments.write_text("all/2 12 500 600\ns1 400\ns3 200\n")
    expected = wfdb.rdrecord(str(segments.with_suffix(""))).p_signal.T
    np.testing.assert_allclose(open_ecg(segments).samples, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("all/2 12 500 800\ns1 400\n", ValueError, "announces 2 segments but lists 1"),
        ("all/2 12 500 800\ns1 400\ns2 401\n", ValueError, "announces 401 samples of segment s2, which has 400"),
        ("all/2 12 250 800\ns1 400\ns2 400\n", ValueError, "is at 250 Hz, its segment s1 at 500 Hz"),
        ("all/2 12 500 800\ns1 400\ns9 400\n", FileNotFoundError, r"no WFDB header .*s9\.hea"),
        ("all/2 12 500 800\ns1 400\n../s2 400\n", ValueError, "line 3: cannot read the segment line"),
        ("all/1 12 500 800\nall 800\n", ValueError, "a segment cannot have segments of its own"),
        ("all/1 12 500 99999999999\n~ 99999999999\n", ValueError, "cannot be read at once"),
        ("all/1 12 500 400\n~ 400\n", ValueError, "lists gaps only"),
    ],
)
def test_segments__that_do_not_fit_are_named(segments: Path, text: str, error: type[Exception], message: str) -> None:
    segments.write_text(text)
    with pytest.raises(error, match=message):
        open_ecg(segments)


def test_wfdb__a_checksum_that_does_not_fit_is_noted(segments: Path) -> None:
    header = segments.with_name("s1.hea")
    assert open_ecg(header).notes == ()
    data = bytearray(segments.with_name("s1.dat").read_bytes())
    data[24 * 7 + 2] ^= 4  # one bit of one sample of lead II
    segments.with_name("s1.dat").write_bytes(bytes(data))
    assert open_ecg(header).notes == ("checksum does not fit: II",)


def test_checked__single_samples_that_no_amplifier_gives_are_refused(tmp_path: Path) -> None:
    x = X.copy()
    x[4, 17] = 1e9
    np.save(tmp_path / "a.npy", x)
    with pytest.raises(ValueError, match=r"a\.npy: lead aVL has an amplitude of up to 1e\+09 mV"):
        open_ecg(tmp_path / "a.npy", **DECLARED)
    x[4, 17] = np.inf
    np.save(tmp_path / "a.npy", x)
    with pytest.raises(ValueError, match="lead aVL holds infinite samples"):
        open_ecg(tmp_path / "a.npy", **DECLARED)


def test_measured__keeps_numbers_in_range_and_the_first_of_a_name() -> None:
    found = [
        ("qt_ms", "Failed"),
        ("qt_ms", 0),
        ("qt_ms", "400"),
        ("qt_ms", 420),
        ("rr_ms", float("nan")),
        ("rr_ms", 32767),
    ]
    assert measured(found) == {"qt_ms": 400.0}


def test_recording__does_not_print_its_date() -> None:
    recording = EcgRecording(X.astype(np.float32), 500.0, LEADS, recorded_at=datetime(2003, 2, 1))
    assert "2003" not in repr(recording)
    with pytest.raises(ValueError, match="rate_hz must be positive"):
        EcgRecording(X.astype(np.float32), float("inf"), LEADS)


def test_big_endian_dicom_and_matlab(tmp_path: Path) -> None:
    name, x = b"ecg", X.astype(">f8")
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI"
    body = struct.pack(">IIII", 6, 8, 6, 0) + struct.pack(">IIii", 5, 8, *x.shape)
    body += struct.pack(">HH", len(name), 1) + name.ljust(4, b"\0") + struct.pack(">II", 9, x.nbytes) + x.tobytes("F")
    (tmp_path / "a.mat").write_bytes(head + struct.pack(">II", 14, len(body)) + body)
    np.testing.assert_allclose(open_ecg(tmp_path / "a.mat", **DECLARED).samples, X, atol=1e-6)
    np.testing.assert_allclose(scipy.io.loadmat(tmp_path / "a.mat")["ecg"], X)
