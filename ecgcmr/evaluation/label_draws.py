"""Which subjects are labelled in a low-label experiment: drawn by seed, nested, with a few positives of each target.

The draw is one ordering of the training subjects for each seed; the first n of it are the n labelled subjects, so
that the 100 are part of the 400. A plain random draw of 100 subjects often holds no positive of a rare diagnosis, and
a probe then can not be fitted at all. So the ordering is random, and then, for each requested size in turn and for
the rarest target first, random subjects of its rarer class are swapped in from behind until `min_positives` are there
(or no more exist). Swapped-out subjects go to where the swapped-in ones came from. This enriches rare targets
slightly; how many subjects were swapped is part of the result and belongs in the report. Test subjects keep their
natural prevalence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class LabelDraw:
    """An ordering of the training subjects; its first n are the n labelled ones.

    Attributes:
        order: All training subjects in the order of this draw (S,).
        swapped: For each requested size, how many subjects were swapped in to have enough positives.
        positives: For each requested size, the number of positives of each target.
    """

    order: NDArray[np.int64]
    swapped: Mapping[int, int]
    positives: Mapping[int, Mapping[str, int]]

    def subjects(self, n: int | None = None) -> NDArray[np.int64]:
        """The n labelled subjects, or all of them."""
        if n is not None and not 0 < n <= len(self.order):
            raise ValueError(f"{n} labelled subjects were asked for, but there are {len(self.order)} training subjects")
        return self.order[:n]


def draw_labels(
    subjects: ArrayLike,
    positive: Mapping[str, ArrayLike],
    sizes: Sequence[int],
    generator: np.random.Generator,
    min_positives: int = 5,
) -> LabelDraw:
    """Draw labelled subjects.

    Args:
        subjects: Training subjects (S,), unique.
        positive: Binary target -> 0/1 for each subject (S,); NaN counts as not positive. May be empty.
        sizes: Sizes that will be used, for instance (100, 400).
        generator: Derived from the seed of the label draw.
        min_positives: Wanted subjects of the rarer class of each binary target in every size; at most a tenth of the
            size, so that small draws stay close to random.

    Raises:
        ValueError: When subjects repeat, a size is too large, or a column has the wrong length.
    """
    pool = np.asarray(subjects, dtype=np.int64)
    if np.unique(pool).size != pool.size:
        raise ValueError("training subjects repeat; draw labels from unique subjects")
    if any(not 0 < n <= pool.size for n in sizes):
        raise ValueError(f"sizes {tuple(sizes)} must lie between 1 and the {pool.size} training subjects")
    # Sorted first, so that the draw depends on the set of subjects and the seed, not on the order of a table.
    rank = np.argsort(pool)
    values = {name: _column(name, column, pool.size)[rank] for name, column in positive.items()}
    columns = {name: column == _rarer_class(column) for name, column in values.items()}
    order = generator.permutation(pool.size)
    swapped: dict[int, int] = {}
    positives: dict[int, dict[str, int]] = {}
    for n in sorted(sizes):
        wanted = min(min_positives, max(1, n // 10))
        held = max((size for size in swapped), default=0)
        swapped[n] = _swap_in(order, (held, n), columns, wanted, generator)
        positives[n] = {name: int((column[order[:n]] == 1).sum()) for name, column in values.items()}
    return LabelDraw(pool[rank][order], swapped, positives)


def _column(name: str, values: ArrayLike, size: int) -> NDArray[np.float64]:
    column = np.asarray(values, dtype=np.float64)
    if column.shape != (size,):
        raise ValueError(f"target {name!r} has shape {column.shape}, expected ({size},)")
    if not np.isin(column[~np.isnan(column)], (0.0, 1.0)).all():
        raise ValueError(f"target {name!r} must be 0, 1 or NaN; only binary targets are stratified")
    return column


def _rarer_class(column: NDArray[np.float64]) -> int:
    return 1 if np.sum(column == 1) <= np.sum(column == 0) else 0


def _swap_in(
    order: NDArray[np.int64],
    window: tuple[int, int],
    columns: Mapping[str, NDArray[np.bool_]],
    wanted: int,
    generator: np.random.Generator,
) -> int:
    """Bring each target to `wanted` positives within order[:n], in place; order[:held] is not touched."""
    held, n = window
    count = 0
    rarest_first = sorted(columns, key=lambda name: (int(columns[name].sum()), name))
    for name in rarest_first:
        column = columns[name]
        need = wanted - int(column[order[:n]].sum())
        behind = n + np.flatnonzero(column[order[n:]])
        for place in generator.permutation(behind)[: max(0, need)]:
            free = [i for i in range(held, n) if not _needed(order[i], order[:n], columns, wanted)]
            if not free:
                break
            out = free[int(generator.integers(len(free)))]
            order[[out, place]] = order[[place, out]]
            count += 1
    return count


def _needed(
    subject: np.int64, chosen: NDArray[np.int64], columns: Mapping[str, NDArray[np.bool_]], wanted: int
) -> bool:
    """Whether taking this subject out would leave one of its targets with fewer positives than wanted."""
    return any(column[subject] and int(column[chosen].sum()) <= wanted for column in columns.values())
