"""Do image maps of infarction point to the wall that carries the scar?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecgcmr.cmr.cine import Cine
from ecgcmr.cohort.store import Cohort
from ecgcmr.evaluation.explain.front import explain
from ecgcmr.evaluation.explain.planted import PERMUTATIONS, PlantedCheck, brief, compare, scarred
from ecgcmr.evaluation.explain.result import Explanation
from ecgcmr.evaluation.explain.targets import Target

if TYPE_CHECKING:
    from ecgcmr.cmr.preprocessing import CmrPipeline
    from ecgcmr.hub.model import LoadedModel

MID_SEGMENTS = (6, 7, 8, 9, 10, 11)
MID_ANGLES_DEG = (90.0, 150.0, 210.0, 270.0, 330.0, 30.0)
"""Middle of the AHA segments 7 to 12; septum 180, anterior 90 degrees (doi:10.1161/hc0402.102975)."""
DARKNESS = "darkness"
"""No method but a control: the wall's brightness, negated, which knows nothing of the model."""


def planted_wall(
    model: LoadedModel,
    cohort: Cohort,
    target: Target,
    method: str = "occlusion",
    subjects: NDArray[np.int64] | None = None,
    permutations: int = PERMUTATIONS,
    **options: Any,
) -> list[PlantedCheck]:
    """Compare image maps of subjects with an old infarction with the scar of the six mid-ventricular segments.

    The map is averaged over each sixth of the left ventricular wall of the middle slice, as its end-diastolic mask
    has it. Subjects whose scar spares the middle slice are left out.

    Args:
        model: The model.
        cohort: A simulated cohort with masks, which the model was not trained on.
        target: A target of the CMR embedding, such as `prototype_target(model, prototypes, "1")`.
        method: `occlusion`, `ig`, `gradcam`, or `darkness`.
        subjects: Subjects to look at; all by default. Those without a scar are left out.
        permutations: Of each null hypothesis.
        **options: Of the method.

    Returns:
        Rank correlation over segments, and the share of the map in scarred segments, of attributions that raise the
        target and of their sizes.

    Raises:
        ValueError: As `scarred`, `compare` and `explain`; or the cines have no masks.
    """
    pipeline = model.weights.cmr_pipeline
    if pipeline is None:
        raise ValueError(f"{model.config['name']}: these weights have no CMR tower")
    studies = cohort.studies
    who, signed, sizes, scars = [], [], [], []
    for subject, heart, _ in scarred(cohort, subjects):
        rows = np.flatnonzero((studies["subject"] == subject).to_numpy() & (studies["view"] == "sax").to_numpy())
        scar = heart.scar[list(MID_SEGMENTS)]
        if not len(rows) or scar.max() == 0:
            continue
        cine = cohort.cine(int(rows[0]))
        wall = wall_sectors(cine, pipeline)
        values = _darkness(model, cine) if method == DARKNESS else _map(explain(model, cine, target, method, **options))
        signed.append(_sector_means(values, wall))
        sizes.append(_sector_means(np.abs(values), wall))
        who.append(subject)
        scars.append(scar)
    if not who:
        raise ValueError(f"{cohort.path}: no subject has a scar in the middle slice and a short-axis study")
    truth = np.stack(scars)
    words = "".join(f", {key} {brief(value)}" for key, value in options.items())
    kinds = {"raising": np.stack(signed), "size": np.stack(sizes)}
    if method in (DARKNESS, "gradcam"):  # neither has a sign
        kinds = {"size": np.stack(signed)}
    checks = []
    for kind, profiles in kinds.items():
        about = f"{method}{words} ({kind})"
        name = "none" if method == DARKNESS else target.name
        ids = np.array(who, dtype=np.int64)
        checks.append(compare((about, name, "rank correlation"), ids, profiles, truth, permutations))
        positive = np.maximum(profiles, 0.0) if method != DARKNESS else profiles - profiles.min(axis=1, keepdims=True)
        checks.append(compare((about, name, "share"), ids, positive, (truth > 0).astype(float), permutations))
    return checks


def wall_sectors(cine: Cine, pipeline: CmrPipeline) -> NDArray[np.int64]:
    """Sixth (0 to 5, in the order of `MID_SEGMENTS`) of each pixel of the prepared image, -1 outside the wall.

    The right ventricle tells where the septum is.

    Raises:
        ValueError: The cine has no masks of both ventricles and the wall.
    """
    names = {name: value for value, name in cine.mask_labels.items()}
    needed = ("lv_cavity", "lv_myocardium", "rv_cavity")
    if cine.masks is None or not set(needed) <= set(names):
        raise ValueError(f"the cine has no masks of {', '.join(needed)}: the wall is not known")
    mask = pipeline.crop_labels(cine)
    places = {}
    for name in needed:
        rows, columns = np.nonzero(mask == names[name])
        if not len(rows):
            raise ValueError(f"the middle slice has no {name.replace('_', ' ')} within the crop")
        places[name] = np.array([columns.mean(), -rows.mean()])
    to_septum = places["rv_cavity"] - places["lv_cavity"]
    septum = np.rad2deg(np.arctan2(to_septum[1], to_septum[0]))
    rows, columns = np.nonzero(mask == names["lv_myocardium"])
    up, right = -rows - places["lv_cavity"][1], columns - places["lv_cavity"][0]
    angle = np.rad2deg(np.arctan2(up, right)) - septum + 180.0
    gap = np.abs((angle[:, None] - np.array(MID_ANGLES_DEG) + 180.0) % 360.0 - 180.0)
    sectors = np.full(mask.shape, -1, np.int64)
    sectors[rows, columns] = gap.argmin(axis=1)
    return sectors


def _map(found: Explanation) -> NDArray[np.float64]:
    return found.values


def _darkness(model: LoadedModel, cine: Cine) -> NDArray[np.float64]:
    pipeline = model.weights.cmr_pipeline
    assert pipeline is not None, "checked by the caller"
    return -pipeline(cine).reshape(-1, pipeline.size, pipeline.size)[0].astype(np.float64)


def _sector_means(values: NDArray[np.float64], sectors: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.array([values[sectors == k].mean() if (sectors == k).any() else 0.0 for k in range(6)])
