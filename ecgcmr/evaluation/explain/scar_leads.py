"""Do ECG maps of infarction point to the leads that carry the scar?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecgcmr.cohort.store import Cohort
from ecgcmr.evaluation.explain.front import explain
from ecgcmr.evaluation.explain.planted import PERMUTATIONS, PlantedCheck, brief, compare, scarred
from ecgcmr.evaluation.explain.prepare import prepare
from ecgcmr.simulation.scar_truth import contiguous, scar_by_lead

if TYPE_CHECKING:
    from ecgcmr.hub.model import LoadedModel

AMPLITUDE = "amplitude"
"""No method but a control: the size of the prepared signal in each lead, which knows nothing of the model."""


def planted_leads(
    model: LoadedModel,
    cohort: Cohort,
    target: Any = "mi",
    method: str = "occlusion",
    subjects: NDArray[np.int64] | None = None,
    permutations: int = PERMUTATIONS,
    **options: Any,
) -> list[PlantedCheck]:
    """Compare maps of subjects with an old infarction with what the scar does to each lead.

    The truth is twofold: the change of each lead's beat when the scar is taken out of the same heart
    (`ecgcmr.simulation.scar_truth.scar_by_lead`; rank correlation over leads), and the contiguous leads of the closed
    artery (share of the map in them).

    Args:
        model: The model.
        cohort: A simulated cohort that the model was not trained on.
        target: Output of the head that stands for infarction; not used by rollout.
        method: As in `explain` ("occlusion" by lead unless `by` says otherwise), or `amplitude`.
        subjects: Subjects to look at; all by default. Those without a scar are left out.
        permutations: Of each null hypothesis.
        **options: Of the method.

    Returns:
        For signed attributions (leads that raise the output) and for their sizes, where the two differ, both
        statistics.

    Raises:
        ValueError: As `scarred`, `compare` and `explain`.
    """
    hearts = scarred(cohort, subjects)
    if method == "occlusion":
        options = {"by": "lead", **options}
    rows = _first_recordings(cohort, [one for one, _, _ in hearts])
    hearts = [one for one in hearts if one[0] in rows]
    signed, sizes = [], []
    for subject, _, _ in hearts:
        recording = cohort.recording(rows[subject])
        if method == AMPLITUDE:
            x = prepare(model, recording).x[0].double().cpu().numpy()
            signed.append(np.sqrt((x**2).mean(axis=1)))
            sizes.append(signed[-1])
            continue
        found = explain(model, recording, None if method == "rollout" else target, method, **options)
        signed.append(found.by_lead().to_numpy())
        sizes.append(np.abs(signed[-1]) if found.regions else np.abs(found.values).sum(axis=1))
    who = np.array([one for one, _, _ in hearts], dtype=np.int64)
    change = np.stack([scar_by_lead(heart, design) for _, heart, design in hearts])
    walls = np.stack([contiguous(heart.territory) for _, heart, _ in hearts]).astype(np.float64)
    name = str(target)
    checks = []
    kinds = {"raising": np.stack(signed), "size": np.stack(sizes)}
    if method in (AMPLITUDE, "rollout"):
        name, kinds = "none", {"size": np.stack(sizes)}
    words = "".join(f", {key} {brief(value)}" for key, value in options.items())
    for kind, profiles in kinds.items():
        label = f"{method}{words} ({kind})"
        checks.append(compare((label, name, "rank correlation"), who, profiles, change, permutations))
        positive = np.maximum(profiles, 0.0)
        checks.append(compare((label, name, "share"), who, positive, walls, permutations))
    return checks


def _first_recordings(cohort: Cohort, subjects: Sequence[int]) -> dict[int, int]:
    """Row of the first recording of each subject that has one."""
    column = cohort.recordings["subject"].to_numpy(dtype=np.int64)
    return {one: int(np.argmax(column == one)) for one in subjects if (column == one).any()}
