"""What is known of a subject besides signal and image - age, sex, body mass index, ... - as standardized inputs.

A column of subjects.parquet or a label becomes one feature, a text column one feature for each of its values. How it
is standardized is learned on the training subjects and travels with the weights (`TabularColumn`), so that inference
does the same. What is missing is a mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from ecgcmr.cohort.dataset import PairedDataset
    from ecgcmr.cohort.mixture import AnyDataset
    from ecgcmr.cohort.store import Cohort

MAX_LEVELS = 50
"""Values of a text column; one with more is a name or an identifier and no covariate."""

MARGINAL_STEPS = 256
_INPUT_LABELS = ("regression", "binary")


class TabularColumn(BaseModel):
    """One column and how it becomes features.

    Attributes:
        name: Column of subjects.parquet, or a label.
        kind: "number" ((value - mean) / std), "binary" (0 or 1) or "category" (one feature for each level).
        unit: Unit of the label; empty where it is not known.
        mean: Mean over the training subjects [unit]; numbers only.
        std: Standard deviation over the training subjects [unit]; numbers only.
        levels: Values of a category that the training subjects have, sorted; any other value counts as missing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(min_length=1)
    kind: Literal["number", "binary", "category"]
    unit: str = ""
    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)
    levels: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _levels_fit(self) -> TabularColumn:
        if (self.kind == "category") != bool(self.levels):
            raise ValueError(f"column {self.name!r}: a category has levels, and nothing else has")
        return self

    @property
    def features(self) -> tuple[str, ...]:
        """Names of its features."""
        return tuple(f"{self.name}={level}" for level in self.levels) or (self.name,)


def feature_names(columns: Sequence[TabularColumn]) -> tuple[str, ...]:
    """Names of all features (C,), in order."""
    return tuple(name for column in columns for name in column.features)


