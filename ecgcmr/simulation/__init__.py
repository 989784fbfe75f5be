"""Simulation: one latent heart -> 12-lead ECG and cine CMR, with labels, outcomes and truth.

A test bench: nothing measured on simulated subjects is evidence about real ones.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecgcmr.simulation.design import Design as Design
    from ecgcmr.simulation.electrics import simulate_ecg as simulate_ecg
    from ecgcmr.simulation.heart import Heart as Heart
    from ecgcmr.simulation.phenotypes import PHENOTYPES as PHENOTYPES
    from ecgcmr.simulation.phenotypes import measure as measure
    from ecgcmr.simulation.population import draw_heart as draw_heart
    from ecgcmr.simulation.sheet import draw_sheet as draw_sheet
    from ecgcmr.simulation.subject import SimulatedSubject as SimulatedSubject
    from ecgcmr.simulation.subject import simulate_subject as simulate_subject

_HOME = {
    "Design": "design",
    "Heart": "heart",
    "PHENOTYPES": "phenotypes",
    "SimulatedSubject": "subject",
    "draw_heart": "population",
    "draw_sheet": "sheet",
    "measure": "phenotypes",
    "simulate_ecg": "electrics",
    "simulate_subject": "subject",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
