"""Deal units into bins so that every stratum is spread like the whole: iterative stratification of several labels.

Sechidis, Tsoumakas, Vlahavas 2011, On the stratification of multi-label data (doi:10.1007/978-3-642-23808-6_10), here
for units of one or more subjects, so that the subjects of a family or a site can be kept together.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ecgcmr.cohort.store import Cohort

QUANTILES = 4
MAX_LEVELS = 50


def deal(
    sizes: NDArray[np.int64], counts: NDArray[np.int64], shares: Sequence[float], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Bin of each unit (U,).

    The stratum with the fewest subjects left is dealt first, its large units before its small ones, each to the bin
    that lacks most of that stratum, then to the one that lacks most subjects; what is still even is decided by `rng`.

    Args:
        sizes: Subjects of each unit (U,).
        counts: Subjects of each unit in each stratum (U, K); strata may overlap.
        shares: Wanted share of each bin (F,), with sum 1.
        rng: Decides between equals.
    """
    wanted = np.asarray(shares, dtype=np.float64)
    lacking = wanted * sizes.sum()
    lacking_strata = wanted[:, None] * counts.sum(axis=0)[None, :]
    result = np.full(len(sizes), -1, dtype=np.int64)
    shuffled = rng.permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]  # large first, equals in random order
    open_bins = np.flatnonzero(wanted > 0)

    def put(unit: int, need: NDArray[np.float64]) -> None:
        best = open_bins[need[open_bins] > need[open_bins].max() - 1e-9]
        most = lacking[best]
        best = best[most > most.max() - 1e-9]
        chosen = int(best[0]) if len(best) == 1 else int(rng.choice(best))
        result[unit] = chosen
        lacking[chosen] -= sizes[unit]
        lacking_strata[chosen] -= counts[unit]

    left = counts.sum(axis=0)
    while (left > 0).any():
        stratum = int(np.argmin(np.where(left > 0, left, np.iinfo(np.int64).max)))
        for unit in order[(counts[order, stratum] > 0) & (result[order] < 0)]:
            put(int(unit), lacking_strata[:, stratum])
        left = counts[result < 0].sum(axis=0)
    for unit in order[result[order] < 0]:
        put(int(unit), lacking)
    return result


def deal_subjects(
    subjects: NDArray[np.int64],
    shares: Sequence[float],
    rng: np.random.Generator,
    strata: NDArray[np.bool_] | None = None,
    groups: Sequence[Hashable] | None = None,
) -> NDArray[np.int64]:
    """Bin of each subject (n,); the same for every order of the rows.

    Args:
        subjects: Subjects (n,), each once.
        shares: Wanted share of each bin (F,).
        rng: Random generator.
        strata: Membership of each subject in each stratum (n, K).
        groups: A value for each subject; subjects of one value come into one bin.

    Raises:
        ValueError: A subject stands twice.
    """
    if len(np.unique(subjects)) != len(subjects):
        raise ValueError("every subject must appear once; pass unique subjects, not one for each recording")
    order = np.argsort(subjects, kind="stable")
    member = (strata if strata is not None else np.zeros((len(subjects), 0), dtype=bool))[order].astype(np.int64)
    if groups is None:
        unit = np.arange(len(subjects))
    else:
        named = [groups[position] for position in order]
        numbers = {value: number for number, value in enumerate(dict.fromkeys(named))}
        unit = np.array([numbers[value] for value in named], dtype=np.int64)
    n_units = int(unit.max()) + 1 if len(unit) else 0
    counts = np.zeros((n_units, member.shape[1]), dtype=np.int64)
    np.add.at(counts, unit, member)
    bins = deal(np.bincount(unit, minlength=n_units).astype(np.int64), counts, shares, rng)
    result = np.empty(len(subjects), dtype=np.int64)
    result[order] = bins[unit]
    return result


def subject_column(cohort: Cohort, name: str) -> pd.Series:
    """A column of subjects.parquet or a label, by subject.

    Raises:
        ValueError: There is no such column; names those that are.
    """
    subjects = cohort.subjects.set_index("subject")
    if name in subjects:
        return subjects[name]
    if name in cohort.labels:
        return cohort.labels[name]
    known = [*subjects.columns, *cohort.labels.columns]
    raise ValueError(f"{cohort.path}: no column or label {name!r} of subjects; there are {', '.join(known)}")


def strata_of(cohort: Cohort, names: Sequence[str]) -> tuple[NDArray[np.bool_], list[str]]:
    """Membership of each subject in each stratum (n, K), and the names of the strata.

    A binary or event label gives its positives, a number its quarters, a text or category its values; subjects without
    a value are a stratum of their own.

    Raises:
        ValueError: An unknown column, or a text with too many values to be strata.
    """
    columns: list[NDArray[np.bool_]] = []
    titles: list[str] = []
    for name in names:
        values = subject_column(cohort, name)
        spec = cohort.label_specs.get(name)
        missing = (values.isna() | (values.astype(str).str.strip() == "")).to_numpy(dtype=bool)
        if spec is not None and spec.kind in ("binary", "event"):
            found = {"1": (values == 1).to_numpy(dtype=bool)}
        elif pd.api.types.is_numeric_dtype(values) and not (spec is not None and spec.kind == "category"):
            found = _quarters(values.to_numpy(dtype=np.float64))
        else:
            texts = values.astype(str).to_numpy()
            levels = sorted(set(texts[~missing]))
            if len(levels) > MAX_LEVELS:
                raise ValueError(f"{name!r} has {len(levels)} values, too many for strata; the limit is {MAX_LEVELS}")
            found = {level: (texts == level) & ~missing for level in levels}
        found["missing"] = missing
        for level, members in found.items():
            if members.any():
                columns.append(members)
                titles.append(f"{name}={level}")
    table = np.stack(columns, axis=1) if columns else np.zeros((len(cohort.subjects), 0), dtype=bool)
    return table, titles


def _quarters(values: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
    seen = values[~np.isnan(values)]
    if not len(seen):
        return {}
    edges = np.unique(np.quantile(seen, np.arange(1, QUANTILES) / QUANTILES))
    quarter = np.where(np.isnan(values), -1, np.searchsorted(edges, values, side="right"))
    return {f"quarter {k + 1}": quarter == k for k in range(len(edges) + 1)}
