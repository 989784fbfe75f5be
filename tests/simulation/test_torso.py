"""Electrodes lie on the skin, move with fat, and are misplaced as technicians misplace them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ecgcmr.simulation.heart import Heart
from ecgcmr.simulation.lead_field import ELECTRODES
from ecgcmr.simulation.torso import draw_placement, place_electrodes, skin_axes


def test_place_electrodes__chest_electrodes_lie_on_the_ellipse() -> None:
    spots = place_electrodes((168.0, 118.0), 1.05, draw_placement(20.0, np.random.default_rng(0)))
    assert spots.shape == (9, 3)
    chest = spots[3:]
    np.testing.assert_allclose((chest[:, 0] / 168.0) ** 2 + (chest[:, 1] / 118.0) ** 2, 1.0, atol=1e-12)


def test_place_electrodes__anatomical_order() -> None:
    spot = dict(zip(ELECTRODES, place_electrodes((168.0, 118.0)), strict=True))
    x = [spot[f"V{k}"][0] for k in range(1, 7)]
    assert np.all(np.diff(x) > 0)
    assert spot["V1"][0] < 0 < spot["V2"][0]
    assert max(spot[f"V{k}"][1] for k in range(1, 6)) < 0
    assert spot["RA"][0] < 0 < spot["LA"][0]
    assert spot["LL"][2] < spot["V4"][2] < spot["V1"][2] < spot["LA"][2]


def test_place_electrodes__misplacement_is_in_millimeters() -> None:
    for shift in ((12.0, 0.0), (0.0, 12.0)):
        moved = place_electrodes((168.0, 118.0), 1.0, np.tile(shift, (6, 1)))
        distance = np.linalg.norm((moved - place_electrodes((168.0, 118.0)))[3:], axis=1)
        np.testing.assert_allclose(distance, 12.0, rtol=0.03)


def test_draw_placement__scales_and_is_larger_upwards() -> None:
    rng = np.random.default_rng(1)
    errors = np.stack([draw_placement(10.0, rng) for _ in range(2000)])
    across, up = errors[..., 0].std(), errors[..., 1].std()
    assert across == pytest.approx(7.1, rel=0.1)
    assert up == pytest.approx(10.3, rel=0.1)
    # the row moves as one: neighbors share most of the vertical error
    assert np.corrcoef(errors[:, 0, 1], errors[:, 5, 1])[0, 1] > 0.6


def test_skin_axes__grow_with_fat_millimeter_by_millimeter() -> None:
    thin, thick = skin_axes(Heart(fat_mm=10.0)), skin_axes(replace(Heart(), fat_mm=20.0))
    np.testing.assert_allclose(np.array(thick) - thin, 10.0)
