"""Teach an ECG model what cardiac MRI sees.

The public names below are imported when they are first used, so that `import ecgcmr` stays fast and free of torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "Cine": "ecgcmr.cmr.cine",
    "Cohort": "ecgcmr.cohort.store",
    "EcgRecording": "ecgcmr.ecg.recording",
    "Gallery": "ecgcmr.evaluation.neighbours.gallery",
    "build_gallery": "ecgcmr.evaluation.neighbours.build",
    "explain": "ecgcmr.evaluation.explain.front",
    "find_neighbours": "ecgcmr.evaluation.neighbours.query",
    "finetune_on_labels": "ecgcmr.own_labels.run",
    "list_models": "ecgcmr.hub.catalogue",
    "load_model": "ecgcmr.hub",
    "open_study": "ecgcmr.cmr.readers",
    "read_cine": "ecgcmr.cmr.readers",
    "read_ecg": "ecgcmr.ecg.readers",
    "sanity_check": "ecgcmr.evaluation.explain.checks",
}
_NAMES = {"read_ecg": "open_ecg", "read_cine": "open_cine"}

__all__ = [
    "Cine", "Cohort", "EcgRecording", "Gallery", "__version__", "build_gallery", "explain", "find_neighbours",
    "finetune_on_labels", "list_models", "load_model", "open_study", "read_cine", "read_ecg", "sanity_check",
]  # fmt: skip

if TYPE_CHECKING:
    from ecgcmr.cmr.cine import Cine
    from ecgcmr.cmr.readers import open_cine as read_cine
    from ecgcmr.cmr.readers import open_study
    from ecgcmr.cohort.store import Cohort
    from ecgcmr.ecg.readers import open_ecg as read_ecg
    from ecgcmr.ecg.recording import EcgRecording
    from ecgcmr.evaluation.explain.checks import sanity_check
    from ecgcmr.evaluation.explain.front import explain
    from ecgcmr.evaluation.neighbours.build import build_gallery
    from ecgcmr.evaluation.neighbours.gallery import Gallery
    from ecgcmr.evaluation.neighbours.query import find_neighbours
    from ecgcmr.hub import load_model
    from ecgcmr.hub.catalogue import list_models
    from ecgcmr.own_labels.run import finetune_on_labels


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'ecgcmr' has no attribute {name!r}; public names: {', '.join(__all__)}")
    value = getattr(import_module(_WHERE[name]), _NAMES.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
