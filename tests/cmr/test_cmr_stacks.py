"""Stacks of a study: order, what is missing or double by slice and frame, gaps, other frame counts, biobank zips."""

from __future__ import annotations

import logging
import shutil
import zipfile
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import (
    FRAMES,
    STEP_MS,
    STUDY,
    enhanced,
    find_frame,
    make_frame,
    pixel_value,
    write_frame,
    write_plane,
    write_stack,
    zipped,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless, generate_uid

from ecgcmr.cmr.geometry import APEX_LPS
from ecgcmr.cmr.quality import check_cine
from ecgcmr.cmr.readers import open_cine
from ecgcmr.cmr.readers.dicom_header import WANTED, _walk


def test_missing_frame__is_named_by_slice_from_the_base_and_by_frame(tmp_path: Path) -> None:
    folder = write_stack(tmp_path / "s")
    find_frame(folder, 1, 4).unlink()
    with pytest.raises(ValueError, match=r"slice 2 of 3.*after frame 4 of 9: frame 5 at about TriggerTime 160 ms"):
        open_cine(folder)


def test_double_frame__is_named_by_slice_and_frame(tmp_path: Path) -> None:
    folder = write_stack(tmp_path / "s")
    item = pydicom.dcmread(find_frame(folder, 2, 6))
    item.PixelData = b"\1" * len(item.PixelData)
    item.InstanceNumber = 77
    item.save_as(folder / "again.dcm")
    with pytest.raises(ValueError, match=r"slice 3 of 3.*two different frames at TriggerTime 240 ms \(frame 7,"):
        open_cine(folder)
    (cine,) = open_cine(folder, incomplete="drop")
    assert cine.pixels.shape[0] == 2
    assert any("slice 3 of 3" in note for note in cine.notes)


def test_frames__follow_trigger_time_whatever_names_and_numbers_say(tmp_path: Path) -> None:
    series = generate_uid()
    order = np.random.default_rng(1).permutation(FRAMES)
    for place, frame in enumerate(order):
        write_frame(tmp_path / f"{place:02d}.dcm", 0, int(frame), series, InstanceNumber=FRAMES - place)
    (cine,) = open_cine(tmp_path)
    np.testing.assert_array_equal(cine.pixels[0, :, 0, 0], [pixel_value(0, f) for f in range(FRAMES)])


def test_missing_slice__is_a_named_gap_and_not_squeezed_away(tmp_path: Path) -> None:
    folder = write_stack(tmp_path / "s", n_slices=6)
    for frame in range(FRAMES):
        find_frame(folder, 2, frame).unlink()
    (cine,) = open_cine(folder)
    assert cine.pixels.shape[0] == 5
    assert cine.slice_spacing_mm == pytest.approx(10.0, abs=1e-3)
    np.testing.assert_allclose(cine.slice_offsets_mm, [0, 10, 30, 40, 50], atol=1e-3)
    assert any(
        "gap between slice 2 and slice 3: 20.0 mm" in note and "1 slice(s) missing" in note for note in cine.notes
    )
    flags = {flag.code: flag.detail for flag in check_cine(cine)}
    assert "slices 2 and 3 are 20.0 mm apart" in flags["slice_gap"]


def test_even_stack__has_no_offsets(tmp_path: Path) -> None:
    (cine,) = open_cine(write_stack(tmp_path / "s", n_slices=4))
    assert cine.slice_offsets_mm is None
    assert not any("gap" in note for note in cine.notes)


def write_slice(folder: Path, index: int, n_frames: int, step_ms: float, declared: int | None) -> None:
    series = generate_uid()
    promised = {} if declared is None else {"CardiacNumberOfImages": declared}
    for frame in range(n_frames):
        write_frame(
            folder / f"{index}-{frame}.dcm", index, frame, series, TriggerTime=f"{frame * step_ms:g}", **promised
        )


@pytest.mark.parametrize("declared", [True, False])
def test_other_frame_count__of_a_whole_slice_is_sampled_at_the_phases_of_the_others(
    tmp_path: Path, declared: bool
) -> None:
    """Twenty frames in 800 ms beside ten in 800 ms: every second one is used, at its own time."""
    for index in (0, 2):
        write_slice(tmp_path, index, 10, 80.0, 10 if declared else None)
    write_slice(tmp_path, 1, 14, 800.0 / 14, 14 if declared else None)
    (cine,) = open_cine(tmp_path)
    assert cine.pixels.shape[:2] == (3, 10)
    chosen = np.rint(np.arange(10) * 1.4).astype(int)
    np.testing.assert_array_equal(cine.pixels[1, :, 0, 0], [pixel_value(1, f) for f in chosen])
    assert any("14 frames where most slices have 10" in note for note in cine.notes)


def test_other_frame_count__that_could_be_a_lost_frame_is_refused(tmp_path: Path) -> None:
    write_slice(tmp_path, 0, 10, 80.0, None)
    write_slice(tmp_path, 1, 9, 80.0, None)
    write_slice(tmp_path, 2, 10, 80.0, None)
    with pytest.raises(ValueError, match=r"slice 2 of 3.*9 frame\(s\), but 10.*missing frame 10 at TriggerTime 720 ms"):
        open_cine(tmp_path)


def test_one_frame_too_many__is_refused_with_both_counts(tmp_path: Path) -> None:
    for index, count in enumerate((10, 11, 10)):
        write_slice(tmp_path, index, count, 80.0, None)
    with pytest.raises(ValueError, match=r"slice 2 of 3.*11 frame\(s\), but 10 in most slices.*or they lost some"):
        open_cine(tmp_path)
    (cine,) = open_cine(tmp_path, incomplete="drop")
    np.testing.assert_allclose(cine.pixels[:, 0, 0, 0], [pixel_value(0, 0), pixel_value(2, 0)])


def test_damaged_slice__that_was_acquired_again_stops_nothing(tmp_path: Path) -> None:
    folder = write_stack(tmp_path / "s")
    find_frame(folder, 1, 4).unlink()
    series = generate_uid()
    for frame in range(FRAMES):
        write_frame(folder / f"again{frame}.dcm", 1, frame, series, SeriesNumber=2, SeriesDescription="sax again")
    (cine,) = open_cine(folder)
    assert cine.pixels.shape[:2] == (3, FRAMES)
    assert any("acquired again" in note and "which is whole" in note for note in cine.notes)


def biobank_zip(path: Path) -> Path:
    """A short-axis zip as the biobank packs them: series b1, b2, ..., derived copies of some, and a manifest."""
    folder = write_stack(path.parent / "flat", n_slices=4)
    series = generate_uid()
    for index in (1, 2):
        for frame in range(0, FRAMES, 3):  # analysis results exist for some frames only
            write_frame(
                folder / f"vf{index}{frame}.dcm",
                index,
                frame,
                series,
                SeriesDescription="CINE_segmented_SAX_InlineVF",
                SeriesNumber=60,
                ImageType=["DERIVED", "SECONDARY", "M"],
                PixelData=b"\7" * 96,
            )
    names = sorted(item.name for item in folder.iterdir())
    lines = [f'{name},X,Y,"May 5, 2019, 10:00:00"' for name in names]
    (folder / "manifest.cvs").write_text("filename,a,b,date\n" + "\n".join([*lines, "lost.dcm,X,Y,"]))
    return zipped(folder, path)


def test_biobank_zip__uses_the_originals_and_checks_the_manifest(tmp_path: Path) -> None:
    path = biobank_zip(tmp_path / "a_20209_2_0.zip")
    before = sorted(tmp_path.rglob("*"))
    (cine,) = open_cine(path)
    assert sorted(tmp_path.rglob("*")) == before, "something was unpacked to disk"
    assert cine.pixels.shape[:2] == (4, FRAMES)
    np.testing.assert_array_equal(cine.pixels[1, :, 0, 0], [pixel_value(1, f) for f in range(FRAMES)])
    assert any("manifest lists 1 DICOM file(s) that are not there" in note for note in cine.notes)


def test_zip_of_zips__equals_the_folder(tmp_path: Path) -> None:
    folder = write_stack(tmp_path / "s")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(zipped(folder, tmp_path / "inner.zip"), "deep/inner.zip")
    (direct,), (nested,) = open_cine(folder), open_cine(tmp_path / "outer.zip")
    np.testing.assert_array_equal(direct.pixels, nested.pixels)
    with zipfile.ZipFile(tmp_path / "third.zip", "w") as archive:
        archive.write(tmp_path / "outer.zip", "outer.zip")
    with pytest.raises(ValueError, match="a zip within a zip within a zip"):
        open_cine(tmp_path / "third.zip")


@pytest.mark.parametrize("name", ["../evil.dcm", "/etc/evil", "C:\\evil"])
def test_inner_zip__may_not_lead_outside_either(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as archive:
        archive.writestr(name, b"x")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "inner.zip", "inner.zip")
    with pytest.raises(ValueError, match="leads outside the archive"):
        open_cine(tmp_path / "outer.zip")


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless], ids=["rle", "jpeg2000"])
def test_compressed__equals_uncompressed(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    """JPEG 2000 is packed by Pillow, which is not the code that the reader asks for decoding of DICOM."""
    pixels = np.random.default_rng(0).integers(0, 4000, (3, 6, 8)).astype(np.uint16)
    for frame in range(3):
        item = make_frame(0, frame, "1.5", PixelData=pixels[frame].tobytes())
        if syntax == RLELossless:
            item.compress(syntax)
        else:
            image = pytest.importorskip("PIL.Image")
            packed = tmp_path / "a.j2k"
            image.fromarray(pixels[frame]).save(packed, irreversible=False, no_jp2=True)
            item.PixelData = pydicom.encaps.encapsulate([packed.read_bytes()])
            packed.unlink()
            item["PixelData"].VR, item["PixelData"].is_undefined_length = "OB", True
            item.file_meta.TransferSyntaxUID = syntax
        item.save_as(tmp_path / f"{frame}.dcm", enforce_file_format=True)
    (cine,) = open_cine(tmp_path)
    np.testing.assert_array_equal(cine.pixels[0], pixels)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian], ids=["implicit", "big-endian"])
