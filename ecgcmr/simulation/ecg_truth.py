"""Intervals, axis and peaks of the clean ECG, measured on its parts instead of guessed from their sum.

The simulator keeps depolarization, repolarization and atria apart, so the ends of the QRS complex and of the T wave are
well defined; thresholds are relative to the peak, the end of T is where its steepest tangent meets the baseline
(Lepeschkin & Surawicz, Circulation 1952;6:378).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.leads import LEADS
from ecgcmr.simulation.lead_field import to_leads
from ecgcmr.simulation.potentials import DoubleLayer, ventricular_potentials

BEAT_RATE_HZ = 1000.0
_BEAT_START_S = 0.1
_BEAT_SAMPLES = 800
QRS_THRESHOLD = 0.035  # share of the peak of the RMS over leads
FLAT_SHARE = 0.4  # lead II is flat where its largest deflection is below this share of the largest RMS over leads
_INDEPENDENT = [LEADS.index(lead) for lead in ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")]


@dataclass(frozen=True)
class BeatTruth:
    """One clean beat at 60 beats per minute scale `apd_scale`, and what is measured on it.

    Attributes:
        leads: QRST of the beat (12, T) [mV] at 1 kHz, without the P wave.
        onset_index: Sample of the onset of ventricular activation.
        qrs_ms: QRS onset and offset after the onset of activation [ms].
        peak_ms: Time of the R peak [ms]: the largest deflection of lead II, or of all leads where II is flat.
        t_end_ms: End of the T wave [ms].
        axis_deg: Frontal axis of the QRS area [degree].
    """

    leads: NDArray[np.float64]
    onset_index: int
    qrs_ms: tuple[float, float]
    peak_ms: float
    t_end_ms: float
    axis_deg: float

    @property
    def qrs_duration_ms(self) -> float:
        """QRS duration [ms]."""
        return self.qrs_ms[1] - self.qrs_ms[0]

    @property
    def qt_ms(self) -> float:
        """QT interval [ms]."""
        return self.t_end_ms - self.qrs_ms[0]


def frontal_axis(leads: NDArray[np.float64]) -> float:
    """Frontal axis [degree] of the net area of leads (12, T): 0 along I, 90 along aVF."""
    area_i, area_avf = leads[LEADS.index("I")].sum(), leads[LEADS.index("aVF")].sum()
    # Einthoven's triangle: a vertical vector of length 1 projects on aVF with the factor of the augmented leads
    return float(np.rad2deg(np.arctan2(area_avf * 2.0 / np.sqrt(3.0), area_i)))


def _peak(qrs: NDArray[np.float64], size: NDArray[np.float64]) -> int:
    """Sample of the R peak as a reader of the rhythm strip (lead II) sees it."""
    strip = np.abs(qrs[LEADS.index("II")])
    return int(np.argmax(strip if strip.max() > FLAT_SHARE * size.max() else size))


def measure_beat(layer: DoubleLayer, transfer: NDArray[np.float64], apd_scale: float) -> BeatTruth:
    """Simulate one beat at 1 kHz and measure it.

    Args:
        layer: Times of the two faces.
        transfer: Potentials of unit dipoles (9, n).
        apd_scale: Factor of the action-potential durations.
    """
    parts = ventricular_potentials(
        layer,
        transfer,
        np.array([_BEAT_START_S]),
        np.array([apd_scale]),
        n_samples=_BEAT_SAMPLES,
        rate_hz=BEAT_RATE_HZ,
    )
    onset = round(_BEAT_START_S * BEAT_RATE_HZ)
    qrs, recovery = to_leads(parts.depolarization), to_leads(parts.repolarization)
    size = np.sqrt((qrs[_INDEPENDENT] ** 2).mean(axis=0))
    above = np.flatnonzero(size > QRS_THRESHOLD * size.max())
    ms = 1000.0 / BEAT_RATE_HZ
    t_size = np.sqrt((recovery[_INDEPENDENT] ** 2).mean(axis=0))
    top = above[-1] + int(np.argmax(t_size[above[-1] :]))
    slope = np.diff(t_size[top:])
    steepest = int(np.argmin(slope))
    t_end = top + steepest + 0.5 - t_size[top + steepest] / min(slope[steepest], -1e-12)
    return BeatTruth(
        leads=qrs + recovery,
        onset_index=onset,
        qrs_ms=((above[0] - onset) * ms, (above[-1] - onset) * ms),
        peak_ms=(_peak(qrs, size) - onset) * ms,
        t_end_ms=float(min(t_end, _BEAT_SAMPLES) - onset) * ms,
        axis_deg=frontal_axis(qrs),
    )
