"""XML of recorders, read without trust: no entities, nothing from outside, bounded size, depth and elements."""

from __future__ import annotations

import base64
import binascii
import math
import re
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser
from numpy.typing import NDArray

from ecgcmr.ecg.leads import tidy_lead
from ecgcmr.ecg.readers.limits import MAX_LEADS, bounded_bytes

MAX_XML_BYTES = 64 << 20
"""A resting ECG in XML has 0.1 to 2 MB; an hour of twelve leads at 500 Hz as decimal text about 100 MB."""

MAX_DEPTH = 64
MAX_ELEMENTS = 1_000_000
_CHUNK = 1 << 16
_SPACE = re.compile(r"\s+")


class _BoundedBuilder(ET.TreeBuilder):
    """A tree builder that stops at too deep or too many elements, and leaves out namespaces."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = self.count = 0

    def start(self, tag: str, attrs: dict[str, str], /) -> ET.Element:
        self.depth += 1
        self.count += 1
        if self.depth > MAX_DEPTH:
            raise ValueError(f"elements are nested deeper than {MAX_DEPTH}")
        if self.count > MAX_ELEMENTS:
            raise ValueError(f"more than {MAX_ELEMENTS:,} elements")
        return super().start(tag.rpartition("}")[2], attrs)

    def end(self, tag: str, /) -> ET.Element:
        self.depth -= 1
        return super().end(tag.rpartition("}")[2])


def parse_xml(path: Path, root_tag: str) -> ET.Element:
    """Parse a file into a tree whose tags are without namespaces.

    A document type is allowed where it declares no entity (MUSE files name a DTD, which is never fetched).

    Args:
        path: The file.
        root_tag: Tag that the root must have.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no XML, cut off, declares entities, is too large or too deep, or has another root.
    """
    data = bounded_bytes(path, MAX_XML_BYTES)
    builder = _BoundedBuilder()
    parser = DefusedXMLParser(target=builder, forbid_dtd=False, forbid_entities=True, forbid_external=True)
    try:
        for start in range(0, len(data), _CHUNK):  # in pieces, so that a limit is met before all is in memory
            parser.feed(data[start : start + _CHUNK])
        root = parser.close()
    except DefusedXmlException as error:
        raise ValueError(f"{path} is refused: it declares entities or external references ({error!r})") from error
    except ET.ParseError as error:
        raise ValueError(f"{path} is not well-formed XML or is cut off ({error})") from error
    except (ValueError, LookupError, AssertionError) as error:  # limits, unknown encodings, an unfinished tree
        raise ValueError(f"{path} cannot be read as XML ({error})") from error
    if root.tag != root_tag:
        raise ValueError(f"{path}: the root element is <{root.tag}>, expected <{root_tag}>")
    return root


def required(path: Path, parent: ET.Element, tag: str) -> ET.Element:
    """Return the first element of a path below the parent.

    Raises:
        ValueError: There is none.
    """
    found = parent.find(tag)
    if found is None:
        raise ValueError(f"{path}: <{parent.tag}> has no <{tag}>")
    return found


def text_of(parent: ET.Element, tag: str) -> str:
    """Return the text of a child element, stripped; empty where there is none."""
    return (parent.findtext(tag) or "").strip()


def number(path: Path, parent: ET.Element, tag: str) -> float:
    """Return the number in a child element.

    Raises:
        ValueError: The element is missing or its text is no finite number.
    """
    return to_number(path, f"<{parent.tag}/{tag}>", required(path, parent, tag).text)


def positive(path: Path, parent: ET.Element, tag: str) -> float:
    """Return the number above zero in a child element; raises as `number` does."""
    value = number(path, parent, tag)
    if not value > 0:
        raise ValueError(f"{path}: <{parent.tag}/{tag}> is {value:g} and must be positive")
    return value


def to_number(path: Path, field: str, written: str | None) -> float:
    """Return a written number; raises a ValueError that names the file and the field where it is none."""
    try:
        value = float((written or "").strip())
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{path}: {field} is {_short(written)}, expected a number")
    return value


def to_count(path: Path, field: str, written: str | None, largest: int) -> int:
    """Return a written positive whole number up to `largest`; raises a ValueError otherwise."""
    value = to_number(path, field, written)
    if value != int(value) or not 0 < value <= largest:
        raise ValueError(f"{path}: {field} is {_short(written)}, expected a whole number from 1 to {largest:,}")
    return int(value)


def _short(written: str | None) -> str:
    return "missing" if not (written or "").strip() else repr((written or "").strip()[:40])


def number_list(path: Path, field: str, written: str | None, separator: str) -> NDArray[np.float64]:
    """Return the numbers of a text (T,), separated by `separator` and any white space.

    Raises:
        ValueError: Something in it is no number, or there is none.
    """
    text = (written or "").strip().rstrip(",")
    if not text:
        raise ValueError(f"{path}: {field} holds no sample")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # how numpy tells that it stopped before the end
            values = np.fromstring(text, dtype=np.float64, sep=separator)
    except (ValueError, DeprecationWarning) as error:
        raise ValueError(f"{path}: {field} holds something that is no number ({_odd(text)!r})") from error
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: {field} holds values that are not finite")
    return values


def _odd(text: str) -> str:
    """The first piece of a list of numbers that is none, for a message."""
    found = re.search(r"[^\s,\d.eE+-]\S{0,20}|[-+.\deE]*[-+.eE]{2,}\S{0,20}|,\s*,", text)
    return found.group()[:30] if found else text[-20:]


def base64_samples(path: Path, field: str, written: str | None, dtype: str = "<i2") -> NDArray[np.int16]:
    """Return base64-coded samples (T,); the file's own size bounds what can come out.

    Raises:
        ValueError: It is not base64, empty, or not a whole number of samples.
    """
    raw = base64_bytes(path, field, written)
    size = np.dtype(dtype).itemsize
    if len(raw) % size:
        raise ValueError(f"{path}: {field} is truncated: {len(raw)} bytes are no whole number of {size}-byte samples")
    return np.frombuffer(raw, dtype)


def base64_bytes(path: Path, field: str, written: str | None) -> bytes:
    """Return base64-coded bytes, white space apart; raises as `base64_samples` does."""
    text = _SPACE.sub("", written or "")
    if not text:
        raise ValueError(f"{path}: {field} holds no sample")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{path}: {field} is not base64 ({error})") from error


def add_lead(path: Path, rows: dict[str, NDArray[np.float64]], name: str | None, values: NDArray[np.float64]) -> None:
    """Add the samples of a lead under its canonical name.

    Raises:
        ValueError: The lead has no name, occurs twice, or there are more than `MAX_LEADS`.
    """
    lead = tidy_lead(name or "")
    if not lead:
        raise ValueError(f"{path}: a waveform names no lead (it names no leads); expected a name such as V1")
    if lead in rows:
        raise ValueError(f"{path}: lead {lead} occurs twice")
    if len(rows) >= MAX_LEADS:
        raise ValueError(f"{path} holds more than {MAX_LEADS} leads")
    rows[lead] = values


def same_length(path: Path, rows: dict[str, NDArray[np.float64]], announced: int | None) -> int:
    """Return the number of samples of all leads.

    Raises:
        ValueError: The leads differ in length, or hold another number of samples than the file announces.
    """
    counts = {lead: row.size for lead, row in rows.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"{path}: the leads differ in length: " + ", ".join(f"{k} {n}" for k, n in counts.items()))
    count = next(iter(counts.values()))
    if announced is not None and count != announced:
        raise ValueError(f"{path} is truncated: it announces {announced} samples of each lead and holds {count}")
    return count