def test_other_encodings__equal_explicit_little_endian(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    folder = write_stack(tmp_path / "plain", 2, 3)
    (tmp_path / "other").mkdir()
    for path in sorted(folder.iterdir()):
        item = pydicom.dcmread(path)
        big = syntax == ExplicitVRBigEndian
        if big:
            item.PixelData = item.pixel_array.astype(">u2").tobytes()
        item.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(
            tmp_path / "other" / path.name, item, implicit_vr=not big, little_endian=not big, enforce_file_format=True
        )
    (plain,), (other,) = open_cine(folder), open_cine(tmp_path / "other")
    np.testing.assert_array_equal(plain.pixels, other.pixels)
    np.testing.assert_array_equal(plain.affine, other.affine)
    assert plain.notes == other.notes


def test_unused_bits__and_inverted_gray_are_undone(tmp_path: Path) -> None:
    for frame in range(3):
        value = 0xF000 | (frame + 5)  # an overlay in the four unused bits
        data = np.full((6, 8), value, dtype=np.uint16).tobytes()
        write_frame(tmp_path / f"{frame}.dcm", 0, frame, "1.5", BitsStored=12, HighBit=11, PixelData=data)
    (cine,) = open_cine(tmp_path)
    np.testing.assert_array_equal(cine.pixels[0, :, 0, 0], [5, 6, 7])
    for path in sorted(tmp_path.iterdir()):
        item = pydicom.dcmread(path)
        item.PhotometricInterpretation = "MONOCHROME1"
        item.save_as(path)
    (cine,) = open_cine(tmp_path)
    np.testing.assert_array_equal(cine.pixels[0, :, 0, 0], [4090, 4089, 4088])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"AcquisitionDateTime": "20190505101112.5"}, datetime(2019, 5, 5, 10, 11, 12)),
        ({"AcquisitionDate": "20190505", "AcquisitionTime": "101112"}, datetime(2019, 5, 5, 10, 11, 12)),
        ({"StudyDate": "20190504"}, datetime(2019, 5, 4)),
        ({"StudyDate": "20191399", "ContentDate": "20190506"}, datetime(2019, 5, 6)),
        ({}, None),
    ],
)
def test_recorded_at__is_the_first_acquisition(tmp_path: Path, fields: dict, expected: datetime | None) -> None:
    (cine,) = open_cine(write_stack(tmp_path / "s", 2, 3, **fields))
    assert cine.recorded_at == expected


