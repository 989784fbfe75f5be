"""Retrieval with phenotypes: galleries, nearest neighbours, kNN regression, prototypes. Names are imported lazily."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "build": ("build_gallery", "embed_part", "interval_coverage", "measure_neighbours"),
    "gallery": ("Gallery", "GalleryAbout", "Measured"),
    "prototypes": ("Prototypes", "fit_prototypes"),
    "query": ("NeighbourReport", "find_neighbours", "report_neighbours"),
    "regression": ("KnnPrediction", "interval_factors", "regress"),
    "search": ("Neighbours", "nearest"),
}
_WHERE = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
