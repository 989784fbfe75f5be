"""What is odd about an ECG: flags with reasons, for a ledger or a person; never an exception.

Thresholds were set on simulated recordings with planted defects and on real ones of six sources; docs/quality.md has
the rates that were measured.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ecgcmr.ecg.quality import electrodes, signal
from ecgcmr.ecg.quality.case import LIMITS, Case, Findings, QualityLimits, lead_rows
from ecgcmr.ecg.quality.measures import MIN_SECONDS, measure
from ecgcmr.ecg.recording import EcgRecording

__all__ = ["CODES", "HARD_FLAGS", "LIMITS", "QualityFlag", "QualityLimits", "check_ecg"]

logger = logging.getLogger(__name__)

CODES = (
    "too_short",
    "missing_lead",
    "missing_samples",
    "flat_lead",
    "duplicate_lead",
    "lead_off",
    "clipped",
    "artefact",
    "amplitude_large",
    "amplitude_small",
    "noise",
    "mains",
    "baseline_wander",
    "einthoven",
    "swapped_arms",
    "swapped_left",
    "swapped_right",
    "swapped_limbs",
    "swapped_leg",
    "precordial_order",
    "no_beats",
    "odd_rate",
    "check_failed",
)
"""Every code in the order in which `check_ecg` reports them; names and order are stable, new ones are added."""

HARD_FLAGS: frozenset[str] = frozenset({"too_short", "missing_lead", "flat_lead", "amplitude_large", "no_beats"})
"""The codes on which `--qc drop` drops a recording: it holds no twelve-lead ECG that a model could use."""


@dataclass(frozen=True)
class QualityFlag:
    """One finding.

    Attributes:
        code: Stable name of the check, one of `CODES`.
        detail: What was found, in numbers.
    """

    code: str
    detail: str


def check_ecg(recording: EcgRecording, limits: QualityLimits = LIMITS) -> tuple[QualityFlag, ...]:
    """Look at length, gaps, electrodes, noise, amplitude, order of the leads and beats.

    A check that cannot be done is a flag as well (`check_failed`), so a bad recording never stops an ingest.

    Args:
        recording: Samples (L, T) with any leads, in `mV` or `z`; what needs a missing lead or voltage is left out.
        limits: Thresholds.

    Returns:
        The findings in the order of `CODES`; empty when nothing is odd.
    """
    found: list[QualityFlag] = []
    with np.errstate(all="ignore"):  # absurd numbers are a finding, not a warning
        try:
            if recording.duration_s < limits.min_s:
                detail = f"{recording.duration_s:.3g} s; expected {limits.min_s:g} s or more"
                found.append(QualityFlag("too_short", detail))
            if recording.duration_s < MIN_SECONDS or not recording.leads:
                return tuple(found)
            case = Case(recording, measure(recording), limits, lead_rows(tuple(recording.leads)))
        except Exception as error:
            return (*found, _failed("measure", error))
        for check in _CHECKS:
            try:
                found.extend(QualityFlag(code, detail) for code, detail in check(case))
            except Exception as error:
                found.append(_failed(check.__name__, error))
    return tuple(sorted(found, key=lambda flag: CODES.index(flag.code)))


def _failed(name: str, error: Exception) -> QualityFlag:
    logger.warning("quality check %s failed: %s", name, type(error).__name__)
    return QualityFlag("check_failed", f"{name}: {type(error).__name__}")


_CHECKS: tuple[Callable[[Case], Findings], ...] = (
    signal.gaps,
    signal.flat,
    electrodes.off,
    signal.rails,
    signal.amplitude,
    signal.noise,
    electrodes.einthoven,
    electrodes.exchanged_limbs,
    electrodes.exchanged_chest,
    signal.rhythm,
)
