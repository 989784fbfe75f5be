"""What a file is, by its content: suffixes such as .xml, .mat, .dat and .dcm tell too little."""

from __future__ import annotations

import re
import struct
from pathlib import Path

_HEAD_BYTES = 8192

XML_ROOTS = {
    "CardiologyXML": "ukb_xml",
    "RestingECG": "muse_xml",
    "restingecgdata": "sierra_xml",
    "AnnotatedECG": "aecg_xml",
}
"""Root element -> format."""

SUFFIXES: dict[str, tuple[str, ...]] = {
    "wfdb": (".hea", ".dat", ".mat"),
    "ukb_xml": (".xml",),
    "muse_xml": (".xml",),
    "sierra_xml": (".xml",),
    "aecg_xml": (".xml", ".aecg"),
    "dicom": (".dcm", ".dicom", ".ima", ".img"),
    "npz": (".npz",),
    "npy": (".npy",),
    "hdf5": (".h5", ".hdf5", ".hdf", ".he5", ".mat"),
    "mat": (".mat",),
    "table": (".csv", ".tsv", ".txt"),
    "vendor": (".scp", ".ecg", ".ish", ".edf", ".bdf", ".mwf", ".mfer", ".mfr", ".xml", ".json", ".xle"),
}
"""Format -> suffixes that files of it have."""

_MAGIC = (
    (0, b"\x89HDF\r\n\x1a\n", "hdf5"),
    (512, b"\x89HDF\r\n\x1a\n", "hdf5"),
    (0, b"MATLAB 7.3", "hdf5"),
    (0, b"MATLAB 5.0", "mat"),
    (0, b"\x93NUMPY", "npy"),
    (0, b"PK\x03\x04", "npz"),
    (0, b"PK\x05\x06", "npz"),
    (128, b"DICM", "dicom"),
    (0, b"ISHNE1.0", "vendor"),
    (0, b"0       ", "vendor"),  # EDF
    (0, b"\xffBIOSEMI", "vendor"),
    (0, b"MFR ", "vendor"),
    (16, b"SCPECG", "vendor"),  # identifier of the pointer section
)
_ROOT = re.compile(r"<\s*(?:[A-Za-z_][\w.-]*:)?([A-Za-z_][\w.-]*)")
_SKIP = re.compile(r"<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^\[>]*(?:\[.*?\]\s*)?>", re.DOTALL)


def sniff(path: Path) -> str:
    """Return the format of a file: a key of `SUFFIXES`, or a description that is none (`XML with root <html>`).

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It cannot be opened.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    for offset, magic, name in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return name
    if not head:
        return "nothing (0 bytes)"
    if (text := _xml_text(head)) is not None:
        return _xml_format(text)
    suffix = path.suffix.lower()
    if suffix == ".mat" and _is_mat4(head):
        return "mat"
    if suffix == ".hea":
        return "wfdb"
    if b"\0" not in head:
        if suffix in SUFFIXES["table"]:
            return "table"
        if suffix == ".json" and head.lstrip()[:1] == b"{":
            return "vendor"
    if suffix in (".mwf", ".mfer", ".mfr", ".xle"):  # formats without a mark of their own
        return "vendor"
    return "data of an unknown kind"


def _xml_text(head: bytes) -> str | None:
    """The beginning of a file as text if it is XML, else None."""
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"), (b"\xef\xbb\xbf", "utf-8")):
        if head.startswith(mark):
            text = head[len(mark) :].decode(encoding, errors="replace")
            return text if text.lstrip()[:1] == "<" else None
    if head[:4] in (b"<\0?\0", b"\0<\0?"):
        return head.decode("utf-16-le" if head[:1] == b"<" else "utf-16-be", errors="replace")
    stripped = head.lstrip()
    return stripped.decode("latin-1") if stripped[:1] == b"<" else None


def _xml_format(text: str) -> str:
    found = _ROOT.search(_SKIP.sub("", text))
    root = found.group(1)[:40] if found else "?"
    if root in ("ECG", "ECGDATA"):  # Mortara
        return "vendor"
    return XML_ROOTS.get(root, f"XML with root <{root}>")


def _is_mat4(head: bytes) -> bool:
    """Whether a file begins with a variable of a version 4 MATLAB file: type, rows, columns, imaginary flag, name."""
    if len(head) < 20:
        return False
    for order in "<>":
        kind, rows, columns, imaginary, length = struct.unpack(f"{order}5i", head[:20])
        digits = (kind // 1000, kind // 100 % 10, kind // 10 % 10, kind % 10)
        if 0 <= kind < 5000 and digits[1] == 0 and digits[2] <= 5 and digits[3] <= 2 and imaginary in (0, 1):
            return rows >= 0 and columns >= 0 and 0 < length <= 64
    return False


def disagreement(path: Path, found: str) -> str | None:
    """Return what is wrong when the suffix belongs to other formats than the content, else None."""
    suffix = path.suffix.lower()
    expected = [name for name, suffixes in SUFFIXES.items() if suffix in suffixes]
    if found in SUFFIXES and (not expected or found in expected):
        return None
    if not expected:
        return f"{path} holds {found}"
    return f"{path} is called {suffix}, which would be {' or '.join(expected)}, but it holds {found}"
