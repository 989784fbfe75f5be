import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcmr.simulation import geometry
from ecgcmr.simulation.heart import AHA_ANGLES_DEG, Heart, orientation


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-0.9, 0.9), st.floats(-180, 180))
@settings(max_examples=30, deadline=None)
def test_orientation__is_a_rotation_along_the_apex(x: float, y: float, z: float, roll: float) -> None:
    apex = np.array([x + 0.01, y, z])
    if np.hypot(apex[0], apex[1]) < 1e-3:
        return
    rotation = orientation(apex, roll)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    np.testing.assert_allclose(rotation[:, 2], apex / np.linalg.norm(apex), atol=1e-12)


def test_orientation__typical_heart_lies_as_in_people() -> None:
    rotation = orientation()
    assert rotation[0, 0] > 0.5  # the lateral wall looks left
    assert rotation[1, 0] > 0.5  # and back
    assert rotation[2, 1] > 0.8  # the anterior wall looks up


def test_segment_weights__sum_to_one_and_own_their_centers() -> None:
    rng = np.random.default_rng(0)
    weights = geometry.segment_weights(rng.uniform(0, 1.1, 500), rng.uniform(-7, 7, 500))
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-12)
    depth = np.array([0.15] * 6 + [0.5] * 6 + [0.8] * 4 + [1.05])
    centers = geometry.segment_weights(depth, np.deg2rad(AHA_ANGLES_DEG))
    np.testing.assert_allclose(np.diag(centers), 1.0, atol=0.03)


@pytest.mark.parametrize("n", [120, 500])
def test_lv_points__area_and_closure(n: int) -> None:
    heart = Heart(wall_mm=np.linspace(5.0, 9.0, 17))
    points = geometry.lv_points(heart, n)
    fine = geometry.lv_points(heart, 20_000)
    assert len(points.position) == pytest.approx(n, rel=0.05)
    area = np.linalg.norm(points.area_vector, axis=1).sum()
    assert area == pytest.approx(np.linalg.norm(fine.area_vector, axis=1).sum(), rel=0.01)
    assert (points.area_vector[:, :2] * points.position[:, :2]).sum(axis=1).min() > 0
    # Gauss: the area vectors of a surface that is open only at the base add up to the base disc, and to nothing else.
    total = fine.area_vector.sum(axis=0)
    assert abs(total[:2]).max() < 1e-3 * total[2]
    endo, epi = geometry.lv_radii(heart, np.zeros(99), np.linspace(0, 2 * np.pi, 99))
    base = np.pi * float(((endo + epi) / 2).mean()) ** 2
    assert total[2] == pytest.approx(base, rel=0.03)


def test_lv_points__uniform_wall_matches_the_spheroid() -> None:
    heart = Heart(wall_mm=np.full(17, 6.0))
    points = geometry.lv_points(heart, 500)
    equator = geometry.EQUATOR_FRACTION * heart.lv_length_mm
    radius, axis = heart.lv_radius_mm + 3.0, heart.lv_length_mm + 3.0 - equator
    theta = np.linspace(-np.arcsin(equator / axis), np.pi / 2, 20_001)
    band = radius * np.cos(theta) * np.hypot(radius * np.sin(theta), axis * np.cos(theta))
    area = 2 * np.pi * np.trapezoid(band, theta)
    assert np.linalg.norm(points.area_vector, axis=1).sum() == pytest.approx(area, rel=0.005)
    assert points.thickness_mm.max() <= 6.0 + 1e-9
    np.testing.assert_allclose(points.weights.sum(axis=1), 1.0, atol=1e-12)
    assert set(points.segment) == set(range(17))


def test_rv_points__lie_off_the_lv_and_cover_the_free_wall() -> None:
    heart = Heart()
    points, fine = geometry.rv_points(heart), geometry.rv_points(heart, 20_000)
    area = np.linalg.norm(points.area_vector, axis=1).sum()
    assert area == pytest.approx(np.linalg.norm(fine.area_vector, axis=1).sum(), rel=0.02)
    assert points.position[:, 0].max() < 0  # all on the septal side
    phi = np.arctan2(points.position[:, 1], points.position[:, 0])
    _, epi = geometry.lv_radii(heart, points.position[:, 2], phi)
    assert (np.hypot(points.position[:, 0], points.position[:, 1]) > epi).all()


def test_points__scale_with_the_square_of_length() -> None:
    small = geometry.lv_points(Heart())
    double = Heart(lv_length_mm=184.0, lv_radius_mm=56.0, wall_mm=np.full(17, 13.0))
    large = geometry.lv_points(double)
    np.testing.assert_allclose(large.position, 2 * small.position, rtol=1e-9)
    np.testing.assert_allclose(large.area_vector, 4 * small.area_vector, rtol=1e-4, atol=1e-3)
