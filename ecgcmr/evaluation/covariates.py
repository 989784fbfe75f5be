"""What is known without an ECG: age, sex and body mass index of each subject, as far as the cohort has them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.cohort.store import Cohort

Array = NDArray[np.float64]

COLUMNS: dict[str, tuple[str, ...]] = {
    "age": ("age_years", "age"),
    "sex": ("sex",),
    "BMI": ("bmi", "bmi_kg_m2", "body_mass_index"),
}
"""Covariate -> names of columns of subjects.parquet (or of a measured label) that hold it, the first found is taken."""


@dataclass(frozen=True)
class Covariates:
    """Covariates of the subjects of a cohort, as numbers.

    Attributes:
        values: Encoded columns, indexed by subject; NaN where unknown. Age and BMI are numbers, sex is 0 or 1 (a
            column for each level but the first where there are more than two).
        parts: Covariate -> its columns in `values`.
        source: Covariate -> column of the cohort that it came from.
    """

    values: pd.DataFrame
    parts: dict[str, tuple[str, ...]]
    source: dict[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """The covariates that there are."""
        return tuple(self.parts)

    @property
    def title(self) -> str:
        """`age + sex`, as arms are named."""
        return " + ".join(self.names)

    def without(self, names: Collection[str]) -> Covariates:
        """Leave out covariates: age is no risk score of age."""
        return replace(self, parts={name: columns for name, columns in self.parts.items() if name not in names})

    def for_target(self, target: str) -> Covariates:
        """Leave out the covariate that the target itself is."""
        return self.without(
            [name for name in self.parts if target.lower() in (name.lower(), self.source[name].lower())]
        )

    def missing(self, subjects: NDArray[np.int64]) -> dict[str, int]:
        """Number of the subjects (N,) for whom each covariate is unknown."""
        rows = self.values.loc[np.unique(subjects)]
        return {name: int(rows[list(columns)].isna().any(axis=1).sum()) for name, columns in self.parts.items()}

    def matrix(self, subjects: NDArray[np.int64], train: NDArray[np.int64]) -> Array:
        """Encoded covariates (N, D) of subjects (N,).

        What is unknown takes the mean of the training subjects, and where any training subject lacks a value a column
        says who does.
        """
        columns = [column for part in self.parts.values() for column in part]
        known = self.values[columns]
        fitted = known.loc[np.unique(train)]
        filled = known.loc[subjects].fillna(fitted.mean().fillna(0.0))
        lacks = [column for column in columns if fitted[column].isna().any()]
        flags = known.loc[subjects, lacks].isna().to_numpy(dtype=np.float64)
        return np.concatenate([filled.to_numpy(dtype=np.float64), flags], axis=1)


def read_covariates(cohort: Cohort) -> Covariates:
    """Find age, sex and BMI in a cohort; what it does not have, or is the same for all, is left out."""
    subjects = cohort.subjects.set_index("subject")
    columns: dict[str, pd.Series] = {}
    parts: dict[str, tuple[str, ...]] = {}
    source: dict[str, str] = {}
    for name, candidates in COLUMNS.items():
        found = _find(cohort, subjects, candidates)
        if found is None:
            continue
        encoded = _levels(found) if name == "sex" else {name: pd.to_numeric(found, errors="coerce").astype(np.float64)}
        encoded = {key: values for key, values in encoded.items() if values.nunique() > 1}
        if encoded:
            columns |= encoded
            parts[name], source[name] = tuple(encoded), str(found.name)
    return Covariates(pd.DataFrame(columns, index=subjects.index), parts, source)


def _find(cohort: Cohort, subjects: pd.DataFrame, candidates: tuple[str, ...]) -> pd.Series | None:
    lower = {str(column).lower(): column for column in subjects.columns}
    labels = {name.lower(): name for name, spec in cohort.label_specs.items() if spec.kind in ("regression", "binary")}
    for name in candidates:
        if name in lower and subjects[lower[name]].notna().any():
            return subjects[lower[name]]
        if name in labels and cohort.labels[labels[name]].notna().any():
            return cohort.labels[labels[name]]
    return None


def _levels(values: pd.Series) -> dict[str, pd.Series]:
    """A 0/1 column for each level but the first, NaN where unknown."""
    text = values.astype(object).map(str).where(values.notna() & ~values.astype(str).isin(["", "unknown"]), None)
    levels = sorted(set(text.dropna()))
    known = text.notna()
    return {f"sex {level}": (text == level).astype(np.float64).where(known, np.nan) for level in levels[1:]}
