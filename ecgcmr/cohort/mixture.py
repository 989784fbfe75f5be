"""MixedDataset: the items of several cohorts as one data set, each subject under a number of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ecgcmr.cohort.batch import Batch
from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.cohort.labels import LabelStatistics, label_statistics
from ecgcmr.cohort.schema import LabelSpec
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.tabular import TabularColumn


def subject_offsets(cohorts: Sequence[Cohort]) -> tuple[int, ...]:
    """What to add to the subjects of each cohort so that no two cohorts share a number; 0 for the first one."""
    offsets: list[int] = []
    end = 0
    for cohort in cohorts:
        subjects = cohort.subjects["subject"].to_numpy(dtype=np.int64)
        lowest = min(int(subjects.min(initial=0)), 0) if offsets else 0
        offsets.append(end - lowest)
        end = max(end, offsets[-1] + int(subjects.max(initial=-1)) + 1)
    return tuple(offsets)


def common_label_specs(cohorts: Sequence[Cohort]) -> dict[str, LabelSpec]:
    """The labels that any of the cohorts has, by name; the first cohort that has one describes it.

    Raises:
        ValueError: Two cohorts mean different things by one name; names the cohorts, the label and both meanings.
    """
    specs: dict[str, LabelSpec] = {}
    homes: dict[str, Cohort] = {}
    for cohort in cohorts:
        for name, spec in cohort.label_specs.items():
            first = specs.setdefault(name, spec)
            home = homes.setdefault(name, cohort)
            for what in ("kind", "unit", "values"):
                ours, theirs = getattr(first, what), getattr(spec, what)
                if ours != theirs:
                    raise ValueError(
                        f"label {name!r} has {what} {theirs!r} in {cohort.path} but {ours!r} in {home.path}; "
                        "convert one of them, or rename it, before the cohorts are mixed"
                    )
    return specs


class MixedDataset:
    """Several data sets one behind the other, with the interface of `PairedDataset`.

    Subjects of different cohorts are different subjects: their numbers are moved apart, so that a contrastive loss
    never takes two of them for one. Nobody can tell from pseudonyms whether one person is in two cohorts; such a person
    counts as two, in the losses and in the parts of the splits.

    A label that a cohort lacks is missing there; so is a group column, whose code is -1.

    Args:
        parts: Data sets with the same pipelines; each with those of the labels that its cohort has.
        names: A name for each part.
        offsets: What is added to the subjects of each, from `subject_offsets`.
        labels: Names of the labels, in the order of `Batch["labels"]`.
        group: Column of subjects.parquet that becomes `Batch["group"]`; None gives zeros.

    Attributes:
        parts: As given.
        names: As given.
        label_names: The labels (K,).
        label_specs: Their meaning, and that of all others.
        subjects: Subject of each item (n,), moved.
        source_codes: Place of its part in `names`, of each item (n,).

    Raises:
        ValueError: Shapes of the parts or meanings of a label differ; a group column is in none, or holds text in one
            cohort and numbers in another.
    """

    def __init__(
        self,
        parts: Sequence[PairedDataset],
        names: Sequence[str],
        offsets: Sequence[int],
        labels: Sequence[str] = (),
        group: str | None = None,
    ) -> None:
        self.parts, self.names, self._offsets = tuple(parts), tuple(names), tuple(offsets)
        self.label_names, self._group = tuple(labels), group
        self.label_specs: Mapping[str, LabelSpec] = common_label_specs([part.cohort for part in parts])
        for part in self.parts[1:]:
            for what in ("ecg_shape", "cmr_shape"):
                ours, theirs = getattr(self.parts[0], what), getattr(part, what)
                if ours != theirs:
                    raise ValueError(
                        f"{part.cohort.path}: {what} is {theirs}, but {ours} in {self.parts[0].cohort.path}; "
                        "all cohorts of a run are prepared by the same pipelines"
                    )
        lengths = [len(part) for part in self.parts]
        self._starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.source_codes = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
        moved = [part.subjects + offset for part, offset in zip(self.parts, self._offsets, strict=True)]
        self.subjects: NDArray[np.int64] = np.concatenate(moved)
        self.group_codes: NDArray[np.int64] = self._codes_of_groups()
        self._group_tensor = torch.from_numpy(self.group_codes)

    def __len__(self) -> int:
        """Number of items of all parts."""
        return len(self.subjects)

    @property
    def source_sizes(self) -> tuple[int, ...]:
        """Number of items of each part."""
        return tuple(len(part) for part in self.parts)

    @property
    def where(self) -> str:
        """Folders of the cohorts, for messages."""
        return " and ".join(str(part.cohort.path) for part in self.parts)

    @property
    def unique_subjects(self) -> NDArray[np.int64]:
        """The subjects that have at least one item, sorted."""
        return np.unique(self.subjects)

    @property
    def ecg_shape(self) -> tuple[int, ...]:
        """Shape of one prepared ECG (L, T)."""
        return self.parts[0].ecg_shape

    @property
    def cmr_shape(self) -> tuple[int, ...]:
        """Shape of one prepared CMR (C, H, W) or (V, F, H, W)."""
        return self.parts[0].cmr_shape

    def batch(self, indices: ArrayLike) -> Batch:
        """Items as tensors, in the order of the indices; labels in their original units.

        Args:
            indices: Positions (B,) in 0 ... len - 1.
        """
        picked = np.asarray(indices, dtype=np.int64)
        places, pieces = [], []
        for k in np.unique(self.source_codes[picked]):
            place = np.flatnonzero(self.source_codes[picked] == k)
            places.append(place)
            pieces.append(self._piece(int(k), picked[place] - self._starts[k]))
        if len(pieces) == 1:
            whole = pieces[0]
        else:
            back = torch.from_numpy(np.argsort(np.concatenate(places), kind="stable"))
            joined = {key: torch.cat([cast(dict[str, Tensor], piece)[key] for piece in pieces]) for key in pieces[0]}
            whole = cast(Batch, {key: value[back] for key, value in joined.items()})
        whole["group"] = self._group_tensor[torch.from_numpy(picked)]
        return whole

    def _piece(self, k: int, rows: NDArray[np.int64]) -> Batch:
        """Items of one part, with the labels in the order of all."""
        part = self.parts[k]
        batch = part.batch(rows)
        batch["subject"] = batch["subject"] + self._offsets[k]
        if part.label_names != self.label_names:
            columns = [self.label_names.index(name) for name in part.label_names]
            labels = torch.zeros(len(rows), len(self.label_names))
            mask = torch.zeros_like(labels, dtype=torch.bool)
            labels[:, columns], mask[:, columns] = batch["labels"], batch["label_mask"]
            batch["labels"], batch["label_mask"] = labels, mask
        return batch

    def subset(self, subjects: ArrayLike) -> MixedDataset:
        """The same data set with fewer subjects; a part of which none is left is left out.

        Raises:
            ValueError: A subject that is not in this data set.
        """
        wanted = np.unique(np.asarray(subjects, dtype=np.int64))
        strangers = np.setdiff1d(wanted, self.subjects)
        if len(strangers):
            raise ValueError(f"subset: subject {int(strangers[0])} has no item in this data set")
        kept = []
        for part, name, offset in zip(self.parts, self.names, self._offsets, strict=True):
            own = np.intersect1d(part.subjects, wanted - offset)
            if len(own):
                kept.append((part.subset(own), name, offset))
        if not kept:
            raise ValueError("subset: no subject is named")
        parts, names, offsets = zip(*kept, strict=True)
        return MixedDataset(parts, names, offsets, self.label_names, self._group)

    def subject_column(self, column: str) -> pd.Series:
        """Give a column of subjects.parquet for each item (n,).

        Raises:
            ValueError: If a cohort has no such column; names it and the columns it has.
        """
        return pd.concat([part.subject_column(column) for part in self.parts], ignore_index=True)

    def label_values(self, name: str) -> NDArray[np.float64]:
        """Values of a label of each item (n,), NaN where it is missing."""
        values = []
        for part in self.parts:
            has = name in part.cohort.label_specs
            values.append(part.label_values(name) if has else np.full(len(part), np.nan))
        return np.concatenate(values)

    def covariate(self, name: str) -> NDArray[Any] | None:
        """Values of a label or a column of subjects.parquet, of each item (n,); None if no cohort has either.

        Raises:
            ValueError: One cohort has numbers, another texts.
        """
        found = [part.covariate(name) for part in self.parts]
        kinds = {values.dtype == object for values in found if values is not None}
        if len(kinds) > 1:
            raise ValueError(f"{self.where}: {name!r} holds numbers in one cohort and text in another")
        if not kinds:
            return None
        dtype = object if kinds.pop() else np.float64
        sizes = self.source_sizes
        gaps = [np.full(size, np.nan).astype(dtype) for size in sizes]
        return np.concatenate([gap if values is None else values for values, gap in zip(found, gaps, strict=True)])

    def with_tabular(self, columns: Sequence[TabularColumn]) -> MixedDataset:
        """The same data set whose batches have tabular inputs; a column that a cohort lacks is missing there."""
        parts = [part.with_tabular(columns) for part in self.parts]
        return MixedDataset(parts, self.names, self._offsets, self.label_names, self._group)

    @property
    def tabular_columns(self) -> tuple[TabularColumn, ...]:
        """Columns that are inputs."""
        return self.parts[0].tabular_columns

    def label_statistics(self, subjects: ArrayLike | None = None) -> dict[str, LabelStatistics]:
        """Mean, standard deviation and prevalence of each label over the items of all cohorts, NaN left out.

        Args:
            subjects: Subjects to look at, as this data set numbers them; all when None.
        """
        chosen = np.ones(len(self), bool) if subjects is None else np.isin(self.subjects, np.asarray(subjects))
        specs = self.label_specs
        return {name: label_statistics(specs[name], self.label_values(name)[chosen]) for name in self.label_names}

    def _codes_of_groups(self) -> NDArray[np.int64]:
        if self._group is None:
            return np.zeros(len(self), dtype=np.int64)
        tables = [part.cohort.subjects for part in self.parts]
        columns = [table[self._group] for table in tables if self._group in table]
        if not columns:
            raise ValueError(f"{self.where}: no group column {self._group!r}; have {list(tables[0].columns)}")
        if len({pd.api.types.is_numeric_dtype(column) for column in columns}) > 1:
            raise ValueError(
                f"{self.where}: group column {self._group!r} holds numbers in one cohort and text in another; "
                "write the same values into both"
            )
        levels = np.sort(pd.concat(columns, ignore_index=True).dropna().unique())
        codes = []
        for part, table in zip(self.parts, tables, strict=True):
            if self._group not in table:
                codes.append(np.full(len(part), -1, dtype=np.int64))
                continue
            values = table.set_index("subject")[self._group].loc[part.subjects]
            codes.append(pd.Categorical(values, categories=levels).codes.astype(np.int64))
        return np.concatenate(codes)


AnyDataset = PairedDataset | MixedDataset
"""Items of one cohort or of several."""
