"""Baseline wander by asymmetric least squares, compiled.

The estimate z of a signal y minimises sum_t w_t (y_t - z_t)^2 + lam * sum_t (z_t - 2 z_{t+1} + z_{t+2})^2, where the
weights w are p above the current estimate and 1 - p below it, and are renewed after each solve (Eilers and Boelens,
"Baseline correction with asymmetric least squares smoothing", 2005). The matrix diag(w) + lam D D' is symmetric and
pentadiagonal, so that one solve is a banded LDL' factorisation and two substitutions: O(T).
"""

from __future__ import annotations

import threading

import numpy as np
from numba import njit
from numpy.typing import NDArray

# Leads that advance together: one recurrence is bound by latency, twelve side by side fill the vector units, and
# the work array of one recording (4 values x 12 leads x 5000 samples) still nearly fits the second-level cache.
LANES = 12

# Unsigned indices spare the compiler the test for negative ones, without which it does not vectorise over lanes.
_U = np.uint64
_ROW, _Z, _L1, _Q = _U(4 * LANES), _U(LANES), _U(2 * LANES), _U(3 * LANES)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _factor_and_forward(work, n, inv, above, below, equal):  # type: ignore[no-untyped-def]
    """Factorise and solve L u = w y for all lanes.

    The system is divided by lam. A row of `work` holds y, z (replaced by u), the first subdiagonal of L, and
    1 / d of each lane; the second subdiagonal of L equals 1 / d because the outer band of D D' is 1.
    """
    for t in range(n):
        i = _U(t + 2) * _ROW
        j = i - _ROW
        h = j - _ROW
        ends = t == 0 or t == n - 1
        a = 1.0 if ends else (5.0 if (t == 1 or t == n - 2) else 6.0)
        b = -2.0 if (t == 0 or t == n - 2) else -4.0
        b_before = -2.0 if (t == 1 or t == n - 1) else -4.0
        for lane in range(LANES):
            k = _U(lane)
            y = work[i + k]
            z = work[i + _Z + k]
            w = equal
            w = above if y > z else w
            w = below if y < z else w
            l1 = work[j + _L1 + k]
            l2 = work[h + _Q + k]
            q = 1.0 / (a + w * inv - l1 * (b_before - work[h + _L1 + k]) - l2)
            work[i + _Q + k] = q
            work[i + _L1 + k] = (b - l1) * q
            work[i + _Z + k] = w * inv * y - l1 * work[j + _Z + k] - l2 * work[h + _Z + k]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _backward(work, n):  # type: ignore[no-untyped-def]
    """Solve D L' z = u for all lanes, in place."""
    for t in range(n - 1, -1, -1):
        i = _U(t + 2) * _ROW
        j = i + _ROW
        h = j + _ROW
        for lane in range(LANES):
            k = _U(lane)
            work[i + _Z + k] = (work[i + _Z + k] - work[h + _Z + k]) * work[i + _Q + k] - work[i + _L1 + k] * work[
                j + _Z + k
            ]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _als(rows, lam, p, n_iter, work, out, detrend):  # type: ignore[no-untyped-def]
    """Write the baselines of rows (R, T), or what is left without them, to `out` (R, T); `work` holds T + 4 rows."""
    n_rows, n = rows.shape
    signal, baseline = rows.reshape(-1), out.reshape(-1)
    inv = 1.0 / lam
    start = np.empty(LANES, np.uint64)
    for first in range(0, n_rows, LANES):
        used = min(LANES, n_rows - first)
        for k in range(LANES):
            start[k] = min(first + k, n_rows - 1) * n
        for t in range(n):
            i = _U(t + 2) * _ROW
            for lane in range(LANES):
                work[i + _U(lane)] = signal[start[lane] + _U(t)]
        for iteration in range(n_iter):
            work[: 2 * 4 * LANES] = 0.0
            work[(n + 2) * 4 * LANES : (n + 4) * 4 * LANES] = 0.0
            if iteration == 0:
                _factor_and_forward(work, n, inv, 1.0, 1.0, 1.0)
            else:
                _factor_and_forward(work, n, inv, p, 1.0 - p, 0.0)
            _backward(work, n)
        for t in range(n):
            i = _U(t + 2) * _ROW + _Z
            for lane in range(used):
                at = start[lane] + _U(t)
                baseline[at] = signal[at] - work[i + _U(lane)] if detrend else work[i + _U(lane)]


_kept = threading.local()


def _work(size: int) -> NDArray[np.float64]:
    """Return at least `size` values to work in, the same ones each time in a thread.

    Fresh memory costs as much as a third of the solves: the system maps and clears two megabytes page by page.
    """
    work = getattr(_kept, "work", None)
    if work is None or len(work) < size:
        work = _kept.work = np.zeros(size)
    return work


def als_baseline(
    samples: NDArray[np.floating], lam: float = 1e7, p: float = 0.3, n_iter: int = 5
) -> NDArray[np.float64]:
    """Estimate the baseline of each row by asymmetric least squares.

    Args:
        samples: Signal (..., T), finite. Computed in float64: with lam = 1e7 the system's condition is beyond float32.
        lam: Smoothness; towards infinity the baseline becomes a weighted straight line.
        p: Weight of samples above the baseline; those below weigh 1 - p, those equal to it 0.
        n_iter: Number of solves; the first has unit weights.

    Returns:
        Baseline (..., T) of the last solve, float64, in the unit of the samples; a constant row is its own baseline.

    Raises:
        ValueError: Fewer than 4 samples, or a parameter out of its range.
    """
    return _run(samples, lam, p, n_iter, detrend=False)


def als_detrended(
    samples: NDArray[np.floating], lam: float = 1e7, p: float = 0.3, n_iter: int = 5
) -> NDArray[np.float64]:
    """Return the samples minus `als_baseline`, to the bit, in the memory of one array instead of two."""
    return _run(samples, lam, p, n_iter, detrend=True)


def _run(samples: NDArray[np.floating], lam: float, p: float, n_iter: int, detrend: bool) -> NDArray[np.float64]:
    if not (lam > 0 and np.isfinite(lam)):
        raise ValueError(f"lam must be positive and finite, got {lam}")
    if not 0 < p < 1:
        raise ValueError(f"p must lie between 0 and 1, got {p}")
    if n_iter < 1:
        raise ValueError(f"n_iter must be at least 1, got {n_iter}")
    x = np.asarray(samples)
    if x.ndim < 1 or x.shape[-1] < 4:
        raise ValueError(f"the baseline needs at least 4 samples a lead, got shape {x.shape}")
    rows = np.ascontiguousarray(x.reshape(-1, x.shape[-1]), dtype=np.float64)
    out = np.empty_like(rows)
    _als(rows, float(lam), float(p), int(n_iter), _work((rows.shape[1] + 4) * 4 * LANES), out, detrend)
    # A constant lead (a detached electrode) equals its baseline, so that all weights and then the pivots become 0.
    ends_equal = rows[:, 0] == rows[:, -1]
    for row in np.flatnonzero(ends_equal):
        if (rows[row] == rows[row, 0]).all():
            out[row] = 0.0 if detrend else rows[row]
    return out.reshape(x.shape)
