"""The nearest vectors of a gallery, exactly, in blocks of bounded memory.

Similarities of a block of queries with the whole gallery are one matrix product. The k best are found without sorting:
the k-th largest of the maxima of pieces of the gallery is a lower bound of the k-th largest similarity, so that few
candidates are left, which are compared again in float64. An index that approximates would save little at 100,000
vectors and would make the numbers depend on its settings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK_BYTES = 96 * 2**20
"""Memory of the similarities of one block of queries."""
_PIECE = 64  # vectors of which the maximum is taken
_SPARE = 8  # candidates beyond k, so that rounding in float32 decides nothing


@dataclass(frozen=True)
class Neighbours:
    """The nearest vectors of each query.

    Attributes:
        rows: Row of the gallery (Q, k), nearest first, equal ones by row; -1 where the gallery has fewer.
        distances: Euclidean distance of the vectors of length 1 (Q, k), sqrt(2 - 2 cosine); infinite where row is -1.
    """

    rows: NDArray[np.int64]
    distances: NDArray[np.float64]

    @property
    def cosines(self) -> NDArray[np.float64]:
        """Cosine similarity (Q, k); NaN where row is -1."""
        found = np.where(self.rows >= 0, self.distances, np.nan)
        return np.asarray(1.0 - 0.5 * found**2)


def unit_rows(name: str, values: ArrayLike, dtype: type = np.float32) -> NDArray[np.floating]:
    """Rows (N, D) of length 1.

    Raises:
        ValueError: For another shape, or a row that is zero or not finite; names the first.
    """
    array = np.asarray(values)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must have shape (rows, dimensions) with at least one of each, got {array.shape}")
    length = np.linalg.norm(array.astype(np.float64, copy=False), axis=1, keepdims=True)
    bad = ~np.isfinite(length) | (length == 0)
    if bad.any():
        raise ValueError(f"{name}: {int(bad.sum())} row(s) are zero or not finite, the first is {int(np.argmax(bad))}")
    return np.asarray(array / length, dtype=dtype)


def nearest(
    queries: ArrayLike,
    vectors: ArrayLike,
    k: int = 20,
    query_subjects: ArrayLike | None = None,
    subjects: ArrayLike | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Neighbours:
    """Find the k nearest vectors of every query by cosine.

    Args:
        queries: (Q, D); scaled to length 1 here.
        vectors: (N, D), likewise.
        k: Neighbours of each query.
        query_subjects: Subject of each query (Q,): its own vectors are left out; -1 for one that the gallery does not
            know. Needs `subjects`.
        subjects: Subject of each vector (N,).
        block_bytes: Memory of one block of similarities.

    Raises:
        ValueError: For shapes that do not fit, zero or non-finite vectors, or k below 1.
    """
    q, v = unit_rows("queries", queries), unit_rows("gallery", vectors)
    if q.shape[1] != v.shape[1]:
        raise ValueError(f"queries have {q.shape[1]} dimensions, the gallery has {v.shape[1]}: not of one model")
    if k < 1:
        raise ValueError(f"k is {k}, expected at least 1")
    own = None
    if query_subjects is not None:
        if subjects is None:
            raise ValueError("query_subjects are given, but not the subjects of the gallery")
        own = _OwnRows(np.asarray(query_subjects, np.int64), np.asarray(subjects, np.int64), (len(q), len(v)))
    rows = np.full((len(q), k), -1, np.int64)
    distances = np.full((len(q), k), np.inf)
    step = max(1, block_bytes // (4 * len(v)))
    for start in range(0, len(q), step):
        block = slice(start, min(start + step, len(q)))
        similarity = q[block] @ v.T
        if own is not None:
            similarity[own.places(block)] = -np.inf
        _best(similarity, (q[block], v), (rows[block], distances[block]))
    return Neighbours(rows, distances)


class _OwnRows:
    """Where the gallery holds the subject of a query."""

    def __init__(self, queries: NDArray[np.int64], gallery: NDArray[np.int64], shape: tuple[int, int]) -> None:
        if (queries.shape, gallery.shape) != ((shape[0],), (shape[1],)):
            raise ValueError(f"{queries.shape} and {gallery.shape} subjects for {shape} queries and vectors")
        self._order = np.argsort(gallery, kind="stable")
        ordered = gallery[self._order]
        known = queries >= 0
        self._first = np.where(known, np.searchsorted(ordered, queries, "left"), 0)
        self._last = np.where(known, np.searchsorted(ordered, queries, "right"), 0)

    def places(self, block: slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row within the block and row of the gallery of every own vector."""
        counts = self._last[block] - self._first[block]
        query = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return query, self._order[np.repeat(self._first[block], counts) + within]


def _best(
    similarity: NDArray[np.float32],
    vectors: tuple[NDArray[np.floating], NDArray[np.floating]],
    out: tuple[NDArray[np.int64], NDArray[np.float64]],
) -> None:
    """Write the nearest rows and distances of a block into `out`."""
    rows, distances = out
    wanted = min(rows.shape[1] + _SPARE, similarity.shape[1])
    bound = _lower_bound(similarity, wanted)
    query, row = np.nonzero(similarity >= bound[:, None])
    kept = similarity[query, row] > -np.inf
    query, row = query[kept], row[kept]
    # of many equal ones only the first by row can be among the k best
    order = np.lexsort((row, -similarity[query, row], query))
    query, row = query[order], row[order]
    place = np.arange(len(query)) - np.searchsorted(query, query)
    query, row = query[place < wanted], row[place < wanted]
    exact = np.linalg.norm(vectors[0][query].astype(np.float64) - vectors[1][row].astype(np.float64), axis=1)
    order = np.lexsort((row, exact, query))
    query, row, exact = query[order], row[order], exact[order]
    place = np.arange(len(query)) - np.searchsorted(query, query)
    first = place < rows.shape[1]
    rows[query[first], place[first]] = row[first]
    distances[query[first], place[first]] = exact[first]


def _lower_bound(similarity: NDArray[np.float32], wanted: int) -> NDArray[np.float32]:
    """A number for each query (B,) that at least `wanted` of its similarities reach."""
    n = similarity.shape[1]
    pieces = n // _PIECE
    if pieces < 2 * wanted:
        return np.asarray(np.partition(similarity, n - wanted, axis=1)[:, n - wanted])
    maxima = similarity[:, : pieces * _PIECE].reshape(len(similarity), pieces, _PIECE).max(axis=2)
    return np.asarray(np.partition(maxima, pieces - wanted, axis=1)[:, pieces - wanted])
