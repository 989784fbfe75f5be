"""Cohort: a cohort on disk, opened in milliseconds; tables at first use, signals and images memory-mapped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecgcmr.cmr.cine import Cine
from ecgcmr.cohort.labels import add_values, categories_of, with_values
from ecgcmr.cohort.packing import unpack_ecg, unpack_pixels
from ecgcmr.cohort.schema import ADDED_COLUMNS, ARRAY_FILES, TABLES, CohortSchema, LabelSpec, read_schema
from ecgcmr.cohort.tables import read_table
from ecgcmr.cohort.writer import CohortWriter
from ecgcmr.ecg.recording import EcgRecording

__all__ = ["Cohort", "CohortWriter"]


class Cohort:
    """Subjects with their recordings, studies and labels.

    Opening reads cohort.json and compares the sizes of the arrays; tables are read when they are first asked for.

    Attributes:
        path: Folder.
        schema: What cohort.json says.
    """

    def __init__(self, path: Path, schema: CohortSchema) -> None:
        self.path = path
        self.schema = schema

    @classmethod
    def open(cls, path: str | Path) -> Cohort:
        """Open a cohort folder.

        Raises:
            FileNotFoundError: No cohort there, or an array is missing.
            ValueError: cohort.json is broken, of another format version, or an array has the wrong size.
        """
        folder = Path(path)
        schema = read_schema(folder)
        for name, entry in schema.arrays.items():
            file = folder / str(entry["file"])
            if not file.is_file():
                raise FileNotFoundError(f"{file} is missing; cohort.json lists it as the array of {name}")
            if file.stat().st_size != entry["bytes"]:
                raise ValueError(
                    f"{file} has {file.stat().st_size} bytes, cohort.json says {entry['bytes']}: the copy is not "
                    "whole; copy or make the cohort again"
                )
        return cls(folder, schema)

    def __repr__(self) -> str:
        return f"Cohort({str(self.path)!r}, {self.schema.provenance}, {len(self.subjects)} subjects)"

    def __len__(self) -> int:
        """Number of subjects."""
        return len(self.subjects)

    def _table(self, name: str, also: Sequence[str] = ()) -> pd.DataFrame:
        """Read a table; ValueError when it lacks a column that it must have."""
        path = self.path / f"{name}.parquet"
        table = read_table(path)
        needed = [column for column in TABLES[name] if column not in ADDED_COLUMNS]
        missing = [column for column in (*needed, *also) if column not in table]
        if missing:
            raise ValueError(f"{path}: the column {missing[0]} is missing; run `ecgcmr cohort validate {self.path}`")
        return table

    def columns(self, name: str, wanted: Sequence[str]) -> pd.DataFrame:
        """Read some columns of a table, and not the rest: all that a study says of itself takes 2 kB.

        Args:
            name: "subjects", "recordings", "studies" or "labels"; labels are indexed by subject, for every subject.
            wanted: Names of columns, or NAME=VALUE of a category.

        Raises:
            ValueError: A column is missing.
        """
        if name in self.__dict__:  # it was read as a whole before
            return self.__dict__[name][list(wanted)]
        if name == "labels" and (of := categories_of(wanted, self.schema.labels)):
            made = with_values(of).keys() - {spec.name for spec in self.schema.labels}
            stored = [*(one for one in wanted if one not in made), *(spec.name for spec in of)]
            return add_values(self.columns("labels", list(dict.fromkeys(stored))), of)[list(wanted)]
        path, keys = self.path / f"{name}.parquet", ["subject"] * (name == "labels")
        table = read_table(path, list(dict.fromkeys([*keys, *wanted])))
        missing = [column for column in (*keys, *wanted) if column not in table]
        if missing:
            raise ValueError(f"{path}: the column {missing[0]} is missing; run `ecgcmr cohort validate {self.path}`")
        if name != "labels":
            return table[list(wanted)]
        table, order = table.set_index("subject"), pd.Index(self.subjects["subject"], name="subject")
        return table if table.index.equals(order) else table.reindex(order)

    @cached_property
    def subjects(self) -> pd.DataFrame:
        """One row for each subject: subject, sex, age_years, site, group columns."""
        return self._table("subjects")

    @cached_property
    def recordings(self) -> pd.DataFrame:
        """One row for each ECG."""
        return self._table("recordings")

    @cached_property
    def studies(self) -> pd.DataFrame:
        """One row for each cine (series or stack)."""
        return self._table("studies")

    @cached_property
    def labels(self) -> pd.DataFrame:
        """Labels, indexed by subject, for every subject of the cohort; NaN is missing.

        Each value of a category is a label NAME=VALUE too (`ecgcmr.cohort.labels.with_values`).
        """
        table = self._table("labels", [spec.name for spec in self.schema.labels]).set_index("subject")
        table = table.reindex(pd.Index(self.subjects["subject"], name="subject"))
        return add_values(table, self.schema.labels)

    @cached_property
    def recording_labels(self) -> pd.DataFrame:
        """Labels that belong to single recordings, indexed by recording; without columns when there are none."""
        index = pd.Index(self.recordings["recording"], name="recording")
        path = self.path / "recording_labels.parquet"
        if "recording_labels.parquet" not in self.schema.files:
            return pd.DataFrame(index=index)
        return add_values(read_table(path).set_index("recording").reindex(index), self.schema.labels)

    @cached_property
    def truth(self) -> pd.DataFrame:
        """What only a simulation knows, indexed by subject; empty for real data."""
        if "truth.parquet" not in self.schema.files:
            return pd.DataFrame(index=pd.Index(self.subjects["subject"], name="subject"))
        return read_table(self.path / "truth.parquet").set_index("subject")

    @cached_property
    def pairs(self) -> pd.DataFrame | None:
        """Pairs of recordings and studies within reach of each other, rank 0 the nearest; None when none were made."""
        if "pairs.parquet" not in self.schema.files:
            return None
        return read_table(self.path / "pairs.parquet")

    @cached_property
    def ledger(self) -> pd.DataFrame:
        """Every item that was seen, with the reason when it was dropped."""
        return self._table("ledger")

    @cached_property
    def label_specs(self) -> dict[str, LabelSpec]:
        """Meaning of each label, by name; of each value of a category too."""
        return with_values(self.schema.labels)

    @property
    def split_names(self) -> list[str]:
        """Names of the stored splits."""
        return sorted(path.stem for path in (self.path / "splits").glob("*.json"))

    @cached_property
    def ecg_codes(self) -> NDArray[np.int16]:
        """All ECG samples as stored (n,), memory-mapped."""
        return self._map("ecg")

    @cached_property
    def cine_codes(self) -> NDArray[Any]:
        """All image intensities as stored (n,), memory-mapped."""
        return self._map("cine")

    @cached_property
    def mask_codes(self) -> NDArray[np.uint8]:
        """All mask labels as stored (n,), memory-mapped."""
        return self._map("masks")

    def _map(self, name: str) -> NDArray[Any]:
        entry = self.schema.arrays.get(name)
        dtype = np.dtype(entry["dtype"] if entry else "uint8").newbyteorder("<")
        if entry is None or entry["elements"] == 0:  # an empty file cannot be mapped
            return np.zeros(0, dtype=dtype)
        return np.memmap(self.path / ARRAY_FILES[name], dtype=dtype, mode="r", shape=(int(entry["elements"]),))

    @cached_property
    def _ecg_columns(self) -> dict[str, NDArray[Any]]:
        names = ("offset", "n_leads", "n_samples", "scale_per_unit")
        return {name: self.recordings[name].to_numpy() for name in names}

    @cached_property
    def _ecg_uniform(self) -> NDArray[np.int16] | None:
        """View (n, L, T) of the packed array when all recordings have one shape and lie side by side."""
        columns = self._ecg_columns
        if not len(columns["offset"]):
            return None
        n_leads, n_samples = int(columns["n_leads"][0]), int(columns["n_samples"][0])
        size = n_leads * n_samples
        same = (columns["n_leads"] == n_leads).all() and (columns["n_samples"] == n_samples).all()
        if not same or not np.array_equal(columns["offset"], np.arange(len(columns["offset"])) * size):
            return None
        return self.ecg_codes[: len(columns["offset"]) * size].reshape(-1, n_leads, n_samples)

    def recording(self, row: int) -> EcgRecording:
        """Recording in a row of `recordings`, in its unit, NaN where samples are missing."""
        entry = self.recordings.iloc[row]
        start, n_leads, n_samples = int(entry["offset"]), int(entry["n_leads"]), int(entry["n_samples"])
        codes = self.ecg_codes[start : start + n_leads * n_samples].reshape(n_leads, n_samples)
        return EcgRecording(
            samples=unpack_ecg(np.asarray(codes), float(entry["scale_per_unit"])),
            rate_hz=float(entry["rate_hz"]),
            leads=tuple(str(entry["leads"]).split(",")),
            unit=entry["unit"],
            source=str(entry["source"]),
            notes=tuple(note for note in str(entry["notes"] or "").split("; ") if note),
        )

    def ecg_block(self, rows: NDArray[np.integer] | slice) -> NDArray[np.float32]:
        """Several recordings of one shape at once.

        Args:
            rows: Rows of `recordings` (B,).

        Returns:
            Signals (B, L, T) float32 in the unit of the rows, NaN where samples are missing.

        Raises:
            ValueError: The recordings differ in leads or length; names the first that does.
        """
        columns = self._ecg_columns
        picked = np.arange(len(columns["offset"]))[rows]
        steps = columns["scale_per_unit"][picked].astype(np.float32)[:, None, None]
        if self._ecg_uniform is not None:
            return unpack_ecg(self._ecg_uniform[picked], steps)
        if not len(picked):
            raise ValueError("ecg_block: no rows asked for, and the recordings of this cohort have no common shape")
        shapes = np.stack([columns["n_leads"][picked], columns["n_samples"][picked]], axis=1)
        odd = np.flatnonzero((shapes != shapes[0]).any(axis=1))
        if len(odd):
            here, there = tuple(shapes[odd[0]].tolist()), tuple(shapes[0].tolist())
            raise ValueError(
                f"ecg_block: recording {picked[odd[0]]} has shape {here}, recording {picked[0]} has {there}; "
                "ask for recordings of one shape, or use recording(row)"
            )
        positions = columns["offset"][picked][:, None] + np.arange(int(shapes[0].prod()))
        return unpack_ecg(self.ecg_codes[positions].reshape(-1, *shapes[0]), steps)

    def cine(self, row: int, masks: bool = True) -> Cine:
        """Cine in a row of `studies`; pixels are a view of the file unless they were scaled to fit.

        Args:
            row: Row of `studies`.
            masks: Whether to attach the masks, when there are any.
        """
        entry = self.studies.iloc[row]
        shape = tuple(int(entry[name]) for name in ("n_slices", "n_frames", "rows", "columns"))
        size, start, mask_start = int(np.prod(shape)), int(entry["offset"]), int(entry["mask_offset"])
        codes = self.cine_codes[start : start + size].reshape(shape)
        has_masks = masks and mask_start >= 0
        return Cine(
            pixels=unpack_pixels(codes, float(entry["pixel_scale"]), float(entry["pixel_offset"])),
            spacing_mm=(float(entry["spacing_row_mm"]), float(entry["spacing_column_mm"])),
            slice_spacing_mm=float(entry["slice_spacing_mm"]),
            affine=np.asarray(entry["affine"], dtype=np.float64).reshape(4, 4),
            frame_times_ms=np.asarray(entry["frame_times_ms"], dtype=np.float64),
            view=str(entry["view"]),
            masks=self.mask_codes[mask_start : mask_start + size].reshape(shape) if has_masks else None,
            mask_labels={int(key): name for key, name in json.loads(entry["mask_labels"] or "{}").items()},
            source=str(entry["source"]),
            notes=tuple(note for note in str(entry["notes"] or "").split("; ") if note),
        )
