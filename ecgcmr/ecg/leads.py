"""Lead names: the canonical order, the spellings that files use, and the limb leads that follow from I and II."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from ecgcmr.ecg.recording import EcgRecording

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""Canonical order of the twelve leads; the groups 0:3, 3:6 and 6:12 are Einthoven, Goldberger and Wilson."""

LEAD_GROUPS = (3, 6, 12)
"""Cumulative bounds of the three groups of `LEADS`."""

DERIVED_FROM_I_II = {"III": (-1.0, 1.0), "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}
"""Weights of (I, II): Einthoven's law and Goldberger's augmented leads."""

_PREFIX = re.compile(r"^(?:mdc[\s_-]*ecg[\s_-]*lead|ecg[\s_-]*lead|lead|ecg)[\s_:-]*", re.IGNORECASE)
_LIMB_ALIASES = {"1": "I", "2": "II", "3": "III"}


def _alias_table() -> dict[str, str]:
    table = {name.lower(): name for name in LEADS}
    for number, name in _LIMB_ALIASES.items():
        # ML*: modified limb leads of ambulatory recorders; D*: derivacion/derivacao of Spanish and Portuguese devices
        for alias in (f"ml{name}", f"d{name}", f"d{number}", f"l{number}"):
            table[alias.lower()] = name
    for i in range(1, 7):
        table[f"c{i}"] = f"V{i}"
    return table


_ALIASES = _alias_table()


def canonical_lead(name: str) -> str:
    """Return the canonical spelling of a lead name.

    Understands case variants (`AVR`, `avr`), `Lead I`, `MDC_ECG_LEAD_V1`, `MLII`, `DI`/`D1` and `C1`..`C6`.

    Args:
        name: Lead name as a file writes it.

    Raises:
        ValueError: The name is none of the twelve leads (an inverted lead such as `-aVR` is not an alias).
    """
    found = _lookup(name)
    if found is None:
        raise ValueError(f"unknown lead {name!r}; expected one of {', '.join(LEADS)} or a usual spelling of them")
    return found


def _lookup(name: str) -> str | None:
    key = _PREFIX.sub("", name.strip())
    return _ALIASES.get(re.sub(r"[\s_]+", "", key).lower())


def tidy_lead(name: str) -> str:
    """Return the canonical spelling where there is one, otherwise the name without surrounding space (`vx`)."""
    return _lookup(name) or name.strip()


def to_canonical(recording: EcgRecording) -> EcgRecording:
    """Return the recording with the twelve leads in canonical order.

    Leads are found by name, never by position. III, aVR, aVL and aVF are computed from I and II where they are
    missing and the samples are voltages. Leads outside the twelve are left out and named in `notes`.

    Args:
        recording: Samples (L, T), leads in any order and spelling.

    Returns:
        Recording with samples (12, T); the same object if nothing had to change.

    Raises:
        ValueError: A lead occurs twice or is missing (all are named), or a limb lead would have to be derived
            from standardised samples, for which Einthoven's law does not hold.
    """
    if recording.leads == LEADS:
        return recording
    rows, extra = rows_by_name(recording.leads)
    missing = [lead for lead in LEADS if lead not in rows]
    derivable = [lead for lead in missing if lead in DERIVED_FROM_I_II] if {"I", "II"} <= rows.keys() else []
    lost = [lead for lead in missing if lead not in derivable]
    if lost:
        raise ValueError(f"missing leads {', '.join(lost)}; the recording has {', '.join(recording.leads)}")
    if derivable and recording.unit != "mV":
        raise ValueError(
            f"missing leads {', '.join(derivable)}; they follow from I and II only in mV, but the unit is "
            f"{recording.unit!r}"
        )
    samples = np.empty((len(LEADS), recording.n_samples), np.float32)
    for i, lead in enumerate(LEADS):
        if lead in rows:
            samples[i] = recording.samples[rows[lead]]
        else:
            a, b = DERIVED_FROM_I_II[lead]
            samples[i] = a * recording.samples[rows["I"]] + b * recording.samples[rows["II"]]
    notes = list(recording.notes)
    if derivable:
        notes.append(f"derived {', '.join(derivable)} from I and II")
    if extra:
        notes.append(f"left out {', '.join(extra)}")
    return replace(recording, samples=samples, leads=LEADS, notes=tuple(notes))


def rows_by_name(leads: tuple[str, ...]) -> tuple[dict[str, int], list[str]]:
    """Map canonical names to row numbers; the second value lists the names outside the twelve.

    Raises:
        ValueError: A lead occurs twice.
    """
    rows: dict[str, int] = {}
    extra: list[str] = []
    for row, name in enumerate(leads):
        lead = _lookup(name)
        if lead is None:
            extra.append(name)
        elif lead in rows:
            raise ValueError(f"lead {lead} occurs twice: {leads[rows[lead]]!r} and {name!r}")
        else:
            rows[lead] = row
    return rows, extra


def einthoven_residual(samples_LT: np.ndarray) -> float:
    """Return how badly II = I + III is broken, as a share of the size of lead II; 0 means that the law holds.

    Args:
        samples_LT: Leads I, II and III in that order (3, T), in one linear unit; NaN samples are left out.

    Returns:
        Mean |II - I - III| about its median (offsets do not count), over the mean absolute deviation of II; NaN
        when lead II is flat.
    """
    x = np.asarray(samples_LT, np.float64)
    x = x[:, np.isfinite(x).all(axis=0)]
    if x.shape[1] == 0:
        return float("nan")
    broken = x[1] - x[0] - x[2]
    size = float(np.mean(np.abs(x[1] - np.median(x[1]))))
    return float(np.mean(np.abs(broken - np.median(broken))) / size) if size > 0 else float("nan")
