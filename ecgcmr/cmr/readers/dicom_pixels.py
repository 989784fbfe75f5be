"""Pixels of one DICOM file: plain ones are looked at in place, all others are decoded by pydicom's plugins."""

from __future__ import annotations

import io
import math
import warnings
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels import get_decoder

from ecgcmr.cmr.readers.dicom_header import Refused

PLUGINS = "`pip install python-gdcm` (BSD) or `pip install pylibjpeg pylibjpeg-openjpeg`"


def decode(
    header: dict[str, Any], dataset: Any | None, data: bytes, count: int, where: str, max_bytes: int
) -> NDArray[np.generic]:
    """Stored values (count, H, W) of a file, read-only when they are the bytes of the file themselves.

    Args:
        header: From `read_header`.
        dataset: From `read_header`.
        data: The whole file.
        count: Number of frames.
        where: How messages name the file.
        max_bytes: What the pixels may decode to [bytes].

    Raises:
        Refused: When a decoder is missing (naming it), the data is cut off, or the image is too large.
    """
    rows, columns = int(header.get("Rows", 0)), int(header.get("Columns", 0))
    bits, stored = int(header.get("BitsAllocated", 0)), int(header.get("BitsStored", 0))
    if rows < 1 or columns < 1:
        raise Refused(f"{where}: an image of {rows} x {columns} pixels; the header is damaged")
    if rows * columns * count * max(1, bits // 8) > max_bytes:
        raise Refused(
            f"{where}: {count} frame(s) of {rows} x {columns} pixels are more than the limit of {max_bytes} bytes; "
            "if that is expected, pass a larger max_bytes"
        )
    pixels = None
    if dataset is None and bits in (8, 16) and 1 <= stored <= bits:
        pixels = _plain(header, (count, rows, columns), bits, stored)
    if pixels is None:
        pixels = _by_plugin(dataset, data, where).reshape(-1, rows, columns)
        if len(pixels) != count:
            raise Refused(f"{where}: {len(pixels)} frames decoded, but the header promises {count}")
    if str(header.get("PhotometricInterpretation", "")).strip() == "MONOCHROME1":  # white is low
        pixels = (2**stored - 1 - pixels.astype(np.int32)).astype(np.int32)
    return pixels


def _plain(header: dict[str, Any], shape: tuple[int, int, int], bits: int, stored: int) -> NDArray[np.generic] | None:
    """Uncompressed pixels in place; None when the data is too short or unused bits are not empty."""
    signed = int(header.get("PixelRepresentation", 0)) == 1
    dtype = np.dtype(f"<{'i' if signed else 'u'}{bits // 8}")
    size = math.prod(shape)
    raw = header["PixelData"]
    if len(raw) < size * dtype.itemsize or int(header.get("HighBit", stored - 1)) != stored - 1:
        return None
    pixels = np.frombuffer(raw, dtype, size).reshape(shape)
    if stored < bits and (signed or int(pixels.max()) >= 2**stored):
        return None  # overlays of old scanners live in the unused bits: pydicom masks them
    return pixels


def _by_plugin(dataset: Any | None, data: bytes, where: str) -> NDArray[np.generic]:
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        if dataset is None:
            dataset = pydicom.dcmread(io.BytesIO(data))
        meta = getattr(dataset, "file_meta", None)
        syntax = None if meta is None else meta.get("TransferSyntaxUID")
        if syntax is not None and syntax.is_compressed:
            _require_decoder(syntax, where)
        elif syntax is None:  # files of old scanners do not say how they are encoded
            implicit, little = dataset.original_encoding
            dataset.file_meta = pydicom.dataset.FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = _syntax(implicit is not False, little is not False)
        try:
            return np.asarray(dataset.pixel_array)
        except Exception as error:  # plugins raise what they like
            raise Refused(
                f"{where}: the pixel data cannot be decoded ({type(error).__name__}); the file is probably cut off: "
                "copy it again"
            ) from None


def _syntax(implicit: bool, little: bool) -> pydicom.uid.UID:
    if implicit:
        return pydicom.uid.ImplicitVRLittleEndian
    return pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian


def _require_decoder(syntax: pydicom.uid.UID, where: str) -> None:
    """Say which plugin is missing."""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise Refused(f"{where}: compressed as {syntax.name}, which pydicom cannot decode") from None
    if not decoder.is_available:
        needed = "; ".join(decoder.missing_dependencies)
        raise Refused(
            f"{where}: compressed as {syntax.name}; install one of its plugins ({needed}), for instance {PLUGINS}"
        )
