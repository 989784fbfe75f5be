"""What must not change the prepared array, what must, and that a pipeline is exactly its dictionary."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcmr.cmr import selection
from ecgcmr.cmr.cine import Cine
from ecgcmr.cmr.preprocessing import CmrPipeline, named_pipeline
from ecgcmr.cmr.resample import separable, triangle_filter

NAMES = ("three_frames", "cine", "reference_crop", "reference_frame")


def beating(
    center: tuple[float, float] = (48.0, 48.0),
    frames: int = 20,
    slices: int = 1,
    side: int = 96,
    spacing: tuple[float, float] = (1.8, 1.8),
    masks: bool = False,
) -> Cine:
    """A disc of blood in a ring of muscle, 25 mm wide at frame 0 and smallest (14 mm) at 40 % of the cycle."""
    rows, columns = np.mgrid[:side, :side]
    distance = np.hypot((rows - center[0]) * spacing[0], (columns - center[1]) * spacing[1])
    phase = np.arange(frames) / frames
    squeeze = np.where(phase < 0.4, phase / 0.4, (1 - phase) / 0.6)
    radius = 25.0 - 11.0 * squeeze
    soft = np.clip(radius[:, None, None] - distance + 0.5, 0, 1)
    ring = np.clip(radius[:, None, None] + 9 - distance + 0.5, 0, 1) - soft
    pixels = 300.0 + 20 * np.sin(rows / 7.0) + 900 * soft - 150 * ring
    label = (soft > 0.5) + 2 * ((ring > 0.5) & (soft <= 0.5))
    return Cine(
        pixels=np.repeat(pixels[None], slices, axis=0).astype(np.float32),
        spacing_mm=spacing,
        slice_spacing_mm=8.0 if slices > 1 else 0.0,
        affine=np.eye(4),
        frame_times_ms=np.arange(frames) * 40.0,
        view="sax",
        masks=np.repeat(label[None], slices, axis=0).astype(np.uint8) if masks else None,
        mask_labels={1: "lv_cavity", 2: "lv_myocardium"} if masks else {},
    )


@pytest.mark.parametrize("name", NAMES)
def test_call__shape_and_type_are_as_promised(name: str) -> None:
    pipeline = named_pipeline(name)
    out = pipeline(beating(slices=5))
    assert out.dtype == np.uint8
    assert out.shape == pipeline.shape
    assert out.shape[-3] == pipeline.channels
    assert out.min() == 0
    assert out.max() == 255


@pytest.mark.parametrize("name", NAMES)
def test_to_dict__round_trip_through_json(name: str) -> None:
    pipeline = named_pipeline(name, crop_mm=111)
    again = CmrPipeline.from_dict(json.loads(json.dumps(pipeline.to_dict())))
    assert again == pipeline
    assert again.fingerprint() == pipeline.fingerprint()


def test_fingerprint__changes_with_every_setting() -> None:
    base = named_pipeline("three_frames")
    changes = {
        "name": "other",
        "slices": 2,
        "crop_mm": 131.0,
        "size": 65,
        "center": "masks",
        "offset_mm": (1.0, 0.0),
        "percentiles": (0.0, 99.0),
        "stacked": True,
    }
    prints = {replace(base, **{key: value}).fingerprint() for key, value in changes.items()}
    assert len(prints | {base.fingerprint()}) == len(changes) + 1
    assert named_pipeline("three_frames", crop_mm=130).fingerprint() == base.fingerprint()


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"frames": 4}, "gives 3 frames"),
        ({"center": "nose"}, "center one of"),
        ({"percentiles": (99.0, 1.0)}, "percentiles"),
        ({"size": 0}, "positive"),
        ({"version": 99}, "version 99"),
        ({"sizee": 3}, "sizee"),
    ],
)
def test_named_pipeline__wrong_settings_are_named(settings_: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        named_pipeline("three_frames", **settings_)


def test_from_dict__unknown_and_missing_keys_are_named() -> None:
    values = named_pipeline("cine").to_dict()
    with pytest.raises(ValueError, match=r"unknown keys \['strange'\], missing keys \['size'\]"):
        CmrPipeline.from_dict({**{k: v for k, v in values.items() if k != "size"}, "strange": 1})
    with pytest.raises(ValueError, match="unknown CMR pipeline 'four_frames'"):
        named_pipeline("four_frames")


@given(gain=st.floats(0.05, 50.0), offset=st.floats(-200.0, 200.0))
@settings(max_examples=15, deadline=None)
def test_call__gain_and_offset_do_not_matter(gain: float, offset: float) -> None:
    cine = beating((44.0, 53.0))
    moved = replace(cine, pixels=(cine.pixels.astype(np.float64) * gain + offset).astype(np.float32))
    pipeline = named_pipeline("three_frames")
    difference = pipeline(cine).astype(int) - pipeline(moved)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("shift", [(0, 0), (-9, 4), (10, -11)])
def test_call__crop_follows_the_heart(shift: tuple[int, int]) -> None:
    """The prepared heart stays in the middle when it lies elsewhere in the frame."""
    pipeline = named_pipeline("three_frames", crop_mm=100.0)
    out = pipeline(beating((48.0 + shift[0], 48.0 + shift[1])))
    blood = out[0] > 180
    rows, columns = np.nonzero(blood)
    assert abs(rows.mean() - 31.5) < 1.5
    assert abs(columns.mean() - 31.5) < 1.5


def test_motion_center__is_pulled_little_by_a_far_vessel() -> None:
    cine = beating((50.0, 44.0), side=140)
    rows, columns = np.mgrid[:140, :140]
    pulse = 1.0 + np.sin(2 * np.pi * np.arange(20) / 20)
    vessel = np.hypot(rows - 125, columns - 125) < 5
    pixels = cine.pixels + (600 * pulse[:, None, None] * vessel).astype(np.float32)
    row, column = selection.motion_center(pixels, cine.spacing_mm, 32.5)
    assert np.hypot(row - 50, column - 44) * 1.8 < 5.0


def test_call__spacing_is_respected() -> None:
    """The same heart on a finer, non-square grid gives the same picture."""
    pipeline = named_pipeline("three_frames", crop_mm=100.0)
    coarse = pipeline(beating()).astype(float)
    fine = beating((85.0, 60.0), side=170, spacing=(1.0, 1.35))
    assert np.corrcoef(coarse.ravel(), pipeline(fine).astype(float).ravel())[0, 1] > 0.97


def test_call__affine_and_view_do_not_matter() -> None:
    cine = beating()
    turned = replace(cine, affine=np.diag([-1.0, 2.0, 1.0, 1.0]), view="other")
    pipeline = named_pipeline("three_frames")
    np.testing.assert_array_equal(pipeline(cine), pipeline(turned))


def test_choose_frames__finds_end_systole_with_and_without_masks() -> None:
    cine, labeled = beating(frames=25), beating(frames=25, masks=True)
    pipeline = named_pipeline("three_frames")
    center, radius = (48.0, 48.0), (15.0, 15.0)
    es = selection.end_systole(cine.pixels, cine.frame_times_ms, 0, None, (center, radius))
    assert es == 10
    expected = pipeline(replace(cine, pixels=cine.pixels[:, [0, 5, 10]], frame_times_ms=np.zeros(3)))
    center_all = selection.motion_center(cine.pixels, cine.spacing_mm, 32.5)
    assert np.hypot(*np.subtract(center_all, center)) < 0.5
    assert np.abs(pipeline(cine).astype(int) - expected).mean() < 2
    np.testing.assert_array_equal(pipeline(cine), pipeline(labeled))


def test_choose_frames__late_start_takes_the_larger_ventricle_for_diastole() -> None:
    """Two kept phases, systole first in time: as in the Sunnybrook files."""
    cine = beating(frames=20)
    two = replace(cine, pixels=cine.pixels[:, [8, 19]], frame_times_ms=np.array([348.0, 929.0]))
    out = named_pipeline("three_frames")(two)
    assert (out[0] > 180).sum() > (out[2] > 180).sum()


def test_call__three_frames_are_taken_as_they_are() -> None:
    cine = beating()
    three = replace(cine, pixels=cine.pixels[:, [8, 2, 0]], frame_times_ms=np.full(3, np.nan))
    areas = (named_pipeline("three_frames")(three) > 180).sum(axis=(1, 2))
    assert areas[0] < areas[1] < areas[2]


@pytest.mark.parametrize("name", ["three_frames", "cine"])
@pytest.mark.parametrize("frames", [3, 20])
def test_apply_batch__equals_one_by_one(name: str, frames: int) -> None:
    cines = [beating((40.0 + 3 * i, 55.0 - 2 * i), frames=frames) for i in range(5)]
    cines = [replace(cine, pixels=np.clip(cine.pixels / 6, 0, 255).astype(np.uint8)) for cine in cines]
    pipeline = named_pipeline(name)
    batch = pipeline.apply_batch(np.stack([cine.pixels[0] for cine in cines]), 1.8)
    np.testing.assert_array_equal(batch, np.stack([pipeline(cine) for cine in cines]))


def test_call__center_by_masks() -> None:
    cine = beating((30.0, 62.0), masks=True)
    still = replace(cine, pixels=np.repeat(cine.pixels[:, :1], 20, axis=1))
    by_masks = named_pipeline("three_frames", crop_mm=60.0, center="masks")(still)[0]
    rows, columns = np.nonzero(by_masks > 180)
    assert abs(rows.mean() - 31.5) < 2
    assert abs(columns.mean() - 31.5) < 2


def test_call__still_flat_and_tiny_cines_do_not_fail() -> None:
    pipeline = named_pipeline("three_frames")
    flat = replace(beating(), pixels=np.full((1, 20, 96, 96), 7, dtype=np.int16))
    assert (pipeline(flat) == 0).all()
    still = np.repeat(beating((30.0, 60.0)).pixels[:, :1] / 3.0, 20, axis=1)
    assert selection.motion_center(still, (1.8, 1.8), 32.5) == (47.5, 47.5)
    tiny = replace(beating(), pixels=np.arange(20 * 4, dtype=np.float32).reshape(1, 20, 2, 2))
    assert pipeline(tiny).shape == (3, 64, 64)
    one = replace(beating(frames=1), pixels=beating(frames=1).pixels)
    assert (pipeline(one)[0] == pipeline(one)[2]).all()
    broken = beating().pixels.copy()
    broken[0, 3, 4, 5] = np.nan
    with pytest.raises(ValueError, match="1 of 184320 pixels"):
        pipeline(replace(beating(), pixels=broken))
    with pytest.raises(ValueError, match="no pixels"):
        pipeline(replace(beating(), pixels=np.zeros((0, 20, 4, 4))))


def test_reference_crop__is_the_window_of_the_reference() -> None:
    """On a 210 x 210 frame of UK Biobank's pixel the crop is exactly rows 44-121 and columns 68-145."""
    marked = np.zeros((1, 3, 210, 210), dtype=np.float32)
    marked[:, :, 44:122, 68:146] = np.arange(1, 79)[:, None] + 100.0 * np.arange(1, 79)
    cine = Cine(marked, (1.8269, 1.8269), 0.0, np.eye(4), np.zeros(3), "sax")
    out = named_pipeline("reference_crop", size=78, percentiles=(0.0, 100.0))(cine)
    window = marked[0, :, 44:122, 68:146]
    expected = 255.0 * (window - window.min()) / (window.max() - window.min())
    assert np.abs(out - expected).max() <= 0.51


