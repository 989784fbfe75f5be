"""Labels of items, in original units, and their distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.cohort.schema import LabelSpec, value_label

if TYPE_CHECKING:
    from ecgcmr.cohort.store import Cohort


def with_values(specs: Sequence[LabelSpec]) -> dict[str, LabelSpec]:
    """Meaning of each label by name, and of the binary label NAME=VALUE of each value of a category."""
    found = {spec.name: spec for spec in specs}
    for spec in specs:
        for value in spec.values if spec.kind == "category" else ():
            name = value_label(spec.name, value)
            text = f"whether {spec.name} is {value}"
            found.setdefault(name, LabelSpec(name, "binary", description=text, level=spec.level))
    return found


def add_values(table: pd.DataFrame, specs: Sequence[LabelSpec]) -> pd.DataFrame:
    """Add the columns NAME=VALUE of the categories in a table of labels: 0, 1, or NaN where the category is missing."""
    added = {}
    for spec in specs:
        if spec.kind != "category" or spec.name not in table:
            continue
        codes = table[spec.name]
        for code, value in enumerate(spec.values):
            name = value_label(spec.name, value)
            if name not in table:
                added[name] = (codes == code).astype(np.float64).where(codes.notna())
    return pd.concat([table, pd.DataFrame(added, index=table.index)], axis=1) if added else table


def categories_of(names: Sequence[str], specs: Sequence[LabelSpec]) -> list[LabelSpec]:
    """The categories whose values NAME=VALUE are among names, unless a label of its own is called so."""
    wanted = set(names) - {spec.name for spec in specs}
    return [
        spec
        for spec in specs
        if spec.kind == "category" and not wanted.isdisjoint(value_label(spec.name, value) for value in spec.values)
    ]


@dataclass(frozen=True)
class LabelStatistics:
    """Distribution of one label, in original units.

    `mean` and `std` (of the population) are NaN when nothing was observed; `prevalence` is the mean of a binary or
    event label, else NaN.
    """

    name: str
    kind: str
    unit: str
    mean: float
    std: float
    prevalence: float
    n: int


def check_label_names(cohort: Cohort, names: Sequence[str]) -> None:
    """Raise ValueError for a label that the cohort does not have."""
    unknown = [name for name in names if name not in cohort.label_specs]
    if unknown:
        raise ValueError(f"{cohort.path}: no label {unknown[0]!r}; this cohort has {', '.join(cohort.label_specs)}")


def item_labels(
    cohort: Cohort, names: Sequence[str], subjects: NDArray[np.int64], recording_rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Labels (n, K) of items: the recording's own value where labels belong to recordings, else the subject's.

    Args:
        cohort: The cohort.
        names: Labels (K).
        subjects: Subject of each item (n,).
        recording_rows: Row in recordings of each item (n,), -1 without.
    """
    values = cohort.columns("labels", names).loc[subjects].to_numpy(dtype=np.float64)
    own = [name for name in names if cohort.label_specs[name].level == "recording"]
    with_ecg = np.flatnonzero(recording_rows >= 0)
    if own and len(with_ecg):
        table = cohort.recording_labels[own].to_numpy(dtype=np.float64)[recording_rows[with_ecg]]
        for position, name in enumerate(own):
            values[with_ecg, list(names).index(name)] = table[:, position]
    return values


def label_statistics(spec: LabelSpec, values: NDArray[np.float64]) -> LabelStatistics:
    """Distribution of the values (n,) of one label; NaN is left out."""
    seen = values[~np.isnan(values)]
    mean = float(seen.mean()) if len(seen) else float("nan")
    std = float(seen.std()) if len(seen) else float("nan")
    prevalence = mean if spec.kind in ("binary", "event") else float("nan")
    return LabelStatistics(spec.name, spec.kind, spec.unit, mean, std, prevalence, len(seen))
