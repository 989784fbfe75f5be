"""Sums over the rows of many bootstrap draws at once: one product of the counts with the sums within subjects."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CHUNK_ELEMENTS = 4_000_000
"""Counts are turned into floats in parts of this many."""


def weighted_sums(
    terms: NDArray[np.float64], rows: NDArray[np.int64], counts: NDArray[np.generic]
) -> NDArray[np.float64]:
    """Sums (draws, k) of terms (N, k): first within subjects, then one product with the counts."""
    by_subject = np.stack([np.bincount(rows, weights=t, minlength=counts.shape[1]) for t in terms.T], axis=1)
    step = max(1, CHUNK_ELEMENTS // counts.shape[1])
    parts = [counts[i : i + step].astype(np.float64) @ by_subject for i in range(0, counts.shape[0], step)]
    return np.concatenate(parts)
