"""One DICOM file to frames: pixels, place and time; identifiers stay behind, except to group by, in memory."""

from __future__ import annotations

import io
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.pixels import get_decoder
from pydicom.uid import DeflatedExplicitVRLittleEndian

from ecgcmr.cmr.geometry import Vector, check_orientation
from ecgcmr.cmr.readers.members import Member, iter_members

GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
TIMES = ("TriggerTime", "NominalCardiacTriggerDelayTime")
PER_FRAME = (*GEOMETRY, *TIMES, "SliceThickness", "RescaleSlope", "RescaleIntercept")
HEAD_BYTES = 2048
PHASE_TYPES = {"P", "PHASE", "PHASE MAP", "VELOCITY MAP", "R", "I"}


@dataclass(frozen=True, eq=False)
class DicomFrame:
    """One frame. `study`, `reference` and `series` are keys for grouping in memory and are never written anywhere.

    Attributes:
        study: Key of the study.
        reference: Key of the frame of reference (one positioning of the person on the table).
        series: Key of the series.
        number: SeriesNumber, -1 when absent.
        description: SeriesDescription.
        original: Whether ImageType says ORIGINAL.
        origin: Center of the first pixel, LPS [mm].
        orientation: Unit vectors along which column and row index grow, LPS.
        spacing_mm: (row, column) spacing [mm].
        thickness_mm: Slice thickness [mm]; NaN when absent.
        time_ms: TriggerTime [ms]; NaN when absent.
        instance: InstanceNumber, or the frame number of a multi-frame file.
        declared: Frames in the cardiac cycle that the header promises; 0 when it does not.
        scanner: Manufacturer and field strength.
        pixels: (H, W), rescaled.
    """

    study: str
    reference: str
    series: str
    number: int
    description: str
    original: bool
    origin: Vector
    orientation: tuple[Vector, Vector]
    spacing_mm: tuple[float, float]
    thickness_mm: float
    time_ms: float
    instance: int
    declared: int
    scanner: str
    pixels: NDArray[np.generic]

    @property
    def normal(self) -> Vector:
        """Unit normal of the plane, LPS."""
        return np.cross(*self.orientation)

    @property
    def title(self) -> str:
        """How messages name the series."""
        return f"series {self.description!r} (number {self.number})"


def load_frames(path: Path, max_bytes: int) -> tuple[list[DicomFrame], tuple[str, ...]]:
    """Read all frames below a path; files that are no images with a place in the body are counted in the notes."""
    skipped: Counter[str] = Counter()
    frames: list[DicomFrame] = []
    for member in iter_members(path, max_bytes):
        found = _read_member(member)
        if isinstance(found, str):
            skipped[found] += 1
        else:
            frames.extend(found)
    notes = tuple(f"skipped {count} file(s): {reason}" for reason, count in sorted(skipped.items()))
    return frames, notes


