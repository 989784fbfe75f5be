"""The ECG signal: lead names, recordings, readers, preprocessing and augmentation; nothing about learning.

The public names load on first use, so that reading a file does not need torch and augmenting does not need wfdb.
"""

from __future__ import annotations

import importlib
from typing import Any

from ecgcmr.ecg.leads import LEADS, canonical_lead, to_canonical
from ecgcmr.ecg.recording import EcgRecording, MedianBeats

_LAZY = {
    "AugmentConfig": "augmentation",
    "EcgAugment": "augmentation",
    "crop_random": "crop",
    "crop_start": "crop",
    "EcgPipeline": "preprocessing",
    "named_pipeline": "preprocessing",
    "als_baseline": "baseline",
    "iter_array": "readers",
    "open_ecg": "readers",
    "detect_format": "readers",
    "check_amplitude": "units",
    "check_ecg": "quality",
    "find_beats": "beats",
}

__all__ = ["LEADS", "EcgRecording", "MedianBeats", "canonical_lead", "to_canonical", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
