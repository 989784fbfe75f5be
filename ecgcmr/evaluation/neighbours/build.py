"""Make a gallery of a cohort, and measure on subjects outside it what neighbours can tell."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecgcmr.cohort.dataset import DatasetOptions, PairedDataset
from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.evaluation.bootstrap import bootstrap_metrics, draw_subjects
from ecgcmr.evaluation.embeddings import Embeddings, EmbedOptions, Modality, embed
from ecgcmr.evaluation.neighbours.gallery import Gallery, GalleryAbout, Measured
from ecgcmr.evaluation.neighbours.regression import KnnPrediction, interval_factors, regress
from ecgcmr.evaluation.neighbours.search import nearest, unit_rows

if TYPE_CHECKING:
    from ecgcmr.hub.model import LoadedModel

PARTS = ("train", "val", "test", "all")
DRAWS = 1000  # bootstrap draws of the measured intervals
_SEED = 23


def build_gallery(
    model: LoadedModel,
    cohort: Cohort,
    modality: Modality = "cmr",
    part: str = "train",
    split: str = "default",
    labels: Sequence[str] | None = None,
    k: int = 20,
    weighting: str = "distance",
    options: EmbedOptions | None = None,
) -> Gallery:
    """Embed a part of a cohort, with the labels of its subjects.

    What neighbours can tell is measured with ECGs of the validation subjects; where the gallery holds all subjects or
    those themselves, with the gallery's own subjects, each of whom is left out of its own search.

    Args:
        model: Weights with an encoder of the modality; with projections, the vectors are in the shared space.
        cohort: Where the studies (or recordings) and the labels are.
        modality: `cmr` or `ecg`.
        part: `train`, `val`, `test` or `all`.
        split: Name of the split.
        labels: Labels to keep; all measurements and diagnoses by default.
        k: Neighbours of each query.
        weighting: `distance` or `uniform`.
        options: Batch size, device and precision.

    Raises:
        ValueError: The model lacks an encoder or projection, the part is unknown or empty, or a label is unknown.
    """
    if part not in PARTS:
        raise ValueError(f"part is {part!r}, expected one of {', '.join(PARTS)}")
    specs = cohort.label_specs
    usable = {name: spec for name, spec in specs.items() if spec.kind in ("regression", "binary")}
    chosen = tuple(usable if labels is None else labels)
    unknown = [name for name in chosen if name not in usable]
    if unknown:
        raise ValueError(f"{cohort.path}: no measurement or diagnosis {unknown[0]!r}; there are {', '.join(usable)}")
    everybody = cohort.subjects["subject"].to_numpy(dtype=np.int64)
    subjects = everybody if part == "all" else open_split(cohort, split).part(part)
    found, rows = embed_part(model, cohort, subjects, modality, chosen, options)
    items = cohort.labels.loc[found.subjects, list(chosen)].reset_index(drop=True).astype(np.float64)
    items.insert(0, "subject", found.subjects)
    items.insert(1, "row", rows)
    about = GalleryAbout(
        modality=modality,
        space=space_of(model, modality),
        model=str(model.config["name"]),
        sha256=str(model.config["sha256"]),
        cohort=cohort.schema.name,
        cohort_key=cohort_key(cohort),
        provenance=str(cohort.schema.provenance),
        part=part if part == "all" else f"{split}/{part}",
        units={name: usable[name].unit or "" for name in chosen},
        kinds={name: usable[name].kind for name in chosen},
        k=k,
        weighting=weighting,
    )
    gallery = Gallery(np.asarray(unit_rows("embeddings", found.values), np.float32), items, about)
    others = subjects if part in ("val", "all") else open_split(cohort, split).val
    if not len(others):
        return gallery
    own = part in ("val", "all")
    words = "its own subjects, each left out of its search" if own else f"{len(others)} subjects of {split}/val"
    queries, _ = embed_part(model, cohort, others, "ecg", chosen, options)
    measured = measure_neighbours(gallery, queries.values, queries.labels, queries.subjects)
    return replace(gallery, about=replace(about, measured_on=words, measured=measured))


def embed_part(
    model: LoadedModel,
    cohort: Cohort,
    subjects: NDArray[np.int64],
    modality: Modality,
    labels: Sequence[str] = (),
    options: EmbedOptions | None = None,
) -> tuple[Embeddings, NDArray[np.int64]]:
    """Vectors of subjects in the space of a gallery, and the rows of their studies or recordings (n,)."""
    projected = space_of(model, modality) == "shared"
    modules, weights = model.weights.modules, model.weights
    dataset = PairedDataset(
        cohort,
        subjects,
        weights.ecg_pipeline if modality == "ecg" else None,
        weights.cmr_pipeline if modality == "cmr" else None,
        labels,
        DatasetOptions(require=modality),
    )
    how = options or EmbedOptions(device=str(model.device))
    if modality == "ecg":
        how = replace(how, crop_samples=int(model.config["ecg"]["n_samples"]), crop_starts=(0,))
    projection: Any = modules[f"{modality}_projection"] if projected else None
    found = embed(modules, dataset, modality, options=how, projection=projection)
    rows = dataset.recording_rows if modality == "ecg" else dataset.study_rows
    return found, rows[found.indices]


def space_of(model: LoadedModel, modality: str) -> Any:
    """`shared` where the model projects the modality, else `embedding`.

    Raises:
        ValueError: The model has no encoder of the modality, no modules of its own (an export), or CMR without
            projections.
    """
    modules = model.weights.modules
    if not modules:
        raise ValueError("an exported graph has no projections of its own: load the weights folder that it was made of")
    if modality not in modules:
        raise ValueError(f"{model.config['name']}: these weights have no {modality!r}; they have {', '.join(modules)}")
    both = {"ecg_projection", "cmr_projection"} <= set(modules)
    if modality == "cmr" and not both:
        raise ValueError(
            f"{model.config['name']}: no projections, so that its CMR and ECG embeddings can not be compared; take "
            "weights of an alignment run"
        )
    return "shared" if f"{modality}_projection" in modules else "embedding"


def cohort_key(cohort: Cohort) -> str:
    """Hash of the subjects of a cohort: equal where subject numbers mean the same subjects."""
    known = cohort.schema.files.get("subjects.parquet")
    if known:
        return str(known)
    return hashlib.sha256(cohort.subjects["subject"].to_numpy(dtype=np.int64).tobytes()).hexdigest()


def measure_neighbours(
    gallery: Gallery, queries: NDArray[np.floating], truth: NDArray[np.float64], subjects: NDArray[np.int64]
) -> tuple[Measured, ...]:
    """R2 (or AUROC) of the neighbours' labels against the truth, each subject left out of its own search.

    Args:
        gallery: The gallery; its k and weighting are used.
        queries: Vectors in its space (Q, D).
        truth: Labels in the order of the gallery (Q, K), NaN where unobserved.
        subjects: Of the queries (Q,), of the gallery's cohort.
    """
    about = gallery.about
    near = nearest(queries, gallery.vectors, about.k, subjects, gallery.subjects)
    told = regress(near, gallery.values(), about.weighting)
    factors = interval_factors(told, truth, about.level)
    draws = draw_subjects(subjects, DRAWS, np.random.default_rng(_SEED))
    rows = []
    for k, name in enumerate(gallery.labels):
        binary = about.kinds[name] == "binary"
        metric = "auroc" if binary else "r2"
        y = np.where(np.isfinite(told.values[:, k]), truth[:, k], np.nan)
        seen = y[np.isfinite(y)]
        value, lo, hi, n = float("nan"), float("nan"), float("nan"), int(np.unique(subjects[np.isfinite(y)]).size)
        if len(seen) >= 3 and len(np.unique(seen)) > 1:
            p = np.nan_to_num(told.values[:, k])
            value, lo, hi, _ = bootstrap_metrics([metric], (y, p), subjects, draws)[metric].interval()
        factor = float("nan") if binary else float(factors[k])
        rows.append(Measured(name, metric, value, lo, hi, n, factor))
    return tuple(rows)


def interval_coverage(
    gallery: Gallery, told: KnnPrediction, truth: NDArray[np.float64]
) -> dict[str, tuple[float, int]]:
    """Share of subjects whose truth lies in the interval, and their number, for each measurement with a factor."""
    found = {}
    for row in gallery.about.measured:
        k = gallery.labels.index(row.label)
        seen = np.isfinite(truth[:, k]) & np.isfinite(told.values[:, k])
        if np.isfinite(row.factor) and seen.any():
            inside = np.abs(truth[seen, k] - told.values[seen, k]) <= row.factor * told.spread[seen, k]
            found[row.label] = (float(inside.mean()), int(seen.sum()))
    return found
