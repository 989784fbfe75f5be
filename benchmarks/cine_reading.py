"""What limits reading a cine study from zips: the share of pixel decoding in the time of `open_cine`.

Run: python benchmarks/cine_reading.py [FOLDER] [--json]. FOLDER holds a study as DICOM files or zips; without one, the
study of ECGCMR_SHARED_DATA, or else a synthetic one of the same size. Decoding is what nobody can leave out: unpacking
the bytes of every file (zlib, and the pixels' own codec for compressed transfer syntaxes) and copying every pixel into
the array of its cine. It is measured by itself, by the same libraries, over the same files. `decode_ratio` is its share
of the whole; 1 would be nothing but decoding. `full_parse_ratio` is the time that a full parse of every header by
pydicom alone would take, over the whole time of `open_cine`. Times are CPU seconds of this process (files are in the
page cache), so that other programs on the machine do not count; the least of several rounds is taken.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from ecgcmr.cmr.geometry import APEX_LPS
from ecgcmr.cmr.readers import open_cine

REPEATS = 7


def write_synthetic(folder: Path, slices: int = 11, frames: int = 25) -> Path:
    """One zip for each slice of a short-axis stack of 208 x 256 pixels that compress about as well as real ones."""
    rng = np.random.default_rng(0)
    columns = np.cross(APEX_LPS, [0.0, 0.0, 1.0])
    columns /= np.linalg.norm(columns)
    study = generate_uid()
    for index in range(slices):
        series = generate_uid()
        with zipfile.ZipFile(folder / f"{index}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for frame in range(frames):
                meta = FileMetaDataset()
                meta.TransferSyntaxUID = ExplicitVRLittleEndian
                meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
                    "1.2.840.10008.5.1.4.1.1.4",
                    generate_uid(),
                )
                item = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
                item.StudyInstanceUID, item.SeriesInstanceUID = study, series
                item.SeriesDescription, item.SeriesNumber, item.InstanceNumber = "cine_sax", index + 1, frame + 1
                item.TriggerTime = f"{frame * 34.0:g}"
                item.ImagePositionPatient = [f"{value:.4f}" for value in 8.0 * index * APEX_LPS]
                item.ImageOrientationPatient = [f"{v:.6f}" for v in (*columns, *np.cross(APEX_LPS, columns))]
                item.PixelSpacing, item.SliceThickness = ["1.4", "1.4"], "8"
                item.Rows, item.Columns, item.SamplesPerPixel = 208, 256, 1
                item.PhotometricInterpretation = "MONOCHROME2"
                item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 12, 11, 0
                smooth = 400 + 300 * np.sin(np.arange(208)[:, None] / 20 + np.arange(256) / 30)
                item.PixelData = (smooth + rng.integers(0, 24, (208, 256))).astype("<u2").tobytes()
                for number in range(60):  # other elements of a header, which a reader must walk over
                    item.add_new((0x0019, 0x1000 + number), "LO", f"value {number}")
                stream = io.BytesIO()
                item.save_as(stream, enforce_file_format=True)
                archive.writestr(f"{frame}.dcm", stream.getvalue())
    return folder


def contents(folder: Path) -> list[tuple[Path, list[str]]]:
    """Zips with their entries, and single files with no entry."""
    found: list[tuple[Path, list[str]]] = []
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                found.append((path, archive.namelist()))
        else:
            found.append((path, []))
    return found


def unpack(files: list[tuple[Path, list[str]]]) -> list[bytes]:
    out = []
    for path, names in files:
        if not names:
            out.append(path.read_bytes())
            continue
        with zipfile.ZipFile(path) as archive:
            out += [archive.read(name) for name in names]
    return [data for data in out if data[128:132] == b"DICM"]


def decode_seconds(files: list[tuple[Path, list[str]]]) -> float:
    """Unpack every file, decode its pixels, copy them into arrays; headers are parsed outside of the clock."""
    datasets = [pydicom.dcmread(io.BytesIO(data)) for data in unpack(files)]
    plain = all(not item.file_meta.TransferSyntaxUID.is_compressed for item in datasets)
    raw = [item.PixelData for item in datasets]
    start = time.process_time()
    unpack(files)
    if plain:
        shape = [(int(item.Rows), int(item.Columns)) for item in datasets]
        clock = time.process_time() - start
        target = np.empty(sum(rows * columns for rows, columns in shape), np.uint16)
        start, at = time.process_time(), 0
        for data, (rows, columns) in zip(raw, shape, strict=True):
            pixels = np.frombuffer(data, "<u2", rows * columns)
            target[at : at + len(pixels)] = pixels
            at += len(pixels)
        return clock + time.process_time() - start
    for item in datasets:
        _ = item.pixel_array
    return time.process_time() - start


def least_seconds(action: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return min(times)


def measure(folder: Path) -> dict[str, float]:
    files = contents(folder)
    blobs = unpack(files)
    open_cine(folder)
    whole = least_seconds(lambda: open_cine(folder))
    decode = min(decode_seconds(files) for _ in range(REPEATS))
    parse = least_seconds(lambda: [pydicom.dcmread(io.BytesIO(data)) for data in blobs])
    return {
        "files": len(blobs),
        "mib": sum(len(data) for data in blobs) / 1024**2,
        "whole_s": whole,
        "decode_s": decode,
        "files_per_s": len(blobs) / whole,
        "decode_ratio": decode / whole,
        "full_parse_ratio": parse / whole,
    }


def main() -> None:
    """Print the table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a study as DICOM files or zips")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()
    shared = Path(os.environ.get("ECGCMR_SHARED_DATA", "absent")) / "cmr_cine_dicom"
    folder = arguments.folder or (shared if shared.is_dir() else None)
    with tempfile.TemporaryDirectory() as place:
        found = measure(folder or write_synthetic(Path(place)))
    found = {"synthetic": float(folder is None), **found}
    if arguments.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:18s} {value:10.3f}")


if __name__ == "__main__":
    main()
