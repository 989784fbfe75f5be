"""References instead of nothing: recordings of healthy subjects that stand in for what is taken away.

A flat line is no neutral baseline: a scar is a loss of voltage, so that a lead set to zero looks more like an
infarction than the lead itself. With references the question becomes: what would the output be if this lead were that
of a healthy subject?
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.ecg.recording import EcgRecording
from ecgcmr.evaluation.explain.prepare import Prepared, prepare

if TYPE_CHECKING:
    from ecgcmr.hub.model import LoadedModel


def healthy_recordings(cohort: Cohort, n: int = 16, split: str | None = "default") -> list[EcgRecording]:
    """First recordings of up to n subjects of the training part who have none of the cohort's diagnoses.

    Args:
        cohort: The cohort.
        n: Largest number of recordings.
        split: Name of the split; None to take all subjects.

    Raises:
        ValueError: The cohort has no diagnoses, or no such subject.
    """
    names = [name for name, spec in cohort.label_specs.items() if spec.kind == "binary"]
    if not names:
        raise ValueError(f"{cohort.path}: no diagnoses, so that nobody is known to be healthy; give recordings instead")
    wanted = cohort.labels.index.to_numpy() if split is None else open_split(cohort, split).train
    healthy = (cohort.labels.loc[wanted, names] == 0).all(axis=1)  # a missing diagnosis is not an absent one
    column = cohort.recordings["subject"].to_numpy(dtype=np.int64)
    found = [one for one in wanted[healthy.to_numpy()] if (column == one).any()]
    if not found or n < 1:
        raise ValueError(f"{cohort.path}: none of {len(wanted)} subjects is known to be without any diagnosis")
    return [cohort.recording(int(np.argmax(column == one))) for one in found[:n]]


def prepare_references(model: LoadedModel, references: Sequence[Any], like: Prepared) -> Tensor:
    """References as inputs (R, ...) of the same encoder.

    Raises:
        ValueError: There is none, or one is of the other modality.
    """
    if not len(references):
        raise ValueError("references is empty; give some recordings of healthy subjects, or leave it out")
    made = [prepare(model, one) for one in references]
    if any(one.modality != like.modality for one in made):
        raise ValueError(f"the references of an explanation of {like.modality.upper()} must be of the same modality")
    return torch.cat([one.x for one in made])
