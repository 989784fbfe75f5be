"""Folders of ACDC, M&Ms, M&Ms-2 and Sunnybrook: written here with known truth, broken in known ways; one real."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from cmr_layouts import ED, ES, hearts, relabel, save, write_acdc, write_mnms, write_mnms2
from dicom_files import write_stack
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon

from ecgcmr.cmr.quality import check_cine
from ecgcmr.cmr.readers import detect_layout, open_cine, open_study
from ecgcmr.cmr.readers.contours import fill_polygon
from ecgcmr.cmr.readers.nifti import MASK_LABELS


def truth() -> tuple[np.ndarray, np.ndarray]:
    """Image and masks (S, F, H, W) in our labels, masks of ED and ES only."""
    image, structures = hearts()
    masks = np.zeros_like(structures)
    masks[..., [ED, ES]] = structures[..., [ED, ES]]
    return image.transpose(2, 3, 1, 0), masks.transpose(2, 3, 1, 0)


@pytest.mark.parametrize("layout", [None, "acdc"])
def test_acdc__masks_go_to_their_frames_with_our_labels(tmp_path: Path, layout: str | None) -> None:
    study = open_study(write_acdc(tmp_path / "case001"), layout)
    (cine,) = study.cines
    image, masks = truth()
    np.testing.assert_array_equal(cine.pixels, image)
    np.testing.assert_array_equal(cine.masks, masks)
    assert dict(cine.mask_labels) == MASK_LABELS
    assert (study.layout, cine.view, cine.masked_frames) == ("acdc", "sax", (ED, ES))
    assert dict(study.phases[0]) == {"ed": ED, "es": ES}
    assert study.facts["Group"] == "DCM"
    assert cine.spacing_mm == pytest.approx((1.6, 1.5))
    assert cine.slice_spacing_mm == pytest.approx(9.0)
    assert any("found by" in note for note in study.notes) == (layout is None)
    assert not [flag for flag in check_cine(cine) if flag.code == "check_failed"]


def test_acdc__without_a_whole_cine_is_two_frames(tmp_path: Path) -> None:
    study = open_study(write_acdc(tmp_path / "case001", whole=False))
    (cine,) = study.cines
    image, masks = truth()
    np.testing.assert_array_equal(cine.pixels, image[:, [ED, ES]])
    np.testing.assert_array_equal(cine.masks, masks[:, [ED, ES]])
    assert dict(study.phases[0]) == {"ed": 0, "es": 1}
    assert cine.masked_frames is None
    assert np.isnan(cine.frame_times_ms).all()
    assert any("no whole cine" in note for note in cine.notes)


def test_acdc__slices_are_turned_by_the_masks(tmp_path: Path) -> None:
    """Files of the set run either way, and their headers do not tell."""
    (usual,) = open_study(write_acdc(tmp_path / "a")).cines
    (turned,) = open_study(write_acdc(tmp_path / "b", apex_first=True)).cines
    np.testing.assert_array_equal(turned.masks, usual.masks)
    assert any("slices turned" in note for note in turned.notes)
    assert any("from base to apex" in note for note in usual.notes)
    source = nibabel.load(tmp_path / "b" / "case001_4d.nii.gz")
    point = turned.affine @ [3, 4, 1, 1]
    x, y, z = np.rint(np.linalg.solve(source.affine, point)[:3]).astype(int)
    np.testing.assert_array_equal(turned.pixels[1, :, 4, 3], np.asarray(source.dataobj)[x, y, z])


def test_acdc__contradictions_are_refused(tmp_path: Path) -> None:
    image, structures = hearts()
    cases = {
        "values .* have no meaning": lambda folder: save(
            folder / "case001_frame01_gt.nii.gz", relabel(structures[..., 0], "acdc") * 2
        ),
        "its pixels are those of frame 6": lambda folder: save(folder / "case001_frame04.nii.gz", image[..., 5]),
        "has frames 1 to 8": lambda folder: save(folder / "case001_frame09_gt.nii.gz", structures[..., 0]),
        "ED is '12'": lambda folder: (folder / "Info.cfg").write_text("ED: 12\nES: 4\n"),
        "NbFrame is 30": lambda folder: (folder / "Info.cfg").write_text("ED: 1\nES: 4\nNbFrame: 30\n"),
        "line 2 is not 'key: value'": lambda folder: (folder / "Info.cfg").write_text("ED: 1\nES\n"),
        "those of 2": lambda folder: save(folder / "case002_4d.nii.gz", image),
        "mask has the grid": lambda folder: save(folder / "case001_frame01_gt.nii.gz", structures[:-1, ..., 0]),
        "with spacing": lambda folder: save(folder / "case001_frame01_gt.nii.gz", structures[..., 0], (1.0, 1.6, 9.0)),
    }
    for number, (match, spoil) in enumerate(cases.items()):
        folder = write_acdc(tmp_path / str(number))
        spoil(folder)
        with pytest.raises(ValueError, match=match) as caught:
            open_study(folder, "acdc")
        assert str(folder) in str(caught.value) or "frame" in str(caught.value)


def test_acdc__without_info_tells_ed_by_the_larger_cavity(tmp_path: Path) -> None:
    folder = write_acdc(tmp_path / "case001")
    (folder / "Info.cfg").unlink()
    study = open_study(folder)
    assert dict(study.phases[0]) == {"ed": ED, "es": ES}
    assert any("no Info.cfg" in note for note in study.cines[0].notes)


def test_mnms__table_and_masks_agree(tmp_path: Path) -> None:
    study = open_study(write_mnms(tmp_path))
    (cine,) = study.cines
    image, masks = truth()
    np.testing.assert_array_equal(cine.pixels, image)
    np.testing.assert_array_equal(cine.masks, masks)
    assert (study.layout, cine.view, cine.masked_frames) == ("mnms", "sax", (ED, ES))
    assert dict(study.phases[0]) == {"ed": ED, "es": ES}
    assert study.facts["VendorName"] == "Siemens"
    assert "External code" not in study.facts


def test_mnms__table_of_other_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labels on frames \[0, 3\], but the table says ED 1 and ES 4"):
        open_study(write_mnms(tmp_path / "a", ed=1, es=4))
    with pytest.raises(ValueError, match="the table says ES is '40'"):
        open_study(write_mnms(tmp_path / "b", es=40))


def test_mnms__empty_masks_are_no_masks(tmp_path: Path) -> None:
    study = open_study(write_mnms(tmp_path, labeled=False))
    (cine,) = study.cines
    assert cine.masks is None
    assert any("not labeled" in note for note in cine.notes)
    assert dict(study.phases[0]) == {"ed": ED, "es": ES}


def test_mnms__without_a_table_says_so(tmp_path: Path) -> None:
    folder = write_mnms(tmp_path)
    (tmp_path / "information.csv").unlink()
    study = open_study(folder)
    assert dict(study.phases[0]) == {"ed": ED, "es": ES}
    assert any("no table" in note for note in study.cines[0].notes)


@pytest.mark.parametrize("equal", [True, False])
def test_mnms2__both_views_with_ed_and_es_found_in_the_cine(tmp_path: Path, equal: bool) -> None:
    study = open_study(write_mnms2(tmp_path / "007", equal=equal))
    sax, four = study.cines
    assert (study.layout, sax.view, four.view) == ("mnms2", "sax", "4ch")
    image, masks = truth()
    np.testing.assert_array_equal(sax.pixels, image)
    np.testing.assert_array_equal(sax.masks, masks)
    assert [dict(phases) for phases in study.phases] == [{"ed": ED, "es": ES}] * 2
    assert four.pixels.shape[0] == 1
    assert four.slice_spacing_mm == 0.0
    assert study.facts["DISEASE"] == "HCM"
    assert any("most like it" in note for note in sax.notes) == (not equal)


def test_mnms2__without_cine_or_with_another_grid_is_two_frames(tmp_path: Path) -> None:
    without = open_study(write_mnms2(tmp_path / "a" / "007", cine=False))
    folder = write_mnms2(tmp_path / "b" / "007")
    save(folder / "007_SA_CINE.nii.gz", hearts()[0][:-2])
    other = open_study(folder)
    for study in (without, other):
        assert study.cines[0].pixels.shape[1] == 2
        assert dict(study.phases[0]) == {"ed": 0, "es": 1}
        assert study.cines[0].masked_frames is None
        assert study.cines[0].masks[:, 0].any()
    assert any("another grid" in note for note in other.cines[0].notes)


@pytest.mark.parametrize("preset", ["acdc", "mnms"])
def test_labels__are_told_apart_where_guessing_would_be_wrong(tmp_path: Path, preset: str) -> None:
    """The cavity of one set has the number of the right ventricle of the other: areas must come out equal."""
    study = open_study(write_acdc(tmp_path / "a") if preset == "acdc" else write_mnms(tmp_path / "b"))
    _, structures = hearts()
    for value, name in MASK_LABELS.items():
        here = (study.cines[0].masks == value).sum()
        assert here == (structures[..., [ED, ES]] == {"lv_cavity": 1, "lv_myocardium": 2, "rv_cavity": 3}[name]).sum()


def test_detect__states_what_it_found_or_asks(tmp_path: Path) -> None:
    acdc = write_acdc(tmp_path / "a")
    assert detect_layout(acdc)[0] == "acdc"
    assert detect_layout(write_mnms(tmp_path / "m"))[0] == "mnms"
    assert detect_layout(write_mnms2(tmp_path / "n" / "007"))[0] == "mnms2"
    assert detect_layout(write_stack(tmp_path / "d", 1, 2))[0] == "dicom"
    assert detect_layout(acdc / "case001_4d.nii.gz") == ("nifti", "a NIfTI file")
    shutil.copy(acdc / "case001_4d.nii.gz", acdc / "x_sa.nii.gz")
    with pytest.raises(ValueError, match=r"\['acdc', 'mnms'\].*say which"):
        detect_layout(acdc)
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        open_study(tmp_path / "absent")
    with pytest.raises(ValueError, match="layout must be one of"):
        open_study(acdc, "bids")
    with pytest.raises(ValueError, match="is that of a folder"):
        open_study(acdc / "Info.cfg", "acdc")


def test_open_study__of_dicom_and_plain_nifti(tmp_path: Path) -> None:
    study = open_study(write_stack(tmp_path / "d", 2, 3))
    assert (study.layout, len(study.cines), dict(study.phases[0])) == ("dicom", 1, {})
    (tmp_path / "n").mkdir()
    save(tmp_path / "n" / "cine.nii", hearts()[0])
    study = open_study(tmp_path / "n")
    assert (study.layout, len(study.cines)) == ("nifti", 1)


@pytest.mark.parametrize("writer", [write_acdc, write_mnms2], ids=["acdc", "mnms2"])
def test_open_cine__of_a_labeled_folder_is_its_study(tmp_path: Path, writer: object) -> None:
    folder = writer(tmp_path / "007")  # type: ignore[operator]
    for cine, whole in zip(open_cine(folder), open_study(folder).cines, strict=True):
        np.testing.assert_array_equal(cine.masks, whole.masks)
    with pytest.raises(ValueError, match="are for NIfTI files"):
        open_cine(folder, view="sax")


points = st.tuples(st.floats(-3, 14), st.floats(-3, 12))


@given(st.lists(points, min_size=3, max_size=9))
@settings(max_examples=200, deadline=None)
def test_fill_polygon__agrees_with_an_independent_winding_rule_where_polygons_are_simple(corners: list) -> None:
    """Sorted by angle around their middle the corners make a simple polygon; matplotlib knows its inside."""
    array = np.array(corners)
    away = array - array.mean(axis=0)
    array = array[np.argsort(np.arctan2(away[:, 1], away[:, 0]), kind="stable")]
    ours = fill_polygon(array, (10, 12))
    rows, columns = np.mgrid[:10, :12]
    centers = np.stack([columns.ravel(), rows.ravel()], axis=1)
    polygon = Polygon(np.vstack([array, array[:1]]), closed=True)
    inside = polygon.contains_points(centers, radius=0.0)
    # matplotlib takes either side on the border itself: only pixels off the border must agree
    edges = zip(array, np.roll(array, -1, axis=0), strict=True)
    near = np.zeros(len(centers), dtype=bool)
    for a, b in edges:
        along = b - a
        length = float(along @ along)
        share = np.clip((centers - a) @ along / length, 0, 1) if length > 0 else np.zeros(len(centers))
        near |= np.hypot(*(centers - a - share[:, None] * along).T) < 1e-6
    np.testing.assert_array_equal(ours.ravel()[~near], inside[~near])


def test_fill_polygon__neighbors_share_no_pixel_and_areas_are_exact() -> None:
    left = fill_polygon(np.array([[0, 0], [4, 0], [4, 6], [0, 6]], dtype=float), (8, 9))
    right = fill_polygon(np.array([[4, 0], [8, 0], [8, 6], [4, 6]], dtype=float), (8, 9))
    assert left.sum() == right.sum() == 24
    assert not (left & right).any()
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    circle = fill_polygon(np.stack([40 + 30 * np.cos(angle), 40 + 30 * np.sin(angle)], axis=1), (80, 80))
    assert circle.sum() == pytest.approx(np.pi * 900, rel=0.01)


def square(path: Path, low: float, high: float) -> None:
    path.write_text(f"{low} {low}\n{high} {low}\n{high} {high}\n{low} {high}\n")


def write_sunnybrook(folder: Path) -> Path:
    """Two slices of two phases, all with inner contours, one with an outer contour; contours below the images."""
    write_stack(folder, 2, 2)
    for path in sorted(folder.glob("*.dcm")):
        item = pydicom.dcmread(path)
        item.SeriesInstanceUID, item.SeriesNumber = "1.77", 9
        number = 20 * item.InstanceNumber + round(float(item.ImagePositionPatient[0]) > -20)
        item.save_as(folder / f"IM-0009-{number:04d}.dcm")
        path.unlink()
    (folder / "contours").mkdir()
    for number in (20, 21, 40, 41):
        square(folder / "contours" / f"IM-0001-{number:04d}-icontour-manual.txt", 1.0, 3.0)
    square(folder / "contours" / "IM-0001-0020-ocontour-manual.txt", 0.0, 4.0)
    return folder


def test_sunnybrook__contours_become_masks_of_their_image(tmp_path: Path) -> None:
    study = open_study(write_sunnybrook(tmp_path / "s"))
    (cine,) = study.cines
    assert (study.layout, cine.view, cine.pixels.shape[:2]) == ("sunnybrook", "sax", (2, 2))
    assert ((cine.masks == 1).sum(axis=(2, 3)) == 4).all()
    assert (cine.masks == 2).sum() == 16 - 4
    assert (cine.masks[0, 0] == 2).any()
    assert dict(cine.mask_labels) == {1: "lv_cavity", 2: "lv_myocardium"}
    assert any("myocardium not labeled: slice 1 frame 2, slice 2 frame 1" in note for note in cine.notes)


def test_sunnybrook__what_does_not_fit_is_refused(tmp_path: Path) -> None:
    cases = {
        "0077 have no image": lambda f: square(f / "contours" / "IM-0001-0077-icontour-manual.txt", 1, 3),
        "points outside the image": lambda f: square(f / "contours" / "IM-0001-0021-icontour-manual.txt", 1, 30),
        "line 1 must be two numbers": lambda f: (f / "contours" / "IM-0001-0021-icontour-manual.txt").write_text("1;2"),
        "at least three finite points": lambda f: (f / "contours" / "IM-0001-0021-icontour-manual.txt").write_text(
            "1 2\n3 4\n"
        ),
        "same four digits": lambda f: shutil.copy(f / "IM-0009-0020.dcm", f / "IM-0008-0020.dcm"),
    }
    for number, (match, spoil) in enumerate(cases.items()):
        folder = write_sunnybrook(tmp_path / str(number))
        spoil(folder)
        with pytest.raises(ValueError, match=match):
            open_study(folder, "sunnybrook")


@pytest.mark.shared
def test_sunnybrook__real_contours_enclose_bright_blood(shared_data: Path) -> None:
    """Cavities shrink from ED to ES in every slice, and hold the blood: brighter than the ring around them."""
    study = open_study(shared_data / "cmr_sunnybrook", incomplete="drop")
    (cine,) = study.cines
    assert study.layout == "sunnybrook"
    phases = study.phases[0]
    sizes = (cine.masks == 1).sum(axis=(2, 3))
    assert (sizes[:, phases["ed"]] > 1.8 * sizes[:, phases["es"]]).all()
    for s in range(cine.pixels.shape[0]):
        for f in range(cine.pixels.shape[1]):
            inside = cine.masks[s, f] == 1
            ring = np.zeros_like(inside)
            for dy in range(-5, 6):
                for dx in range(-5, 6):
                    ring |= np.roll(inside, (dy, dx), axis=(0, 1))
            ring &= ~inside
            assert cine.pixels[s, f][inside].mean() > 1.15 * np.median(cine.pixels[s, f][ring])
    assert sum("left out" in note for note in cine.notes) == 2
