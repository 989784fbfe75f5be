"""The part of `validate_cohort` that looks at recordings, studies and the packed arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.cmr.cine import VIEWS
from ecgcmr.cohort.schema import ARRAY_FILES, MISSING_SAMPLE, CohortSchema

if TYPE_CHECKING:
    from ecgcmr.cohort.validate import Findings

_BLOCK_BYTES = 32 << 20


def check_arrays(
    folder: Path, schema: CohortSchema, tables: dict[str, pd.DataFrame], found: Findings, deep: bool
) -> None:
    """Check files, offsets, geometry and signals."""
    codes = {name: _open(folder, name, schema, found) for name in ARRAY_FILES}
    if "recordings" in tables:
        sizes = _check_recordings(tables["recordings"], found)
        ok = _check_offsets("recordings", "offset", tables["recordings"]["offset"], sizes, codes["ecg"], found)
        if codes["ecg"] is not None:
            _check_signals(tables["recordings"], codes["ecg"], ok, found)
    if "studies" in tables:
        studies = tables["studies"]
        sizes = _check_studies(studies, found)
        _check_offsets("studies", "offset", studies["offset"], sizes, codes["cine"], found)
        with_masks = np.where(studies["mask_offset"] >= 0, sizes, 0)
        offsets = studies["mask_offset"].where(studies["mask_offset"] >= 0, 0)
        ok = _check_offsets("studies", "mask_offset", offsets, with_masks, codes["masks"], found)
        below = (studies["mask_offset"] < -1).to_numpy()
        values = studies["mask_offset"].to_numpy()
        found.add_rows("studies.parquet", "mask_offset", below, "{} is neither an offset nor -1", values)
        if deep and codes["masks"] is not None:
            _check_masks(studies, codes["masks"], ok & (studies["mask_offset"] >= 0).to_numpy(), found)


def _open(folder: Path, name: str, schema: CohortSchema, found: Findings) -> NDArray[Any] | None:
    file, entry = ARRAY_FILES[name], schema.arrays.get(name)
    path = folder / file
    if entry is None:
        found.add("cohort.json", None, f"arrays.{name}", "missing")
        return None
    if not path.is_file():
        found.add(file, None, "", "missing, but cohort.json lists it")
        return None
    size, expected = path.stat().st_size, int(entry["bytes"])
    if size != expected:
        found.add(file, None, "bytes", f"{size} bytes, cohort.json says {expected}: truncated or changed")
    dtype = np.dtype(entry["dtype"]).newbyteorder("<")
    n = size // dtype.itemsize
    return np.memmap(path, dtype=dtype, mode="r", shape=(n,)) if n else np.zeros(0, dtype)


def _check_offsets(
    table: str, field: str, offsets: pd.Series, sizes: NDArray[np.int64], codes: NDArray[Any] | None, found: Findings
) -> NDArray[np.bool_]:
    """Report rows that reach beyond the array; returns which rows lie within."""
    if codes is None:
        return np.zeros(len(offsets), bool)
    start = offsets.to_numpy()
    inside = (start >= 0) & (start + sizes <= len(codes))
    message = f"offset {{}} plus the size of the row lies outside the {len(codes)} elements of its array"
    found.add_rows(f"{table}.parquet", field, ~inside, message, start)
    order = np.flatnonzero(inside & (sizes > 0))
    order = order[np.argsort(start[order], kind="stable")]
    shared = np.zeros(len(start), bool)
    shared[order[1:]] = start[order[1:]] < (start + sizes)[order[:-1]]
    found.add_rows(f"{table}.parquet", field, shared, "offset {} lies within the elements of another row", start)
    return inside


def _check_recordings(table: pd.DataFrame, found: Findings) -> NDArray[np.int64]:
    file = "recordings.parquet"
    for column in ("rate_hz", "n_samples", "n_leads", "scale_per_unit"):
        values = table[column].to_numpy()
        found.add_rows(file, column, ~((values > 0) & np.isfinite(values)), "{} is not positive and finite", values)
    units = table["unit"].to_numpy()
    found.add_rows(file, "unit", ~table["unit"].isin(["mV", "z"]), "{} is neither mV nor z", units)
    names = [str(leads).split(",") for leads in table["leads"]]
    wrong = np.array([len(leads) for leads in names], dtype=np.int64) != table["n_leads"].to_numpy()
    found.add_rows(file, "leads", wrong, "{} does not have n_leads names", table["leads"].to_numpy())
    twice = np.array([len(set(leads)) != len(leads) for leads in names], dtype=bool)
    found.add_rows(file, "leads", twice, "{} names a lead twice", table["leads"].to_numpy())
    return np.maximum(table["n_leads"].to_numpy(np.int64) * table["n_samples"].to_numpy(np.int64), 0)


def _check_signals(table: pd.DataFrame, codes: NDArray[Any], ok: NDArray[np.bool_], found: Findings) -> None:
    """Report leads that hold no sample, reading block by block."""
    shapes = table[["n_leads", "n_samples"]].to_numpy()
    starts, leads = table["offset"].to_numpy(), table["leads"].astype(str)
    told = np.zeros(len(table), bool)
    names = np.full(len(table), "", dtype=object)
    for row in np.flatnonzero(ok & (shapes > 0).all(axis=1)):
        n_leads, n_samples = int(shapes[row, 0]), int(shapes[row, 1])
        block = codes[starts[row] : starts[row] + n_leads * n_samples].reshape(n_leads, n_samples)
        if (block[:, 0] != MISSING_SAMPLE).all():  # a lead without any sample starts without one
            continue
        empty = np.all(block == MISSING_SAMPLE, axis=1)
        told[row] = bool(empty.any())
        row_leads = leads.iloc[row].split(",")
        names[row] = ", ".join(row_leads[lead] for lead in np.flatnonzero(empty) if lead < len(row_leads))
    found.add_rows("recordings.parquet", "samples", told, "lead {} holds no sample (NaN from start to end)", names)


def _check_studies(table: pd.DataFrame, found: Findings) -> NDArray[np.int64]:
    file = "studies.parquet"
    sizes = np.ones(len(table), dtype=np.int64)
    for column in ("n_slices", "n_frames", "rows", "columns"):
        values = table[column].to_numpy()
        found.add_rows(file, column, ~(values > 0), "{} is not positive", values)
        sizes *= np.maximum(values, 0)
    for column in ("spacing_row_mm", "spacing_column_mm"):
        values = table[column].to_numpy()
        found.add_rows(file, column, ~((values > 0) & (values < 100)), "{} mm is no plausible pixel spacing", values)
    found.add_rows(file, "view", ~table["view"].isin(VIEWS), f"{{}} is none of {VIEWS}", table["view"].to_numpy())
    affine_ok = [len(value) == 16 and bool(np.isfinite(np.asarray(value, float)).all()) for value in table["affine"]]
    found.add_rows(file, "affine", ~np.array(affine_ok, bool), "expected 16 finite numbers")
    for row, (times, n_frames) in enumerate(zip(table["frame_times_ms"], table["n_frames"], strict=True)):
        values = np.asarray(times, dtype=np.float64)
        if len(values) != n_frames:
            found.add(file, row, "frame_times_ms", f"{len(values)} times for {n_frames} frames")
        elif np.any(np.diff(values[np.isfinite(values)]) <= 0):
            found.add(file, row, "frame_times_ms", "times do not increase")
    return sizes


def _check_masks(table: pd.DataFrame, codes: NDArray[Any], ok: NDArray[np.bool_], found: Findings) -> None:
    for row in np.flatnonzero(ok):
        entry = table.iloc[row]
        size = int(entry["n_slices"] * entry["n_frames"] * entry["rows"] * entry["columns"])
        start = int(entry["mask_offset"])
        known = {0, *(int(key) for key in json.loads(entry["mask_labels"] or "{}"))}
        counts = np.zeros(256, dtype=np.int64)
        for begin in range(start, start + size, _BLOCK_BYTES):
            counts += np.bincount(codes[begin : min(begin + _BLOCK_BYTES, start + size)], minlength=256)
        strange = sorted(set(np.flatnonzero(counts).tolist()) - known)
        if strange:
            found.add("studies.parquet", int(row), "mask_labels", f"the mask holds {strange}, which have no name")
