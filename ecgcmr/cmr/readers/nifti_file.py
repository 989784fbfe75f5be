"""One NIfTI file to an array, its affine and its header, without trusting what the header claims.

Source of the layout: the NIfTI-1 and NIfTI-2 headers (nifti.nimh.nih.gov). The claimed size is compared with what the
file can hold before anything is allocated, and a compressed file is unpacked no farther than its image goes.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

UNIT_MS = {"sec": 1e3, "msec": 1.0, "usec": 1e-3}
FRAME_STEP_MS = (4.0, 250.0)  # a cine of a beating heart has a step in this range
THIRD_AXES = ("time", "slice")
HEADER_BYTES = {348: 352, 540: 544}
MAX_EXTENSIONS = 16 * 1024**2  # text between header and image [bytes]
MAX_DEFLATE = 1100  # deflate makes nothing more than 1,032 times smaller
_ERRORS = (
    ValueError, EOFError, OSError, zlib.error, struct.error, ImageFileError, nibabel.spatialimages.HeaderDataError,
    TypeError, KeyError, IndexError, ArithmeticError, AttributeError, MemoryError,
)  # fmt: skip


def load_nifti(path: Path, max_bytes: int) -> tuple[NDArray[np.generic], NDArray[np.float64], Any]:
    """Data as stored (with the header's scaling applied), affine (4, 4) to RAS+ [mm], and the header.

    Raises:
        FileNotFoundError: When the file does not exist.
        ValueError: When it is damaged, too large, holds no real numbers, or has an impossible affine.
    """
    if not path.exists():
        raise FileNotFoundError(f"no file at {path}")
    try:
        data = _read(path, max_bytes)
        kind = nibabel.Nifti1Image if _header_size(data) == 348 else nibabel.Nifti2Image
        image: Any = kind.from_bytes(data)
        pixels = np.asanyarray(image.dataobj)
        affine = np.asarray(image.affine, dtype=np.float64)
    except _Refused as error:
        raise ValueError(f"{path}: {error}") from None
    except _ERRORS as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
        raise ValueError(f"{path}: cannot be read as NIfTI ({reason}); cut off or damaged, copy it again") from error
    if pixels.dtype.kind not in "iuf":
        raise ValueError(f"{path}: voxels of type {pixels.dtype} are no intensities")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not np.all((lengths > 0) & (lengths < 1000)):
        raise ValueError(f"{path}: the affine has a spacing of {lengths.tolist()} mm; the header is damaged")
    if pixels.dtype == np.float64:
        pixels = pixels.astype(np.float32)
    return pixels, affine, image.header


class _Refused(ValueError):
    """What is wrong with a file, without its name."""


def _read(path: Path, max_bytes: int) -> bytes:
    """Header and image, unpacked, and nothing that follows them."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    opener: Any = gzip.open if packed else open
    stream: IO[bytes]
    with opener(path, "rb") as stream:
        head = stream.read(544)
        wanted = _claimed_bytes(head, max_bytes)
        size = path.stat().st_size
        if wanted > (size * MAX_DEFLATE if packed else size):
            raise _Refused(
                f"the header claims an image of {wanted} bytes, which a file of {size} bytes cannot hold; cut off or "
                "damaged, copy it again"
            )
        data = head + stream.read(max(0, wanted - len(head)))
    if len(data) < wanted:
        raise _Refused(f"cut off: {len(data)} of {wanted} bytes that the header announces; copy it again")
    return data


def _header_size(head: bytes) -> int:
    """348 for NIfTI-1, 540 for NIfTI-2, in either byte order; anything else is refused."""
    if len(head) >= 348:
        for order in "<>":
            (size,) = struct.unpack_from(order + "i", head)
            if size in HEADER_BYTES:
                return int(size)
    raise _Refused("is no NIfTI file (.nii, .nii.gz): the header has not its size of 348 or 540 bytes; copy it again")


def _claimed_bytes(head: bytes, max_bytes: int) -> int:
    """Bytes from the start of the file to the end of its image."""
    size = _header_size(head)
    order = "<" if struct.unpack_from("<i", head)[0] == size else ">"
    if size == 348:
        dims = struct.unpack_from(order + "8h", head, 40)
        (bits,) = struct.unpack_from(order + "h", head, 72)
        (offset,) = struct.unpack_from(order + "f", head, 108)
        slope, intercept = struct.unpack_from(order + "2f", head, 112)
    else:
        dims = struct.unpack_from(order + "8q", head, 16)
        (bits,) = struct.unpack_from(order + "h", head, 14)
        (offset,) = struct.unpack_from(order + "q", head, 168)
        slope, intercept = struct.unpack_from(order + "2d", head, 176)
    axes = dims[1 : 1 + dims[0]] if 1 <= dims[0] <= 7 else ()
    if not axes or min(axes) < 1 or not 8 <= bits <= 256:
        raise _Refused(f"the header claims an image of shape {list(axes)} with {bits} bits; damaged, copy it again")
    if not (HEADER_BYTES[size] - 4 <= offset <= MAX_EXTENSIONS):
        raise _Refused(f"the header puts the image at byte {offset:g}; damaged, copy it again")
    scaled = slope not in (0.0, 1.0) or intercept != 0.0
    memory = math.prod(axes) * (8 if scaled else bits // 8)
    if memory > max_bytes:
        raise _Refused(f"unpacks to {memory} bytes, more than the limit of {max_bytes}; raise max_bytes")
    return int(offset) + math.prod(axes) * bits // 8


def to_sfhw(data: NDArray[np.generic], third_axis: str | None, path: Path) -> NDArray[np.generic]:
    """Axes (x, y, slice, time) or (x, y, third) to (S, F, H, W).

    Raises:
        ValueError: For a shape that is no cine, or three axes and no word on the third.
    """
    if data.ndim == 5 and data.shape[4] == 1:
        data = data[..., 0]
    if data.ndim == 3:
        if third_axis not in THIRD_AXES:
            raise ValueError(
                f"{path}: 3-D image {data.shape}: pass third_axis='time' for one slice over time "
                "or third_axis='slice' for a stack at one time"
            )
        data = data[:, :, None, :] if third_axis == "time" else data[..., None]
    if data.ndim != 4 or 0 in data.shape:
        raise ValueError(f"{path}: not a cine: it has axes (x, y, slice, time), got shape {data.shape}")
    return np.transpose(data, (2, 3, 1, 0))


def frame_times(
    header: Any, ndim: int, third_axis: str | None, frames: int
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Times (F,) [ms] from pixdim[4], when its unit makes sense for a heart; NaN, and a note, otherwise."""
    unknown = np.full(frames, np.nan, dtype=np.float64)
    if frames == 1:
        return unknown, ()
    step = float(header["pixdim"][4])
    try:
        unit = header.get_xyzt_units()[1]
    except KeyError:  # a code that the standard does not have
        unit = "unknown"
    if ndim == 3 and third_axis == "time" and not step > 0:
        return unknown, ("no frame times in the header",)
    order = [unit] if unit in UNIT_MS else []
    order += [name for name in ("sec", "msec") if name not in order]
    for name in order:
        if FRAME_STEP_MS[0] <= step * UNIT_MS[name] <= FRAME_STEP_MS[1]:
            times = np.arange(frames, dtype=np.float64) * (step * UNIT_MS[name])
            if name == unit:
                return times, ()
            return times, (f"the header gives a time step of {step:g} {unit}; read as {name}",)
    return unknown, (f"the header gives a time step of {step:g} {unit}, which no cine has: frame times unknown",)
