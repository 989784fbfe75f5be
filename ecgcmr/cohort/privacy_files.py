"""The text that hides in binary files: tags of images, headers of arrays, strings in checkpoints; nothing is run."""

from __future__ import annotations

import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

Strings = Iterator[tuple[str, str]]
"""Place and text."""

_PRINTABLE = re.compile(rb"[\x20-\x7e]{6,}")
_MOST_TEXT = 1 << 20  # of one chunk of an image, or of one member of an archive [bytes]

# Tags of the DICOM basic profile of de-identification (PS3.15 table E.1-1) that name people, dates and places.
_DICOM_TAGS = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientAddress", "PatientTelephoneNumbers", "OtherPatientIDs",
    "OtherPatientNames", "PatientMotherBirthName", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName",
    "NameOfPhysiciansReadingStudy", "RequestingPhysician", "AccessionNumber", "InstitutionName", "InstitutionAddress",
    "StationName", "DeviceSerialNumber", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "StudyID",
)  # fmt: skip


def png(path: Path) -> Strings:
    """Text chunks of a PNG."""
    with path.open("rb") as stream:
        if stream.read(8) != b"\x89PNG\r\n\x1a\n":
            raise ValueError("not a PNG")
        while True:
            head = stream.read(8)
            if len(head) < 8:
                return
            length, kind = struct.unpack(">I4s", head)
            if kind not in (b"tEXt", b"zTXt", b"iTXt", b"eXIf"):
                stream.seek(length + 4, 1)
                continue
            chunk = stream.read(min(length, _MOST_TEXT))
            stream.seek(max(0, length - _MOST_TEXT) + 4, 1)
            key, _, rest = chunk.partition(b"\0")
            if kind == b"zTXt":
                rest = zlib.decompressobj().decompress(rest[1:], _MOST_TEXT)
            place = kind.decode() if kind == b"eXIf" else key.decode(errors="replace")
            text = chunk if kind == b"eXIf" else rest
            yield from ((place, found) for found in _printable(text))


def jpeg(path: Path) -> Strings:
    """Application and comment segments of a JPEG."""
    with path.open("rb") as stream:
        if stream.read(2) != b"\xff\xd8":
            raise ValueError("not a JPEG")
        while True:
            head = stream.read(4)
            if len(head) < 4 or head[0] != 0xFF or head[1] == 0xDA:
                return
            length = struct.unpack(">H", head[2:])[0] - 2
            segment = stream.read(length)
            if head[1] == 0xFE or 0xE1 <= head[1] <= 0xEF:
                yield from (("header", found) for found in _printable(segment))


def dicom(path: Path) -> Strings:
    """Identifying tags of a DICOM file that are not empty."""
    import pydicom

    found = pydicom.dcmread(path, stop_before_pixels=True, force=False, specific_tags=list(_DICOM_TAGS))
    for tag in _DICOM_TAGS:
        value = str(found.get(tag, "") or "").strip()
        if value:
            yield f"tag {tag}", value


def nifti(path: Path) -> Strings:
    """Free text of a NIfTI-1 or NIfTI-2 header."""
    import gzip

    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        head = stream.read(540)
    size = struct.unpack("<i", head[:4])[0] if len(head) >= 348 else 0
    fields = {348: {"descrip": (148, 80), "aux_file": (228, 24), "intent_name": (328, 16), "db_name": (14, 18)}}
    fields[540] = {"descrip": (240, 80), "aux_file": (320, 24), "intent_name": (508, 16)}
    size = size if size in fields else int(struct.unpack(">i", struct.pack("<i", size))[0])
    for place, (begin, length) in fields.get(size, {}).items():
        yield from ((place, found) for found in _printable(head[begin : begin + length]))


def npy(path: Path) -> Strings:
    """Text of a string array; numbers of an array cannot be told from samples."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype.kind in "US":
        for value in np.unique(np.asarray(array).ravel().astype(str)):
            yield "values", str(value)
    for field in array.dtype.names or ():
        yield "field names", field


def archive(path: Path) -> Strings:
    """Names of the members of a zip, and the text in its small members (pickles are read as bytes, never loaded)."""
    with zipfile.ZipFile(path) as files:
        torch = any(name.endswith("data.pkl") for name in files.namelist())  # its members without suffix are tensors
        if files.comment:
            yield "comment", files.comment.decode(errors="replace")
        for member in files.infolist():
            yield "member names", member.filename
            name = Path(member.filename)
            if name.suffix == ".npy":
                with files.open(member) as stream:
                    yield from _string_array(stream.read(min(member.file_size, 16 * _MOST_TEXT)))
            elif name.suffix in (".pkl", ".json", ".txt", ".xml", ".csv", ".hea") or not (name.suffix or torch):
                with files.open(member) as stream:
                    text = stream.read(_MOST_TEXT)
                if name.suffix or b"\0" not in text[:512]:
                    yield from ((name.name, found) for found in _printable(text))


def safetensors(path: Path) -> Strings:
    """Metadata and tensor names of a safetensors file."""
    with path.open("rb") as stream:
        length = struct.unpack("<Q", stream.read(8))[0]
        header = json.loads(stream.read(min(length, 100 * _MOST_TEXT)))
    for key, value in header.pop("__metadata__", {}).items():
        yield f"metadata {key}", str(value)
    for key in header:
        yield "tensor names", key


def strings_in(path: Path) -> Strings:
    """Printable text of a file whose format is not taken apart."""
    with path.open("rb") as stream:
        while chunk := stream.read(16 * _MOST_TEXT):
            yield from (("text", found) for found in _printable(chunk))


def _string_array(data: bytes) -> Strings:
    from io import BytesIO

    if not data.startswith(b"\x93NUMPY") or re.search(rb"'descr': '[<>|=]?[US]", data[:256]) is None:
        return
    for value in np.unique(np.load(BytesIO(data), allow_pickle=False).ravel().astype(str)):
        yield "values", str(value)


def _printable(data: bytes) -> Iterator[str]:
    for match in _PRINTABLE.finditer(data):
        yield match.group().decode("ascii")


READERS: dict[str, Callable[[Path], Strings]] = {
    ".png": png,
    ".jpg": jpeg,
    ".jpeg": jpeg,
    ".dcm": dicom,
    ".ima": dicom,
    ".nii": nifti,
    ".npy": npy,
    ".npz": archive,
    ".zip": archive,
    ".pt": archive,
    ".pth": archive,
    ".safetensors": safetensors,
    ".pkl": strings_in,
    ".pickle": strings_in,
    ".gz": nifti,
}
"""Reader of each suffix."""
