"""A data set whose items hold several views of a visit, such as the short axis and the four-chamber view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from ecgcmr.cohort.batch import Batch
from ecgcmr.cohort.cache import PreparedArray
from ecgcmr.cohort.dataset import DatasetOptions, Dropped, PairedDataset
from ecgcmr.cohort.store import Cohort

if TYPE_CHECKING:
    from ecgcmr.cmr.preprocessing import CmrPipeline
    from ecgcmr.ecg.preprocessing import EcgPipeline


class ViewsDataset(PairedDataset):
    """A `PairedDataset` with `Batch["cmr"]` (B, V, C, H, W), the views in their order, prepared by one pipeline.

    A study of the first view is usable when each further view has a usable study of the same subject and visit.

    Args:
        views: At least two views.
        cohort, subjects, ecg_pipeline, cmr_pipeline, labels, options: As for `PairedDataset`; the first view replaces
            `options.view`.

    Raises:
        ValueError: If views repeat, or the pipeline keeps slices apart, which leaves no axis for views.
    """

    def __init__(
        self,
        views: Sequence[str],
        cohort: Cohort,
        subjects: ArrayLike,
        ecg_pipeline: EcgPipeline | None = None,
        cmr_pipeline: CmrPipeline | None = None,
        labels: Sequence[str] = (),
        options: DatasetOptions | None = None,
    ) -> None:
        if len(set(views)) != len(views) or len(views) < 2:
            raise ValueError(f"views are {list(views)}, expected two or more different ones")
        if cmr_pipeline is not None and cmr_pipeline.stacked:
            raise ValueError(
                f"CMR pipeline {cmr_pipeline.name!r} keeps slices apart, which leaves no axis for the views "
                f"{', '.join(views)}; take one that gives (C, H, W), such as three_frames"
            )
        self.views = tuple(views)
        options = replace(options or DatasetOptions(), view=views[0])
        super().__init__(cohort, subjects, ecg_pipeline, cmr_pipeline, labels, options)

    def _prepare_cmr(self) -> PreparedArray:
        first = self.options
        self._more: list[PreparedArray] = []
        for view in self.views[1:]:
            self.options = replace(first, view=view)
            self._more.append(super()._prepare_cmr())
        self.options = first
        return super()._prepare_cmr()

    def _usable(
        self, kind: str, table: pd.DataFrame, array: PreparedArray | None, wanted: NDArray[np.int64]
    ) -> pd.DataFrame:
        found = super()._usable(kind, table, array, wanted)
        if kind != "cmr" or array is None:
            return found
        for view, other in zip(self.views[1:], self._more, strict=True):
            has = partner_rows(self.cohort.studies, found["row"].to_numpy(), view, other.refused) >= 0
            for subject, row in found.loc[~has, ["subject", "row"]].itertuples(index=False):
                self.dropped.append(Dropped("cmr", int(row), int(subject), f"no usable {view} study of the same visit"))
            found = found[has]
        return found

    def _take(self, wanted: NDArray[np.int64]) -> None:
        super()._take(wanted)
        self._partners: list[NDArray[np.int64]] = []
        for view, other in zip(self.views[1:], self._more if self.cmr_pipeline is not None else (), strict=False):
            self._partners.append(partner_rows(self.cohort.studies, self.study_rows, view, other.refused))

    @property
    def cmr_shape(self) -> tuple[int, ...]:
        """Shape of one item's CMR (V, C, H, W)."""
        return (len(self.views), *super().cmr_shape)

    def batch(self, indices: ArrayLike) -> Batch:
        """Items as tensors, as of `PairedDataset.batch` but for the views of the CMR."""
        batch = super().batch(indices)
        picked, has = np.asarray(indices, dtype=np.int64), batch["has_cmr"][:, None, None, None]
        views = [batch["cmr"]]
        for array, rows in zip(self._more if self._partners else (), self._partners, strict=True):
            values = torch.from_numpy(np.ascontiguousarray(array.data[np.maximum(rows[picked], 0)]))
            views.append(values.float().div_(255.0).masked_fill_(~has, 0.0))
        if len(views) == 1:  # no pipeline: nothing but the shape
            views *= len(self.views)
        batch["cmr"] = torch.stack(views, dim=1)
        return batch


def partner_rows(
    studies: pd.DataFrame, rows: NDArray[np.int64], view: str, refused: Mapping[int, str]
) -> NDArray[np.int64]:
    """Find for each study one of another view from the same subject and visit.

    Args:
        studies: Table of studies with the columns subject, visit_days and view; a row is a position in it.
        rows: Studies to find partners of (n,), -1 for none.
        view: Wanted view.
        refused: Rows that the pipeline of that view refused, with the reason.

    Returns:
        Row of the first usable one (n,), -1 where there is none. Unknown days are one visit.
    """
    days = studies["visit_days"].fillna(np.inf).to_numpy()
    subjects = studies["subject"].to_numpy(dtype=np.int64)
    first: dict[tuple[int, float], int] = {}
    for row in np.flatnonzero((studies["view"] == view).to_numpy()):
        if int(row) not in refused:
            first.setdefault((int(subjects[row]), float(days[row])), int(row))
    partners = [-1 if row < 0 else first.get((int(subjects[row]), float(days[row])), -1) for row in rows]
    return np.array(partners, dtype=np.int64)


def paired_dataset(
    views: Sequence[str],
    cohort: Cohort,
    subjects: ArrayLike,
    pipelines: tuple[EcgPipeline | None, CmrPipeline | None],
    labels: Sequence[str],
    options: DatasetOptions,
) -> PairedDataset:
    """Open a data set of one view or of several; arguments as of `ViewsDataset`."""
    if len(views) == 1 or pipelines[1] is None:
        return PairedDataset(cohort, subjects, *pipelines, labels, replace(options, view=views[0]))
    return ViewsDataset(views, cohort, subjects, *pipelines, labels, options)
