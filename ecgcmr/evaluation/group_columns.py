"""Which groups an evaluation audits: sex, age band, site and whatever else a cohort names as a group."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ecgcmr.cohort.store import Cohort
from ecgcmr.evaluation.predictions import FOLLOW_UP_COLUMNS, PREDICTION_COLUMNS

MAX_LEVELS = 20
AGE_BAND = "age_band"
AGE_EDGES = (45, 55, 65, 75)
"""Bands of age [years] where the cohort has ages and no bands of its own."""


def find_groups(cohort: Cohort, wanted: Sequence[str] | None = None) -> tuple[pd.DataFrame, dict[str, str]]:
    """Group columns of all subjects of a cohort.

    Args:
        cohort: The cohort.
        wanted: Columns of subjects.parquet (or `age_band`), or two of them joined by a colon for their intersections
            (`sex:age_band`: a model may fail only young women); all known single groups when None, none when empty.

    Returns:
        A table of text indexed by subject, missing where unknown, and group -> why it is left out.

    Raises:
        ValueError: For a wanted column that the cohort does not have.
    """
    subjects = cohort.subjects.set_index("subject")
    columns = {str(name): subjects[name] for name in subjects.columns}
    if AGE_BAND not in columns and subjects["age_years"].notna().any():
        columns[AGE_BAND] = _age_bands(subjects["age_years"])
    if wanted is None:
        names = [name for name in ("sex", AGE_BAND, "site") if name in columns]
        names += [name for name in cohort.schema.group_columns if name in columns and name not in names]
    else:
        names = list(dict.fromkeys(wanted))
        deep = [name for name in names if name.count(":") > 1]
        if deep:
            raise ValueError(f"group {deep[0]!r}: intersections of two columns at most; with more, groups hold nobody")
        unknown = [part for name in names for part in name.split(":") if part not in columns]
        if unknown:
            raise ValueError(f"{cohort.path}: no group column {unknown[0]!r}; there are {', '.join(sorted(columns))}")
    found, left_out = {}, {}
    for name in names:
        text = _crossed([_as_text(columns[part]) for part in name.split(":")])
        n_levels = text.nunique()
        if name in (*PREDICTION_COLUMNS, *FOLLOW_UP_COLUMNS):
            left_out[name] = "its name is that of a column of the predictions table"
        elif n_levels < 2:
            left_out[name] = "all subjects have one level" if n_levels else "unknown for all subjects"
        elif n_levels > MAX_LEVELS:
            left_out[name] = f"{n_levels} levels, more than {MAX_LEVELS}"
        else:
            found[name] = text
    return pd.DataFrame(found, index=subjects.index), left_out


def _crossed(parts: Sequence[pd.Series]) -> pd.Series:
    """The column itself, or `female, <45` of two; unknown where either is."""
    if len(parts) == 1:
        return parts[0]
    known = parts[0].notna() & parts[1].notna()
    return (parts[0].astype(str) + ", " + parts[1].astype(str)).astype(object).where(known, None)


def _age_bands(age: pd.Series) -> pd.Series:
    names = [f"<{AGE_EDGES[0]}", *(f"{a}-{b - 1}" for a, b in itertools.pairwise(AGE_EDGES))]
    names.append(f">={AGE_EDGES[-1]}")
    place = np.searchsorted(AGE_EDGES, age.to_numpy(dtype=np.float64), side="right")
    return pd.Series([names[k] for k in place], index=age.index, dtype=object).where(age.notna(), None)


def _as_text(values: pd.Series) -> pd.Series:
    """Levels as text, whole numbers without a decimal point, missing where unknown."""
    text = values.astype(object).where(values.notna(), None)
    if pd.api.types.is_float_dtype(values):
        text = text.map(lambda value: None if value is None else f"{value:g}")
    text = text.map(lambda value: None if value is None or str(value) in ("", "unknown") else str(value))
    return text.astype(object)
