"""Potentials of current dipoles in an infinite homogeneous medium, and the leads that a clinic derives from them.

Sources: multiple-dipole heart models (Miller & Geselowitz, Circ Res 1978;43:301, doi:10.1161/01.RES.43.2.301); Wilson's
central terminal and Goldberger's augmented leads as in any text of electrocardiography.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecgcmr.ecg.leads import LEADS

ELECTRODES = ("RA", "LA", "LL", "V1", "V2", "V3", "V4", "V5", "V6")
CONDUCTIVITY_S_M = 0.2  # torso average; only the product with the global gain matters
# Blood, lung and the layers of the chest wall blur the near field; a homogeneous medium does not, so the distance is
# bounded from below, smoothly.
BLUR_MM = 22.0


def dipole_potentials(
    moments: NDArray[np.float64],
    positions_mm: NDArray[np.float64],
    electrodes_mm: NDArray[np.float64],
    blur_mm: float = BLUR_MM,
    conductivity_s_m: float = CONDUCTIVITY_S_M,
) -> NDArray[np.float64]:
    """Potential that each dipole makes at each electrode.

        phi = p . (r_e - r) / (4 pi sigma d^3),    d^2 = |r_e - r|^2 + blur^2

    Args:
        moments: Dipole moments (n, 3).
        positions_mm: Dipole positions (n, 3) [mm].
        electrodes_mm: Electrode positions (E, 3) [mm].
        blur_mm: Lower bound of the distance d in the denominator [mm]; 0 gives the ideal medium.
        conductivity_s_m: Conductivity of the medium [S/m].

    Returns:
        Potentials (E, n) in moment per (S/m mm^2); linear in `moments`.
    """
    # (r_e - r) . p and |r_e - r|^2 by expansion about the middle of the sources: two products, no (E, n, 3)
    middle = positions_mm.mean(axis=0)
    sources = positions_mm - middle
    places = electrodes_mm - middle
    projection = places @ moments.T - np.einsum("nk,nk->n", sources, moments)
    square = np.einsum("ek,ek->e", places, places)[:, None] + np.einsum("nk,nk->n", sources, sources)
    square -= 2.0 * (places @ sources.T)
    square += blur_mm**2
    return projection / (4.0 * np.pi * conductivity_s_m * square * np.sqrt(square))


def lead_matrix() -> NDArray[np.float64]:
    """Matrix (12, 9) from the potentials of `ELECTRODES` to the leads of `LEADS`.

    Every row sums to 0: a potential common to all electrodes gives no signal.
    """
    unit = dict(zip(ELECTRODES, np.eye(len(ELECTRODES)), strict=True))
    right, left, foot = unit["RA"], unit["LA"], unit["LL"]
    terminal = (right + left + foot) / 3.0
    rows = {
        "I": left - right,
        "II": foot - right,
        "III": foot - left,
        "aVR": right - (left + foot) / 2.0,
        "aVL": left - (right + foot) / 2.0,
        "aVF": foot - (right + left) / 2.0,
    }
    rows |= {f"V{k}": unit[f"V{k}"] - terminal for k in range(1, 7)}
    return np.stack([rows[lead] for lead in LEADS])


def to_leads(electrode_potentials: NDArray[np.float64]) -> NDArray[np.float64]:
    """Twelve leads (12, T) from the potentials (9, T) of `ELECTRODES`, in the same unit."""
    return lead_matrix() @ electrode_potentials