def _read_member(member: Member) -> list[DicomFrame] | str:
    """Frames of one file, or the reason why it was skipped."""
    with member.open() as stream:
        head = stream.read(HEAD_BYTES)
        bare = head[:4] in (b"\x08\x00\x00\x00", b"\x08\x00\x05\x00", b"\x08\x00\x08\x00", b"\x02\x00\x00\x00")
        if head[128:132] != b"DICM" and not bare:
            return "not DICOM"
        data = head + stream.read()
    if DeflatedExplicitVRLittleEndian.encode() in head:
        raise ValueError(
            f"file {member.ordinal} of the listing: deflated DICOM is not read (its size cannot be bounded); "
            "convert it to Explicit VR Little Endian, for instance with `dcmconv +te`"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom quotes header values in its warnings
        try:
            dataset = pydicom.dcmread(io.BytesIO(data), force=bare)
            return _frames_of(dataset)
        except (InvalidDicomError, EOFError, AttributeError, TypeError, KeyError, zlib.error) as error:
            raise ValueError(
                f"file {member.ordinal} of the listing (alphabetical): damaged or cut-off DICOM "
                f"({type(error).__name__}); copy it again"
            ) from None


def _frames_of(dataset: Any) -> list[DicomFrame] | str:
    if "PixelData" not in dataset:
        if "Rows" in dataset:
            raise EOFError
        return "DICOM without an image"
    if int(dataset.get("SamplesPerPixel", 1)) != 1:
        return "a color image, not a scan"
    kind = [str(value).upper() for value in dataset.get("ImageType", [])]
    if any(value in PHASE_TYPES for value in kind[2:4]):
        return "a phase (velocity) image"
    count = int(dataset.get("NumberOfFrames", 1) or 1)
    if count > 1 and "PerFrameFunctionalGroupsSequence" not in dataset:
        return "several frames without a place for each"
    places = [_place(dataset, index, count) for index in range(count)]
    if any(place is None for place in places):
        return "an image without ImagePositionPatient, ImageOrientationPatient or PixelSpacing"
    where = f"series {str(dataset.get('SeriesDescription', ''))!r}, instance {dataset.get('InstanceNumber', '?')}"
    pixels = _decode(dataset, where)
    pixels = pixels.reshape(count, *pixels.shape[-2:])
    return [_frame(dataset, place, pixels[i], where) for i, place in enumerate(places) if place is not None]


def _place(dataset: Any, index: int, count: int) -> dict[str, Any] | None:
    """Geometry, time and rescaling of one frame, from the top level or the functional groups."""
    groups = [dataset]
    if count > 1:
        for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
            sequence = dataset.get(name)
            if sequence:
                groups.append(sequence[min(index, len(sequence) - 1)])
    found: dict[str, Any] = {"index": index + 1 if count > 1 else None}
    for group in groups:
        items = [group] + [element.value[0] for element in group if element.VR == "SQ" and element.value]
        for item in items if count > 1 else [dataset]:
            found.update({name: item.get(name) for name in PER_FRAME if item.get(name) not in (None, "")})
    return found if all(name in found for name in GEOMETRY) else None


def _frame(dataset: Any, place: dict[str, Any], pixels: NDArray[np.generic], where: str) -> DicomFrame:
    cosines = np.array([float(value) for value in place["ImageOrientationPatient"]])
    slope, intercept = float(place.get("RescaleSlope", 1.0)), float(place.get("RescaleIntercept", 0.0))
    if (slope, intercept) != (1.0, 0.0):
        pixels = (pixels.astype(np.float32) * np.float32(slope) + np.float32(intercept)).astype(np.float32)
    time = place.get("NominalCardiacTriggerDelayTime", place.get("TriggerTime"))
    field = dataset.get("MagneticFieldStrength")
    declared = dataset.get("CardiacNumberOfImages") or dataset.get("NumberOfTemporalPositions") or 0
    return DicomFrame(
        study=str(dataset.get("StudyInstanceUID", "")),
        reference=str(dataset.get("FrameOfReferenceUID", "")),
        series=str(dataset.get("SeriesInstanceUID", "")),
        number=int(dataset.get("SeriesNumber") or -1),
        description=str(dataset.get("SeriesDescription", "") or ""),
        original="DERIVED" not in [str(value).upper() for value in dataset.get("ImageType", [])],
        origin=np.array([float(value) for value in place["ImagePositionPatient"]]),
        orientation=check_orientation(cosines[:3], cosines[3:], where),
        spacing_mm=(float(place["PixelSpacing"][0]), float(place["PixelSpacing"][1])),
        thickness_mm=float(place.get("SliceThickness", np.nan)),
        time_ms=np.nan if time is None else float(time),
        instance=int(place["index"] or dataset.get("InstanceNumber") or 0),
        declared=int(declared),
        scanner=f"{dataset.get('Manufacturer', 'unknown scanner')}" + (f", {float(field):g} T" if field else ""),
        pixels=pixels,
    )


def _decode(dataset: Any, where: str) -> NDArray[np.generic]:
    """Pixel array, with an error that says which plugin is missing or that the file is cut off."""
    syntax = dataset.file_meta.get("TransferSyntaxUID") if "TransferSyntaxUID" in dataset.file_meta else None
    if syntax is not None and syntax.is_compressed:
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError:
            raise ValueError(f"{where}: compressed as {syntax.name}, which pydicom cannot decode") from None
        if not decoder.is_available:
            needed = "; ".join(decoder.missing_dependencies)
            raise ValueError(
                f"{where}: compressed as {syntax.name}; install one of its plugins ({needed}), for instance "
                "`pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg`"
            )
    try:
        return np.asarray(dataset.pixel_array)
    except (ValueError, RuntimeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"{where}: the pixel data cannot be decoded ({type(error).__name__}); the file is probably cut off: "
            "copy it again"
        ) from None
