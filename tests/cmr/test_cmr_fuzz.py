"""Mutated files of every kind: a typed error, or a cine that the quality check survives; never anything else."""

from __future__ import annotations

import gzip
import io
import shutil
import struct
import time
import tracemalloc
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from cmr_layouts import write_acdc, write_mnms2
from dicom_files import COLUMNS, ROWS, enhanced, make_frame, write_stack, zipped
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from ecgcmr.cmr.quality import check_cine
from ecgcmr.cmr.readers import open_cine, open_study

MAX_BYTES = 32 * 1024**2
SECONDS = 10.0
MANY = [pytest.param(120, id="some"), pytest.param(1500, id="many", marks=pytest.mark.slow)]


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip bytes, cut off, cut out, double a part, or write extreme numbers; mostly near the start, in the header."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        if not changed:
            break
        near = len(changed) if rng.random() < 0.4 else min(len(changed), 1500)
        at = int(rng.integers(near))
        kind = rng.integers(6)
        if kind <= 1:
            for _ in range(int(rng.integers(1, 9))):
                changed[int(rng.integers(near))] ^= int(rng.integers(1, 256))
        elif kind == 2:
            del changed[int(rng.integers(len(changed))) :]
        elif kind == 3:
            del changed[at : at + int(rng.integers(1, 64))]
        elif kind == 4:
            changed[at:at] = changed[at : at + int(rng.integers(1, 64))]
        else:
            value = int(rng.choice([0, 1, 0x7F, 0xFF, 0x80]))
            width = int(rng.choice([1, 2, 4, 8]))
            changed[at : at + width] = bytes([value]) * width
    return bytes(changed)


def survives(action: Callable[[], object], seen: Counter[str]) -> None:
    """Run it: a list of cines, ValueError or FileNotFoundError, within time."""
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cines = action()
    except (ValueError, FileNotFoundError) as error:
        seen["refused" if str(error).strip() else "error without words"] += 1
    else:
        for cine in cines if isinstance(cines, list) else cines.cines:  # type: ignore[attr-defined]
            for flag in check_cine(cine):
                assert flag.code != "check_failed" or cine.pixels.dtype.kind not in "iuf", flag
        seen["read"] += 1
    assert time.process_time() - start < SECONDS
    assert not seen["error without words"]


def sax_nifti(**kind: object) -> bytes:
    data = np.random.default_rng(0).integers(0, 900, (10, 9, 4, 6)).astype(np.int16)
    return nibabel.Nifti1Image(data, np.diag([1.5, 1.5, 9.0, 1.0])).to_bytes()


def dicom_bytes(item: pydicom.dataset.FileDataset) -> bytes:
    stream = io.BytesIO()
    item.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def compressed_frame() -> bytes:
    item = make_frame(0, 0, "1.5")
    item.compress(RLELossless)
    return dicom_bytes(item)


def implicit_frame() -> bytes:
    item = make_frame(0, 0, "1.5")
    item.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    stream = io.BytesIO()
    item.save_as(stream, implicit_vr=True, little_endian=True, enforce_file_format=True)
    return stream.getvalue()


MAKERS: dict[str, Callable[[], bytes]] = {
    "explicit.dcm": lambda: dicom_bytes(make_frame(0, 0, "1.5")),
    "implicit.dcm": implicit_frame,
    "rle.dcm": compressed_frame,
    "enhanced.dcm": lambda: dicom_bytes(enhanced(2, 3)),
    "stack.nii": sax_nifti,
    "stack.nii.gz": lambda: gzip.compress(sax_nifti()),
    "unpacked.nii.gz": sax_nifti,
}


@pytest.mark.parametrize("count", MANY)
@pytest.mark.parametrize("name", sorted(MAKERS))
def test_mutated_file__is_refused_or_read(name: str, count: int, tmp_path: Path) -> None:
    data, rng, seen = MAKERS[name](), np.random.default_rng(7), Counter[str]()
    companions: list[bytes] = []
    if name.endswith(".dcm") and name != "enhanced.dcm":  # a second, whole frame, so that there is a cine at all
        companions = [dicom_bytes(make_frame(0, frame, "1.5")) for frame in (1, 2)]
    folder = tmp_path / "study"
    folder.mkdir()
    for number, companion in enumerate(companions):
        (folder / f"{number}.dcm").write_bytes(companion)
    target = folder if companions else folder / name
    for _ in range(count):
        (folder / name).write_bytes(mutate(data, rng))
        for incomplete in ("error", "drop"):
            survives(lambda how=incomplete: open_cine(target, incomplete=how, max_bytes=MAX_BYTES), seen)
    assert seen["refused"] > 0, "the mutations never reached the reader"


@pytest.mark.parametrize("count", MANY)
def test_mutated_zip__is_refused_or_read(count: int, tmp_path: Path) -> None:
    stack = write_stack(tmp_path / "stack", 2, 3)
    inner = zipped(stack, tmp_path / "inner.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.writestr("series.zip", inner)
        archive.writestr("manifest.csv", "filename\ns0f00.dcm\n")
    rng, seen = np.random.default_rng(3), Counter[str]()
    for index in range(count):
        data = inner if index % 2 else (tmp_path / "outer.zip").read_bytes()
        broken = bytearray(mutate(data, rng) if index % 20 else data)
        if index % 20 and rng.random() < 0.5 and len(broken) > 200:  # the directory stands at the end
            broken[-int(rng.integers(1, 200))] ^= int(rng.integers(1, 256))
        path = tmp_path / "broken.zip"
        path.write_bytes(bytes(broken))
        survives(lambda path=path: open_cine(path, max_bytes=MAX_BYTES), seen)
    assert seen["refused"] > count // 10
    assert seen["read"] > 0


@pytest.mark.parametrize("count", MANY)
@pytest.mark.parametrize("layout", ["acdc", "mnms2"])
def test_mutated_layout__is_refused_or_read(layout: str, count: int, tmp_path: Path) -> None:
    whole = (write_acdc if layout == "acdc" else write_mnms2)(tmp_path / "whole")
    rng, seen = np.random.default_rng(5), Counter[str]()
    names = sorted(path.name for path in whole.iterdir())
    for _ in range(count // 3):
        folder = tmp_path / "broken"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        path = folder / names[int(rng.integers(len(names)))]
        if rng.random() < 0.2:
            path.unlink()
        else:
            path.write_bytes(mutate(path.read_bytes(), rng))
        survives(lambda folder=folder: open_study(folder, max_bytes=MAX_BYTES), seen)
    assert seen["refused"] > 0


def peak_mib(action: Callable[[], object]) -> float:
    tracemalloc.start()
    try:
        action()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak / 1024**2


def refused(match: str, path: Path, max_bytes: int = MAX_BYTES) -> Callable[[], None]:
    def run() -> None:
        with pytest.raises(ValueError, match=match):
            open_cine(path, max_bytes=max_bytes)

    return run


def test_gz_bomb__is_unpacked_no_farther_than_its_header(tmp_path: Path) -> None:
    """A packed header of a small image with 300 MB of zeros behind it: the zeros are never unpacked."""
    path = tmp_path / "bomb.nii.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(sax_nifti())
        for _ in range(300):
            stream.write(bytes(1024**2))
    assert peak_mib(lambda: open_cine(path)) < 20


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dims", [(32767, 32767, 2, 2), (30000, 3000, 10, 1), (32767,) * 4])
def test_huge_dims__are_refused_before_anything_is_allocated(tmp_path: Path, packed: bool, dims: tuple) -> None:
    data = bytearray(sax_nifti())
    struct.pack_into("<8h", data, 40, 4, *dims, 1, 1, 1)
    path = tmp_path / ("a.nii.gz" if packed else "a.nii")
    path.write_bytes(gzip.compress(bytes(data)) if packed else bytes(data))
    assert peak_mib(refused("cannot hold|more than the limit", path, max_bytes=4 * 1024**3)) < 20


def test_huge_image__of_compressed_dicom_is_refused_before_decoding(tmp_path: Path) -> None:
    item = make_frame(0, 0, "1.5")
    item.compress(RLELossless)
    item.Rows = item.Columns = 60000
    (tmp_path / "a.dcm").write_bytes(dicom_bytes(item))
    assert peak_mib(refused("more than the limit", tmp_path)) < 20


def test_claimed_frames__are_not_counted_out(tmp_path: Path) -> None:
    item = enhanced(2, 3)
    item.NumberOfFrames = 2**31 - 1
    (tmp_path / "a.dcm").write_bytes(dicom_bytes(item))
    assert peak_mib(refused("promises 2147483647 frames", tmp_path)) < 20


def test_nested_zip_bomb__counts_what_the_inner_zip_unpacks_to(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.dcm", bytes(40 * 1024**2))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("inner.zip", inner.getvalue())
    assert peak_mib(refused("more than the limit", tmp_path / "a.zip")) < 20


def test_many_small_images__are_bounded_in_sum(tmp_path: Path) -> None:
    write_stack(tmp_path, 3, 10)
    one = ROWS * COLUMNS * 2
    with pytest.raises(ValueError, match=r"more than the limit of \d+ bytes"):
        open_cine(tmp_path, max_bytes=3000)
    assert len(open_cine(tmp_path, max_bytes=3000 + 30 * one)) == 1
