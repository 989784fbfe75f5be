"""Views from plane geometry alone, in a heart that lies as usual and in turned ones."""

from __future__ import annotations

import numpy as np
import pytest

from ecgcmr.cmr.geometry import (
    APEX_LPS,
    angle_deg,
    check_orientation,
    classify_long_axis,
    is_short_axis,
    long_axis_angle_deg,
    named_view,
    plane_affine,
    towards_apex,
)


def plane_at(angle: float, axis: np.ndarray) -> np.ndarray:
    """Normal of the long-axis plane that cuts the short axis at this angle [deg]."""
    left = np.array([1.0, 0.0, 0.0]) - axis[0] * axis
    left /= np.linalg.norm(left)
    cut = np.cos(np.radians(angle)) * left + np.sin(np.radians(angle)) * np.cross(axis, left)
    return np.cross(axis, cut)


@pytest.mark.parametrize("angle", [-30.0, 0.0, 40.0, 66.0, 100.0, 140.0])
def test_long_axis_angle__inverts_the_construction(angle: float) -> None:
    normal = plane_at(angle, APEX_LPS)
    assert long_axis_angle_deg(normal, APEX_LPS) == pytest.approx(angle, abs=1e-6)
    assert long_axis_angle_deg(-normal, APEX_LPS) == pytest.approx(angle, abs=1e-6)


@pytest.mark.parametrize(("angle", "view"), [(8.0, "4ch"), (66.0, "2ch"), (128.0, "3ch")])
@pytest.mark.parametrize("description", ["", "cine_trufi"])
def test_classify__typical_planes(angle: float, view: str, description: str) -> None:
    for axis in (APEX_LPS, np.array([0.48, -0.62, -0.62]), np.array([0.65, -0.65, -0.39])):
        unit = axis / np.linalg.norm(axis)
        assert classify_long_axis(plane_at(angle, unit), unit, description) == (view, None)


def test_classify__geometry_wins_over_a_wrong_name_and_says_so() -> None:
    view, note = classify_long_axis(plane_at(128.0, APEX_LPS), APEX_LPS, "cine_4CH")
    assert view == "3ch"
    assert note is not None
    assert "named 4ch" in note


def test_classify__name_breaks_the_tie_near_a_border() -> None:
    border = plane_at(97.0, APEX_LPS)
    assert classify_long_axis(border, APEX_LPS, "LVOT") == ("3ch", None)
    assert classify_long_axis(border, APEX_LPS, "2 chamber") == ("2ch", None)


def test_classify__without_short_axis_the_name_counts_for_more() -> None:
    plane = plane_at(80.0, APEX_LPS)
    assert classify_long_axis(plane, APEX_LPS, "3ch")[0] == "2ch"
    assert classify_long_axis(plane, None, "3ch") == ("3ch", None)


def test_classify__other_planes() -> None:
    assert classify_long_axis(APEX_LPS, APEX_LPS)[0] == "other"
    assert classify_long_axis(np.array([0.0, 0.0, 1.0]), APEX_LPS)[0] in ("4ch", "other")
    sagittal = np.array([-0.989, -0.061, -0.135])
    assert classify_long_axis(sagittal, np.array([0.48, -0.62, -0.62]))[0] == "rvot"


def test_is_short_axis__separates_body_planes() -> None:
    assert is_short_axis(APEX_LPS)
    assert is_short_axis(-APEX_LPS)
    for body_plane in np.eye(3):
        assert not is_short_axis(body_plane)
    np.testing.assert_array_equal(towards_apex(-APEX_LPS), APEX_LPS)


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("CINE_segmented_SAX_b3", "sax"),
        ("CINE_segmented_LAX_2Ch", "2ch"),
        ("cine 4-ch", "4ch"),
        ("three chamber", "3ch"),
        ("LVOT", "3ch"),
        ("RVOT_cine", "rvot"),
        ("localizer", None),
        ("SA", "sax"),
        ("case001_4d", None),
    ],
)
def test_named_view__reads_descriptions(text: str, view: str | None) -> None:
    assert named_view(text) == view


def test_plane_affine__maps_index_to_ras() -> None:
    affine = plane_affine(
        np.array([1.0, 2.0, 3.0]), (np.array([0.0, 1.0, 0]), np.array([0, 0, -1.0])), (2.0, 0.5), np.array([8.0, 0, 0])
    )
    np.testing.assert_allclose(affine @ [4, 3, 2, 1], [-17.0, -4.0, -3.0, 1.0])


def test_check_orientation__gives_exact_unit_vectors_or_refuses() -> None:
    a, b = check_orientation(np.array([1.0, 0.001, 0]), np.array([0.0, 1.0, 0.002]), "here")
    assert a @ b == pytest.approx(0, abs=1e-12)
    assert np.linalg.norm(b) == pytest.approx(1)
    with pytest.raises(ValueError, match="here: ImageOrientationPatient"):
        check_orientation(np.array([1.0, 0, 0]), np.array([0.0, 0.5, 0]), "here")
    assert angle_deg(a, -a) == pytest.approx(0, abs=1e-4)