def test_recorded_at__is_never_stored_in_a_cohort(tmp_path: Path) -> None:
    from ecgcmr.cohort.ingest import ingest
    from ecgcmr.cohort.ingest_options import IngestOptions

    write_stack(tmp_path / "cmr" / "one", 2, 3, AcquisitionDate="20190505", AcquisitionTime="101112")
    out = tmp_path / "cohort"
    ingest(IngestOptions(out=out, cmr=tmp_path / "cmr"))
    for path in out.rglob("*"):
        if path.is_file():
            assert b"20190505" not in path.read_bytes()
            assert b"2019-05-05" not in path.read_bytes()


def test_nothing_of_a_person__reaches_messages_notes_or_logs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_stack(tmp_path / "s", 2, 4, PatientName="Doe^Jane", AccessionNumber="ACC-777")
    path = find_frame(folder, 0, 1)
    data = path.read_bytes()
    texts = []
    with caplog.at_level(logging.DEBUG):
        for at in range(140, len(data), 37):
            path.write_bytes(data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :])
            try:
                texts += [repr(cine.notes) for cine in open_cine(folder)]
            except ValueError as error:
                texts.append(str(error) + repr(error.__cause__))
    everything = "\n".join(texts) + caplog.text
    for secret in ("Doe", "Jane", "ID-12345", "ACC-777", STUDY[-12:]):
        assert secret not in everything


