"""PairedDataset: ECG and CMR of the same subjects as batches, from memory-mapped prepared arrays."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from ecgcmr.cohort.batch import Batch
from ecgcmr.cohort.cache import PreparedArray, first_reasons, gather, prepared
from ecgcmr.cohort.labels import LabelStatistics, check_label_names, item_labels, label_statistics
from ecgcmr.cohort.pairing import nearest_studies
from ecgcmr.cohort.prepare import cmr_builder, ecg_builder
from ecgcmr.cohort.schema import LabelSpec
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.tabular import TabularColumn, covariate_of, encode_items

if TYPE_CHECKING:
    from ecgcmr.cmr.preprocessing import CmrPipeline
    from ecgcmr.ecg.preprocessing import EcgPipeline

logger = logging.getLogger(__name__)

REQUIRE = ("any", "ecg", "cmr", "both")


@dataclass(frozen=True)
class Dropped:
    """An item of the chosen subjects that a pipeline refused."""

    kind: str  # "ecg" or "cmr"
    row: int  # row of recordings or studies
    subject: int
    reason: str


@dataclass(frozen=True)
class DatasetOptions:
    """Choices that few callers change.

    Attributes:
        require: Which modalities an item must have: "any", "ecg", "cmr" or "both".
        view: View of the CMR studies.
        group: Column of subjects.parquet, or a binary or category label, that becomes `Batch["group"]` (codes of its
            sorted values); None gives zeros.
        ecg_dtype: Type of the cached ECG: "float16" (relative error 5e-4) or "float32".
        cache_dir: Where to cache instead of <cohort>/cache, for instance for a read-only cohort.
    """

    require: str = "any"
    view: str = "sax"
    group: str | None = None
    ecg_dtype: str = "float16"
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        if self.require not in REQUIRE:
            raise ValueError(f"require must be one of {REQUIRE}, got {self.require!r}")
        if self.ecg_dtype not in ("float16", "float32"):
            raise ValueError(f"ecg_dtype must be 'float16' or 'float32', got {self.ecg_dtype!r}")


class PairedDataset:
    """Items of some subjects: every recording, paired with the nearest usable study of the view in pairs.parquet.

    In a cohort without pairs.parquet a recording is paired with the subject's first study of the view.

    Without an ECG pipeline (or for subjects without a recording) the items are the subjects' first studies. A modality
    without a pipeline is a (1, 1) or (1, 1, 1) zero array and `has_*` is False, so every batch has every key.
    Items are sorted by subject, then by recording.

    Args:
        cohort: The cohort.
        subjects: Subjects to take, for instance `split.train`; their order does not matter.
        ecg_pipeline: Prepares the ECG, or None.
        cmr_pipeline: Prepares the CMR, or None.
        labels: Names of label columns, in the order of `Batch["labels"]`.
        options: Further choices.

    Attributes:
        subjects: Subject of each item (n,).
        label_names: The labels (K,).
        tabular_columns: Columns that are inputs, empty until `with_tabular`.
        recording_rows: Row in `cohort.recordings` of each item (n,), -1 without.
        study_rows: Row in `cohort.studies` of each item (n,), -1 without.
        dropped: What the pipelines refused among the items of these subjects.

    Raises:
        ValueError: No pipeline, an unknown label, subject or group, or nothing left; says why.
    """

    def __init__(
        self,
        cohort: Cohort,
        subjects: ArrayLike,
        ecg_pipeline: EcgPipeline | None = None,
        cmr_pipeline: CmrPipeline | None = None,
        labels: Sequence[str] = (),
        options: DatasetOptions | None = None,
    ) -> None:
        if ecg_pipeline is None and cmr_pipeline is None:
            raise ValueError("PairedDataset needs an ecg_pipeline, a cmr_pipeline, or both")
        self.cohort = cohort
        self.options = options or DatasetOptions()
        self.ecg_pipeline, self.cmr_pipeline = ecg_pipeline, cmr_pipeline
        self.label_names = tuple(labels)
        self.tabular_columns: tuple[TabularColumn, ...] = ()
        check_label_names(cohort, self.label_names)
        self._ecg = self._prepare_ecg() if ecg_pipeline is not None else None
        self._cmr = self._prepare_cmr() if cmr_pipeline is not None else None
        self._take(np.unique(np.asarray(subjects, dtype=np.int64)))

    def _prepare_ecg(self) -> PreparedArray:
        pipeline, dtype = self.ecg_pipeline, self.options.ecg_dtype
        assert pipeline is not None
        about = {"kind": "ecg", "pipeline": pipeline.to_dict()}
        spec = (len(self.cohort.columns("recordings", ["subject"])), dtype)
        key = f"ecg-{pipeline.fingerprint()[:16]}-{dtype}"
        return prepared(self.cohort, key, about, ecg_builder(self.cohort, pipeline), spec, self.options.cache_dir)

    def _prepare_cmr(self) -> PreparedArray:
        pipeline, view = self.cmr_pipeline, self.options.view
        assert pipeline is not None
        about = {"kind": "cmr", "view": view, "pipeline": pipeline.to_dict()}
        spec = (len(self.cohort.columns("studies", ["subject"])), "uint8")
        key = f"cmr-{view}-{pipeline.fingerprint()[:16]}"
        builder = cmr_builder(self.cohort, pipeline, view)
        return prepared(self.cohort, key, about, builder, spec, self.options.cache_dir)

    def _take(self, wanted: NDArray[np.int64]) -> None:
        """Choose the items of the wanted subjects."""
        strangers = np.setdiff1d(wanted, self.cohort.subjects["subject"].to_numpy())
        if len(strangers):
            raise ValueError(f"{self.cohort.path}: there is no subject {int(strangers[0])} in this cohort")
        self.dropped: list[Dropped] = []
        recordings = self._usable("ecg", self.cohort.columns("recordings", ["subject"]), self._ecg, wanted)
        studies = self._usable("cmr", self.cohort.columns("studies", ["subject", "view"]), self._cmr, wanted)
        paired = recordings.assign(study=nearest_studies(recordings, studies, self.cohort.pairs))
        alone = studies.drop_duplicates("subject")
        alone = alone[~alone["subject"].isin(recordings["subject"])]
        alone = pd.DataFrame({"subject": alone["subject"], "row": -1, "study": alone["row"]})
        items = pd.concat([paired, alone]).sort_values(["subject", "row"], kind="stable")
        has_ecg, has_cmr = (items["row"] >= 0).to_numpy(), (items["study"] >= 0).to_numpy()
        keep = {"any": has_ecg | has_cmr, "ecg": has_ecg, "cmr": has_cmr, "both": has_ecg & has_cmr}
        items = items[keep[self.options.require]]
        if self.dropped:
            refused = {item.row: item.reason for item in self.dropped}
            logger.warning("%d items refused by the pipelines: %s", len(self.dropped), first_reasons(refused))
        if not len(items):
            why = f"; {self.dropped[0].kind} {self.dropped[0].row}: {self.dropped[0].reason}" if self.dropped else ""
            raise ValueError(
                f"{self.cohort.path}: none of the {len(wanted)} subjects has an item that can be used "
                f"(require={self.options.require!r}, {len(self.dropped)} refused{why})"
            )
        self.subjects = items["subject"].to_numpy(dtype=np.int64)
        self.recording_rows = items["row"].to_numpy(dtype=np.int64)
        self.study_rows = items["study"].to_numpy(dtype=np.int64)
        self._subject_tensor = torch.from_numpy(self.subjects)
        self._group_tensor = torch.from_numpy(self._group_codes())
        labels = self._item_labels()
        self._label_mask = torch.from_numpy(~np.isnan(labels))
        self._labels = torch.from_numpy(np.nan_to_num(labels, nan=0.0).astype(np.float32))
        self._encode_tabular()

    def _usable(
        self, kind: str, table: pd.DataFrame, array: PreparedArray | None, wanted: NDArray[np.int64]
    ) -> pd.DataFrame:
        """Rows of a table that belong to wanted subjects and were not refused: columns subject, row."""
        if array is None:
            return pd.DataFrame({"subject": np.zeros(0, np.int64), "row": np.zeros(0, np.int64)})
        chosen = table["subject"].isin(wanted).to_numpy()
        if kind == "cmr":
            chosen &= (table["view"] == self.options.view).to_numpy()
        rows = np.flatnonzero(chosen)
        subjects = table["subject"].to_numpy(dtype=np.int64)
        for row in rows:
            if int(row) in array.refused:
                self.dropped.append(Dropped(kind, int(row), int(subjects[row]), array.refused[int(row)]))
        rows = rows[~np.isin(rows, np.fromiter(array.refused, dtype=np.int64, count=len(array.refused)))]
        return pd.DataFrame({"subject": subjects[rows], "row": rows})

    def _group_codes(self) -> NDArray[np.int64]:
        column = self.options.group
        if column is None:
            return np.zeros(len(self.subjects), dtype=np.int64)
        table = self._subject_table(column)
        codes = pd.Series(pd.factorize(table[column], sort=True)[0], index=table.index)
        return codes.loc[self.subjects].to_numpy(dtype=np.int64)

    @property
    def group_codes(self) -> NDArray[np.int64]:
        """Group of each item (n,), -1 where it is not known."""
        return self._group_tensor.numpy()

    def subject_column(self, column: str) -> pd.Series:
        """Give a column of subjects.parquet for each item (n,).

        Raises:
            ValueError: If there is no such column; names those there are.
        """
        return self._subject_table(column)[column].loc[self.subjects]

    def _subject_table(self, column: str) -> pd.DataFrame:
        table = self.cohort.subjects.set_index("subject")
        spec = self.cohort.label_specs.get(column)
        if column not in table and spec is not None and spec.kind in ("binary", "category"):
            return self.cohort.labels
        if column not in table:
            raise ValueError(
                f"{self.cohort.path}: no group column {column!r}; have {list(table.columns)}, and binary and category "
                "labels"
            )
        return table

    def _item_labels(self) -> NDArray[np.float64]:
        return item_labels(self.cohort, self.label_names, self.subjects, self.recording_rows)

    @property
    def label_specs(self) -> Mapping[str, LabelSpec]:
        """Meaning of each label of the cohort, by name."""
        return self.cohort.label_specs

    def label_values(self, name: str) -> NDArray[np.float64]:
        """Values of a label of the cohort, of each item (n,), NaN where it is missing."""
        return item_labels(self.cohort, [name], self.subjects, self.recording_rows)[:, 0]

    def __len__(self) -> int:
        """Number of items."""
        return len(self.subjects)

    @property
    def where(self) -> str:
        """Folder of the cohort, for messages."""
        return str(self.cohort.path)

    @property
    def unique_subjects(self) -> NDArray[np.int64]:
        """The subjects that have at least one item, sorted."""
        return np.unique(self.subjects)

    @property
    def ecg_shape(self) -> tuple[int, ...]:
        """Shape of one prepared ECG (L, T)."""
        return tuple(self._ecg.data.shape[1:]) if self._ecg is not None else (1, 1)

    @property
    def cmr_shape(self) -> tuple[int, ...]:
        """Shape of one prepared CMR (C, H, W) or (V, F, H, W)."""
        return tuple(self._cmr.data.shape[1:]) if self._cmr is not None else (1, 1, 1)

    def batch(self, indices: ArrayLike) -> Batch:
        """Items as tensors; labels in their original units.

        Args:
            indices: Positions (B,) in 0 ... len - 1.
        """
        picked = np.asarray(indices, dtype=np.int64)
        ecg, has_ecg = gather(self._ecg, self.recording_rows[picked], self.ecg_shape)
        cmr, has_cmr = gather(self._cmr, self.study_rows[picked], self.cmr_shape)
        chosen = torch.from_numpy(picked)
        return Batch(
            ecg=ecg.float(),
            cmr=cmr.float().div_(255.0),
            has_ecg=has_ecg,
            has_cmr=has_cmr,
            subject=self._subject_tensor[chosen],
            labels=self._labels[chosen],
            label_mask=self._label_mask[chosen],
            group=self._group_tensor[chosen],
            tabular=self._tabular[chosen],
            tabular_mask=self._tabular_mask[chosen],
        )

    def covariate(self, name: str) -> NDArray[Any] | None:
        """Values of a label or a column of subjects.parquet, of each item (n,); None if the cohort has neither."""
        return covariate_of(self, name)

    def with_tabular(self, columns: Sequence[TabularColumn]) -> PairedDataset:
        """The same data set whose batches have tabular inputs; a column that the cohort lacks is missing."""
        other = object.__new__(PairedDataset)
        other.__dict__.update(self.__dict__)
        other.tabular_columns = tuple(columns)
        other._encode_tabular()
        return other

    def _encode_tabular(self) -> None:
        values, known = encode_items(self)
        self._tabular, self._tabular_mask = torch.from_numpy(values), torch.from_numpy(known)

    def subset(self, subjects: ArrayLike) -> PairedDataset:
        """The same data set with fewer subjects, for label draws; prepared arrays are shared.

        Raises:
            ValueError: A subject that is not in this data set.
        """
        wanted = np.unique(np.asarray(subjects, dtype=np.int64))
        strangers = np.setdiff1d(wanted, self.subjects)
        if len(strangers):
            raise ValueError(f"subset: subject {int(strangers[0])} has no item in this data set")
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._take(wanted)
        return other

    def label_statistics(self, subjects: ArrayLike | None = None) -> dict[str, LabelStatistics]:
        """Mean, standard deviation and prevalence of each label over items, NaN left out.

        Args:
            subjects: Subjects to look at (the training set); all of this data set when None.
        """
        chosen = slice(None) if subjects is None else np.isin(self.subjects, np.asarray(subjects))
        values, specs = self._item_labels()[chosen], self.cohort.label_specs
        return {name: label_statistics(specs[name], values[:, k]) for k, name in enumerate(self.label_names)}
