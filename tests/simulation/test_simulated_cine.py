from dataclasses import replace

import numpy as np
import pytest

from ecgcmr.cmr.cine import Cine
from ecgcmr.simulation.cine import Grid, render_mid3, render_sax
from ecgcmr.simulation.design import Design
from ecgcmr.simulation.four_chamber import render_4ch
from ecgcmr.simulation.heart import Heart
from ecgcmr.simulation.motion import move
from ecgcmr.simulation.phenotypes import MYOCARDIAL_DENSITY, RING, es_frame, measure, volume_curves
from ecgcmr.simulation.population import draw_heart
from ecgcmr.simulation.scanner import ImagingDesign

THIN = Grid(n_slices=48, spacing_mm=1.8)


def _volumes_ml(cine: Cine, label: int) -> np.ndarray:
    """Volume (F,) of a label by counting voxels [ml]."""
    assert cine.masks is not None
    voxel = cine.spacing_mm[0] * cine.spacing_mm[1] * cine.slice_spacing_mm / 1000
    return (cine.masks == label).sum(axis=(0, 2, 3)) * voxel


@pytest.fixture(scope="module")
def heart() -> Heart:
    return replace(draw_heart(Design(), 5, 3), delay_ms=np.linspace(0.0, 50.0, 17))


@pytest.fixture(scope="module")
def stack(heart: Heart) -> Cine:
    return render_sax(heart)


@pytest.mark.parametrize("subject", range(6))
def test_render_sax__mask_volumes_equal_the_measured_ones(subject: int) -> None:
    heart = draw_heart(Design(), 21, subject)
    values, end = measure(heart), es_frame(heart)
    cine = render_sax(heart, frames=[0, end], grid=THIN)
    lv, wall, rv = (_volumes_ml(cine, label) for label in (1, 2, 3))
    assert lv[0] == pytest.approx(values["LVEDV"], rel=0.03)
    assert lv[1] == pytest.approx(values["LVESV"], rel=0.03)
    np.testing.assert_allclose(MYOCARDIAL_DENSITY * wall, values["LVM"], rtol=0.05)
    assert rv[0] == pytest.approx(values["RVEDV"], rel=0.03)
    assert rv[1] == pytest.approx(values["RVESV"], rel=0.03)
    assert 100 * (1 - lv[1] / lv[0]) == pytest.approx(values["LVEF"], abs=2.0)


def test_render_sax__clinical_stack_gives_volume_and_mass_within_a_few_percent() -> None:
    errors = []
    for subject in range(6):
        heart = draw_heart(Design.healthy(), 22, subject)
        cine = render_sax(heart, frames=[0])
        values = measure(heart)
        errors.append(
            [_volumes_ml(cine, 1)[0] / values["LVEDV"] - 1, 1.05 * _volumes_ml(cine, 2)[0] / values["LVM"] - 1]
        )
    assert np.abs(errors).max() < 0.06
    assert np.abs(np.mean(errors, axis=0)).max() < 0.03


def test_render_sax__shape_times_and_labels(heart: Heart, stack: Cine) -> None:
    assert stack.pixels.shape == (9, 25, 96, 96)
    assert stack.pixels.dtype == np.uint8
    assert stack.masks is not None
    assert set(np.unique(stack.masks)) == {0, 1, 2, 3}
    assert dict(stack.mask_labels) == {1: "lv_cavity", 2: "lv_myocardium", 3: "rv_cavity"}
    np.testing.assert_allclose(stack.frame_times_ms, np.arange(25) / 25 * heart.rr_ms)
    # Blood is bright, muscle dark.
    blood, muscle = stack.pixels[2, 0][stack.masks[2, 0] == 1], stack.pixels[2, 0][stack.masks[2, 0] == 2]
    assert blood.mean() > 1.7 * muscle.mean()


def test_render_sax__masks_are_nested_rings(stack: Cine) -> None:
    assert stack.masks is not None
    for frame in (0, 8):
        mask = stack.masks[4, frame]
        rows, columns = np.nonzero(mask == 1)
        # Every neighbor of the cavity is cavity or myocardium, never background or RV.
        for step in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            assert set(np.unique(mask[rows + step[0], columns + step[1]])) <= {1, 2}


