"""One DICOM file to frames: pixels, place and time; identifiers stay behind, except to group by, in memory."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgcmr.cmr.geometry import Vector, check_orientation
from ecgcmr.cmr.readers.dicom_header import Refused, is_dicom, read_header
from ecgcmr.cmr.readers.dicom_pixels import decode
from ecgcmr.cmr.readers.members import Member, iter_members

GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
TIMES = ("TriggerTime", "NominalCardiacTriggerDelayTime")
PER_FRAME = (*GEOMETRY, *TIMES, "SliceThickness", "RescaleSlope", "RescaleIntercept")
PHASE_TYPES = {"P", "PHASE", "PHASE MAP", "VELOCITY MAP", "R", "I"}
MANIFESTS = {"manifest.csv", "manifest.cvs"}  # the second is how UK Biobank's older zips spell it
MAX_MANIFEST_BYTES = 16 * 1024**2
MAX_MM = 2000.0  # no scanner's coordinates are larger


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
        recorded_at: Local date and time of the acquisition; None when absent.
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
    recorded_at: datetime | None
    pixels: NDArray[np.generic]

    @cached_property
    def normal(self) -> Vector:
        """Unit normal of the plane, LPS."""
        return np.cross(*self.orientation)

    @property
    def title(self) -> str:
        """How messages name the series."""
        return f"series {self.description!r} (number {self.number})"


def load_frames(path: Path, max_bytes: int) -> tuple[list[DicomFrame], tuple[str, ...]]:
    """Read all frames below a path; files that are no images with a place in the body are counted in the notes.

    Raises:
        FileNotFoundError: When there is nothing at `path`.
        ValueError: For a damaged file, an unsafe zip, or more than `max_bytes` of pixels.
    """
    skipped: Counter[str] = Counter()
    frames: list[DicomFrame] = []
    present: set[tuple[str, str]] = set()
    promised: set[tuple[str, str]] = set()
    left = max_bytes
    for member in iter_members(path, max_bytes):
        present.add((member.folder, member.name))
        if member.name.lower() in MANIFESTS:
            promised |= {(member.folder, name) for name in _manifest_names(member)}
        found = read_member(member, left)
        if isinstance(found, str):
            skipped[found] += 1
            continue
        left -= sum(frame.pixels.nbytes for frame in found)
        if left < 0:
            raise ValueError(
                f"{path}: the images decode to more than the limit of {max_bytes} bytes; "
                "if that is expected, pass a larger max_bytes"
            )
        frames.extend(found)
    notes = [f"skipped {count} file(s): {reason}" for reason, count in sorted(skipped.items())]
    if absent := len(promised - present):
        notes.append(f"the manifest lists {absent} DICOM file(s) that are not there")
    return frames, tuple(notes)


def _manifest_names(member: Member) -> Iterable[str]:
    """DICOM file names that a manifest lists; its columns differ between releases and its dates hold commas."""
    text = member.load(lambda head: True, MAX_MANIFEST_BYTES) or b""
    return re.findall(r"[^\s,;\"/\\]+\.dcm\b", text.decode("utf-8", errors="replace"), re.IGNORECASE)


def read_member(member: Member, max_bytes: int) -> list[DicomFrame] | str:
    """Frames of one file, or the reason why it was skipped."""
    data = member.load(is_dicom, max(max_bytes, 0))
    if data is None:
        return "not DICOM"
    try:
        header, dataset = read_header(data)
        return _frames_of(header, dataset, data, max_bytes)
    except Refused as error:
        raise ValueError(str(error) if str(error).startswith("series ") else f"{member.title}: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # what pydicom raises on damaged files has no common type, and quotes header values
        raise ValueError(f"{member.title}: damaged or cut-off DICOM ({type(error).__name__}); copy it again") from None


def _frames_of(header: dict[str, Any], dataset: Any | None, data: bytes, max_bytes: int) -> list[DicomFrame] | str:
    if "PixelData" not in header:
        if "Rows" in header:
            raise EOFError
        return "DICOM without an image"
    if int(header.get("SamplesPerPixel", 1)) != 1:
        return "a color image, not a scan"
    kind = [str(value).upper() for value in _list(header.get("ImageType", ""))]
    if any(value in PHASE_TYPES for value in kind[2:4]):
        return "a phase (velocity) image"
    count = int(header.get("NumberOfFrames", 1))
    where = f"series {str(header.get('SeriesDescription', ''))!r}, instance {header.get('InstanceNumber', '?')}"
    if count != 1 or "PerFrameFunctionalGroupsSequence" in header:
        described = header.get("PerFrameFunctionalGroupsSequence")
        if not described:
            return "several frames without a place for each"
        if len(described) != count:
            raise Refused(f"{where}: the header promises {count} frames and describes {len(described)}; cut off")
        places = [_grouped_place(header, index) for index in range(count)]
    else:
        places = [_place({name: header[name] for name in PER_FRAME if name in header})]
    if any(place is None for place in places):
        return "an image without ImagePositionPatient, ImageOrientationPatient or PixelSpacing"
    pixels = decode(header, dataset, data, count, where, max_bytes)
    made = _common(header, kind)
    return [
        _frame(header, made, place, (index if count > 1 else None, pixels[index], where))
        for index, place in enumerate(places)
        if place is not None
    ]


def _list(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) or not isinstance(value, Sequence) else list(value)


def _place(found: dict[str, Any]) -> dict[str, Any] | None:
    return found if all(name in found for name in GEOMETRY) else None


def _grouped_place(header: dict[str, Any], index: int) -> dict[str, Any] | None:
    """Geometry, time and rescaling of one frame of a multi-frame file, from its functional groups."""
    found: dict[str, Any] = {name: header[name] for name in PER_FRAME if name in header}
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        sequence = header.get(name)
        if not sequence:
            continue
        group = sequence[min(index, len(sequence) - 1)]
        for item in [group] + [element.value[0] for element in group if element.VR == "SQ" and element.value]:
            found.update({key: item.get(key) for key in PER_FRAME if item.get(key) not in (None, "")})
    return _place(found)


def _common(header: dict[str, Any], kind: list[str]) -> dict[str, Any]:
    """What all frames of a file share."""
    field = header.get("MagneticFieldStrength")
    return {
        "study": str(header.get("StudyInstanceUID", "")),
        "reference": str(header.get("FrameOfReferenceUID", "")),
        "series": str(header.get("SeriesInstanceUID", "")),
        "number": int(header.get("SeriesNumber", -1)),
        "description": str(header.get("SeriesDescription", "")),
        "original": "DERIVED" not in kind,
        "declared": int(header.get("CardiacNumberOfImages") or header.get("NumberOfTemporalPositions") or 0),
        "scanner": f"{header.get('Manufacturer', 'unknown scanner')}" + (f", {float(field):g} T" if field else ""),
        "recorded_at": _recorded_at(header),
    }


def _frame(
    header: dict[str, Any],
    common: dict[str, Any],
    place: dict[str, Any],
    own: tuple[int | None, NDArray[np.generic], str],
) -> DicomFrame:
    index, pixels, where = own
    position = _numbers(place, "ImagePositionPatient", 3, where)
    cosines = _numbers(place, "ImageOrientationPatient", 6, where)
    spacing = _numbers(place, "PixelSpacing", 2, where)
    if np.abs(position).max() > MAX_MM or not 0.01 < spacing.min() <= spacing.max() < 100.0:
        raise Refused(
            f"{where}: position {position.tolist()} mm or pixel spacing {spacing.tolist()} mm is impossible; "
            "the header is damaged"
        )
    slope, intercept = float(place.get("RescaleSlope", 1.0)), float(place.get("RescaleIntercept", 0.0))
    if (slope, intercept) != (1.0, 0.0):
        if not np.isfinite([slope, intercept]).all() or slope == 0:
            raise Refused(f"{where}: RescaleSlope {slope:g} and RescaleIntercept {intercept:g} make no intensities")
        pixels = (pixels.astype(np.float32) * np.float32(slope) + np.float32(intercept)).astype(np.float32)
    time = float(place.get("NominalCardiacTriggerDelayTime", place.get("TriggerTime", np.nan)))
    return DicomFrame(
        **common,
        origin=position,
        orientation=_orientation(cosines, where),
        spacing_mm=(float(spacing[0]), float(spacing[1])),
        thickness_mm=float(place.get("SliceThickness", np.nan)),
        time_ms=time if abs(time) < 1e6 else np.nan,
        instance=int(header.get("InstanceNumber", 0)) if index is None else index + 1,
        pixels=pixels,
    )


def _orientation(cosines: Vector, where: str) -> tuple[Vector, Vector]:
    try:
        return check_orientation(cosines[:3], cosines[3:], where)
    except ValueError as error:
        raise Refused(str(error)) from None


def _numbers(place: dict[str, Any], name: str, count: int, where: str) -> Vector:
    values = np.array([float(value) for value in _list(place[name])])
    if len(values) != count or not np.isfinite(values).all():
        raise Refused(f"{where}: {name} must be {count} numbers, got {len(values)}; the header is damaged")
    return values


def _recorded_at(header: dict[str, Any]) -> datetime | None:
    """Date and time of the acquisition; of the series or the study when the header does not tell."""
    candidates = [str(header.get("AcquisitionDateTime", ""))]
    for kind in ("Acquisition", "Series", "Study", "Content"):
        candidates.append(str(header.get(f"{kind}Date", "")) + str(header.get(f"{kind}Time", "")))
    for text in candidates:
        match = re.match(r"(\d{8})(\d{6})?", text)
        if match:
            try:
                return datetime.strptime(match[1] + (match[2] or "000000"), "%Y%m%d%H%M%S")
            except ValueError:
                continue
    return None
