"""Views of whole studies: the axis from planes alone, planes beside the ventricle, names that lie."""

from __future__ import annotations

import numpy as np
import pytest

from ecgcmr.cmr.geometry import APEX_LPS, angle_deg
from ecgcmr.cmr.views import MISS_MM, Plane, long_axis_from_planes, name_planes

TYPICAL = {"4ch": 8.0, "2ch": 66.0, "3ch": 128.0}
HEART = np.array([25.0, -40.0, 15.0])


def plane_at(angle: float, axis: np.ndarray, beside_mm: float = 0.0, tilt: float = 0.0, name: str = "") -> Plane:
    """Plane that cuts the short axis at an angle [deg], passes the heart's middle at a distance, leans off the axis."""
    left = np.array([1.0, 0.0, 0.0]) - axis[0] * axis
    left /= np.linalg.norm(left)
    cut = np.cos(np.radians(angle)) * left + np.sin(np.radians(angle)) * np.cross(axis, left)
    normal = np.cos(np.radians(tilt)) * np.cross(axis, cut) + np.sin(np.radians(tilt)) * axis
    return Plane(HEART + beside_mm * normal, normal, name)


def turned(rng: np.random.Generator, spread_deg: float) -> np.ndarray:
    """A long axis that leans from the usual one."""
    aside = rng.normal(size=3)
    aside -= aside @ APEX_LPS * APEX_LPS
    angle = np.radians(abs(rng.normal(0, spread_deg)))
    return np.cos(angle) * APEX_LPS + np.sin(angle) * aside / np.linalg.norm(aside)


def views(planes: list[Plane], axis: np.ndarray | None) -> list[str]:
    return [view for view, _ in name_planes(planes, axis)]


@pytest.mark.parametrize("seed", range(5))
def test_axis_from_planes__is_exact_for_exact_planes(seed: int) -> None:
    axis = turned(np.random.default_rng(seed), 15.0)
    found = long_axis_from_planes([plane_at(angle, axis) for angle in TYPICAL.values()])
    assert found is not None
    np.testing.assert_allclose(found, axis, atol=1e-9)


def test_axis_from_planes__is_unknown_without_planes_at_an_angle() -> None:
    assert long_axis_from_planes([]) is None
    assert long_axis_from_planes([plane_at(8.0, APEX_LPS)]) is None
    assert long_axis_from_planes([plane_at(8.0, APEX_LPS), plane_at(20.0, APEX_LPS)]) is None


def test_axis_from_planes__names_turned_hearts_that_the_usual_axis_would_not() -> None:
    """Over hearts that lean by 16 degrees (SD): 97 % right, where the usual direction alone gets far fewer."""
    rng = np.random.default_rng(0)
    right = {"planes": 0, "usual": 0}
    count = 300
    for _ in range(count):
        axis = turned(rng, 16.0)
        planes = [plane_at(rng.normal(angle, 8.0), axis, tilt=rng.normal(0, 6.0)) for angle in TYPICAL.values()]
        right["planes"] += sum(a == b for a, b in zip(views(planes, None), TYPICAL, strict=True))
        right["usual"] += sum(views([plane], None) == [view] for plane, view in zip(planes, TYPICAL, strict=True))
    assert right["planes"] / (3 * count) > 0.97
    assert right["planes"] > right["usual"] + 0.02 * 3 * count


@pytest.mark.parametrize("name", ["", "cine_2ch"])
@pytest.mark.parametrize("with_sax", [True, False])
def test_right_two_chamber__stands_like_the_left_one_but_beside_the_ventricle(name: str, with_sax: bool) -> None:
    planes = [plane_at(angle, APEX_LPS) for angle in TYPICAL.values()]
    planes.append(plane_at(66.0, APEX_LPS, beside_mm=-45.0, name=name))
    named = name_planes(planes, APEX_LPS if with_sax else None)
    assert [view for view, _ in named] == ["4ch", "2ch", "3ch", "2ch"]
    assert any("45 mm beside the axis" in note and "right ventricle" in note for note in named[3][1])
    assert not any("beside the axis" in note for _, notes in named[:3] for note in notes)


@pytest.mark.parametrize("beside", [-MISS_MM + 5, 0.0, MISS_MM - 5])
def test_planes__that_cut_the_ventricle_keep_their_view(beside: float) -> None:
    planes = [plane_at(angle, APEX_LPS) for angle in TYPICAL.values()]
    planes.append(plane_at(66.0, APEX_LPS, beside_mm=beside))
    named = name_planes(planes, APEX_LPS)
    assert [view for view, _ in named] == ["4ch", "2ch", "3ch", "2ch"]
    assert not any("beside the axis" in note for _, notes in named for note in notes)


def test_place__decides_nothing_where_planes_do_not_agree() -> None:
    """Of three planes any two meet somewhere: nothing tells which of them stands wrong, so none is told."""
    planes = [plane_at(angle, APEX_LPS) for angle in (8.0, 128.0)] + [plane_at(66.0, APEX_LPS, beside_mm=60.0)]
    scattered = [plane_at(angle, APEX_LPS, beside_mm=b) for angle, b in ((8, 0), (66, 50), (128, -45), (70, -30))]
    for these, expected in ((planes, ["4ch", "3ch", "2ch"]), (scattered, ["4ch", "2ch", "3ch", "2ch"])):
        named = name_planes(these, APEX_LPS)
        assert [view for view, _ in named] == expected
        assert not any("beside the axis" in note for _, notes in named for note in notes)


def test_wrong_name__is_overruled_and_noted() -> None:
    planes = [plane_at(angle, APEX_LPS, name="cine 4ch") for angle in TYPICAL.values()]
    named = name_planes(planes, APEX_LPS)
    assert [view for view, _ in named] == list(TYPICAL)
    assert named[0][1] == ()
    assert all("named 4ch" in named[k][1][0] for k in (1, 2))


def test_parallel_planes__of_one_view_are_all_of_it() -> None:
    """A stack of four-chamber planes 8 mm apart."""
    stack = [plane_at(8.0, APEX_LPS, beside_mm=offset) for offset in (-16.0, -8.0, 0.0, 8.0, 16.0)]
    assert views([*stack, plane_at(66.0, APEX_LPS), plane_at(128.0, APEX_LPS)], APEX_LPS) == ["4ch"] * 5 + [
        "2ch",
        "3ch",
    ]


def test_normals__may_point_either_way() -> None:
    for sign in (1.0, -1.0):
        planes = [plane_at(angle, APEX_LPS) for angle in TYPICAL.values()]
        planes = [Plane(plane.center, sign * plane.normal, "") for plane in planes]
        assert views(planes, None) == list(TYPICAL)
    assert angle_deg(APEX_LPS, -APEX_LPS) == pytest.approx(0.0, abs=1e-4)
