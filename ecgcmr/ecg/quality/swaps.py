"""Electrodes on each other's places: which exchange makes the median beat consistent with the rest of its leads.

Limb electrodes: the precordial leads do not change when limb electrodes are exchanged among themselves, and they
foretell leads I and II to some extent. Each exchange is undone in turn; when the leads then agree with the forecast
much better than as recorded, the exchange is suspected (correlations with leads reconstructed from the others: Kors and
van Herpen, "Accurate automatic detection of electrode interchange in the electrocardiogram", Am J Cardiol 2001). P
waves count as well: an exchange is believed less when undoing it would turn them over.

Precordial electrodes: neighbouring leads look alike, so the right order is the shortest path through the six beats.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

# (I, II) as recorded from the true (I, II), for each exchange of limb electrodes among themselves.
EXCHANGES: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "RA and LA": ((-1, 0), (-1, 1)),
    "LA and LL": ((0, 1), (1, 0)),
    "RA and LL": ((1, -1), (0, -1)),
    "RA to LA to LL to RA": ((0, -1), (1, -1)),
    "RA to LL to LA to RA": ((-1, 1), (-1, 0)),
}

# Forecast of I and II [mV] from V1 ... V6 [mV]: ridge regression over the median beats of 118 real recordings (PTB-XL
# at 100 Hz, LUDB, PhysioNet 2021, SPH) and 30 simulated ones, each scaled to the same size.
FORECAST = np.array(
    [[-0.558, 0.279, -0.082, -0.086, -0.024, 0.513], [-0.040, -0.032, -0.002, 0.025, 0.129, 0.598]], np.float32
)

# The same for lead I of beats whose leads have unit length each, for recordings without voltage (250 of PTB-XL, 30
# simulated ones).
FORECAST_UNIT = np.array([-0.471, 0.330, -0.022, -0.074, 0.078, 0.583], np.float32)

# Costs in units of correlation: a rotation of three electrodes is rarer than an exchange of two, and P waves count.
ROTATION_COST = 0.15
P_WAVE_COST = 0.3

# Bins of the median beat, QRS complex at 25: before the P wave, P wave, PR segment, QRS complex.
_BEFORE_P, _P, _AFTER_P, _QRS = slice(0, 4), slice(9, 17), slice(18, 20), slice(19, 32)
_NAMES = tuple(EXCHANGES)
_UNDO = np.stack([np.eye(2), *(np.linalg.inv(np.array(matrix, float)) for matrix in EXCHANGES.values())]).astype("f4")
_COST = np.array([0.0, *(ROTATION_COST if " to " in name else 0.0 for name in _NAMES)], np.float32)
_TURNS_P = np.array([0.0, *(float(name != "LA and LL") for name in _NAMES)], np.float32)
_PAIRS = tuple(combinations(range(6), 2))
_TINY = 1e-12


def limb_exchange(beat: Array) -> tuple[str, float, float]:
    """Which exchange of limb electrodes explains a beat best.

    Args:
        beat: Median beat of the twelve canonical leads (12, 65) [mV], bins of 10 ms, QRS complex at bin 25.

    Returns:
        Name from `EXCHANGES`, correlation with the forecast when it is undone (less its costs), and by how much that
        beats the correlation as recorded.
    """
    forecast = _three((FORECAST @ beat[6:])[None])[0]
    pair = np.asarray(beat[:2], np.float32)
    undone = _three(_UNDO @ pair)  # (6, 3 T), the first as recorded
    size = np.sqrt(np.einsum("et,et->e", undone, undone) * np.dot(forecast, forecast) + _TINY)
    agreement = undone @ forecast / size
    # P waves that would turn over; the exchange of LA and LL only makes I and II change places
    p_wave = (_UNDO @ _p_wave(pair)).sum(axis=1)
    score = agreement - _COST - P_WAVE_COST * (p_wave < p_wave[0] - _TINY) * _TURNS_P
    best = 1 + int(np.argmax(score[1:]))
    return _NAMES[best - 1], float(score[best]), float(score[best] - score[0])


def lead_one_agrees(beat: Array) -> float:
    """Correlation of lead I with its forecast, for recordings without voltage; strongly negative for swapped arms."""
    unit = _unit(np.asarray(beat, np.float32))
    return _correlation(FORECAST_UNIT @ unit[6:], unit[0])


def precordial_gain(beat: Array) -> tuple[tuple[int, int], float]:
    """Which exchange of two precordial leads shortens the path V1 ... V6 most, and by what share.

    Args:
        beat: Median beat of the twelve canonical leads (12, T), any unit; each lead is scaled to length 1.

    Returns:
        Numbers of the two leads, 1 to 6, and the share; negative when the recorded order is the best one.
    """
    unit = _unit(np.asarray(beat[6:], np.float32))
    apart = np.sqrt(np.maximum(2.0 - 2.0 * (unit @ unit.T), 0.0))
    lengths = apart[_ORDERS[:, :-1], _ORDERS[:, 1:]].sum(axis=1)
    best = 1 + int(np.argmin(lengths[1:]))
    first, second = _PAIRS[best - 1]
    return (first + 1, second + 1), float(1.0 - lengths[best] / max(float(lengths[0]), _TINY))


def precordial_reversed(beat: Array) -> tuple[float, float]:
    """How the precordial leads run: both numbers are clearly negative when V6 ... V1 were recorded as V1 ... V6.

    Returns:
        Correlation of I with V6 minus that with V1; and by how much the balance of R and S (-1 to 1) rises from V1
        and V2 to V5 and V6.
    """
    like = _correlation(beat[0], beat[11]) - _correlation(beat[0], beat[6])
    qrs = beat[6:, _QRS]
    high, low = qrs.max(axis=1), qrs.min(axis=1)
    balance = (high + low) / np.maximum(high - low, _TINY)
    return like, float(balance[4:].mean() - balance[:2].mean())


def _orders() -> NDArray[np.int64]:
    """The recorded order and all exchanges of two leads (16, 6)."""
    rows = [list(range(6))]
    for first, second in _PAIRS:
        row = list(range(6))
        row[first], row[second] = second, first
        rows.append(row)
    return np.array(rows)


_ORDERS = _orders()


def _three(pairs: Array) -> Array:
    """I, II and III one after the other (E, 3 T) from I and II (E, 2, T)."""
    return np.concatenate([pairs[:, 0], pairs[:, 1], pairs[:, 1] - pairs[:, 0]], axis=1)


def _correlation(a: Array, b: Array) -> float:
    return float(np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b) + _TINY))


def _unit(rows: Array) -> Array:
    return rows / np.sqrt(np.einsum("lt,lt->l", rows, rows) + _TINY)[:, None]


def _p_wave(pair: Array) -> Array:
    """Height of the P wave of I and II (2,) over the line between what is before it and the PR segment."""
    line = 0.5 * (pair[:, _BEFORE_P].mean(axis=1) + pair[:, _AFTER_P].mean(axis=1))
    return pair[:, _P].mean(axis=1) - line
