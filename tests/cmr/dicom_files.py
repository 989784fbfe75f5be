"""DICOM cine files of known geometry, written for tests."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from ecgcmr.cmr.geometry import APEX_LPS

ROWS, COLUMNS, FRAMES, STEP_MS = 6, 8, 10, 40.0
STUDY = generate_uid()
# An exact short-axis orientation: the normal is the usual long axis.
ALONG_COLUMNS = np.cross(APEX_LPS, [0.0, 0.0, 1.0]) / np.linalg.norm(np.cross(APEX_LPS, [0.0, 0.0, 1.0]))
ALONG_COLUMNS = ALONG_COLUMNS if ALONG_COLUMNS[0] > 0 else -ALONG_COLUMNS
ALONG_ROWS = np.cross(ALONG_COLUMNS, APEX_LPS)
ALONG_ROWS = ALONG_ROWS if ALONG_ROWS[1] > 0 else -ALONG_ROWS


def pixel_value(slice_index: int, frame: int) -> int:
    return 100 * (slice_index + 1) + frame


def make_frame(slice_index: int, frame: int, series: str, **changes: object) -> FileDataset:
    """One short-axis frame; slice 0 is at the base, every pixel holds 100 (slice + 1) + frame."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    item = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    item.SOPClassUID, item.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    item.PatientName, item.PatientID = "Doe^Jane", "ID-12345"
    item.StudyInstanceUID, item.SeriesInstanceUID, item.FrameOfReferenceUID = STUDY, series, "1.2.3"
    item.SeriesDescription, item.SeriesNumber, item.Modality = "cine_sax", slice_index + 1, "MR"
    item.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    item.Manufacturer, item.MagneticFieldStrength = "Test Scanners", "1.5"
    item.InstanceNumber, item.TriggerTime = frame + 1, f"{frame * STEP_MS:g}"
    origin = np.array([-20.0, -10.0, 5.0]) + 10.0 * slice_index * APEX_LPS
    item.ImagePositionPatient = [f"{value:.6f}" for value in origin]
    item.ImageOrientationPatient = [f"{value:.6f}" for value in (*ALONG_COLUMNS, *ALONG_ROWS)]
    item.PixelSpacing, item.SliceThickness = ["1.5", "1.25"], "8"
    item.Rows, item.Columns, item.SamplesPerPixel = ROWS, COLUMNS, 1
    item.PhotometricInterpretation = "MONOCHROME2"
    item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 16, 15, 0
    item.PixelData = np.full((ROWS, COLUMNS), pixel_value(slice_index, frame), dtype=np.uint16).tobytes()
    for key, value in changes.items():
        setattr(item, key, value)
    return item


def write_frame(path: Path, slice_index: int, frame: int, series: str, **changes: object) -> Path:
    make_frame(slice_index, frame, series, **changes).save_as(path, enforce_file_format=True)
    return path


def write_stack(folder: Path, n_slices: int = 3, n_frames: int = FRAMES, **changes: object) -> Path:
    """A short-axis stack, one series for each slice, one file for each frame."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(n_slices):
        series = generate_uid()
        for frame in range(n_frames):
            write_frame(folder / f"s{index}f{frame:02d}.dcm", index, frame, series, **changes)
    return folder


def write_plane(
    folder: Path, normal: np.ndarray, center: np.ndarray, description: str, number: int, n_frames: int = 5
) -> Path:
    """A series of one plane through a point."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = np.cross(normal, [0.31, 0.2, 0.93])
    columns /= np.linalg.norm(columns)
    rows = np.cross(normal, columns)
    origin = center - 0.5 * (COLUMNS - 1) * 1.25 * columns - 0.5 * (ROWS - 1) * 1.5 * rows
    series = generate_uid()
    for frame in range(n_frames):
        write_frame(
            folder / f"p{number}f{frame:02d}.dcm",
            number,
            frame,
            series,
            SeriesDescription=description,
            SeriesNumber=number,
            ImageOrientationPatient=[f"{value:.6f}" for value in (*columns, *rows)],
            ImagePositionPatient=[f"{value:.6f}" for value in origin],
        )
    return folder


def enhanced(n_slices: int, n_frames: int) -> FileDataset:
    """The stack of `write_stack` as one multi-frame file, frames in another order."""
    item = make_frame(0, 0, "1.5")
    origins = [np.array(item.ImagePositionPatient, dtype=float) + 10.0 * s * APEX_LPS for s in range(n_slices)]
    shared, frames, pixels = Dataset(), [], []
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = item.PixelSpacing, "8"
    orientation.ImageOrientationPatient = item.ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([orientation])
    for s, f in [(s, f) for f in reversed(range(n_frames)) for s in range(n_slices)]:
        frame, position, heart = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [f"{value:.6f}" for value in origins[s]]
        heart.NominalCardiacTriggerDelayTime = f * STEP_MS
        frame.PlanePositionSequence, frame.CardiacSynchronizationSequence = Sequence([position]), Sequence([heart])
        frames.append(frame)
        pixels.append(np.full((ROWS, COLUMNS), pixel_value(s, f), dtype=np.uint16))
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "TriggerTime"):
        delattr(item, name)
    item.NumberOfFrames, item.PixelData = len(frames), np.stack(pixels).tobytes()
    item.SharedFunctionalGroupsSequence = Sequence([shared])
    item.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return item


def find_frame(folder: Path, slice_index: int, frame: int) -> Path:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".csv":
            item = pydicom.dcmread(path)
            if item.SeriesNumber == slice_index + 1 and item.InstanceNumber == frame + 1:
                return path
    raise LookupError


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return target
