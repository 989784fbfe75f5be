"""Which leads carry the scar: the same heart with and without it, everything else alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.leads import LEADS
from ecgcmr.simulation.design import Design
from ecgcmr.simulation.ecg_truth import measure_beat
from ecgcmr.simulation.electrical_latents import draw_electrics
from ecgcmr.simulation.electrics import activate, double_layer, transfer
from ecgcmr.simulation.heart import Heart, Purpose

CONTIGUOUS_LEADS: dict[str, tuple[str, ...]] = {
    "LAD": ("V1", "V2", "V3", "V4"),
    "RCA": ("II", "III", "aVF"),
    "LCX": ("I", "aVL", "V5", "V6"),
}
"""Leads that a reader looks at for the wall of each coronary artery (anteroseptal, inferior, lateral; the contiguous
leads of the fourth universal definition of myocardial infarction, doi:10.1161/CIR.0000000000000617)."""


def scar_change(heart: Heart, design: Design | None = None) -> NDArray[np.float64]:
    """What the scar does to the clean beat: leads (12, T) [mV] at 1 kHz with the scar minus those without.

    Only the electrical effect of the scar is taken away (its silence and its slow border). The thin wall and the size
    of the ventricle stay.

    Args:
        heart: As `draw_heart` gives it.
        design: Population that it was drawn from.
    """
    electrics = draw_electrics(heart, heart.stream(Purpose.ELECTRICS), (design or Design()).electrics)
    beats = []
    for one in (heart, replace(heart, scar=np.zeros_like(heart.scar))):
        activation = activate(one, electrics)
        fields = transfer(one, electrics, activation.wall)
        beats.append(measure_beat(double_layer(activation, electrics), fields[0], 1.0).leads)
    return beats[0] - beats[1]


def scar_by_lead(heart: Heart, design: Design | None = None) -> NDArray[np.float64]:
    """Root mean square over the beat of what the scar does to each lead, (12,) [mV]; 0 without a scar."""
    return np.asarray(np.sqrt((scar_change(heart, design) ** 2).mean(axis=1)))


def contiguous(territory: str, leads: Sequence[str] = LEADS) -> NDArray[np.bool_]:
    """Which leads (L,) look at the wall of a coronary artery.

    Raises:
        ValueError: The artery is none of LAD, RCA and LCX.
    """
    if territory not in CONTIGUOUS_LEADS:
        raise ValueError(f"territory is {territory!r}, expected one of {', '.join(CONTIGUOUS_LEADS)}")
    return np.array([lead in CONTIGUOUS_LEADS[territory] for lead in leads])