@given(
    length=st.integers(1, 60),
    size=st.integers(1, 40),
    center=st.floats(-10, 70),
    extent=st.floats(0.5, 120),
)
@settings(max_examples=60, deadline=None)
def test_triangle_filter__averages_inside_and_is_zero_outside(
    length: int, size: int, center: float, extent: float
) -> None:
    matrix, inside, window = triangle_filter(length, size, center, extent)
    assert matrix.shape == (size, len(range(*window.indices(length))))
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(axis=1), inside, atol=1e-5)


def test_triangle_filter__reproduces_a_ramp_and_the_identity() -> None:
    matrix, _, window = triangle_filter(50, 20, 24.5, 20.0)
    np.testing.assert_allclose(matrix @ np.arange(50)[window], np.arange(15, 35), atol=1e-5)
    matrix, _, _ = triangle_filter(12, 12, 5.5, 12.0)
    np.testing.assert_allclose(matrix, np.eye(12), atol=1e-6)


@pytest.mark.parametrize(
    ("n", "wanted", "expected"), [(6, 1, [3]), (10, 3, [1, 5, 8]), (1, 3, [0, 0, 0]), (5, 5, range(5))]
)
def test_even_slices__are_middles_of_equal_parts(n: int, wanted: int, expected: list[int]) -> None:
    np.testing.assert_array_equal(selection.even_slices(n, wanted), list(expected))


