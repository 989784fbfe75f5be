"""NIfTI cines: round trips, units, masks, damaged files."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from ecgcmr.cmr.geometry import APEX_LPS, LPS_TO_RAS
from ecgcmr.cmr.readers import open_cine
from ecgcmr.cmr.readers.nifti import MASK_LABELS

SHAPE = (7, 6, 4, 5)  # x, y, slice, time


def sax_affine(flip_rows: bool = False, apex_first: bool = False) -> np.ndarray:
    """RAS affine of a short-axis stack whose columns grow to the left and whose rows grow to the back."""
    left = np.cross(APEX_LPS, [0.0, 0.0, 1.0])
    left *= np.sign(left[0]) / np.linalg.norm(left)
    back = np.cross(left, APEX_LPS)
    back *= np.sign(back[1])
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = 1.4 * left, 1.6 * back * (-1 if flip_rows else 1)
    affine[:3, 2] = 9.0 * APEX_LPS * (-1 if apex_first else 1)
    affine[:3, 3] = [10, -20, 30]
    return LPS_TO_RAS @ affine


def write(path: Path, data: np.ndarray, affine: np.ndarray, step: float = 0.03, unit: str = "sec") -> Path:
    image = nibabel.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", unit)
    zooms = list(image.header.get_zooms())
    if data.ndim == 4:
        zooms[3] = step
    image.header.set_zooms(zooms)
    nibabel.save(image, path)
    return path


@pytest.fixture
def data() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)


def test_open_cine__round_trip(tmp_path: Path, data: np.ndarray) -> None:
    (cine,) = open_cine(write(tmp_path / "sa.nii.gz", data, sax_affine()))
    np.testing.assert_array_equal(cine.pixels, data.transpose(2, 3, 1, 0))
    np.testing.assert_allclose(cine.affine, sax_affine(), atol=1e-5)
    assert cine.spacing_mm == pytest.approx((1.6, 1.4))
    assert cine.slice_spacing_mm == pytest.approx(9.0)
    np.testing.assert_allclose(cine.frame_times_ms, np.arange(5) * 30.0, rtol=1e-6)
    assert (cine.view, cine.source) == ("sax", "nifti")


@pytest.mark.parametrize("flip_rows", [False, True])
@pytest.mark.parametrize("apex_first", [False, True])
def test_open_cine__turns_to_display_and_keeps_every_pixel_in_place(
    tmp_path: Path, data: np.ndarray, flip_rows: bool, apex_first: bool
) -> None:
    """The same intensity stays at the same point of the body, whatever order the file had."""
    affine = sax_affine(flip_rows, apex_first)
    (cine,) = open_cine(write(tmp_path / "stack.nii", data, affine))
    np.testing.assert_allclose(cine.affine[:3, :3], sax_affine()[:3, :3], atol=1e-5)
    for x, y, z in [(0, 0, 0), (6, 1, 3), (2, 5, 1)]:
        point = affine @ [x, y, z, 1]
        column, row, index = np.rint(np.linalg.solve(cine.affine, point)[:3]).astype(int)
        np.testing.assert_array_equal(cine.pixels[index, :, row, column], data[x, y, z])


def test_open_cine__transposed_file_is_turned(tmp_path: Path, data: np.ndarray) -> None:
    affine = sax_affine()
    (straight,) = open_cine(write(tmp_path / "a.nii", data, affine))
    (turned,) = open_cine(write(tmp_path / "b.nii", data.transpose(1, 0, 2, 3), affine[:, [1, 0, 2, 3]]))
    np.testing.assert_array_equal(straight.pixels, turned.pixels)
    np.testing.assert_allclose(straight.affine, turned.affine, atol=1e-5)
    assert straight.spacing_mm == pytest.approx(turned.spacing_mm)


def test_open_cine__lost_orientation_keeps_the_order_and_says_so(tmp_path: Path, data: np.ndarray) -> None:
    (cine,) = open_cine(write(tmp_path / "a.nii", data, np.diag([1.5, 1.5, 10.0, 1.0])))
    assert cine.view == "sax"
    np.testing.assert_array_equal(cine.pixels, data.transpose(2, 3, 1, 0))
    assert any("orientation is not that of a short axis" in note for note in cine.notes)


@pytest.mark.parametrize(
    ("step", "unit", "expected", "note"),
    [
        (0.03, "sec", 30.0, None),
        (30.0, "msec", 30.0, None),
        (30.0, "sec", 30.0, "read as msec"),
        (1.0, "sec", None, "unknown"),
    ],
)
def test_open_cine__time_unit_is_checked(
    tmp_path: Path, data: np.ndarray, step: float, unit: str, expected: float | None, note: str | None
) -> None:
    (cine,) = open_cine(write(tmp_path / "a.nii", data, sax_affine(), step, unit))
    if expected is None:
        assert np.isnan(cine.frame_times_ms).all()
    else:
        np.testing.assert_allclose(np.diff(cine.frame_times_ms), expected, rtol=1e-5)
    assert (note is None) == (cine.notes == ())
    assert note is None or note in cine.notes[0]


@pytest.mark.parametrize(("preset", "cavity", "rv"), [("ukbb", 1, 3), ("acdc", 3, 1), ("mnms", 1, 3)])
def test_open_cine__mask_presets_become_our_labels(
    tmp_path: Path, data: np.ndarray, preset: str, cavity: int, rv: int
) -> None:
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[1], mask[2], mask[3] = cavity, 2, rv
    path, affine = write(tmp_path / "a.nii", data, sax_affine()), sax_affine()
    (cine,) = open_cine(path, mask=write(tmp_path / "m.nii.gz", mask, affine), mask_labels=preset)
    assert cine.masks is not None
    assert dict(cine.mask_labels) == MASK_LABELS
    for x, value in ((0, 0), (1, 1), (2, 2), (3, 3)):
        assert (cine.masks[:, :, :, x] == value).all()


def test_open_cine__mask_that_does_not_fit_is_refused(tmp_path: Path, data: np.ndarray) -> None:
    path = write(tmp_path / "a.nii", data, sax_affine())
    strange = write(tmp_path / "m.nii", np.full(SHAPE, 7, dtype=np.uint8), sax_affine())
    with pytest.raises(ValueError, match=r"mask values \[7.0\]"):
        open_cine(path, mask=strange, mask_labels="acdc")
    with pytest.raises(ValueError, match="say what the mask values mean"):
        open_cine(path, mask=strange)
    moved = sax_affine()
    moved[0, 3] += 5
    with pytest.raises(ValueError, match="resample it"):
        open_cine(path, mask=write(tmp_path / "n.nii", np.zeros(SHAPE, dtype=np.uint8), moved), mask_labels="acdc")


def test_open_cine__three_axes_need_a_word(tmp_path: Path, data: np.ndarray) -> None:
    path = write(tmp_path / "a.nii", data[:, :, 0], sax_affine())
    with pytest.raises(ValueError, match="third_axis"):
        open_cine(path)
    (cine,) = open_cine(path, third_axis="time", view="2ch")
    assert cine.pixels.shape == (1, 5, 6, 7)
    assert cine.view == "2ch"


def test_open_cine__truncated_gz_names_the_file(tmp_path: Path, data: np.ndarray) -> None:
    path = write(tmp_path / "sa.nii.gz", data, sax_affine())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"sa\.nii\.gz.*cut off"):
        open_cine(path)
    with pytest.raises(FileNotFoundError, match="absent"):
        open_cine(tmp_path / "absent.nii")


def test_open_cine__size_is_bounded(tmp_path: Path, data: np.ndarray) -> None:
    with pytest.raises(ValueError, match="more than the limit"):
        open_cine(write(tmp_path / "a.nii.gz", data, sax_affine()), max_bytes=100)


def test_open_cine__options_belong_to_their_format(tmp_path: Path, data: np.ndarray) -> None:
    assert len(open_cine(write(tmp_path / "a.nii", data, sax_affine()), incomplete="drop")) == 1
    with pytest.raises(ValueError, match=r"\['mask_labels'\] are for NIfTI"):
        open_cine(tmp_path, mask_labels="acdc")


@pytest.mark.parametrize("spacing", [1e-30, 0.001, 5000.0])
def test_open_cine__impossible_spacing_is_refused(tmp_path: Path, data: np.ndarray, spacing: float) -> None:
    affine = sax_affine()
    affine[:3, 0] *= spacing / 1.4
    with pytest.raises(ValueError, match=r"a\.nii: .*(spacing|cannot be read as NIfTI)"):
        open_cine(write(tmp_path / "a.nii", data, affine))


def test_open_cine__flat_affine_is_refused(tmp_path: Path, data: np.ndarray) -> None:
    path = write(tmp_path / "a.nii", data, sax_affine())
    image = nibabel.load(path)
    image.header["sform_code"], image.header["qform_code"] = 1, 0
    image.header["srow_x"], image.header["srow_y"], image.header["srow_z"] = [2, 2, 0, 0], [1, 1, 0, 0], [0, 0, 9, 0]
    path.write_bytes(nibabel.Nifti1Image(data, None, image.header).to_bytes())
    with pytest.raises(ValueError, match="axes of the image into one plane"):
        open_cine(path)
