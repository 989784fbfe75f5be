"""What is odd about an ECG: flags with reasons, for a ledger or a person; never an exception."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ecgcmr.ecg.recording import EcgRecording

logger = logging.getLogger(__name__)

MIN_SECONDS = 5.0

CODES = (
    "too_short",
    "missing_lead",
    "missing_samples",
    "flat_lead",
    "lead_off",
    "clipped",
    "amplitude_large",
    "amplitude_small",
    "noise",
    "mains",
    "baseline_wander",
    "einthoven",
    "swapped_arms",
    "swapped_left",
    "swapped_right",
    "precordial_order",
    "no_beats",
    "odd_rate",
    "check_failed",
)
"""Every code in the order in which `check_ecg` reports them; names and order are stable."""

HARD_FLAGS: frozenset[str] = frozenset({"too_short", "missing_lead", "flat_lead", "amplitude_large", "no_beats"})
"""The codes on which `--qc drop` drops a recording: it holds no usable twelve-lead ECG."""


@dataclass(frozen=True)
class QualityFlag:
    """One finding.

    Attributes:
        code: Stable name of the check, one of `CODES`.
        detail: What was found, in numbers.
    """

    code: str
    detail: str


def check_ecg(recording: EcgRecording) -> tuple[QualityFlag, ...]:
    """Look at length, gaps, electrodes, noise, order of the leads and beats.

    A check that cannot be done is a flag as well (`check_failed`), so a bad recording never stops an ingest.

    Args:
        recording: Samples (L, T) with any leads, in `mV` or `z`; what needs a missing lead or voltage is left out.

    Returns:
        The findings in the order of `CODES`; empty when nothing is odd.
    """
    found: list[QualityFlag] = []
    for check in _CHECKS:
        try:
            found.extend(check(recording))
        except Exception as error:
            logger.warning("quality check %s failed: %s", check.__name__, type(error).__name__)
            found.append(QualityFlag("check_failed", f"{check.__name__.strip('_')}: {type(error).__name__}"))
    return tuple(sorted(found, key=lambda flag: CODES.index(flag.code)))


def _length(recording: EcgRecording) -> Iterator[QualityFlag]:
    if recording.duration_s < MIN_SECONDS:
        yield QualityFlag("too_short", f"{recording.duration_s:.3g} s; at least {MIN_SECONDS:g} s are needed")


def _gaps(recording: EcgRecording) -> Iterator[QualityFlag]:
    missing = ~np.isfinite(recording.samples)
    share = missing.mean(axis=1)
    empty = [lead for lead, part in zip(recording.leads, share, strict=True) if part == 1.0]
    if empty:
        yield QualityFlag("missing_lead", f"no sample in {', '.join(empty)}")
    elif missing.any():
        yield QualityFlag("missing_samples", f"{missing.mean():.2%} of the samples are missing")


def _flat(recording: EcgRecording) -> Iterator[QualityFlag]:
    still = [
        lead for lead, row in zip(recording.leads, recording.samples, strict=True) if row.size and np.all(row == row[0])
    ]
    if still:
        yield QualityFlag("flat_lead", f"no variation in {', '.join(still)}")


_CHECKS: tuple[Callable[[EcgRecording], Iterator[QualityFlag]], ...] = (_length, _gaps, _flat)