def test_motion_center__simulated_hearts_lie_in_the_crop() -> None:
    """The LV of simulated subjects (masks not used) is inside the default crop, and its heart near the middle."""
    from ecgcmr.simulation.cine import render_mid3
    from ecgcmr.simulation.design import Design
    from ecgcmr.simulation.population import draw_heart

    off, reach = [], []
    for subject in range(16):
        cine = render_mid3(draw_heart(Design(), 11, subject))
        assert cine.masks is not None
        found = selection.motion_center(cine.pixels, cine.spacing_mm, 32.5)
        middle = selection.mask_center(cine.masks)
        assert middle is not None
        off.append(np.hypot(*np.subtract(found, middle)) * cine.spacing_mm[0])
        ventricle = np.argwhere(np.isin(cine.masks[0], (1, 2)).any(axis=0))
        reach.append(np.abs(ventricle - found).max() * cine.spacing_mm[0])
    assert np.median(off) < 10.0
    assert np.mean(np.array(reach) < 65.0) >= 0.9


@pytest.mark.shared
def test_call__real_studies_keep_the_left_ventricle_in_the_crop(shared_data: Path) -> None:
    """The expert contours of Sunnybrook (drawn by people, not used by the pipeline) lie inside the crop."""
    from ecgcmr.cmr.readers import open_cine

    (cine,) = open_cine(shared_data / "cmr_sunnybrook", incomplete="drop")
    pipeline = named_pipeline("three_frames")
    row, column = selection.motion_center(cine.pixels, cine.spacing_mm, 0.25 * pipeline.crop_mm)
    files = sorted((shared_data / "cmr_sunnybrook" / "Expert").glob("*-icontour-manual.txt"))
    points = np.concatenate([np.loadtxt(file) for file in files])
    half = 0.5 * pipeline.crop_mm / 1.3672
    assert len(files) >= 9
    assert (np.abs(points[:, 1] - row) < half).all()
    assert (np.abs(points[:, 0] - column) < half).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_separable__equals_the_matrix_products(dtype: type) -> None:
    images = np.random.default_rng(0).integers(0, 200, (2, 3, 50, 40)).astype(dtype)
    rows, _, tall = triangle_filter(50, 16, 20.0, 60.0)
    columns, _, wide = triangle_filter(40, 24, 22.0, 17.0)
    window = images[:, :, tall, wide]
    expected = rows @ window.astype(np.float64) @ columns.T
    np.testing.assert_allclose(separable(window, rows, columns), expected, atol=1e-3)
    assert (expected[:, :, 0] == 0).all()  # the window begins above the frame
