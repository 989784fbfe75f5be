"""Each flag is raised by what it names and by nothing else, and nothing raises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ecgcmr.cmr.cine import Cine
from ecgcmr.cmr.quality import check_cine


def good() -> Cine:
    rows, columns = np.mgrid[:90, :90]
    distance = np.hypot(rows - 45, columns - 45) * 1.5
    radius = 25 - 10 * np.sin(np.pi * np.arange(20) / 20)
    pixels = 100 + columns + 800 * (distance < radius[:, None, None])
    stack = np.repeat(pixels[None], 8, axis=0).astype(np.float32)
    return Cine(stack, (1.5, 1.5), 10.0, np.eye(4), np.arange(20) * 45.0, "sax")


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
