"""Reference ranges of phenotypes: what subjects of the same sex and about the same age without any disease have.

The ranges come from a cohort and hold for it alone: those of a simulated cohort say what is usual among simulated
hearts, not among people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.cohort.store import Cohort

MIN_SUBJECTS = 40  # below that the 2.5th and 97.5th percentile are the extremes themselves
HALF_WIDTHS_YEARS = (5.0, 10.0, 15.0, np.inf)


@dataclass(frozen=True)
class Reference:
    """A range that holds 95 % of the reference subjects.

    Attributes:
        low: 2.5th percentile, in the unit of the phenotype.
        high: 97.5th percentile.
        n: Number of subjects.
        who: Who they are, in words.
    """

    low: float
    high: float
    n: int
    who: str


class References:
    """Reference ranges from the subjects of a cohort who have none of its diagnoses.

    Args:
        cohort: With `sex` and `age_years` in subjects.parquet where it knows them.

    Attributes:
        n_healthy: Subjects of whom all diagnoses are known and absent.
    """

    def __init__(self, cohort: Cohort) -> None:
        specs = cohort.label_specs
        binary = [name for name, spec in specs.items() if spec.kind == "binary"]
        labels = cohort.labels
        healthy = (labels[binary] == 0).all(axis=1) if binary else pd.Series(False, index=labels.index)
        self._labels = labels.loc[healthy]
        subjects = cohort.subjects
        self._subjects = subjects[subjects["subject"].isin(self._labels.index)].set_index("subject")
        self._labels = self._labels.loc[self._subjects.index]
        self.n_healthy = len(self._labels)

    def find(self, phenotypes: Sequence[str], sex: str | None, age_years: float | None) -> dict[str, Reference]:
        """Give the range of each phenotype that enough reference subjects have.

        Args:
            phenotypes: Names of labels; those that the cohort lacks are left out.
            sex: A value of the cohort's column `sex`, in any case; None for all.
            age_years: Age [years]; None for all. The window around it grows until there are 40 subjects.

        Raises:
            ValueError: If the age is not a number of years, or the cohort does not know the sex.
        """
        if age_years is not None and not 0 <= age_years <= 130:
            raise ValueError(f"age is {age_years}, expected 0 to 130 years; leave it empty if it is not known")
        same = self._of_sex(sex)
        found = {}
        for name in phenotypes:
            if name in self._labels:
                values = self._labels[name].to_numpy(dtype=np.float64)
                reference = self._range(values, same, sex, age_years)
                if reference is not None:
                    found[name] = reference
        return found

    def _of_sex(self, sex: str | None) -> NDArray[np.bool_]:
        if sex is None or "sex" not in self._subjects:
            return np.ones(self.n_healthy, dtype=bool)
        known = self._subjects["sex"].astype("string").str.lower()
        levels = sorted(known.dropna().unique())
        if self.n_healthy and sex.lower() not in levels:
            raise ValueError(f"sex is {sex!r}, the reference subjects have {', '.join(levels) or 'none'}")
        return np.asarray((known == sex.lower()).fillna(False), dtype=bool)

    def _range(
        self, values: NDArray[np.float64], same: NDArray[np.bool_], sex: str | None, age: float | None
    ) -> Reference | None:
        usable = same & np.isfinite(values)
        ages = self._subjects["age_years"].to_numpy(dtype=np.float64) if "age_years" in self._subjects else None
        for width in HALF_WIDTHS_YEARS if age is not None and ages is not None else (np.inf,):
            chosen = usable & (np.abs(ages - age) <= width) if np.isfinite(width) and ages is not None else usable
            n = int(chosen.sum())
            if n >= MIN_SUBJECTS:
                low, high = np.percentile(values[chosen], [2.5, 97.5])
                return Reference(float(low), float(high), n, _words(sex, age if np.isfinite(width) else None, width))
        return None


def _words(sex: str | None, age: float | None, width: float) -> str:
    who = "subjects without a diagnosis" if sex is None else f"{sex.lower()} subjects without a diagnosis"
    return who if age is None else f"{who}, {max(age - width, 0):.0f} to {age + width:.0f} years"
