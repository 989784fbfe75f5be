"""Potentials against closed forms, and the laws that derived leads obey."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcmr.ecg.leads import LEADS
from ecgcmr.simulation.lead_field import CONDUCTIVITY_S_M, ELECTRODES, dipole_potentials, lead_matrix, to_leads


def row(leads: np.ndarray, name: str) -> np.ndarray:
    return leads[LEADS.index(name)]


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q *= np.sign(np.diag(r))
    q[:, 0] *= np.linalg.det(q)
    return q


@pytest.fixture
def toy(rng_seed: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rng_seed)
    positions = rng.normal(0.0, 30.0, (40, 3))
    electrodes = rng.normal(0.0, 1.0, (9, 3))
    electrodes *= 150.0 / np.linalg.norm(electrodes, axis=1, keepdims=True)
    return rng.standard_normal((40, 3)), positions, electrodes


def test_dipole_potentials__closed_form_of_one_dipole_on_its_axis() -> None:
    phi = dipole_potentials(np.array([[0.0, 0.0, 2.0]]), np.zeros((1, 3)), np.array([[0.0, 0.0, 80.0]]), blur_mm=0.0)
    assert phi[0, 0] == pytest.approx(2.0 / (4.0 * np.pi * CONDUCTIVITY_S_M * 80.0**2), rel=1e-12)


def test_dipole_potentials__equals_the_formula_written_out(toy: tuple[np.ndarray, ...]) -> None:
    moments, positions, electrodes = toy
    phi = dipole_potentials(moments, positions, electrodes, blur_mm=22.0)
    for e, i in ((0, 0), (3, 17), (8, 39)):
        arm = electrodes[e] - positions[i]
        distance = np.sqrt(arm @ arm + 22.0**2)
        assert phi[e, i] == pytest.approx(moments[i] @ arm / (4 * np.pi * CONDUCTIVITY_S_M * distance**3), rel=1e-9)


def test_dipole_potentials__a_closed_uniform_double_layer_is_silent_outside_and_flat_inside() -> None:
    # Gauss: the solid angle of a closed surface is 0 from outside and 4 pi from inside
    n = 4000
    k = np.arange(n) + 0.5
    polar, around = np.arccos(1 - 2 * k / n), np.pi * (1 + 5**0.5) * k
    normal = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], axis=1)
    area = 4 * np.pi * 30.0**2 / n
    probes = np.array([[90.0, 10.0, 0.0], [0.0, -70.0, 40.0], [5.0, 3.0, -8.0], [0.0, 0.0, 0.0]])
    phi = dipole_potentials(normal * area, normal * 30.0, probes, blur_mm=0.0).sum(axis=1)
    assert np.abs(phi[:2]).max() < 1e-3 / CONDUCTIVITY_S_M
    np.testing.assert_allclose(phi[2:], -1.0 / CONDUCTIVITY_S_M, rtol=1e-3)


def test_dipole_potentials__rotating_sources_and_electrodes_together_changes_nothing(
    toy: tuple[np.ndarray, ...],
) -> None:
    moments, positions, electrodes = toy
    turn = random_rotation(np.random.default_rng(1))
    before = dipole_potentials(moments, positions, electrodes)
    after = dipole_potentials(moments @ turn.T, positions @ turn.T, electrodes @ turn.T)
    np.testing.assert_allclose(after, before, atol=1e-9 * np.abs(before).max())


@given(scale=st.floats(0.5, 4.0))
@settings(max_examples=20, deadline=None)
def test_dipole_potentials__scaling_all_lengths(scale: float) -> None:
    # a fixed dipole falls with the square of length; an area vector grows with it, so a double layer keeps phi
    rng = np.random.default_rng(3)
    moments, positions = rng.standard_normal((10, 3)), rng.normal(0.0, 20.0, (10, 3))
    electrodes = rng.normal(0.0, 1.0, (9, 3)) + np.array([0.0, 0.0, 120.0])
    phi = dipole_potentials(moments, positions, electrodes, blur_mm=22.0)
    large = dipole_potentials(moments, positions * scale, electrodes * scale, blur_mm=22.0 * scale)
    layer = dipole_potentials(moments * scale**2, positions * scale, electrodes * scale, blur_mm=22.0 * scale)
    np.testing.assert_allclose(large, phi / scale**2, rtol=1e-8, atol=1e-15)
    np.testing.assert_allclose(layer, phi, rtol=1e-8, atol=1e-15)


def test_to_leads__einthoven_goldberger_and_wilson() -> None:
    phi = np.random.default_rng(0).standard_normal((9, 50))
    leads = to_leads(phi)
    one, two, three = (row(leads, name) for name in ("I", "II", "III"))
    np.testing.assert_allclose(one + three, two, atol=1e-9)
    np.testing.assert_allclose(row(leads, "aVR") + row(leads, "aVL") + row(leads, "aVF"), 0.0, atol=1e-9)
    np.testing.assert_allclose(row(leads, "aVL"), (one - three) / 2, atol=1e-9)
    np.testing.assert_allclose(row(leads, "aVF"), (two + three) / 2, atol=1e-9)
    terminal = phi[:3].mean(axis=0)
    np.testing.assert_allclose(row(leads, "V4"), phi[ELECTRODES.index("V4")] - terminal, atol=1e-12)
    np.testing.assert_allclose(one, phi[ELECTRODES.index("LA")] - phi[ELECTRODES.index("RA")], atol=1e-12)


def test_lead_matrix__a_uniform_potential_gives_no_signal() -> None:
    np.testing.assert_allclose(lead_matrix() @ np.ones((9, 1)), 0.0, atol=1e-15)
