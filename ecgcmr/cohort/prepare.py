"""Runs the pipelines over a whole cohort, in blocks, for the caches of `PairedDataset`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecgcmr.cohort.cache import Allocate, Builder, split_rows
from ecgcmr.cohort.schema import MISSING_SAMPLE
from ecgcmr.cohort.store import Cohort
from ecgcmr.ecg.leads import LEADS, to_canonical

if TYPE_CHECKING:
    from ecgcmr.cmr.preprocessing import CmrPipeline
    from ecgcmr.ecg.preprocessing import EcgPipeline

BLOCK = 64  # recordings at a time: 15 MiB of 12 x 5000 float32
_CANONICAL = ",".join(LEADS)


def ecg_builder(cohort: Cohort, pipeline: EcgPipeline) -> Builder:
    """A builder that prepares every recording of the cohort.

    Refused, with a reason: recordings without voltage for a pipeline that needs mV, with missing leads, with a lead
    that holds no sample at all, and whatever else the pipeline itself refuses.
    """

    def build(allocate: Allocate) -> dict[int, str]:
        data = allocate((len(LEADS), pipeline.n_samples))
        refused: dict[int, str] = {}
        table = cohort.recordings
        keys = ["rate_hz", "n_leads", "n_samples", "leads", "unit"]
        for _, group in table.groupby(keys, sort=True):
            rows = group.index.to_numpy()
            unit, leads = str(group["unit"].iloc[0]), str(group["leads"].iloc[0])
            if pipeline.requires_mv and unit != "mV":
                reason = f"unit is {unit!r} but pipeline {pipeline.name!r} needs mV: choose one that accepts {unit!r}"
                refused.update(dict.fromkeys(map(int, rows), reason))
                continue
            for block in split_rows(rows, BLOCK):
                _prepare_block(cohort, pipeline, block, leads == _CANONICAL, data, refused)
        return refused

    return build


def _prepare_block(
    cohort: Cohort,
    pipeline: EcgPipeline,
    rows: NDArray[np.int64],
    canonical: bool,
    data: NDArray[Any],
    refused: dict[int, str],
) -> None:
    """Prepare recordings of one shape; those that a batch cannot take go one by one."""
    whole = rows
    if canonical:
        samples = cohort.ecg_block(rows)
        empty: NDArray[np.bool_] = np.all(np.isnan(samples), axis=2)
        for position in np.flatnonzero(np.any(empty, axis=1)):
            names = ", ".join(LEADS[lead] for lead in np.flatnonzero(empty[position]))
            refused[int(rows[position])] = f"lead {names} holds no sample"
        usable = ~np.any(empty, axis=1)
        whole = rows[usable]
        if not len(whole):
            return
        try:
            data[whole] = pipeline.apply_batch(samples[usable], float(cohort.recordings["rate_hz"].iloc[rows[0]]))
            return
        except ValueError:
            pass  # one of them is refused: find out which
    for row in whole:
        try:
            data[row] = pipeline(to_canonical(cohort.recording(int(row))))
        except ValueError as error:
            refused[int(row)] = str(error)


def cmr_builder(cohort: Cohort, pipeline: CmrPipeline, view: str) -> Builder:
    """A builder that prepares every study of one view; studies of other views are left zero."""

    def build(allocate: Allocate) -> dict[int, str]:
        data = allocate(pipeline.shape)
        refused: dict[int, str] = {}
        for row in np.flatnonzero((cohort.studies["view"] == view).to_numpy()):
            try:
                data[row] = pipeline(cohort.cine(int(row)))
            except ValueError as error:
                refused[int(row)] = str(error)
        return refused

    return build


def missing_share(codes: NDArray[np.int16]) -> NDArray[np.float64]:
    """Share of missing samples of each lead: codes (..., L, T) -> (..., L)."""
    return np.asarray((codes == MISSING_SAMPLE).mean(axis=-1))
