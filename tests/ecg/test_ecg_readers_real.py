"""Every real ECG file: read as an independent parse reads it, or refused for the right reason."""

from __future__ import annotations

import base64
import re
import struct
import xml.etree.ElementTree as ET
from datetime import datetime
from pathlib import Path

import h5py
import numpy as np
import pydicom
import pytest
import scipy.io

from ecgcmr.ecg import EcgRecording, open_ecg, to_canonical
from ecgcmr.ecg.leads import LEADS, einthoven_residual
from ecgcmr.ecg.preprocessing import named_pipeline

pytestmark = pytest.mark.shared

EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
GOLDBERGER = {"aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}


def check_laws(recording: EcgRecording, tolerance_mv: float) -> None:
    """Einthoven and Goldberger, sample by sample: true only when names, order, scale and sign are."""
    x = to_canonical(recording).samples.astype(np.float64)
    i, ii = x[0], x[1]
    assert np.nanmax(np.abs(ii - i - x[2])) <= tolerance_mv
    for row, (a, b) in zip((3, 4, 5), GOLDBERGER.values(), strict=True):
        assert np.nanmax(np.abs(x[row] - a * i - b * ii)) <= tolerance_mv
    assert einthoven_residual(x[:3]) < 0.05


def parse_wfdb(header: Path) -> tuple[np.ndarray, np.ndarray, float, list[str]]:
    """Digital values (L, T), gains, rate and names of a format 16 record, by struct alone."""
    lines = [line.split() for line in header.read_text().splitlines() if not line.startswith("#")]
    n_leads, rate, n = int(lines[0][1]), float(lines[0][2]), int(lines[0][3])
    signals = lines[1 : 1 + n_leads]
    offset = int(signals[0][1].partition("+")[2] or 0)
    raw = (header.parent / signals[0][0]).read_bytes()[offset : offset + 2 * n * n_leads]
    digital = np.array(struct.unpack(f"<{n * n_leads}h", raw), float).reshape(n, n_leads).T
    gains = np.array([float(re.split(r"[(/]", signal[2])[0]) for signal in signals])
    return digital, gains, rate, [signal[8] for signal in signals]


def test_cinc2021__every_record_as_struct_reads_it(shared_data: Path) -> None:
    headers = sorted((shared_data / "cinc2021" / "records").glob("*.hea"))
    assert len(headers) == 33
    lengths, with_month_names = set(), 0
    for header in headers:
        got = open_ecg(header)
        digital, gains, rate, names = parse_wfdb(header)
        np.testing.assert_allclose(got.samples, digital / gains[:, None], atol=1e-5)
        assert got.rate_hz == rate
        assert got.leads == LEADS == tuple(names)
        assert got.notes == ()  # all checksums fit
        assert 1.0 < np.ptp(got.samples) < 40
        check_laws(got, tolerance_mv=0.012)
        lengths.add(round(got.duration_s, 1))
        day = re.search(r"(\d\d)-May-2020 (\d\d:\d\d:\d\d)", header.read_text())
        if day:
            with_month_names += 1
            assert got.recorded_at == datetime.fromisoformat(f"2020-05-{day.group(1)} {day.group(2)}")
    assert {10.0, 47.7} <= lengths
    assert with_month_names > 3


def test_ludb__gains_are_noticed_and_the_true_scale_is_offered(shared_data: Path) -> None:
    headers = sorted((shared_data / "ludb" / "data").glob("*.hea"))
    assert len(headers) == 17
    for header in headers:
        with pytest.raises(ValueError, match=rf"{header.stem}\.hea: .*not physical.*gain_uv_per_unit"):
            open_ecg(header)
        got = open_ecg(header, gain_uv_per_unit=1.0)
        digital, _, rate, names = parse_wfdb(header)
        np.testing.assert_allclose(got.samples, digital * 1e-3, atol=1e-6)
        assert (got.rate_hz, got.duration_s) == (rate, 10.0) == (500.0, 10.0)
        assert [lead.lower() for lead in got.leads] == names
        assert any("1 uV a unit" in note for note in got.notes)
        check_laws(got, tolerance_mv=0.0025)


def test_sph__as_h5py_reads_it_with_rate_and_unit_declared(shared_data: Path) -> None:
    for name, n in (("SPH00001.h5", 5000), ("SPH00002.h5", 6000)):
        path = shared_data / "sph" / name
        with pytest.raises(ValueError, match="states no sampling rate"):
            open_ecg(path)
        with pytest.raises(ValueError, match="states no unit"):
            open_ecg(path, rate_hz=500)
        got = open_ecg(path, rate_hz=500, unit="mV")
        with h5py.File(path) as file:
            np.testing.assert_array_equal(got.samples, file["ecg"][()].astype(np.float32))
        assert got.samples.shape == (12, n)
        check_laws(got, tolerance_mv=0.02)
        with pytest.raises(ValueError, match=r"declared as uV .*probably in mV"):
            open_ecg(path, rate_hz=500, unit="uV")
        with pytest.raises(ValueError, match=r"declared as V .*probably in mV"):
            open_ecg(path, rate_hz=500, unit="V")


def test_code15__as_scipy_reads_it_with_unit_declared(shared_data: Path) -> None:
    found = sorted((shared_data / "code15").glob("*.mat"))
    durations = []
    for path in found:
        with pytest.raises(ValueError, match="states no unit"):
            open_ecg(path)
        got = open_ecg(path, unit="mV")
        np.testing.assert_array_equal(got.samples, scipy.io.loadmat(path)["feats"])
        assert (got.rate_hz, got.leads) == (400.0, LEADS)
        assert any("canonical order" in note for note in got.notes)
        check_laws(got, tolerance_mv=0.04)  # its augmented leads are that coarse
        durations.append(got.duration_s)
    assert sorted(round(duration, 2) for duration in durations) == [7.33, 10.24]


def test_ptbxl_raw__every_row_as_numpy_reads_it(shared_data: Path) -> None:
    path = shared_data / "ptbxl_raw_100hz" / "ecg.npz"
    stored = np.load(path)["ecg"]
    for row in range(67):
        got = open_ecg(path, unit="mV", row=row)
        np.testing.assert_allclose(got.samples, stored[row] * 1e-3, atol=1e-6)
        assert (got.rate_hz, got.duration_s, got.leads) == (100.0, 10.0, LEADS)
        check_laws(got, tolerance_mv=0.02)


@pytest.mark.parametrize(
    ("name", "rate_hz", "n", "median_n", "qrs_ms"),
    [
        ("dicom_waveform/waveform_ecg.dcm", 1000.0, 10000, 1200, 75.0),
        ("ge_muse_xml_ecg2dcm/guangxi_teaching_sinus_rhythm.dcm", 500.0, 5000, 600, 74.0),
        ("ge_muse_xml_ecg2dcm/synthetic_muse.dcm", 500.0, 5000, 600, 86.0),
    ],
)
def test_dicom__as_pydicom_decodes_it(
    shared_data: Path, name: str, rate_hz: float, n: int, median_n: int, qrs_ms: float
) -> None:
    path = shared_data / "ecg_formats" / name
    got = open_ecg(path)
    dataset = pydicom.dcmread(path)
    np.testing.assert_allclose(got.samples, dataset.waveform_array(0).T * 1e-3, atol=1e-6)
    assert got.median_beats is not None
    np.testing.assert_allclose(got.median_beats.samples, dataset.waveform_array(1).T * 1e-3, atol=1e-6)
    assert got.samples.shape == (12, n)
    assert got.median_beats.samples.shape == (12, median_n)
    assert (got.rate_hz, got.leads, got.source) == (rate_hz, LEADS, "dicom_waveform")
    assert got.measurements["qrs_ms"] == qrs_ms
    stamp = datetime.strptime(str(dataset.AcquisitionDateTime)[:14], "%Y%m%d%H%M%S")
    assert got.recorded_at == stamp
    check_laws(got, tolerance_mv=0.003)


@pytest.mark.parametrize("stem", ["guangxi_teaching_sinus_rhythm", "synthetic_muse"])
def test_muse__as_base64_gives_it_and_as_the_dicom_that_was_made_of_it(shared_data: Path, stem: str) -> None:
    folder = shared_data / "ecg_formats" / "ge_muse_xml_ecg2dcm"
    got = open_ecg(folder / f"{stem}.xml")
    assert (got.rate_hz, got.duration_s, got.leads, got.notes) == (500.0, 10.0, EIGHT, ())
    rhythm = ET.parse(folder / f"{stem}.xml").getroot().findall("Waveform")[1]
    for row, lead in enumerate(rhythm.findall("LeadData")):
        raw = base64.b64decode(str(lead.findtext("WaveFormData")))
        values = np.array(struct.unpack(f"<{len(raw) // 2}h", raw)) * 4.88e-3
        np.testing.assert_allclose(got.samples[row], values, atol=1e-6)
        assert got.leads[row] == lead.findtext("LeadID")
    twelve = to_canonical(got)
    made = open_ecg(folder / f"{stem}.dcm")
    np.testing.assert_allclose(twelve.samples, made.samples, atol=0.005)  # it rounds derived leads to one step
    assert got.median_beats is not None
    assert made.median_beats is not None
    np.testing.assert_allclose(got.median_beats.samples[:2], made.median_beats.samples[:2], atol=1e-6)
    for name in ("heart_rate_bpm", "pr_ms", "qrs_ms", "qt_ms", "qtc_ms", "highpass_hz", "lowpass_hz"):
        assert got.measurements[name] == made.measurements[name]
    assert einthoven_residual(twelve.samples[:3]) < 1e-5


def test_aecg__as_the_digits_say(shared_data: Path) -> None:
    path = shared_data / "ecg_formats" / "hl7_aecg" / "subject1_0.xml"
    got = open_ecg(path)
    text = path.read_text()
    blocks = re.findall(
        r'code="MDC_ECG_LEAD_(\w+)".*?<scale value="([\d.]+)" unit="uV"/>.*?<digits>(.*?)</digits>', text, re.S
    )
    assert len(blocks) == 24  # twelve leads, then twelve of the representative beat
    for row, (name, scale, digits) in enumerate(blocks[:12]):
        assert got.leads[row].lower() == name.lower()
        values = np.array([int(one) for one in digits.split()]) * float(scale) * 1e-3
        np.testing.assert_allclose(got.samples[row], values, atol=1e-6)
    assert got.median_beats is not None
    values = np.array([int(one) for one in blocks[12][2].split()]) * float(blocks[12][1]) * 1e-3
    np.testing.assert_allclose(got.median_beats.samples[0], values, atol=1e-6)
    assert (got.rate_hz, got.duration_s) == (500.0, 10.0)
    assert got.measurements["qt_ms"] == 420.0
    assert got.measurements["qrs_axis_deg"] == -61.0
    assert got.recorded_at == datetime(2002, 11, 22, 9, 10)
    check_laws(got, tolerance_mv=0.003)


def unpack_xli(data: bytes, n: int) -> list[list[int]]:
    """All chunks of a Philips strip, by the public description, one step and one sample at a time."""
    leads = []
    while data:
        size, _, previous = struct.unpack("<ihh", data[:8])
        bits = "".join(f"{byte:08b}" for byte in data[8 : 8 + size])
        data = data[8 + size :]
        book = {code: bytes([code]) for code in range(256)}
        out, last = b"", b""
        for at in range(0, len(bits) - 9, 10):
            code = int(bits[at : at + 10], 2)
            piece = book[code] if code in book else last + last[:1]
            if last and len(book) < 1024:
                book[len(book)] = last + piece[:1]
            out, last = out + piece, piece
        values = [struct.unpack(">h", bytes([out[k], out[n + k]]))[0] for k in range(n)]
        for k in range(2, n):
            z = 2 * values[k - 1] - values[k - 2] - previous
            previous, values[k] = values[k] - 64, z
        leads.append(values)
    return leads


@pytest.mark.parametrize(
    ("name", "rate_bpm", "median_n"),
    [
        ("129DYPRG.xml", 41.0, None),
        ("repbeats_example.xml", 41.0, 1200),
        ("*ZZDEMOPTONLY_1-04_orig.xml", 84.0, 600),
        ("ad4d3d80-d165_1-04_orig.xml", 41.0, 600),
        ("2020-5-18_15-48-11.xml", 64.0, 1200),
    ],
)
def test_sierra__as_the_public_description_unpacks_it(
    shared_data: Path, name: str, rate_bpm: float, median_n: int | None
) -> None:
    (path,) = (shared_data / "ecg_formats" / "philips_sierra_xml").glob(name)
    got = open_ecg(path)
    wave = next(one for one in ET.parse(path).iter() if one.tag.endswith("}parsedwaveforms"))
    i, ii, iii, avr, avl, avf, *chest = (np.array(row) for row in unpack_xli(base64.b64decode(str(wave.text)), 5500))
    iii = ii - i - iii
    limb = (i, ii, iii, -avr - (i + ii) // 2, (i - iii) // 2 - avl, (ii + iii) // 2 - avf)
    expected = np.stack([*limb, *chest[:6]]) * 5e-3
    assert (got.samples.shape, got.rate_hz, got.duration_s, got.leads) == ((12, 5500), 500.0, 11.0, LEADS)
    there = np.isfinite(got.samples)
    np.testing.assert_allclose(got.samples[there], expected[there], atol=1e-6)
    # what is left out is the calibration: zero, then 1 mV for 0.2 s on every lead, then zero
    start = int(there[0].sum())
    assert there[:, :start].all()
    assert 5200 < start < 5350
    assert not there[:, start:].any()
    assert set(np.unique(expected[:, start:])) == {0.0, 1.0}
    assert int((expected[0, start:] == 1.0).sum()) == 100
    assert any("calibration pulse" in note for note in got.notes)
    assert got.measurements["heart_rate_bpm"] == rate_bpm
    assert (got.median_beats is None) == (median_n is None)
    if got.median_beats is not None:
        assert got.median_beats.samples.shape == (12, median_n)
        assert np.isfinite(got.median_beats.samples).all()
        assert 0.3 < np.ptp(got.median_beats.samples) < 20
    check_laws(got, tolerance_mv=0.0126)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "invalid-doc-type.xml",
            r"invalid-doc-type\.xml: <documenttype> is 'MortaraECG'; only SierraECG and PhilipsECG",
        ),
        (
            "invalid-doc-version.xml",
            r"invalid-doc-version\.xml: <documentversion> is '1\.05'; only 1\.03, 1\.04, 1\.04\.01",
        ),
    ],
)
def test_sierra__invalid_documents_are_refused_by_name(shared_data: Path, name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        open_ecg(shared_data / "ecg_formats" / "philips_sierra_xml" / name)


def test_every_file__is_read_or_refused_with_its_name(shared_data: Path) -> None:
    """Nothing is overlooked: all files of the folders of ECGs, the ones that are no ECG too."""
    read, refused, nameless = [], [], []
    for folder in ("ecg_formats", "ludb", "cinc2021", "sph", "code15", "ptbxl_raw_100hz", "ptbxl_zscored"):
        for path in sorted(path for path in (shared_data / folder).rglob("*") if path.is_file()):
            try:
                open_ecg(path)
            except (ValueError, OSError) as error:
                refused.append(path)
                nameless += [str(error)] if path.stem not in str(error) else []
            else:
                read.append(path)
    assert not nameless
    assert {path.suffix for path in read} == {".hea", ".mat", ".dat", ".dcm", ".xml"}
    assert len([path for path in read if path.suffix == ".hea"]) == 33
    assert len([path for path in read if path.suffix in (".dcm", ".xml")]) == 11
    invalid = {path.name for path in refused if path.suffix in (".xml", ".dcm")}
    assert invalid == {"invalid-doc-type.xml", "invalid-doc-version.xml"}


@pytest.mark.parametrize("pipeline", ["reference", "highpass"])
def test_preprocessing__takes_one_recording_of_each_format(shared_data: Path, pipeline: str) -> None:
    formats = shared_data / "ecg_formats"
    for path, declared in (
        (formats / "dicom_waveform" / "waveform_ecg.dcm", {}),
        (formats / "ge_muse_xml_ecg2dcm" / "guangxi_teaching_sinus_rhythm.xml", {}),
        (formats / "hl7_aecg" / "subject1_0.xml", {}),
        (formats / "philips_sierra_xml" / "2020-5-18_15-48-11.xml", {}),
        (shared_data / "cinc2021" / "records" / "Q0001.hea", {}),
        (shared_data / "sph" / "SPH00002.h5", {"unit": "mV", "rate_hz": 500}),
        (min((shared_data / "code15").glob("*.mat")), {"unit": "mV"}),
    ):
        prepared = named_pipeline(pipeline)(to_canonical(open_ecg(path, **declared)))
        assert prepared.shape[0] == 12
        assert np.isfinite(prepared).all()


def test_identifiers__of_real_files_do_not_come_out(shared_data: Path) -> None:
    """Names, numbers and dates of birth that the files hold are nowhere in what is returned."""
    folder = shared_data / "ecg_formats"
    planted = {
        "hl7_aecg/subject1_0.xml": ("Clark", "subject1", "19530508"),
        "ge_muse_xml_ecg2dcm/guangxi_teaching_sinus_rhythm.xml": ("Anonymous", "1900"),
        "philips_sierra_xml/129DYPRG.xml": ("1112010721168bdc",),
        "ge_muse_xml_ecg2dcm/synthetic_muse.dcm": ("SYNTH0001", "Synthetic"),
    }
    for name, words in planted.items():
        got = open_ecg(folder / name)
        told = repr((got.leads, got.unit, got.source, got.notes, dict(got.measurements), got))
        assert not [word for word in words if word in told]
