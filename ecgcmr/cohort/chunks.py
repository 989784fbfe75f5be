"""One chunk of a cohort in the making: packed arrays and rows, written by one worker and renamed when whole."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from ecgcmr.cmr.cine import Cine
from ecgcmr.cohort.ledger import LedgerRow
from ecgcmr.cohort.packing import pack_ecg, pack_pixels
from ecgcmr.ecg.recording import EcgRecording

ARRAY_NAMES = ("ecg", "cine", "masks")
ROW_TABLES = ("subjects", "recordings", "studies", "labels", "recording_labels", "truth", "ledger")
ROWS_FILE = "rows.json"
Rows = dict[str, list[dict[str, Any]]]


def plain(value: Any) -> Any:
    """A NumPy scalar or array -> the Python value that JSON can hold."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | tuple | list):
        return [plain(item) for item in value]
    return value


class ChunkWriter:
    """Writes the recordings, studies and rows of some subjects into one folder.

    Use as a context manager. Everything goes to a temporary sibling which gets its name only when all was written, so a
    chunk folder that exists is whole. Row numbers and offsets are local to the chunk; `CohortWriter` moves them on.

    Args:
        folder: Where the chunk shall stand.
        cine_dtype: "uint8" or "uint16", the type of all images of the cohort.
        store: False for a report: rows are made, signals and images are not written.
    """

    def __init__(self, folder: Path, cine_dtype: str = "uint8", store: bool = True) -> None:
        if cine_dtype not in ("uint8", "uint16"):
            raise ValueError(f"cine_dtype must be 'uint8' or 'uint16', got {cine_dtype!r}")
        self._folder = folder
        self._working = folder.with_name(f"{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        self._store = store
        self._cine_dtype = cine_dtype
        self._files: dict[str, BinaryIO] = {}
        self._elements = dict.fromkeys(ARRAY_NAMES, 0)
        self.rows: Rows = {name: [] for name in ROW_TABLES}

    def __enter__(self) -> ChunkWriter:
        self._working.mkdir(parents=True)
        self._files = {name: (self._working / f"{name}.bin").open("wb") for name in ARRAY_NAMES}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for stream in self._files.values():
                stream.close()
            if kind is None:
                content = {"rows": self.rows, "elements": self._elements}
                (self._working / ROWS_FILE).write_text(json.dumps(content))
                if not self._folder.exists():
                    self._working.rename(self._folder)
        finally:
            shutil.rmtree(self._working, ignore_errors=True)

    def add_subject(self, subject: int, fields: Mapping[str, Any]) -> None:
        """Add a subject with sex, age_years, site and group columns."""
        self.rows["subjects"].append({"subject": int(subject), **{key: plain(value) for key, value in fields.items()}})

    def add_recording(
        self, recording: EcgRecording, subject: int, visit_days: float = math.nan, flags: str = ""
    ) -> int:
        """Add an ECG; returns its row within the chunk."""
        codes, step = pack_ecg(recording.samples)
        row: dict[str, Any] = {
            "recording": len(self.rows["recordings"]),
            "subject": int(subject),
            "visit_days": float(visit_days),
            "rate_hz": float(recording.rate_hz),
            "n_samples": recording.n_samples,
            "n_leads": len(recording.leads),
            "leads": ",".join(recording.leads),
            "unit": recording.unit,
            "offset": self._append("ecg", codes),
            "scale_per_unit": step,
            "source": recording.source,
            "notes": "; ".join(recording.notes),
            "flags": flags,
        }
        self.rows["recordings"].append(row)
        return int(row["recording"])

    def add_study(self, cine: Cine, subject: int, visit_days: float = math.nan, flags: str = "") -> int:
        """Add a cine; returns its row within the chunk."""
        codes, scale, offset = pack_pixels(cine.pixels, self._cine_dtype)
        n_slices, n_frames, rows, columns = cine.pixels.shape
        row: dict[str, Any] = {
            "study": len(self.rows["studies"]),
            "subject": int(subject),
            "visit_days": float(visit_days),
            "view": cine.view,
            "n_slices": n_slices,
            "n_frames": n_frames,
            "rows": rows,
            "columns": columns,
            "spacing_row_mm": float(cine.spacing_mm[0]),
            "spacing_column_mm": float(cine.spacing_mm[1]),
            "slice_spacing_mm": float(cine.slice_spacing_mm),
            "affine": [float(value) for value in np.asarray(cine.affine).ravel()],
            "frame_times_ms": [float(value) for value in cine.frame_times_ms],
            "offset": self._append("cine", codes),
            "mask_offset": -1 if cine.masks is None else self._append("masks", np.asarray(cine.masks, dtype=np.uint8)),
            "pixel_scale": scale,
            "pixel_offset": offset,
            "mask_labels": json.dumps({str(key): name for key, name in sorted(cine.mask_labels.items())}),
            "source": cine.source,
            "notes": "; ".join(cine.notes),
            "flags": flags,
        }
        self.rows["studies"].append(row)
        return int(row["study"])

    def add_labels(self, subject: int, values: Mapping[str, float]) -> None:
        """Add the labels of a subject; NaN is missing."""
        self.rows["labels"].append({"subject": int(subject), **{name: float(value) for name, value in values.items()}})

    def add_truth(self, subject: int, values: Mapping[str, Any]) -> None:
        """Add what only a simulation knows: numbers, words or lists of numbers."""
        self.rows["truth"].append({"subject": int(subject), **{name: plain(value) for name, value in values.items()}})

    def add_ledger(self, row: LedgerRow) -> None:
        """Add the fate of one item."""
        self.rows["ledger"].append(asdict(row))

    def _append(self, name: str, values: np.ndarray) -> int:
        offset = self._elements[name]
        if not self._store:
            return offset
        self._files[name].write(np.ascontiguousarray(values).data)
        self._elements[name] += int(values.size)
        return offset
