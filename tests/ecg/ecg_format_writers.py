"""Writers of small files of every ECG format, from published layouts and independent of the readers.

Each takes samples (L, T) in mV and returns the path. What is written as identifiers must never come out of a reader.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecgcmr.ecg.leads import LEADS

NAME, NUMBER, BIRTH = "Doe-Smith", "ID-77-QZ", "1961-02-03"
"""Identifiers that are planted into every file that has a place for them."""

EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


def ecg_mv(n: int = 1000, rate_hz: float = 500.0, seed: int = 0) -> np.ndarray:
    """Twelve leads (12, n) [mV], whole multiples of 5 uV in I, II and V1-V6, that obey Einthoven and Goldberger."""
    rng = np.random.default_rng(seed)
    t = np.arange(n) / rate_hz
    beat = np.exp(-(((t % 0.8) - 0.3) ** 2) / (2 * 0.012**2)) + 0.2 * np.exp(-(((t % 0.8) - 0.55) ** 2) / (2 * 0.04**2))
    size = rng.uniform(0.4, 1.4, 8)
    eight = np.round((size[:, None] * beat + rng.normal(0, 0.01, (8, n))) / 0.01) * 0.01
    i, ii = eight[0], eight[1]
    return np.stack([i, ii, ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2, *eight[2:]])


def write_ukb_xml(
    path: Path,
    x: np.ndarray,
    *,
    leads: Sequence[str] = LEADS,
    rate_hz: float = 500.0,
    resolution: float = 5.0,
    units: str = "uVperLsb",
    median: np.ndarray | None = None,
    extra: str = "",
) -> Path:
    """A resting ECG of CardioSoft, as UK Biobank gives them out."""

    def block(tag: str, samples: np.ndarray) -> str:
        digital = np.round(samples * 1e3 / resolution).astype(int)
        waves = "".join(
            f'\t\t<WaveformData lead="{lead}">\n\t\t' + ",".join(map(str, row)) + "\n\t\t</WaveformData>\n"
            for lead, row in zip(leads, digital, strict=True)
        )
        return (
            f"<{tag}>\n<NumberOfLeads>{len(leads)}</NumberOfLeads><SampleRate units='Hz'>{rate_hz:g}</SampleRate>"
            f"<ChannelSampleCountTotal>{digital.shape[1]}</ChannelSampleCountTotal>"
            f"<Resolution units='{units}'>{resolution:g}</Resolution>\n{waves}</{tag}>\n"
        )

    path.write_text(
        f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<CardiologyXML>{extra}
<ObservationType>RestECG</ObservationType>
<ObservationDateTime><Hour>11</Hour><Minute>5</Minute><Second>9</Second><Day>21</Day><Month>6</Month><Year>2016</Year>
</ObservationDateTime>
<PatientInfo><PID>{NUMBER}</PID><Name><FamilyName>{NAME}</FamilyName></Name><Age units="years">61</Age>
<BirthDateTime><Day>3</Day><Month>2</Month><Year>1961</Year></BirthDateTime><Gender>FEMALE</Gender></PatientInfo>
<FilterSetting><CubicSpline>yes</CubicSpline><Filter50Hz>yes</Filter50Hz><Filter60Hz>no</Filter60Hz>
<LowPass units="Hz">150</LowPass><HighPass units="Hz">0.04</HighPass></FilterSetting>
<RestingECGMeasurements><VentricularRate units="BPM">61</VentricularRate><PQInterval units="ms">158</PQInterval>
<PDuration units="ms">104</PDuration><QRSDuration units="ms">88</QRSDuration><QTInterval units="ms">402</QTInterval>
<QTCInterval units="ms">405</QTCInterval><RRInterval units="ms">984</RRInterval>
<PPInterval units="ms">32767</PPInterval>
<PAxis units="degrees">44</PAxis><RAxis units="degrees">-12</RAxis><TAxis units="degrees">Failed</TAxis>
<SokolovLVHIndex units="mV">1.9</SokolovLVHIndex>
{block("MedianSamples", median) if median is not None else ""}</RestingECGMeasurements>
{block("StripData", x)}</CardiologyXML>
""",
        encoding="latin-1",
    )
    return path