def header_bytes(value: str) -> bytes:
    import io

    stream = io.BytesIO()
    make_frame(0, 0, "1.5", SeriesDescription=value, ImageComments="x").save_as(stream, enforce_file_format=True)
    return stream.getvalue()


@given(st.text(st.characters(codec="ascii", exclude_characters="\\\0", min_codepoint=32), max_size=40))
@settings(max_examples=60, deadline=None)
def test_plain_walk__gives_what_pydicom_gives(text: str) -> None:
    """The two parsers are independent; whatever the fast one accepts must be the same."""
    import io

    data = header_bytes(text)
    fast, slow = _walk(data), pydicom.dcmread(io.BytesIO(data))
    assert fast is not None
    for name in WANTED:
        value = slow.get(name)
        if value in (None, ""):
            assert name not in fast or name == "SeriesDescription"
        elif name == "PixelData":
            assert bytes(fast[name]) == value
        else:
            ours = fast[name] if isinstance(fast[name], list) else [fast[name]]
            theirs = list(value) if isinstance(value, pydicom.multival.MultiValue) else [value]
            assert [str(one).strip() for one in ours] == [str(one).strip() for one in theirs], name


def test_plain_walk__skips_sequences_of_undefined_length(tmp_path: Path) -> None:
    """Scanners write referenced images so; the walk must come out at the same element after them."""
    import io

    item = make_frame(0, 0, "1.5")
    inner = pydicom.Dataset()
    inner.ReferencedSOPInstanceUID = "1.2.3"
    outer = pydicom.Dataset()
    outer.ReferencedImageSequence = pydicom.Sequence([inner, inner])
    outer["ReferencedImageSequence"].is_undefined_length = True
    outer.is_undefined_length_sequence_item = True
    item.ReferencedImageSequence = pydicom.Sequence([outer])
    item["ReferencedImageSequence"].is_undefined_length = True
    stream = io.BytesIO()
    item.save_as(stream, enforce_file_format=True)
    assert b"\xff\xff\xff\xff" in stream.getvalue()
    fast = _walk(stream.getvalue())
    assert fast is not None
    assert fast["InstanceNumber"] == "1"
    assert bytes(fast["PixelData"]) == item.PixelData
    assert _walk(stream.getvalue()[:-7]) is None


def test_enhanced__with_fewer_descriptions_than_frames_is_cut_off(tmp_path: Path) -> None:
    item = enhanced(2, 4)
    item.PerFrameFunctionalGroupsSequence = item.PerFrameFunctionalGroupsSequence[:-1]
    item.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(ValueError, match="promises 8 frames and describes 7"):
        open_cine(tmp_path)


def test_impossible_header_values__are_refused_by_name(tmp_path: Path) -> None:
    for changes, match in (
        ({"PixelSpacing": ["0", "1"]}, "pixel spacing"),
        ({"ImagePositionPatient": ["1e9", "0", "0"]}, "position"),
        ({"RescaleSlope": "0"}, "RescaleSlope 0"),
    ):
        write_frame(tmp_path / "a.dcm", 0, 0, "1.5", **changes)
        with pytest.raises(ValueError, match=match):
            open_cine(tmp_path)


def test_biobank_long_axis_zip__names_views_without_a_short_axis(tmp_path: Path) -> None:
    """Field 20208 holds no short-axis stack, and here the names are gone too."""
    left = np.array([1.0, 0.0, 0.0]) - APEX_LPS[0] * APEX_LPS
    left /= np.linalg.norm(left)
    for number, (angle, _) in enumerate(((8.0, "4ch"), (66.0, "2ch"), (128.0, "3ch")), start=1):
        cut = np.cos(np.radians(angle)) * left + np.sin(np.radians(angle)) * np.cross(APEX_LPS, left)
        write_plane(tmp_path / "lax", np.cross(APEX_LPS, cut), np.array([20.0, -30.0, 10.0]), "cine", number)
    cines = open_cine(zipped(tmp_path / "lax", tmp_path / "a_20208_2_0.zip"))
    assert [cine.view for cine in cines] == ["4ch", "2ch", "3ch"]
    assert all(any("where the long-axis planes cut one another" in note for note in cine.notes) for cine in cines)
    shutil.rmtree(tmp_path / "lax")


