"""Each flag is raised by what it names and by nothing else, and nothing raises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ecgcmr.cmr.cine import Cine
from ecgcmr.cmr.quality import check_cine
from ecgcmr.cmr.registration import slice_shifts_mm


def good() -> Cine:
    rows, columns = np.mgrid[:90, :90]
    distance = np.hypot(rows - 45, columns - 45) * 1.5
    radius = 25 - 10 * np.sin(np.pi * np.arange(20) / 20)
    pixels = 100 + columns + 800 * (distance < radius[:, None, None])
    stack = np.repeat(pixels[None], 8, axis=0).astype(np.float32)
    return Cine(stack, (1.5, 1.5), 10.0, np.eye(4), np.arange(20) * 45.0, "sax")


def with_part(pixels: np.ndarray, place: tuple, rows: slice, share: float) -> np.ndarray:
    """Some frames dimmed to a share of their intensity in some rows."""
    out = pixels.copy()
    out[(*place, rows)] *= share
    return out


def with_shift(pixels: np.ndarray, index: int, pixels_down: int) -> np.ndarray:
    out = pixels.copy()
    out[index] = np.roll(out[index], pixels_down, axis=1)
    return out


def codes(cine: Cine) -> set[str]:
    return {flag.code for flag in check_cine(cine)}


def test_check__good_cine_has_no_flag() -> None:
    assert check_cine(good()) == ()


def test_check__each_defect_has_its_flag() -> None:
    cine = good()
    times, pixels = cine.frame_times_ms, cine.pixels
    flat, broken = pixels.copy(), pixels.copy()
    flat[2, 5], broken[0, 0, 0, 0] = 3.0, np.nan
    cases = {
        "few_frames": replace(cine, pixels=pixels[:, :6], frame_times_ms=times[:6]),
        "no_frame_times": replace(cine, frame_times_ms=np.full(20, np.nan)),
        "times_not_rising": replace(cine, frame_times_ms=times[::-1].copy()),
        "odd_cycle": replace(cine, frame_times_ms=times * 10),
        "odd_spacing": replace(cine, spacing_mm=(3.5, 3.5)),
        "odd_slice_spacing": replace(cine, slice_spacing_mm=0.5),
        "few_slices": replace(cine, pixels=pixels[:2]),
        "flat": replace(cine, pixels=flat),
        "not_finite": replace(cine, pixels=broken),
        "still": replace(cine, pixels=np.repeat(pixels[:, :1], 20, axis=1)),
        "heart_at_border": replace(cine, pixels=pixels[:, :, 25:, :]),
        "bad_affine": replace(cine, affine=np.diag([1.5, 0.0, 1.0, 1.0])),
        "slice_gap": replace(cine, slice_offsets_mm=np.array([0, 10, 20, 40, 50, 60, 70, 80.0])),
        "frame_intensity": replace(cine, pixels=with_part(pixels, (3, 7), slice(None), 0.5)),
        "signal_dropout": replace(cine, pixels=with_part(pixels, (3, 7), slice(0, 12), 0.0)),
        "slice_intensity": replace(cine, pixels=with_part(pixels, (3, slice(None)), slice(None), 0.3)),
        "slice_shift": replace(cine, pixels=with_shift(pixels, 3, 6)),
    }
    for code, case in cases.items():
        assert codes(case) == {code}, code


def test_check__what_cannot_be_checked_is_a_flag() -> None:
    text = replace(good(), pixels=np.full((8, 20, 90, 90), "x"))
    assert "check_failed" in codes(text)


@pytest.mark.shared
def test_check__real_studies(shared_data: Path) -> None:
    from ecgcmr.cmr.readers import open_cine

    sax = open_cine(shared_data / "cmr_cine_dicom")[0]
    assert codes(sax) == set()
    (kept_phases,) = open_cine(shared_data / "cmr_sunnybrook", incomplete="drop")
    assert codes(kept_phases) == {"few_frames", "few_slices"}


@pytest.mark.parametrize("index", [1, 2, 3, 4])
@pytest.mark.parametrize(("down", "right"), [(4, 0), (0, -5), (-3, 3)])
def test_slice_shifts__find_a_planted_shift_and_nothing_else(index: int, down: int, right: int) -> None:
    cine = good()
    pixels = cine.pixels.copy()
    pixels[index] = np.roll(pixels[index], (down, right), axis=(1, 2))
    found = slice_shifts_mm(replace(cine, pixels=pixels))
    np.testing.assert_allclose(found[index], [1.5 * down, 1.5 * right], atol=0.8)
    far = [k for k in range(1, 5) if abs(k - index) > 1]
    np.testing.assert_allclose(found[far], 0.0, atol=0.3)
    assert np.isnan(found[[0, 6, 7]]).all()


def test_slice_shifts__are_unknown_in_short_stacks_and_pictures_of_nothing() -> None:
    cine = good()
    assert np.isnan(slice_shifts_mm(replace(cine, pixels=cine.pixels[:3]))).all()
    empty = replace(cine, pixels=np.zeros_like(cine.pixels))
    assert np.isnan(slice_shifts_mm(empty)).all()


def test_slice_shifts__of_simulated_hearts_are_known() -> None:
    """Breath-hold shifts of the simulator are known: right within 1 mm, and false alarms are rare."""
    from ecgcmr.simulation.cine import render_sax
    from ecgcmr.simulation.population import Design, draw_heart
    from ecgcmr.simulation.scanner import draw_imaging

    design = Design()
    errors, alarms = [], 0
    for subject in range(8):
        heart = draw_heart(design, 1, subject)
        cine = render_sax(heart, imaging=design.imaging)
        true = draw_imaging(heart, design.imaging).shift_mm[: cine.pixels.shape[0]]
        against = (true[1:-1] - 0.5 * (true[:-2] + true[2:])) * [1.0, -1.0]  # columns to the right, rows up
        found = slice_shifts_mm(cine)[1:-1]
        errors.append(np.hypot(found[:, 1] - against[:, 0], found[:, 0] - against[:, 1]))
        alarms += "slice_shift" in codes(cine)
    assert np.nanmean(errors) < 1.0
    assert np.isfinite(errors).sum() >= 8 * 4
    assert alarms <= 1