def encode(columns: Sequence[TabularColumn], table: Mapping[str, Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Turn values into features.

    Args:
        columns: The columns.
        table: For each column its values (n,), NaN or None where missing.

    Returns:
        Features (n, C), 0 where missing, and which are known (n, C).

    Raises:
        ValueError: A column is absent, or holds what it cannot be; names the column and the value.
    """
    absent = [column.name for column in columns if column.name not in table]
    if absent:
        raise ValueError(f"columns {', '.join(absent)} are missing; give them, with NaN where a value is not known")
    parts = [_features(column, np.asarray(table[column.name])) for column in columns]
    n = len(parts[0]) if parts else 0
    values = np.concatenate([np.zeros((n, 0)), *parts], axis=1)
    known = ~np.isnan(values)
    return np.where(known, values, 0.0).astype(np.float32), known


def _features(column: TabularColumn, raw: NDArray[Any]) -> NDArray[np.float64]:
    """Features (n, levels or 1) of one column, NaN where missing."""
    import pandas as pd

    if column.kind == "category":
        texts = pd.Series(raw, dtype=object).map(lambda value: None if pd.isna(value) else str(value))
        codes = pd.Categorical(texts, categories=list(column.levels)).codes
        one_hot = np.eye(len(column.levels))[codes]
        one_hot[codes < 0] = np.nan
        return one_hot
    try:
        numbers = np.asarray(pd.Series(raw, dtype=object).astype(float), dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"column {column.name!r} holds {_first_text(raw)!r}, expected numbers") from None
    if np.isinf(numbers).any():
        raise ValueError(f"column {column.name!r} holds an infinite value; leave it empty where it is not known")
    if column.kind == "number":
        return ((numbers - column.mean) / column.std)[:, None]
    wrong = numbers[~np.isnan(numbers) & ~np.isin(numbers, (0, 1))]
    if len(wrong):
        raise ValueError(f"column {column.name!r} holds {wrong[0]:g}, expected 0, 1 or nothing, as in training")
    return numbers[:, None]


def _first_text(raw: NDArray[Any]) -> str:
    for value in raw:
        try:
            float(value)
        except (TypeError, ValueError):
            if value is not None:
                return str(value)
    return ""


def home_of(cohort: Cohort, name: str) -> Literal["label", "column"] | None:
    """Say where a cohort holds a covariate: among its labels, in subjects.parquet, or (None) nowhere.

    Raises:
        ValueError: It is in both, a label of a kind that is no input, or the number of the subject.
    """
    spec, there = cohort.label_specs.get(name), name in cohort.subjects
    if spec is not None and there:
        raise ValueError(f"data.tabular: {cohort.path} has a label and a column of subjects.parquet called {name!r}")
    if name == "subject":
        raise ValueError("data.tabular: 'subject' numbers the subjects and says nothing of them")
    if spec is not None and spec.kind not in _INPUT_LABELS:
        raise ValueError(
            f"data.tabular: {name!r} is a label of kind {spec.kind!r} in {cohort.path}; {' and '.join(_INPUT_LABELS)} "
            "labels can be inputs"
        )
    return "label" if spec is not None else "column" if there else None


def covariate_of(dataset: PairedDataset, name: str) -> NDArray[Any] | None:
    """Values of a label or a column of subjects.parquet, of each item (n,); None if the cohort has neither.

    Numbers come as float64, NaN where missing; texts as objects, None where missing.
    """
    import pandas as pd

    home = home_of(dataset.cohort, name)
    if home != "column":
        return dataset.label_values(name) if home == "label" else None
    column = dataset.subject_column(name)
    numeric = pd.api.types.is_numeric_dtype(column)
    return column.to_numpy(dtype=np.float64) if numeric else column.to_numpy(dtype=object)


def encode_items(dataset: PairedDataset) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Features (n, C) of all items, 0 where missing, and which are known (n, C); a column the cohort lacks is not."""
    columns, n = dataset.tabular_columns, len(dataset)
    if not columns:
        return np.zeros((n, 0), np.float32), np.zeros((n, 0), bool)
    found = {column.name: dataset.covariate(column.name) for column in columns}
    return encode(columns, {name: np.full(n, np.nan) if raw is None else raw for name, raw in found.items()})


def fit_columns(dataset: AnyDataset, names: Sequence[str]) -> tuple[TabularColumn, ...]:
    """Learn how columns become features, from the subjects of a data set, each counted once.

    Raises:
        ValueError: A column is nowhere, empty, constant, or has too many values; the message names it.
    """
    first = np.unique(dataset.subjects, return_index=True)[1]
    return tuple(_fit(dataset, name, dataset.covariate(name), first) for name in names)


def _fit(dataset: AnyDataset, name: str, raw: NDArray[Any] | None, first: NDArray[np.int64]) -> TabularColumn:
    import pandas as pd

    where = f"data.tabular: {name!r}"
    if raw is None:
        raise ValueError(f"{where} is neither a column of subjects.parquet nor a label in {dataset.where}")
    values = raw[first]
    seen = values[~pd.isna(values)]
    if not len(seen):
        raise ValueError(f"{where} is missing in all {len(first)} training subjects; leave it out")
    if raw.dtype == object:
        levels = tuple(sorted({str(value) for value in seen}))
        if len(levels) > MAX_LEVELS:
            raise ValueError(f"{where} has {len(levels)} different texts, at most {MAX_LEVELS} can be inputs")
        if len(levels) < 2:
            raise ValueError(f"{where} is {levels[0]!r} in all training subjects; leave it out")
        return TabularColumn(name=name, kind="category", levels=levels)
    numbers = seen.astype(np.float64)
    spec = dataset.label_specs.get(name)
    unit = spec.unit if spec is not None else ""
    if not numbers.std() > 0:
        raise ValueError(f"{where} is {numbers[0]:g} in all training subjects; leave it out")
    if set(np.unique(numbers)) <= {0.0, 1.0}:
        return TabularColumn(name=name, kind="binary", unit=unit)
    return TabularColumn(name=name, kind="number", unit=unit, mean=float(numbers.mean()), std=float(numbers.std()))


def marginals(columns: Sequence[TabularColumn], dataset: AnyDataset) -> tuple[tuple[float, ...], ...]:
    """Distribution of each column over the subjects of a data set, as features at evenly spaced quantiles.

    Columns are told apart: a row is no subject. Numbers are interpolated between the observed ones.

    Returns:
        `MARGINAL_STEPS` rows of C features.
    """
    first = np.unique(dataset.subjects, return_index=True)[1]
    places = (np.arange(MARGINAL_STEPS) + 0.5) / MARGINAL_STEPS
    parts = []
    for column in columns:
        raw = dataset.covariate(column.name)
        assert raw is not None, "the column was fitted on this data set"
        features = _features(column, raw[first])
        known = features[~np.isnan(features).any(axis=1)]
        if column.kind == "number":
            parts.append(np.quantile(known[:, 0], places)[:, None])
        else:
            codes = np.sort(known.argmax(axis=1) if column.kind == "category" else known[:, 0])
            picked = codes[np.minimum((places * len(codes)).astype(int), len(codes) - 1)].astype(int)
            parts.append(np.eye(len(column.levels))[picked] if column.levels else picked[:, None].astype(float))
    table = np.concatenate(parts, axis=1) if parts else np.zeros((MARGINAL_STEPS, 0))
    return tuple(tuple(row) for row in table.tolist())
