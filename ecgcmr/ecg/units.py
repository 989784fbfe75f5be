"""Voltage units: conversion to mV, and a guard against files whose numbers contradict the unit they declare."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.recording import EcgRecording

MILLIVOLTS_PER_UNIT = {"mV": 1.0, "uV": 1e-3, "V": 1e3, "nV": 1e-6}
_BY_SIZE = ("nV", "uV", "mV", "V")

LARGEST_MV = 50.0
"""No surface ECG spans this much between its 0.5 % and 99.5 % quantiles in half of its leads [mV]."""

SMALLEST_MV = 0.01
"""A QRS complex is above this in nearly every lead; less than this is noise or another unit [mV]."""

_SPELLINGS = {
    "mv": "mV",
    "millivolt": "mV",
    "millivolts": "mV",
    "uv": "uV",
    "\u00b5v": "uV",  # micro sign
    "\u03bcv": "uV",  # Greek small mu
    "microvolt": "uV",
    "microvolts": "uV",
    "v": "V",
    "volt": "V",
    "volts": "V",
    "nv": "nV",
    "nanovolt": "nV",
    "nanovolts": "nV",
}


def canonical_unit(name: str | None) -> str:
    """Return `mV`, `uV`, `V` or `nV` for a spelling of it.

    Raises:
        ValueError: The unit is missing or is no unit of voltage.
    """
    if name is None or not name.strip():
        raise ValueError("the unit of voltage is missing; declare it with unit='mV' or unit='uV'")
    # `MV` in a file is a shouted millivolt: no electrode records megavolts
    found = _SPELLINGS.get(name.strip().lower())
    if found is None:
        raise ValueError(f"unknown unit of voltage {name!r}; expected one of {', '.join(MILLIVOLTS_PER_UNIT)}")
    return found


def millivolts_per_unit(name: str | None) -> float:
    """Return the factor that turns values in the named unit into mV."""
    return MILLIVOLTS_PER_UNIT[canonical_unit(name)]


def peak_to_peak(samples_LT: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the range between the 0.5 % and 99.5 % quantiles of each lead (L,), in the unit of the samples.

    Non-finite samples are left out; a lead without a finite sample gives NaN.
    """
    out = np.full(samples_LT.shape[0], np.nan)
    for i, row in enumerate(np.asarray(samples_LT)):
        finite = row[np.isfinite(row)]
        if finite.size:
            k_low, k_high = int(0.005 * (finite.size - 1)), int(np.ceil(0.995 * (finite.size - 1)))
            part = np.partition(finite, (k_low, k_high))
            out[i] = float(part[k_high]) - float(part[k_low])
    return out


def check_amplitude(recording: EcgRecording, declared: str | None = "mV") -> None:
    """Refuse a recording in mV whose amplitude says that the numbers are in another unit.

    Leads without variation (detached, missing) tell nothing about the unit and are left out; a recording of such
    leads only is not refused here.

    Args:
        recording: The recording, after conversion to mV.
        declared: Unit that the numbers were declared or stated to be in, or None for a scale without a unit; for the
            message only.

    Raises:
        ValueError: The median over leads of the robust peak-to-peak amplitude is above `LARGEST_MV` (typical of
            microvolts) or below `SMALLEST_MV` (typical of volts).
    """
    if recording.unit != "mV":
        return
    amplitude = peak_to_peak(recording.samples)
    amplitude = amplitude[np.isfinite(amplitude) & (amplitude > 0)]
    if amplitude.size == 0:
        return
    typical = float(np.median(amplitude))
    at = _BY_SIZE.index(declared) if declared in _BY_SIZE else _BY_SIZE.index("mV")
    if typical > LARGEST_MV:
        guess, bound = _BY_SIZE[max(at - 1, 0)], f"above {LARGEST_MV:g} mV"
    elif typical < SMALLEST_MV:
        guess, bound = _BY_SIZE[min(at + 1, len(_BY_SIZE) - 1)], f"below {SMALLEST_MV:g} mV"
    else:
        return
    what = f"the samples are declared as {declared}" if declared else "the samples are scaled as declared"
    hint = (
        f"the numbers are probably in {guess}; declare it with unit={guess!r} if so" if declared else "check the scale"
    )
    raise ValueError(f"{what} but their median peak-to-peak amplitude is {typical:.4g} mV, {bound}: {hint}")