def test_render_sax__smallest_volume_is_at_the_es_frame(heart: Heart) -> None:
    grid = Grid(n_slices=32)
    volume = _volumes_ml(render_sax(heart, grid=grid), 1)
    end = es_frame(heart)
    lv, _ = volume_curves(move(heart, np.arange(25) / 25, RING))
    assert abs(int(volume.argmin()) - end) <= 1
    assert volume[end] == pytest.approx(volume.min(), rel=0.01)
    np.testing.assert_allclose(volume, lv, rtol=0.03)


def test_render_sax__any_subset_equals_the_whole(heart: Heart, stack: Cine) -> None:
    assert stack.masks is not None
    for slices, frames in (([4], [0, 5, 9]), ([8, 0], [24]), ([2, 3], [7, 1])):
        part = render_sax(heart, slices=slices, frames=frames)
        assert part.masks is not None
        np.testing.assert_array_equal(part.pixels, stack.pixels[np.ix_(slices, frames)])
        np.testing.assert_array_equal(part.masks, stack.masks[np.ix_(slices, frames)])
        np.testing.assert_array_equal(part.frame_times_ms, stack.frame_times_ms[frames])


def test_render_mid3__is_part_of_the_stack(heart: Heart, stack: Cine) -> None:
    cine = render_mid3(heart)
    end = es_frame(heart)
    assert cine.pixels.shape == (1, 3, 96, 96)
    np.testing.assert_array_equal(cine.pixels, stack.pixels[np.ix_([4], [0, end // 2, end])])
    assert cine.masks is not None
    area = (cine.masks[0] == 1).sum(axis=(1, 2))
    assert area[0] > area[1] > area[2]


def test_render_sax__is_deterministic_and_noise_is_fresh_in_every_frame(heart: Heart, stack: Cine) -> None:
    again = render_sax(heart)
    np.testing.assert_array_equal(again.pixels, stack.pixels)
    corner = stack.pixels[:, :, -6:, -6:].astype(float)
    assert np.abs(corner[:, 0] - corner[:, 1]).mean() > 1.0
    assert not np.array_equal(stack.pixels, render_sax(replace(heart, subject=heart.subject + 1)).pixels)


def test_render_sax__noise_has_the_asked_strength() -> None:
    heart = Heart(longitudinal_shortening=1e-6, radial_shortening=np.full(17, 1e-6), rv_shortening=1e-6, twist_deg=0.0)
    silent = render_sax(heart, slices=[3], imaging=ImagingDesign(noise_scale=0.0)).pixels.astype(float)
    noisy = render_sax(heart, slices=[3]).pixels.astype(float)
    bright = (silent > 60) & (silent < 220)  # Rician noise is nearly normal far from zero
    assert (noisy - silent)[bright].std() == pytest.approx(0.030 * 255 / 1.05, rel=0.1)
    assert abs((noisy - silent)[bright].mean()) < 0.5


def test_render_sax__scar_thickens_less_in_the_image() -> None:
    scar = np.zeros(17)
    scar[[6, 7, 8]] = 1.0
    heart = Heart(scar=scar, radial_shortening=0.30 * (1 - 0.9 * scar))
    imaging = ImagingDesign(rotation_sd_deg=0.0, slice_shift_sd_mm=0.0, center_sd_mm=0.0)
    cine = render_sax(
        heart, slices=[4], frames=[0, es_frame(heart)], imaging=imaging, grid=Grid(spacing_mm=0.9, size=192)
    )
    assert cine.masks is not None
    areas = []
    for mask in cine.masks[0]:
        rows, columns = np.nonzero(mask == 1)
        row, column = round(rows.mean()), round(columns.mean())
        profile = mask[row] == 2
        areas.append((profile[:column].sum(), profile[column:].sum()))  # septum is left, lateral wall right
    septum, lateral = (areas[1][k] / areas[0][k] for k in (0, 1))
    assert lateral > septum + 0.2


def test_render_sax__affine_points_into_the_torso(heart: Heart) -> None:
    imaging = ImagingDesign(slice_shift_sd_mm=0.0)
    cine = render_sax(heart, frames=[0], imaging=imaging)
    assert cine.masks is not None
    slices, _, rows, columns = np.nonzero((cine.masks == 1) | (cine.masks == 2))
    where = np.stack([columns, rows, slices, np.ones_like(rows)])
    ras = (cine.affine @ where)[:3]
    local = heart.rotation.T @ (ras * np.array([[-1], [-1], [1]]) - heart.position_mm[:, None])
    # In the heart frame the ventricle is centered on the axis and stretches from the base to the apex.
    assert np.abs(local[:2].mean(axis=1)).max() < 2.5
    assert 0 < local[2].min() < local[2].max() < heart.lv_length_mm + heart.apex_wall_mm
    assert np.linalg.norm(cine.affine[:3, 2]) == pytest.approx(cine.slice_spacing_mm)


def test_render_sax__contrast_shift_and_scanner_change_the_image_but_not_the_anatomy() -> None:
    base = render_sax(Heart(group=1), [4], [0], imaging=ImagingDesign(minority_contrast_shift=0.0))
    shifted = render_sax(Heart(group=1), [4], [0], imaging=ImagingDesign(minority_contrast_shift=0.4))
    other = render_sax(Heart(group=1), [4], [0], scanner="gamma")
    assert base.masks is not None
    for cine in (shifted, other):
        np.testing.assert_array_equal(base.masks, cine.masks)

    def contrast(cine: Cine) -> float:
        return float(cine.pixels[base.masks == 1].mean() - cine.pixels[base.masks == 2].mean())

    assert contrast(shifted) < 0.75 * contrast(base)
    assert contrast(other) != contrast(base)


def test_render_4ch__subset_labels_and_motion(heart: Heart) -> None:
    cine = render_4ch(heart)
    part = render_4ch(heart, frames=[8, 0])
    np.testing.assert_array_equal(part.pixels, cine.pixels[:, [8, 0]])
    assert cine.pixels.shape == (1, 25, 96, 96)
    assert cine.masks is not None
    assert set(np.unique(cine.masks)) == {0, 1, 2, 3, 4, 5}
    end = es_frame(heart)
    area = {label: (cine.masks[0] == label).sum(axis=(1, 2)) for label in range(1, 6)}
    assert area[1][end] < area[1][0]
    assert area[4][end] > area[4][0]
    # The base descends towards the apex, which is up: the lowest row of the LV cavity rises.
    lowest = [np.nonzero((cine.masks[0, f] == 1).any(axis=1))[0].max() for f in (0, end)]
    assert lowest[1] < lowest[0]


def test_render_4ch__shows_the_lv_of_the_stack() -> None:
    heart = Heart()
    imaging = ImagingDesign(slice_shift_sd_mm=0.0)
    view = render_4ch(heart, frames=[0], imaging=imaging)
    assert view.masks is not None
    rows, columns = np.nonzero(view.masks[0, 0] == 1)
    ras = (view.affine @ np.stack([columns, rows, np.zeros_like(rows), np.ones_like(rows)]))[:3]
    local = heart.rotation.T @ (ras * np.array([[-1], [-1], [1]]) - heart.position_mm[:, None])
    assert 0 <= local[2].min() < 1.8
    assert local[2].max() == pytest.approx(heart.lv_length_mm, abs=2.0)
    radius = np.hypot(local[0], local[1]).max()
    assert radius == pytest.approx(heart.lv_radius_mm, abs=2.0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"slices": [9]}, "slices"),
        ({"frames": []}, "frames"),
        ({"frames": [-1]}, "frames"),
        ({"scanner": "delta"}, "unknown scanner"),
    ],
)
def test_render_sax__says_what_is_wrong(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_sax(Heart(), **kwargs)


def test_grid__refuses_what_the_noise_key_cannot_hold() -> None:
    for bad in ({"size": 300}, {"n_slices": 0}, {"spacing_mm": 0.0}, {"n_frames": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Grid(**bad)