def test_times__of_slices_are_their_own_until_averaged(tmp_path: Path) -> None:
    for index, step in enumerate((40.0, 44.0)):
        write_slice(tmp_path, index, 10, step, 10)
    (cine,) = open_cine(tmp_path)
    np.testing.assert_allclose(cine.frame_times_ms, np.arange(10) * 42.0)
    assert any("differ between slices by up to 36 ms" in note for note in cine.notes)
    assert STEP_MS == 40.0


@pytest.mark.parametrize("seed", range(4))
def test_names_folders_and_zips__change_nothing(tmp_path: Path, seed: int) -> None:
    """The same frames under other names, spread over folders and zips, are the same cine."""
    rng = np.random.default_rng(seed)
    folder = write_stack(tmp_path / "s", 3, 6)
    (before,) = open_cine(folder)
    mixed = tmp_path / "mixed"
    (mixed / "a" / "b").mkdir(parents=True)
    parts: dict[str, zipfile.ZipFile] = {name: zipfile.ZipFile(mixed / f"{name}.zip", "w") for name in "xy"}
    for path, number in zip(sorted(folder.iterdir()), rng.permutation(100), strict=False):
        place = rng.choice(["a", "a/b", "x", "y"])
        if place in parts:
            parts[place].write(path, f"deep/{number}")
        else:
            shutil.copy(path, mixed / place / f"{number}.ima")
    for archive in parts.values():
        archive.close()
    (after,) = open_cine(mixed)
    np.testing.assert_array_equal(before.pixels, after.pixels)
    np.testing.assert_array_equal(before.affine, after.affine)
    np.testing.assert_array_equal(before.frame_times_ms, after.frame_times_ms)


def test_memory__is_about_twice_the_pixels(tmp_path: Path) -> None:
    import tracemalloc

    folder = tmp_path / "s"
    folder.mkdir()
    side, noise = 192, np.random.default_rng(0)
    for index in range(4):
        series = generate_uid()
        for frame in range(8):
            data = noise.integers(0, 4000, (side, side)).astype(np.uint16).tobytes()
            write_frame(folder / f"{index}-{frame}", index, frame, series, Rows=side, Columns=side, PixelData=data)
    path = zipped(folder, tmp_path / "a.zip")
    tracemalloc.start()
    (cine,) = open_cine(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.6 * cine.pixels.nbytes


@pytest.mark.shared
@pytest.mark.parametrize("description", ["", "cine_4ch", "localizer"])
def test_real_study__has_its_views_from_geometry_alone(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, description: str
) -> None:
    """All names removed, or all the same and wrong: the planes alone tell."""
    from dataclasses import replace

    from ecgcmr.cmr.readers import dicom

    load = dicom.load_frames

    def renamed(path: Path, max_bytes: int) -> tuple[list, tuple[str, ...]]:
        frames, notes = load(path, max_bytes)
        return [replace(frame, description=description) for frame in frames], notes

    monkeypatch.setattr(dicom, "load_frames", renamed)
    cines = open_cine(shared_data / "cmr_cine_dicom")
    assert [cine.view for cine in cines] == ["sax", "4ch", "3ch", "2ch", "2ch", "rvot"]


@pytest.mark.shared
def test_real_study__equals_an_independent_reading(shared_data: Path) -> None:
    """Every frame of every series, by pydicom alone: sorted by TriggerTime, placed by ImagePositionPatient."""
    import io

    planes: dict[tuple, list] = {}
    for path in sorted((shared_data / "cmr_cine_dicom").glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                item = pydicom.dcmread(io.BytesIO(archive.read(name)))
                planes.setdefault(tuple(item.ImagePositionPatient), []).append(item)
    assert len(planes) == 11
    found = 0
    for cine in open_cine(shared_data / "cmr_cine_dicom"):
        for index in range(cine.pixels.shape[0]):
            right, front, up = (cine.affine @ [0, 0, index, 1])[:3]
            place = min(planes, key=lambda key: np.hypot(key[0] + right, key[1] + front) + abs(key[2] - up))
            items = sorted(planes[place], key=lambda item: float(item.TriggerTime))
            np.testing.assert_allclose(place, [-right, -front, up], atol=0.5)
            np.testing.assert_array_equal(cine.pixels[index], np.stack([item.pixel_array for item in items]))
            found += len(items)
    assert found == 275
