"""Nearest studies of an ECG with their phenotypes, similar ECGs, and what the neighbours say of its own heart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ecgcmr.evaluation.neighbours.build import space_of
from ecgcmr.evaluation.neighbours.gallery import Gallery
from ecgcmr.evaluation.neighbours.regression import regress
from ecgcmr.evaluation.neighbours.search import Neighbours, nearest

if TYPE_CHECKING:
    from ecgcmr.hub.model import LoadedModel


@dataclass(frozen=True)
class NeighbourReport:
    """What a gallery says of one or many ECGs.

    Attributes:
        neighbours: One row for each query and neighbour: `query`, `place` (1 is nearest), `subject`, `row`, `cosine`
            and the labels of the gallery.
        estimates: One row for each query and label: `query`, `label`, `unit`, `value`, `lo`, `hi` (NaN where the
            gallery has no factor, and for diagnoses), `n_neighbours`, `metric`, `measured`, `measured_lo`,
            `measured_hi`.
        found: The same neighbours as arrays.
        gallery: The gallery.
    """

    neighbours: pd.DataFrame
    estimates: pd.DataFrame
    found: Neighbours
    gallery: Gallery


def find_neighbours(
    model: LoadedModel, ecg: Any, gallery: Gallery, k: int | None = None, subject: ArrayLike | None = None, **more: Any
) -> NeighbourReport:
    """Find what is nearest to ECGs in a gallery of CMR (hearts that an ECG like this would have) or of ECGs.

    Args:
        model: The model that the gallery was made with.
        ecg: What `LoadedModel.embed` takes.
        gallery: From `Gallery.load` or `build_gallery`.
        k: Neighbours; the gallery's own number by default, for which its factors and metrics hold.
        subject: Subject of each query in the gallery's cohort, whose own vectors are left out; None when the gallery
            does not hold them.
        **more: Further arguments of `LoadedModel.embed`.

    Raises:
        ValueError: The gallery is of another model, or the ECG does not suit the model.
    """
    gallery.check_model(model)
    embedding = model.embed(ecg, **more)
    if gallery.about.space == "shared":
        space_of(model, "ecg")
        embedding = model.project(embedding, "ecg")
    subjects = None if subject is None else np.broadcast_to(np.asarray(subject, np.int64), len(embedding))
    return report_neighbours(embedding, gallery, k, subjects)


def report_neighbours(
    queries: NDArray[np.floating], gallery: Gallery, k: int | None = None, subjects: NDArray[np.int64] | None = None
) -> NeighbourReport:
    """As `find_neighbours`, for vectors (Q, D) in the space of the gallery."""
    about = gallery.about
    k = about.k if k is None else k
    found = nearest(queries, gallery.vectors, k, subjects, None if subjects is None else gallery.subjects)
    query, place = np.nonzero(found.rows >= 0)
    rows = found.rows[query, place]
    neighbours = gallery.items.iloc[rows].reset_index(drop=True)
    for position, (name, values) in enumerate(
        (("query", query), ("place", place + 1), ("cosine", found.cosines[query, place]))
    ):
        neighbours.insert(position if name != "cosine" else 4, name, values)
    told = regress(found, gallery.values(), about.weighting)
    same = k == about.k  # factors and metrics hold for the number of neighbours they were measured with
    measured = {row.label: row for row in about.measured} if same else {}
    numbers = {
        name: np.array([getattr(measured.get(label), name, float("nan")) for label in gallery.labels], np.float64)
        for name in ("factor", "value", "lo", "hi")
    }
    n = len(found.rows)
    half = numbers["factor"] * told.spread
    estimates = pd.DataFrame(
        {
            "query": np.repeat(np.arange(n), len(gallery.labels)),
            "label": np.tile(np.array(gallery.labels, dtype=object), n),
            "unit": np.tile(np.array([unit or "share of neighbours" for unit in about.units.values()], object), n),
            "value": told.values.ravel(),
            "lo": (told.values - half).ravel(),
            "hi": (told.values + half).ravel(),
            "n_neighbours": told.n_neighbours.ravel(),
            "metric": np.tile(np.array([_metric(kind) for kind in about.kinds.values()], object), n),
            "measured": np.tile(numbers["value"], n),
            "measured_lo": np.tile(numbers["lo"], n),
            "measured_hi": np.tile(numbers["hi"], n),
        }
    )
    return NeighbourReport(neighbours, estimates, found, gallery)


def _metric(kind: str) -> str:
    return "auroc" if kind == "binary" else "r2"
