"""Retrieval between ECG and CMR embeddings: find a subject's own study among those of others.

For every query g counts the candidates that are more similar than the true one and e those that are exactly as
similar. In a gallery of G subjects drawn at random from N (the true one always in it), the number of better ones is
hypergeometric, so the expected recall at k is a closed form, P(H <= k-1) with H ~ Hypergeometric(N-1, g, G-1): no
random gallery has to be drawn. With G = N this is the plain recall. Ties are broken at random in expectation, so that
a collapsed embedding, to which all studies look alike, scores exactly chance (k/G) and not 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import hypergeom

from ecgcmr.evaluation.bootstrap import Bootstrapped, SubjectDraws

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Retrieval:
    """Result of one direction.

    Attributes:
        direction: `ecg_to_cmr` or `cmr_to_ecg`.
        subjects: Query subjects (N,).
        gallery: Number of candidates G.
        ranks: Expected rank of the true study within the gallery, 1 is best (N,).
        hits: k -> expected recall at k of each query (N,).
    """

    direction: str
    subjects: NDArray[np.int64]
    gallery: int
    ranks: Array
    hits: dict[int, Array]

    def chance(self, k: int) -> float:
        """Recall at k of a random order: k/G."""
        return min(1.0, k / self.gallery)

    @property
    def chance_median_rank(self) -> float:
        """Median rank of a random order: (G + 1)/2."""
        return (self.gallery + 1) / 2

    def summarise(self, draws: SubjectDraws) -> dict[str, Bootstrapped]:
        """`recall_at_k` and `median_rank`, each with a bootstrap over query subjects (the gallery stays as it is)."""
        columns = draws.index(self.subjects)
        counts = draws.counts[:, columns]
        n = len(self.subjects)
        total = counts.sum(axis=1, dtype=np.float64)
        result = {}
        for k, hit in self.hits.items():
            sums = _chunked_product(counts, hit)
            mean = np.divide(sums, total, out=np.full(len(sums), np.nan), where=total > 0)
            result[f"recall_at_{k}"] = Bootstrapped(float(hit.mean()), mean, n, n)
        order = np.argsort(self.ranks, kind="stable")
        median = _weighted_medians(self.ranks[order], counts[:, order])
        result["median_rank"] = Bootstrapped(float(np.median(self.ranks)), median, n, n)
        return result


def retrieve(
    queries: ArrayLike,
    candidates: ArrayLike,
    subjects: ArrayLike,
    gallery: int | None = None,
    ks: Sequence[int] = (1, 5, 10),
    direction: str = "ecg_to_cmr",
) -> Retrieval:
    """Rank the true study of every query.

    Args:
        queries: Embeddings in the shared space (N, D); normalised here.
        candidates: Embeddings of the same subjects in the same order (N, D).
        subjects: Subjects (N,), one row each.
        gallery: Size of the gallery G; all N when absent.
        ks: Depths of the recall.
        direction: Name of the direction.

    Raises:
        ValueError: For shapes that do not pair, a repeated subject, zero or NaN embeddings, or a gallery above N.
    """
    q, c = _normalised("queries", queries), _normalised("candidates", candidates)
    who = np.asarray(subjects, dtype=np.int64)
    n = len(who)
    if q.shape != c.shape or len(q) != n or n < 2:
        raise ValueError(f"queries {q.shape}, candidates {c.shape} and {n} subjects do not form pairs")
    if np.unique(who).size != n:
        raise ValueError("a subject appears twice; keep one recording and one study of each subject for retrieval")
    size = n if gallery is None else gallery
    if not 2 <= size <= n:
        raise ValueError(f"gallery of {size} candidates can not be drawn from {n} subjects")
    similarity = q @ c.T
    own = np.diag(similarity)[:, None]
    # Rounding of a matrix product must not decide between equal candidates.
    tied = np.abs(similarity - own) <= 1e-9
    np.fill_diagonal(tied, False)
    better = ((similarity > own) & ~tied).sum(axis=1)
    np.fill_diagonal(similarity, -np.inf)
    equal = tied.sum(axis=1)
    ranks = 1 + (size - 1) * (better + equal / 2) / (n - 1)
    hits = {k: _expected_recall(better, equal, k, (n, size)) for k in ks}
    return Retrieval(direction, who, size, ranks, hits)


def retrieve_both_ways(
    ecg: ArrayLike, cmr: ArrayLike, subjects: ArrayLike, gallery: int | None = None, ks: Sequence[int] = (1, 5, 10)
) -> tuple[Retrieval, Retrieval]:
    """ECG -> CMR and CMR -> ECG."""
    return (
        retrieve(ecg, cmr, subjects, gallery, ks, "ecg_to_cmr"),
        retrieve(cmr, ecg, subjects, gallery, ks, "cmr_to_ecg"),
    )


def top_matches(query: ArrayLike, candidates: ArrayLike, k: int = 5) -> NDArray[np.int64]:
    """Indices of the k most similar candidates of one query (D,), best first; ties by index."""
    q, c = _normalised("query", np.asarray(query)[None]), _normalised("candidates", candidates)
    return np.argsort(-(c @ q[0]), kind="stable")[:k].astype(np.int64)


def _expected_recall(better: NDArray[np.intp], equal: NDArray[np.intp], k: int, sizes: tuple[int, int]) -> Array:
    """Recall at k (N,) over random galleries and random order of ties; sizes are (N, G)."""
    n, gallery = sizes
    if not k >= 1:
        raise ValueError(f"recall depth must be at least 1, got {k}")
    table = hypergeom.cdf(k - 1, n - 1, np.arange(n), gallery - 1)  # by number of better candidates, 0..n-1
    sums = np.concatenate([[0.0], np.cumsum(table)])
    last = better + equal + 1
    return np.asarray((sums[last] - sums[better]) / (equal + 1))


def _normalised(name: str, values: ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"{name} must have shape (subjects, dimensions), got {array.shape}")
    norm = np.linalg.norm(array, axis=1, keepdims=True)
    bad = ~np.isfinite(norm) | (norm == 0)
    if bad.any():
        raise ValueError(
            f"{name}: {int(bad.sum())} embedding(s) are zero or not finite (first in row {int(np.argmax(bad))})"
        )
    return np.asarray(array / norm)


def _chunked_product(counts: NDArray[np.uint16], values: Array, step: int = 256) -> Array:
    parts = [counts[i : i + step].astype(np.float64) @ values for i in range(0, len(counts), step)]
    return np.concatenate(parts)


def _weighted_medians(ordered: Array, counts: NDArray[np.uint16]) -> Array:
    """Median of sorted values under counts (draws, N): the mean of the two middle ones, as numpy's median."""
    cumulative = np.cumsum(counts, axis=1, dtype=np.int64)
    total = cumulative[:, -1]
    lower = np.array([np.searchsorted(row, (t + 1) // 2) for row, t in zip(cumulative, total, strict=True)])
    upper = np.array([np.searchsorted(row, t // 2 + 1) for row, t in zip(cumulative, total, strict=True)])
    last = len(ordered) - 1
    middle = (ordered[np.minimum(lower, last)] + ordered[np.minimum(upper, last)]) / 2
    return np.where(total > 0, middle, np.nan)
