from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgcmr.simulation.heart import Heart
from ecgcmr.simulation.motion import ejected, kick_phase, move
from ecgcmr.simulation.phenotypes import RING, myocardial_volume, volume_curves


@given(st.floats(0.28, 0.43), st.floats(0.0, 0.4), st.floats(45, 125), st.floats(120, 300), st.floats(0, 0.25))
@settings(max_examples=60, deadline=None)
def test_ejected__is_a_continuous_share(es: float, kick: float, rate: float, pr: float, delay: float) -> None:
    heart = Heart(es_fraction=es, kick_fraction=kick, heart_rate_bpm=rate, pr_ms=pr)
    u = np.linspace(0, 1, 4001, endpoint=False)
    share = ejected(heart, u, delay)
    assert share.min() >= -1e-12
    assert share.max() <= 1 + 1e-12
    assert share[0] == pytest.approx(0.0, abs=1e-9)
    assert np.abs(np.diff(share)).max() < 0.01
    assert share[-1] == pytest.approx(0.0, abs=2e-3)


def test_ejected__landmarks_of_the_recipe() -> None:
    heart = Heart()
    landmarks = ejected(heart, np.array([0.0, heart.es_fraction / 2, heart.es_fraction, kick_phase(heart)]))
    np.testing.assert_allclose(landmarks, [0.0, 0.5, 1.0, heart.kick_fraction], atol=1e-9)
    silent = replace(heart, kick_fraction=0.0)
    late = ejected(silent, np.linspace(kick_phase(silent), 0.999, 20))
    np.testing.assert_allclose(late, 0.0, atol=1e-12)  # no atrial kick: filling has ended before


def test_move__wall_volume_is_conserved() -> None:
    heart = Heart(radial_shortening=np.linspace(0.05, 0.4, 17), delay_ms=np.linspace(0, 90, 17))
    motion = move(heart, np.arange(10) / 10, RING)
    volumes = [myocardial_volume(motion, k) for k in range(10)]
    np.testing.assert_allclose(volumes, volumes[0], rtol=2e-3)


def test_move__uniform_shortening_has_the_closed_form_ejection() -> None:
    heart = Heart(radial_shortening=np.full(17, 0.3), longitudinal_shortening=0.1)
    lv, _ = volume_curves(move(heart, np.array([0.0, heart.es_fraction]), RING))
    tip, length = heart.lv_length_mm + heart.apex_wall_mm, heart.lv_length_mm
    assert lv[1] / lv[0] == pytest.approx((1 - 0.3) ** 2 * (1 - 0.1), rel=1e-6)
    shape = 1 - (0.8 + 0.2**3 / 0.8**2) / 3
    assert lv[0] == pytest.approx(np.pi * heart.lv_radius_mm**2 * length * shape / 1000, rel=1e-9)
    assert tip > length


def test_move__delayed_segment_contracts_late() -> None:
    delay = np.zeros(17)
    delay[[4, 5, 10, 11]] = 120.0
    u = np.linspace(0, 0.6, 200)
    motion = move(Heart(delay_ms=delay), u, (0.0, np.pi))
    lateral, septal = motion.inward[:, 1, 0].argmax(), motion.inward[:, 1, 1].argmax()
    assert (u[lateral] - u[septal]) * Heart().rr_ms == pytest.approx(120.0, abs=10)


def test_move__atria_fill_while_the_ventricle_empties() -> None:
    motion = move(Heart(), np.array([0.0, 0.35]))
    assert motion.left_atrium[1].prod() > motion.left_atrium[0].prod()
    assert motion.base_mm[0] == pytest.approx(0.0, abs=1e-9)
    assert 8 < motion.base_mm[1] < 25  # mitral annular excursion of an adult [mm]