def write_muse_xml(path: Path, x: np.ndarray, *, leads: Sequence[str] = EIGHT, units: str = "MICROVOLTS") -> Path:
    """A MUSE export of the leads that are named; `x` has the twelve leads in canonical order."""

    def wave(kind: str, samples: np.ndarray) -> str:
        data = ""
        for lead in leads:
            raw = np.round(samples[LEADS.index(lead)] * 1e3 / 4.88).astype("<i2").tobytes()
            data += (
                f"<LeadData><LeadByteCountTotal>{len(raw)}</LeadByteCountTotal>"
                f"<LeadSampleCountTotal>{len(raw) // 2}</LeadSampleCountTotal>"
                f"<LeadAmplitudeUnitsPerBit>4.88</LeadAmplitudeUnitsPerBit>"
                f"<LeadAmplitudeUnits>{units}</LeadAmplitudeUnits><LeadID>{lead.upper()}</LeadID>"
                f"<LeadSampleSize>2</LeadSampleSize><LeadOff>FALSE</LeadOff><LeadDataCRC32>{zlib.crc32(raw)}"
                f"</LeadDataCRC32><WaveFormData>{base64.encodebytes(raw).decode()}</WaveFormData></LeadData>"
            )
        return (
            f"<Waveform><WaveformType>{kind}</WaveformType><NumberofLeads>{len(leads)}</NumberofLeads>"
            f"<SampleType>CONTINUOUS_SAMPLES</SampleType><SampleBase>500</SampleBase><SampleExponent>0</SampleExponent>"
            f"<HighPassFilter>16</HighPassFilter><LowPassFilter>150</LowPassFilter>{data}</Waveform>"
        )

    path.write_text(
        f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<!DOCTYPE RestingECG SYSTEM "restecg.dtd">
<RestingECG><PatientDemographics><PatientID>{NUMBER}</PatientID><DateofBirth>{BIRTH}</DateofBirth>
<PatientLastName>{NAME}</PatientLastName></PatientDemographics>
<TestDemographics><AcquisitionDate>08-17-2025</AcquisitionDate><AcquisitionTime>09:15:11</AcquisitionTime>
</TestDemographics><RestingECGMeasurements><VentricularRate>72</VentricularRate><QRSDuration>86</QRSDuration>
</RestingECGMeasurements>{wave("Median", x[:, :300])}{wave("Rhythm", x)}</RestingECG>
""",
        encoding="latin-1",
    )
    return path


def write_aecg_xml(path: Path, x: np.ndarray, *, leads: Sequence[str] = LEADS, unit: str = "uV") -> Path:
    """An HL7 annotated ECG."""
    sequences = "".join(
        f'<component><sequence><code code="MDC_ECG_LEAD_{lead.upper()}"/><value xsi:type="SLIST_PQ"><origin value="0" '
        f'unit="{unit}"/><scale value="5" unit="{unit}"/><digits>{" ".join(map(str, row))}</digits></value></sequence>'
        "</component>\n"
        for lead, row in zip(leads, np.round(x * 200).astype(int), strict=True)
    )
    path.write_text(
        f"""<?xml version="1.0"?>
<AnnotatedECG xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<effectiveTime><low value="20190203040506"/></effectiveTime>
<componentOf><subject><name>{NAME}</name><id extension="{NUMBER}"/><birthTime value="19610203"/></subject></componentOf>
<component><series><code code="RHYTHM"/><component><sequenceSet>
<component><sequence><code code="TIME_ABSOLUTE"/><value xsi:type="GLIST_TS"><head value="20190203040506.000"/>
<increment value="2" unit="ms"/></value></sequence></component>
{sequences}</sequenceSet></component></series></component></AnnotatedECG>
"""
    )
    return path


def _xli(digital: np.ndarray) -> bytes:
    """Compress one lead (T,): second differences, split into high and low bytes, LZW with 10-bit codes."""
    x = digital.astype(int)
    second = 2 * x[1:-1] - x[:-2] - x[2:]  # what the decoder subtracts: the first, then code - 64
    codes = np.concatenate([x[:2], second[1:] + 64, [0]])
    words = codes.astype(np.int16).view(np.uint16)
    data = bytes((words >> 8).astype(np.uint8)) + bytes((words & 255).astype(np.uint8))
    table = {bytes([i]): i for i in range(256)}
    out, current = [], b""
    for value in data:
        longer = current + bytes([value])
        if longer in table:
            current = longer
            continue
        out.append(table[current])
        if len(table) < 1024:
            table[longer] = len(table)
        current = bytes([value])
    out.append(table[current])
    bits = "".join(f"{code:010b}" for code in out)
    bits += "0" * (-len(bits) % 8)
    packed = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return struct.pack("<ihh", len(packed), 1, int(second[0])) + packed


def write_sierra_xml(path: Path, x: np.ndarray, *, version: str = "1.04", kind: str = "PhilipsECG") -> Path:
    """A Philips file at 500 Hz and 5 uV a step, in UTF-16 like the real ones; twelve leads in canonical order."""
    d = np.round(x * 200).astype(int)
    i, ii = d[0], d[1]
    iii = ii - i
    stored = [i, ii, iii - d[2], -d[3] - (i + ii) // 2, (i - d[2]) // 2 - d[4], (ii + d[2]) // 2 - d[5], *d[6:]]
    data = base64.b64encode(b"".join(_xli(row) for row in stored)).decode()
    path.write_text(
        f"""<?xml version="1.0" encoding="utf-16"?>
<restingecgdata xmlns="http://www3.medical.philips.com"><documentinfo><documenttype>{kind}</documenttype>
<documentversion>{version}</documentversion></documentinfo><dataacquisition date="2018-05-06" time="07:08:09">
<signalcharacteristics><samplingrate>500</samplingrate><resolution>5</resolution></signalcharacteristics>
</dataacquisition><patient><generalpatientdata><patientid>{NUMBER}</patientid><name><lastname>{NAME}</lastname></name>
</generalpatientdata></patient><internalmeasurements><globalmeasurements><heartrate>64</heartrate>
<qrsdur>Failed</qrsdur></globalmeasurements></internalmeasurements>
<waveforms><parsedwaveforms dataencoding="Base64" compression="XLI" numberofleads="12"
leadlabels="{" ".join(LEADS)}" durationperchannel="{x.shape[1] * 2}" samplespersecond="500" resolution="5" hipass="0.05"
lowpass="150">{data}</parsedwaveforms></waveforms></restingecgdata>
""",
        encoding="utf-16",
    )
    return path


def write_dicom(
    path: Path, x: np.ndarray, *, leads: Sequence[str] = LEADS, unit: str | None = "uV", step: float = 2.5
) -> Path:
    """A 12-lead ECG storage object; `step` in the unit."""
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.9.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = NAME, NUMBER, "19610203"
    ds.AcquisitionDateTime, ds.Modality = "20170304050607", "ECG"
    group = Dataset()
    group.WaveformOriginality = "ORIGINAL"
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = x.shape
    group.SamplingFrequency = 500
    channels = []
    for lead in leads:
        source, sensitivity = Dataset(), Dataset()
        source.CodeValue = f"MDC_ECG_LEAD_{lead.upper()}"
        source.CodingSchemeDesignator, source.CodeMeaning = "MDC", f"Lead {lead}"
        channel = Dataset()
        channel.ChannelSourceSequence = [source]
        if unit is not None:
            sensitivity.CodeValue, sensitivity.CodingSchemeDesignator, sensitivity.CodeMeaning = unit, "UCUM", unit
            channel.ChannelSensitivity, channel.ChannelSensitivityCorrectionFactor = step, 1
            channel.ChannelSensitivityUnitsSequence, channel.ChannelBaseline = [sensitivity], 0
        channel.WaveformBitsStored = 16
        channels.append(channel)
    group.ChannelDefinitionSequence = channels
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
    group.WaveformData = np.round(x.T * 1e3 / 2.5).astype("<i2").tobytes()
    ds.WaveformSequence = [group]
    ds.save_as(path, enforce_file_format=True)
    return path


def write_ishne(path: Path, x: np.ndarray, *, resolution_nv: int = 5000) -> Path:
    """An ISHNE 1.0 Holter file of three leads (Badilini 1998, https://thew-project.org); leads II, V1 and V5."""
    n = x.shape[1]
    head = struct.pack("<ii", 0, n) + struct.pack("<iih", 522, 522, 1)
    head += NAME.encode().ljust(40, b"\0") + NAME.encode().ljust(40, b"\0") + NUMBER.encode().ljust(20, b"\0")
    head += struct.pack("<hh3h3h3h", 1, 1, 3, 2, 1961, 4, 5, 2018, 6, 5, 2020)
    head += struct.pack("<3h", 7, 8, 9) + struct.pack("<h", 3)
    head += struct.pack("<12h", 6, 11, 15, *[-9] * 9) + struct.pack("<12h", *[0] * 12)
    head += struct.pack("<12h", *[resolution_nv] * 3, *[-9] * 9) + struct.pack("<h", 0)
    head += b"analog".ljust(40, b"\0") + struct.pack("<h", 500) + b"\0" * 80 + b"\0" * 80 + b"\0" * 88
    head = head.ljust(512, b"\0")[:512]
    body = np.round(x[[1, 6, 10]].T * 1e6 / resolution_nv).astype("<i2").tobytes()
    crc = _ccitt(head)
    path.write_bytes(b"ISHNE1.0" + struct.pack("<H", crc) + head + body)
    return path


def _ccitt(data: bytes) -> int:
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc
