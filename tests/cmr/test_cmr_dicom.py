"""DICOM studies written here with known geometry, broken in known ways; and two real ones."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import (
    ALONG_COLUMNS,
    ALONG_ROWS,
    COLUMNS,
    FRAMES,
    ROWS,
    STEP_MS,
    STUDY,
    enhanced,
    pixel_value,
    write_frame,
    zipped,
)
from pydicom.pixels import get_decoder
from pydicom.uid import JPEGLSLossless, generate_uid

from ecgcmr.cmr.geometry import APEX_LPS
from ecgcmr.cmr.quality import check_cine
from ecgcmr.cmr.readers import open_cine


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Three series of one slice each, written apex first, with file names in random order."""
    folder = tmp_path / "study"
    (folder / "inner").mkdir(parents=True)
    names = iter(np.random.default_rng(0).permutation(1000))
    for index in (2, 0, 1):
        series = generate_uid()
        for frame in range(FRAMES):
            write_frame(folder / "inner" / f"{next(names):04d}", index, frame, series)
    (folder / "manifest.csv").write_text("a,b\n")
    return folder


def find(folder: Path, slice_index: int, frame: int) -> Path:
    for path in sorted((folder / "inner").iterdir()):
        item = pydicom.dcmread(path)
        if item.SeriesNumber == slice_index + 1 and item.InstanceNumber == frame + 1:
            return path
    raise LookupError


def test_open_cine__merges_series_base_to_apex_by_time(study: Path) -> None:
    (cine,) = open_cine(study)
    assert cine.view == "sax"
    expected = np.array([[pixel_value(s, f) for f in range(FRAMES)] for s in range(3)])
    np.testing.assert_array_equal(cine.pixels, np.broadcast_to(expected[:, :, None, None], (3, FRAMES, ROWS, COLUMNS)))
    np.testing.assert_allclose(cine.frame_times_ms, np.arange(FRAMES) * STEP_MS)
    assert cine.spacing_mm == (1.5, 1.25)
    assert cine.slice_spacing_mm == pytest.approx(10.0, abs=1e-4)
    assert cine.source == "dicom"


def test_open_cine__affine_places_pixels_in_ras(study: Path) -> None:
    (cine,) = open_cine(study)
    column, row, index = 5, 4, 2
    lps = np.array([-20.0, -10.0, 5.0]) + 10.0 * index * APEX_LPS
    lps = lps + column * 1.25 * ALONG_COLUMNS + row * 1.5 * ALONG_ROWS
    np.testing.assert_allclose(cine.affine @ [column, row, index, 1], [-lps[0], -lps[1], lps[2], 1], atol=1e-3)


def test_open_cine__keeps_no_identifier(study: Path) -> None:
    (cine,) = open_cine(study)
    text = repr(cine.notes) + cine.source + repr(dict(cine.mask_labels))
    for secret in ("Doe", "ID-12345", STUDY, str(study)):
        assert secret not in text
    assert "scanner Test Scanners, 1.5 T" in cine.notes
    assert any("skipped 1 file(s): not DICOM" in note for note in cine.notes)


def test_open_cine__zip_equals_folder(study: Path, tmp_path: Path) -> None:
    (from_folder,) = open_cine(study)
    (from_zip,) = open_cine(zipped(study, tmp_path / "study.zip"))
    np.testing.assert_array_equal(from_folder.pixels, from_zip.pixels)
    np.testing.assert_array_equal(from_folder.affine, from_zip.affine)


@pytest.mark.parametrize(("frame", "time"), [(4, "160"), (0, "0"), (FRAMES - 1, "360")])
def test_open_cine__missing_frame_is_named(study: Path, frame: int, time: str) -> None:
    find(study, 1, frame).unlink()
    with pytest.raises(ValueError, match=r"cine_sax.*slice at .* mm.*TriggerTime") as caught:
        open_cine(study)
    assert f" {time} ms" in str(caught.value)
    assert STUDY not in str(caught.value)
    assert "Doe" not in str(caught.value)


def test_open_cine__drop_leaves_out_the_incomplete_slice(study: Path) -> None:
    find(study, 2, 3).unlink()
    (cine,) = open_cine(study, incomplete="drop")
    assert cine.pixels.shape[0] == 2
    assert any(note.startswith("left out") and "cine_sax" in note for note in cine.notes)


def test_open_cine__header_count_finds_missing_last_frame(tmp_path: Path) -> None:
    series = generate_uid()
    for frame in range(FRAMES - 1):
        write_frame(tmp_path / f"{frame}.dcm", 0, frame, series, CardiacNumberOfImages=FRAMES)
    with pytest.raises(ValueError, match=r"9 frames, but the header promises 10.*360 ms"):
        open_cine(tmp_path)


def test_open_cine__copy_is_left_out_and_conflict_is_named(study: Path) -> None:
    path = find(study, 1, 4)
    shutil.copy(path, study / "inner" / "copy")
    (cine,) = open_cine(study)
    assert cine.pixels.shape == (3, FRAMES, ROWS, COLUMNS)
    assert any("exact copies" in note for note in cine.notes)
    item = pydicom.dcmread(path)
    write_frame(study / "inner" / "copy", 1, 4, item.SeriesInstanceUID, PixelData=b"\1" * (ROWS * COLUMNS * 2))
    with pytest.raises(ValueError, match=r"two different frames at TriggerTime 160 ms"):
        open_cine(study)


def test_open_cine__repeated_series_uses_the_later(study: Path) -> None:
    series = generate_uid()
    for frame in range(FRAMES):
        data = np.full((ROWS, COLUMNS), 999, dtype=np.uint16).tobytes()
        write_frame(study / f"again{frame}", 1, frame, series, SeriesNumber=50, PixelData=data)
    (cine,) = open_cine(study)
    assert cine.pixels.shape[0] == 3
    assert (cine.pixels[1] == 999).all()
    assert any("acquired again" in note for note in cine.notes)


def test_open_cine__without_trigger_time_uses_instance_number_and_says_so(tmp_path: Path) -> None:
    series = generate_uid()
    for frame in range(FRAMES):
        write_frame(tmp_path / f"{(7 * frame) % FRAMES}.dcm", 0, frame, series, TriggerTime=None)
    (cine,) = open_cine(tmp_path)
    np.testing.assert_array_equal(cine.pixels[0, :, 0, 0], [pixel_value(0, f) for f in range(FRAMES)])
    assert np.isnan(cine.frame_times_ms).all()
    assert any("InstanceNumber" in note for note in cine.notes)


def test_open_cine__applies_rescale(tmp_path: Path) -> None:
    series = generate_uid()
    for frame in range(3):
        write_frame(tmp_path / f"{frame}", 0, frame, series, RescaleSlope="2", RescaleIntercept="-10")
    (cine,) = open_cine(tmp_path)
    np.testing.assert_allclose(cine.pixels[0, :, 0, 0], [2 * pixel_value(0, f) - 10 for f in range(3)])


def test_open_cine__phase_images_and_localizers_are_left_out(study: Path) -> None:
    for frame in range(FRAMES):
        write_frame(study / f"phase{frame}", 0, frame, "1.9", ImageType=["ORIGINAL", "PRIMARY", "P"])
    write_frame(study / "scout", 0, 0, "1.8", SeriesDescription="scout", ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    (cine,) = open_cine(study)
    assert any("10 file(s): a phase" in note for note in cine.notes)
    assert any("'scout'" in note and "single images" in note for note in cine.notes)


def test_open_cine__truncated_file_is_named_by_series_and_instance(study: Path) -> None:
    path = find(study, 0, 6)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"'cine_sax', instance 7: the pixel data cannot be decoded"):
        open_cine(study)


def test_open_cine__file_cut_in_the_header_is_an_error(study: Path) -> None:
    path = find(study, 0, 6)
    path.write_bytes(path.read_bytes()[: -(ROWS * COLUMNS * 2 + 12)])
    with pytest.raises(ValueError, match="damaged or cut-off DICOM"):
        open_cine(study)


def test_open_cine__missing_codec_is_named(tmp_path: Path) -> None:
    path = write_frame(tmp_path / "a", 0, 0, "1.5")
    item = pydicom.dcmread(path)
    item.file_meta.TransferSyntaxUID = JPEGLSLossless
    item.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    item["PixelData"].is_undefined_length = True
    item.save_as(path)
    if get_decoder(JPEGLSLossless).is_available:
        pytest.skip("a JPEG-LS plugin is installed here")
    with pytest.raises(ValueError, match=r"compressed as JPEG-LS.*install one of its plugins.*pylibjpeg"):
        open_cine(tmp_path)


def test_open_cine__skewed_orientation_is_refused(tmp_path: Path) -> None:
    write_frame(tmp_path / "a", 0, 0, "1.5", ImageOrientationPatient=[1, 0, 0, 0.3, 0.95, 0])
    with pytest.raises(ValueError, match="right angle"):
        open_cine(tmp_path)


def test_open_cine__zip_bomb_is_refused_before_unpacking(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(20_000_000))
    assert bomb.stat().st_size < 100_000
    with pytest.raises(ValueError, match="more than the limit of 10000000 bytes"):
        open_cine(bomb, max_bytes=10_000_000)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:\\evil"])
def test_open_cine__path_traversal_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(ValueError, match="leads outside the archive"):
        open_cine(tmp_path / "a.zip")


def test_open_cine__broken_zip_and_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        open_cine(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no cine series found"):
        open_cine(tmp_path / "empty")


def test_open_cine__enhanced_multiframe_equals_single_frames(study: Path, tmp_path: Path) -> None:
    (single,) = open_cine(study)
    folder = tmp_path / "enhanced"
    folder.mkdir()
    enhanced(3, FRAMES).save_as(folder / "a", enforce_file_format=True)
    (cine,) = open_cine(folder)
    np.testing.assert_array_equal(cine.pixels, single.pixels)
    np.testing.assert_allclose(cine.affine, single.affine, atol=1e-4)
    np.testing.assert_allclose(cine.frame_times_ms, single.frame_times_ms)


@pytest.mark.shared
def test_open_cine__real_study(shared_data: Path) -> None:
    cines = open_cine(shared_data / "cmr_cine_dicom")
    assert [cine.view for cine in cines] == ["sax", "4ch", "3ch", "2ch", "2ch", "rvot"]
    sax = cines[0]
    assert sax.pixels.shape == (6, 25, 208, 256)
    assert sax.slice_spacing_mm == pytest.approx(17.7, abs=0.01)
    assert (np.diff(sax.frame_times_ms) > 30).all()
    step_ras = sax.affine[:3, 2]
    assert step_ras[0] < 0  # to the left
    assert step_ras[1] > 0  # to the front
    assert step_ras[2] < 0  # to the feet
    assert any("named 4ch" in note and "3ch" in note for note in cines[2].notes)
    off_axis = [any(flag.code == "off_axis" for flag in check_cine(cine)) for cine in cines]
    assert off_axis == [False, False, False, False, True, False]  # the second 2ch shows the right ventricle
    everything = repr([cine.notes for cine in cines])
    assert "1.2.826" not in everything
    assert "patient" not in everything
    for cine in cines:  # the columns of the affine are as long as the spacing says
        np.testing.assert_allclose(np.linalg.norm(cine.affine[:3, :2], axis=0), cine.spacing_mm[::-1], rtol=1e-5)


@pytest.mark.shared
def test_open_cine__sunnybrook_pairs_by_position(shared_data: Path) -> None:
    """Files 0028 and 0040 lie in one plane, 0020 and 0108 are alone in theirs: four complete slices."""
    folder = shared_data / "cmr_sunnybrook"
    with pytest.raises(ValueError, match=r"CINESAX.*1 frame\(s\), but 2"):
        open_cine(folder)
    (cine,) = open_cine(folder, incomplete="drop")
    assert cine.view == "sax"
    assert cine.pixels.shape == (4, 2, 256, 256)
    assert cine.slice_spacing_mm == pytest.approx(8.0, abs=0.01)
    np.testing.assert_array_equal(cine.frame_times_ms, [348.0, 929.0])
