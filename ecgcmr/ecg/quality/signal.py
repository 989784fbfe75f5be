"""Checks of each signal by itself: gaps, flat and clipped leads, amplitude, noise, beats."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from ecgcmr.ecg.quality.case import Case, Findings
from ecgcmr.ecg.quality.kernels import MAINS_HZ


def gaps(case: Case) -> Findings:
    """Missing samples, and leads that are mostly missing."""
    missing = case.m.missing
    gone = np.flatnonzero(missing >= case.limits.missing_lead)
    if len(gone):
        yield "missing_lead", f"{missing[gone].min():.0%} or more of {case.names(gone)} is missing"
    if missing.any() and len(gone) < len(missing):
        yield "missing_samples", f"{float(missing.mean()):.2%} of the samples are missing"


def flat(case: Case) -> Findings:
    """Leads without variation, and leads that repeat another one."""
    flat = np.flatnonzero((case.m.high <= case.m.low) & (case.m.missing < case.limits.missing_lead))
    if len(flat):
        yield "flat_lead", f"no variation in {case.names(flat)}"
    mean = case.m.mean[case.moving]
    if len(np.unique(mean[:, mean.shape[1] // 2])) == len(mean):
        return
    rows = np.flatnonzero(case.moving)
    pairs = [pair for pair in combinations(range(len(mean)), 2) if np.array_equal(mean[pair[0]], mean[pair[1]])]
    if pairs:
        yield "duplicate_lead", "the same signal in " + "; ".join(case.names(rows[list(pair)]) for pair in pairs[:3])


def rails(case: Case) -> Findings:
    """Samples at the rails of the recorder."""
    rails = case.m.rails
    if rails[:, 0].sum() >= case.limits.clipped:
        worst = np.flatnonzero(rails[:, 0])
        yield "clipped", f"{rails[:, 0].sum()} samples at the rails of {case.names(worst)}"


def amplitude(case: Case) -> Findings:
    """Excursions beyond the heart's, and a size that no heart has."""
    m, limits = case.m, case.limits
    size = m.typical_size
    if size > 0:
        beat = np.maximum(np.nan_to_num(m.size), size)
        span = m.high - m.low
        ratio = span / beat
        beyond = limits.artefact_mv if case.recording.unit == "mV" else np.inf
        high = np.flatnonzero(case.moving & ((ratio > limits.artefact) | (span - beat > beyond)))
        if len(high):
            yield "artefact", f"{case.names(high)} range over {ratio[high].max():.1f} times the QRS complex"
    if case.recording.unit != "mV" or not case.moving.any():
        return
    if size > limits.size_mv[1]:
        yield "amplitude_large", f"the QRS complex is {size:.3g} mV in the typical lead"
    elif size < limits.size_mv[0]:
        yield "amplitude_small", f"the QRS complex is {size:.3g} mV in the typical lead"


def noise(case: Case) -> Findings:
    """Muscle noise, mains and drift of the baseline."""
    m, limits = case.m, case.limits
    size = m.typical_size
    if size <= 0:
        return
    loud = m.noise > limits.noise * size
    noisy = np.flatnonzero((loud.sum(axis=1) >= min(2, loud.shape[1])) & case.moving)
    if len(noisy):
        level = 1e3 * float(np.sort(m.noise[noisy], axis=1)[:, -min(2, loud.shape[1])].max())
        unit = "uV" if case.recording.unit == "mV" else "1/1000 SD"
        yield "noise", f"{level:.0f} {unit} RMS between the beats in {case.names(noisy)}"
    if not np.isnan(m.mains).all():
        hum = np.sort(np.nan_to_num(m.mains), axis=1)[:, m.mains.shape[1] // 2]  # (L, 2)
        strong = np.flatnonzero((hum.max(axis=1) > limits.mains * size) & case.moving)
        if len(strong):
            hz = MAINS_HZ[int(hum[strong].max(axis=0).argmax())]
            yield "mains", f"{hz:g} Hz, {hum[strong].max() / size:.0%} of the QRS complex, in {case.names(strong)}"
    drift = np.flatnonzero((m.wander > limits.wander * size) & case.moving)
    if len(drift):
        yield "baseline_wander", f"{m.wander[drift].max() / size:.1f} times the QRS complex in {case.names(drift)}"


def rhythm(case: Case) -> Findings:
    """Beats that can be told from what lies between them, at a rate that a heart can have."""
    m, limits = case.m, case.limits
    seconds = case.recording.duration_s
    if len(m.beats) < max(2.0, seconds * 0.25) or m.contrast < limits.contrast:
        yield "no_beats", f"{len(m.beats)} in {seconds:.0f} s, standing out {m.contrast:.1f} times"
        return
    bpm = 6000.0 / float(np.median(np.diff(m.beats)))
    if not limits.rate_bpm[0] <= bpm <= limits.rate_bpm[1]:
        yield "odd_rate", f"{bpm:.0f} beats per minute"
