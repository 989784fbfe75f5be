"""The few header elements that a cine needs, from one DICOM file.

Most cines are Explicit VR Little Endian and hold a hundred elements of which some thirty matter: those files are walked
here without decoding the others, which takes a tenth of the time of a full parse. Whatever is unusual (another transfer
syntax, functional groups, text that is not ASCII, elements out of order, anything damaged) is left to pydicom, so the
walk needs to know nothing but the plainest files. Source of the encoding: DICOM PS3.5, chapter 7.
"""

from __future__ import annotations

import io
import struct
import warnings
from typing import Any

import pydicom
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.multival import MultiValue
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from ecgcmr.cmr.readers.members import HEAD_BYTES

WANTED = (
    "ImageType", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "AcquisitionDateTime", "StudyTime",
    "SeriesTime", "AcquisitionTime", "ContentTime", "Manufacturer", "SeriesDescription", "SliceThickness",
    "MagneticFieldStrength", "TriggerTime", "NominalCardiacTriggerDelayTime", "CardiacNumberOfImages",
    "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber", "ImagePositionPatient",
    "ImageOrientationPatient", "FrameOfReferenceUID", "NumberOfTemporalPositions", "SamplesPerPixel",
    "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "PixelSpacing", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "RescaleIntercept", "RescaleSlope", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence", "PixelData",
)  # fmt: skip
_TAGS: dict[int, str] = {int(tag_for_keyword(name) or 0): name for name in WANTED}
_SHORT_INTEGERS = {tag for tag, name in _TAGS.items() if dictionary_VR(tag) == "US"}
_SEQUENCES = {int(tag_for_keyword(name) or 0) for name in WANTED if name.endswith("Sequence")}
_PIXEL_DATA, _SYNTAX, _FIRST_AFTER_META = 0x7FE00010, 0x00020010, 0x00030000
_LONG_VR = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_SHORT_VR = {
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
    b"ST", b"TM", b"UI", b"UL", b"US",
}  # fmt: skip
_UNDEFINED = 0xFFFFFFFF
_EXPLICIT, _DEFLATED = ExplicitVRLittleEndian.encode(), DeflatedExplicitVRLittleEndian.encode()
_ELEMENT, _LENGTH = struct.Struct("<HH2sH"), struct.Struct("<I")


class Refused(ValueError):
    """What is wrong with a DICOM file, in words of this package: no value of its header stands in it."""


def is_dicom(head: bytes) -> bool:
    """Whether the first bytes are those of a DICOM file, with or without the preamble."""
    return head[128:132] == b"DICM" or _is_bare(head)


def read_header(data: bytes) -> tuple[dict[str, Any], Any | None]:
    """Give the wanted elements by keyword, and pydicom's dataset when pydicom had to be asked.

    Values are text, numbers or lists of them; empty elements are left out. PixelData is a view of `data` when there is
    no dataset.

    Raises:
        Refused: For deflated DICOM, whose size cannot be bounded.
        Exception: Whatever pydicom raises on a damaged file.
    """
    if _DEFLATED in data[:HEAD_BYTES]:
        raise Refused(
            "deflated DICOM is not read (its size cannot be bounded); convert it to Explicit VR Little Endian, "
            "for instance with `dcmconv +te`"
        )
    plain = _walk(data)
    if plain is not None:
        return plain, None
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():  # which quotes values in warnings, logs
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(io.BytesIO(data), force=_is_bare(data), specific_tags=list(WANTED))
        return {name: value for name in WANTED if (value := _plain(dataset.get(name))) not in (None, "")}, dataset


def _is_bare(head: bytes) -> bool:
    """Files of old scanners begin with the first element at once."""
    first = head[:4] in (b"\x08\x00\x00\x00", b"\x08\x00\x05\x00", b"\x08\x00\x08\x00", b"\x02\x00\x00\x00")
    return first and head[128:132] != b"DICM"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, MultiValue) else value


def _walk(data: bytes) -> dict[str, Any] | None:
    """Wanted elements of a plain Explicit VR Little Endian file; None when it is anything else."""
    if data[128:132] != b"DICM":
        return None
    found: dict[str, Any] = {}
    at, last, end, syntax = 132, 0, len(data), b""
    while at + 8 <= end:
        group, element, vr, length = _ELEMENT.unpack_from(data, at)
        tag = group << 16 | element
        start = at + 8
        if vr in _LONG_VR:
            if at + 12 > end:
                return None
            (length,), start = _LENGTH.unpack_from(data, at + 8), at + 12
        elif vr not in _SHORT_VR:
            return None
        if tag <= last or (tag >= _FIRST_AFTER_META and syntax != _EXPLICIT):
            return None
        if length == _UNDEFINED:
            stop = _skip_sequence(data, start) if vr == b"SQ" and tag not in _SEQUENCES else None
            if stop is None:
                return None
            at, last = stop, tag
            continue
        if start + length > end:
            return None
        if tag == _SYNTAX:
            syntax = data[start : start + length].rstrip(b"\0 ")
        elif tag == _PIXEL_DATA:
            found["PixelData"] = memoryview(data)[start : start + length]
            return found
        elif tag in _TAGS and length:
            value = None if tag in _SEQUENCES else _value(tag, vr, data[start : start + length])
            if value is None:
                return None
            if value != "":
                found[_TAGS[tag]] = value
        at, last = start + length, tag
    return found if at == end else None


def _value(tag: int, vr: bytes, raw: bytes) -> Any:
    """Text, list of texts, or number; None for what is not plain."""
    if tag in _SHORT_INTEGERS:
        return int.from_bytes(raw, "little") if vr == b"US" and len(raw) == 2 else None
    if vr in (b"US", b"UL", b"SS", b"SL", b"FL", b"FD", b"AT") or vr in _LONG_VR or not raw.isascii():
        return None
    text = raw.decode("ascii").strip(" \0")
    return [part.strip() for part in text.split("\\")] if "\\" in text else text


def _skip_sequence(data: bytes, at: int, depth: int = 0) -> int | None:
    """First byte after a sequence of undefined length whose items begin at `at`; None when it is not plain."""
    end = len(data)
    while at + 8 <= end and depth < 16:
        group, element, length = struct.unpack_from("<HHI", data, at)
        at += 8
        if (group, element) == (0xFFFE, 0xE0DD):
            return at
        if (group, element) != (0xFFFE, 0xE000):
            return None
        stop = at + length if length != _UNDEFINED else _skip_item(data, at, depth)
        if stop is None:
            return None
        at = stop
    return None


def _skip_item(data: bytes, at: int, depth: int) -> int | None:
    """First byte after an item of undefined length."""
    end = len(data)
    while at + 8 <= end:
        group, element, vr, length = _ELEMENT.unpack_from(data, at)
        if (group, element) == (0xFFFE, 0xE00D):
            return at + 8
        start = at + 8
        if vr in _LONG_VR:
            if at + 12 > end:
                return None
            (length,), start = _LENGTH.unpack_from(data, at + 8), at + 12
        elif vr not in _SHORT_VR:
            return None
        stop = start + length if length != _UNDEFINED else _skip_sequence(data, start, depth + 1)
        if stop is None or (length == _UNDEFINED and vr != b"SQ"):
            return None
        at = stop
    return None
