"""What ECG recorders measure: one name, unit and plausible range for each, whatever a file calls it."""

from __future__ import annotations

import math
from collections.abc import Iterable

MEASUREMENTS: dict[str, tuple[float, float]] = {
    "heart_rate_bpm": (10.0, 400.0),
    "atrial_rate_bpm": (10.0, 800.0),
    "rr_ms": (150.0, 6000.0),
    "pp_ms": (75.0, 6000.0),
    "p_duration_ms": (10.0, 400.0),
    "pr_ms": (30.0, 800.0),
    "qrs_ms": (20.0, 400.0),
    "qt_ms": (100.0, 1000.0),
    "qtc_ms": (100.0, 1000.0),
    "qtc_bazett_ms": (100.0, 1000.0),
    "qtc_fridericia_ms": (100.0, 1000.0),
    "p_axis_deg": (-360.0, 360.0),
    "qrs_axis_deg": (-360.0, 360.0),
    "t_axis_deg": (-360.0, 360.0),
    "sokolov_lyon_mv": (0.0, 20.0),
    "highpass_hz": (0.0, 100.0),
    "lowpass_hz": (1.0, 5000.0),
    "notch_hz": (1.0, 500.0),
}
"""Name -> plausible range, in the unit that the name ends with; `qtc_ms` is by the recorder's own formula.

Recorders write 0, -1, 32767 or `Failed` where they could not measure; what lies outside is taken for that.
"""

FACTORS = {"ms": 1.0, "s": 1e3, "us": 1e-3, "deg": 1.0, "degrees": 1.0, "bpm": 1.0, "Hz": 1.0, "kHz": 1e3, "mV": 1.0}
"""Units that measurements are written in, as factors to ours."""


def measured(found: Iterable[tuple[str, object]]) -> dict[str, float]:
    """Return the measurements that are numbers within their plausible range; the first of a name counts.

    Args:
        found: (name, value as the file has it) pairs; names from `MEASUREMENTS`.
    """
    kept: dict[str, float] = {}
    for name, written in found:
        low, high = MEASUREMENTS[name]
        try:
            value = float(str(written).strip())
        except ValueError:
            continue
        if math.isfinite(value) and low <= value <= high:
            kept.setdefault(name, value)
    return kept
