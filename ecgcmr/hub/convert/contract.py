"""What a converter of third-party weights gives: the parts of a weights folder, and what the user should know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ecgcmr.cmr.preprocessing import CmrPipeline
from ecgcmr.ecg.preprocessing import EcgPipeline
from ecgcmr.hub.card import Card


@dataclass(frozen=True)
class Converted:
    """Third-party weights as the toolkit holds them; `save_weights` takes these parts as they are.

    Attributes:
        modules: By name: ecg, cmr, ecg_projection, cmr_projection, head, ecg_decoder; filled, in evaluation mode.
        card: Name, license, provenance and limits of the weights.
        ecg_pipeline: What prepared the original's ECGs; None if there is no ECG module.
        cmr_pipeline: What prepared the original's cines; None if there is no CMR module.
        head_options: How the head reads the embedding, as in `save_weights`.
        dropped: Keys of the file that no module holds, with the reason.
        notes: Sentences for the user: what was chosen where the original is ambiguous.
    """

    modules: Mapping[str, nn.Module]
    card: Card
    ecg_pipeline: EcgPipeline | None = None
    cmr_pipeline: CmrPipeline | None = None
    head_options: Mapping[str, Any] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


Converter = Callable[[Path, Mapping[str, str]], Converted]
"""Takes the file and the options of `--option KEY=VALUE`, and refuses what it does not know, by name."""
