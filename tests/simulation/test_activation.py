"""Activation times on surfaces whose geodesics are known, and what blocks and scars do to them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ecgcmr.simulation.activation import Conduction, Wall, activation_times
from ecgcmr.simulation.electrical_latents import ElectricsDesign, draw_electrics
from ecgcmr.simulation.electrics import Activation, activate
from ecgcmr.simulation.heart import TERRITORIES, Heart

QUIET = ElectricsDesign(*([0.0] * 9))
NO_SITES = np.empty((0, 3))


def sphere(n: int = 1500, radius: float = 30.0) -> Wall:
    k = np.arange(n) + 0.5
    polar, around = np.arccos(1 - 2 * k / n), np.pi * (1 + 5**0.5) * k
    normal = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], axis=1)
    none = np.zeros(n, dtype=bool)
    return Wall(normal * radius, normal, np.full(n, 1e-6), none, none, np.zeros(n))


def activation_of(heart: Heart) -> Activation:
    return activate(heart, draw_electrics(heart, np.random.default_rng(0), QUIET))


def test_activation_times__follow_great_circles_on_a_sphere() -> None:
    wall = sphere()
    site = np.array([[0.0, 0.0, 30.0]])
    endo, _ = activation_times(wall, Conduction(1.0, 1.0, site, np.array([5.0]), NO_SITES, np.empty(0)))
    exact = 5.0 + 30.0 * np.arccos(np.clip(wall.normal[:, 2], -1, 1))
    assert np.abs(endo - exact).max() < 0.08 * exact.max()
    assert np.corrcoef(endo, exact)[0, 1] > 0.999


def test_activation_times__the_earliest_site_wins() -> None:
    wall = sphere()
    sites = np.array([[0.0, 0.0, 30.0], [0.0, 0.0, -30.0]])
    endo, _ = activation_times(wall, Conduction(1.0, 1.0, sites, np.array([0.0, 0.0]), NO_SITES, np.empty(0)))
    assert endo.max() == pytest.approx(30.0 * np.pi / 2, rel=0.08)


def test_activation_times__scale_with_length_and_inversely_with_speed() -> None:
    site = np.array([[0.0, 0.0, 30.0]])
    base, _ = activation_times(sphere(), Conduction(1.0, 1.0, site, np.zeros(1), NO_SITES, np.empty(0)))
    fast, _ = activation_times(sphere(), Conduction(2.0, 1.0, site, np.zeros(1), NO_SITES, np.empty(0)))
    large, _ = activation_times(sphere(radius=60.0), Conduction(1.0, 1.0, 2 * site, np.zeros(1), NO_SITES, np.empty(0)))
    # explicit zeros are lifted to 1e-6 ms so that they stay edges of the graph
    np.testing.assert_allclose(fast, base / 2, atol=1e-5)
    np.testing.assert_allclose(large, base * 2, atol=1e-5)


def test_activate__normal_beat_begins_in_the_left_septum_and_ends_at_the_base() -> None:
    made = activation_of(Heart())
    wall = made.wall.wall
    assert wall.septum[int(made.endo_ms.argmin())]
    latest = made.wall.depth[np.argsort(np.maximum(made.endo_ms, made.epi_ms))[-20:]]
    assert np.median(latest) < 0.35
    assert 35.0 < made.endo_ms[~wall.right].max() < 90.0
    # the septum is activated from both sides, and first from the left: that makes the first r of V1 and the q of V6
    early = wall.septum & (np.minimum(made.endo_ms, made.epi_ms) < 15.0)
    assert early.sum() > 10
    assert (made.endo_ms < made.epi_ms)[early].mean() > 0.8
    assert (made.endo_ms > made.epi_ms)[wall.septum].mean() > 0.1


def test_activate__left_block_reverses_the_septum_and_delays_the_lateral_wall() -> None:
    normal, block = activation_of(Heart()), activation_of(Heart(lbbb=True))
    septum = block.wall.wall.septum
    assert (block.epi_ms < block.endo_ms)[septum].mean() > 0.9
    lateral, septal = [4, 5, 10, 11], [1, 2, 7, 8]
    delay = block.segment_ms[lateral].mean() - block.segment_ms[septal].mean()
    assert delay > 40.0
    assert delay > 2.0 * (normal.segment_ms[lateral].mean() - normal.segment_ms[septal].mean())


def test_activate__right_block_delays_the_right_wall_alone() -> None:
    normal, block = activation_of(Heart()), activation_of(Heart(rbbb=True))
    assert block.right_ms > normal.right_ms + 15.0
    np.testing.assert_allclose(block.segment_ms[[4, 5, 10, 11]], normal.segment_ms[[4, 5, 10, 11]], atol=1.0)


def test_activate__scar_delays_its_territory() -> None:
    scar = np.zeros(17)
    scar[list(TERRITORIES["LCX"])] = 0.8
    normal, infarct = activation_of(Heart()), activation_of(replace(Heart(), scar=scar))
    late = infarct.segment_ms - normal.segment_ms
    assert late[[4, 5, 10, 11]].min() > 3.0
    assert np.abs(late[[1, 2, 7, 8]]).max() < 3.0
