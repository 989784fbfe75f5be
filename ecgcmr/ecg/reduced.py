"""Recordings with fewer than twelve leads: what can be derived is derived, the rest stays absent and is never made up.

Absent leads are rows of NaN, so that a computation which touches one is seen at once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.leads import DERIVED_FROM_I_II, LEAD_GROUPS, LEADS, canonical_lead, rows_by_name
from ecgcmr.ecg.preprocessing import EcgPipeline
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.ecg.steps import STEPS, zscore_groups

LIMB_WEIGHTS: dict[str, tuple[float, float]] = {"I": (1.0, 0.0), "II": (0.0, 1.0), **DERIVED_FROM_I_II}
"""Each limb lead as weights of (I, II): any two of the six give the other four (Einthoven, Goldberger)."""


class NoLeadError(ValueError):
    """No lead of a recording can be used."""


def available_leads(recording: EcgRecording, only: Collection[str] | None = None) -> EcgRecording:
    """Order a recording as the twelve leads, with rows of NaN for what it does not have.

    A lead without a finite sample counts as absent. From any two limb leads in mV the other four are computed, where
    they are absent; they follow from leads that are used, never from one that `only` leaves out.

    Args:
        recording: Samples (L, T), leads in any order and spelling; leads outside the twelve are left out.
        only: Use no other leads than these, in canonical spelling; None for all that there are.

    Returns:
        Recording with samples (12, T) in canonical order.

    Raises:
        NoLeadError: No lead is left.
        ValueError: A lead occurs twice.
    """
    rows, extra = rows_by_name(recording.leads)
    finite = np.asarray(np.isfinite(recording.samples).any(axis=1))
    used = {lead: row for lead, row in rows.items() if finite[row] and (only is None or lead in only)}
    if not used:
        asked = "" if only is None else f" among {', '.join(only)}"
        raise NoLeadError(f"no usable lead{asked}; the recording has {', '.join(recording.leads)}")
    samples = np.full((len(LEADS), recording.n_samples), np.nan, np.float32)
    for lead, row in used.items():
        samples[LEADS.index(lead)] = recording.samples[row]
    derived = _derive(samples, used, only) if recording.unit == "mV" else []
    notes = list(recording.notes)
    if derived:
        notes.append(f"derived {', '.join(derived)} from two limb leads")
    if extra:
        notes.append(f"left out {', '.join(extra)}")
    return replace(recording, samples=samples, leads=LEADS, notes=tuple(notes))


def _derive(samples: NDArray[np.float32], used: Collection[str], only: Collection[str] | None) -> list[str]:
    """Fill absent limb leads in place and name them; I and II are the pair where both are there."""
    pair = next((pair for pair in combinations(LIMB_WEIGHTS, 2) if set(pair) <= set(used)), None)
    wanted = [lead for lead in LIMB_WEIGHTS if lead not in used and (only is None or lead in only)]
    if pair is None or not wanted:
        return []
    weights = np.array([LIMB_WEIGHTS[lead] for lead in wanted]) @ np.linalg.inv([LIMB_WEIGHTS[lead] for lead in pair])
    first, second = (samples[LEADS.index(lead)].astype(np.float64) for lead in pair)
    for lead, (a, b) in zip(wanted, weights, strict=True):
        samples[LEADS.index(lead)] = a * first + b * second
    return wanted


def leads_present(samples: NDArray[np.floating]) -> tuple[str, ...]:
    """Names of the rows of (12, T), in canonical order, that hold a finite sample."""
    return tuple(lead for lead, row in zip(LEADS, samples, strict=True) if np.isfinite(row).any())


def prepare_available(pipeline: EcgPipeline, recording: EcgRecording) -> NDArray[np.float32]:
    """Prepare the leads that a recording has; with all twelve this is `pipeline(recording)`.

    Steps that look at one lead at a time do to a lead what they do to it among twelve. Two look at several:
    `clip_sd` and `group_zscore` take their statistics over the leads that are there, so that their output differs a
    little from that of the same leads within the full recording.

    Args:
        pipeline: The model's preprocessing.
        recording: From `available_leads`, samples (12, T).

    Returns:
        (12, n_samples) float32; rows of absent leads are NaN.

    Raises:
        NoLeadError: No lead is there.
        ValueError: As the pipeline.
    """
    present = leads_present(recording.samples)
    if len(present) == len(LEADS):
        return pipeline(recording)
    if not present:
        raise NoLeadError("no usable lead: every lead is without a finite sample")
    pipeline.check_unit(recording)
    rows = [LEADS.index(lead) for lead in present]
    bounds = [sum(row < stop for row in rows) for stop in LEAD_GROUPS]
    x, rate = recording.samples[rows].astype(np.float64), float(recording.rate_hz)
    for step in pipeline.steps:
        if step.name == "group_zscore":
            x = zscore_groups(x, bounds)
        else:
            x, rate = STEPS[step.name](x, rate, **step.params)
    out = np.full((len(LEADS), pipeline.n_samples), np.nan, np.float32)
    out[rows] = x
    return out


def canonical_leads(names: Sequence[str]) -> tuple[str, ...]:
    """Return names in canonical spelling and order, each once.

    Raises:
        ValueError: A name is none of the twelve, or there is none.
    """
    if isinstance(names, str):
        raise ValueError(f"expected a list of leads such as ['I', 'II', 'V1'], got the text {names!r}")
    chosen = {canonical_lead(name) for name in names}
    if not chosen:
        raise ValueError("expected at least one lead, got none")
    return tuple(lead for lead in LEADS if lead in chosen)
