"""A cohort as large as a biobank on next to no disk: true tables, arrays and caches as sparse files of their size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.lib.format import open_memmap

from ecgcmr.cmr.preprocessing import named_pipeline as cmr_pipeline
from ecgcmr.cohort.schema import ARRAY_FILES, TABLES, CohortSchema, LabelSpec
from ecgcmr.cohort.splits import make_split
from ecgcmr.cohort.tables import write_table
from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.preprocessing import named_pipeline as ecg_pipeline

FRAMES, SLICES, SIDE = 50, 3, 208
N_LABELS = 82  # cardiac phenotypes of a biobank
ECG_ITEM, CINE_ITEM = 12 * 5000, SLICES * FRAMES * SIDE * SIDE
ARROW = {"int64": pa.int64(), "float64": pa.float64(), "string": pa.string(), "list<float64>": pa.list_(pa.float64())}


def _table(name: str, n: int, columns: dict[str, object], more: dict[str, object] | None = None) -> pa.Table:
    """Arrow table; a value that is no array is repeated n times."""
    arrays: dict[str, pa.Array] = {}
    for column, value in {**columns, **(more or {})}.items():
        kind = ARROW[TABLES[name][column]] if column in TABLES[name] else None
        values = value if isinstance(value, np.ndarray | pa.Array) else [value] * n
        arrays[column] = values if isinstance(values, pa.Array) else pa.array(values, type=kind)
    return pa.table(arrays)


def _repeated(values: np.ndarray, n: int) -> pa.Array:
    offsets = pa.array(np.arange(n + 1, dtype=np.int32) * len(values))
    return pa.ListArray.from_arrays(offsets, pa.array(np.tile(values, n)))


def write_large_cohort(out: Path, n: int, image_size: int) -> Path:
    """Write a cohort of n subjects, each with an ECG of 10 s, a short-axis cine of 3 x 50 frames and 82 labels.

    Args:
        out: Folder.
        n: Subjects.
        image_size: Side of the prepared images, for their cache.
    """
    rng, rows = np.random.default_rng(0), np.arange(n, dtype=np.int64)
    for folder in ("arrays", "splits", "cache"):
        (out / folder).mkdir(parents=True)
    sexes = np.array(["female", "male"])[rng.integers(0, 2, n)]
    sites = np.array(["a", "b", "c"])[rng.integers(0, 3, n)]
    labels = {f"label_{k}": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)) for k in range(N_LABELS)}
    signal = {
        "visit_days": 0.0, "rate_hz": 500.0, "n_samples": 5000, "n_leads": 12, "leads": ",".join(LEADS), "unit": "mV",
        "offset": rows * ECG_ITEM, "scale_per_unit": 1000.0, "source": "generated", "notes": "", "flags": "",
    }  # fmt: skip
    image = {
        "visit_days": 0.0, "view": "sax", "n_slices": SLICES, "n_frames": FRAMES, "rows": SIDE, "columns": SIDE,
        "spacing_row_mm": 1.8, "spacing_column_mm": 1.8, "slice_spacing_mm": 10.0,
        "affine": _repeated(np.eye(4).ravel(), n), "frame_times_ms": _repeated(np.arange(FRAMES) * 20.0, n),
        "offset": rows * CINE_ITEM, "mask_offset": -1, "pixel_scale": 1.0, "pixel_offset": 0.0, "mask_labels": "{}",
        "source": "generated", "notes": "", "flags": "",
    }  # fmt: skip
    kept = {"kind": "ecg", "status": "kept", "reason": "", "detail": "", "row": rows, "flags": ""}
    pair = {"recording": rows, "study": rows, "view": "sax", "days_apart": 0.0, "rank": 0}
    ages = rng.normal(64, 8, n)
    tables = {
        "subjects": _table("subjects", n, {"subject": rows, "sex": sexes, "age_years": ages, "site": sites}),
        "recordings": _table("recordings", n, {"recording": rows, "subject": rows, **signal}),
        "studies": _table("studies", n, {"study": rows, "subject": rows, **image}),
        "labels": _table("labels", n, {"subject": rows}, dict(labels)),
        "ledger": _table("ledger", n, {"item": np.char.mod("%d", rows), **kept}),
        "pairs": _table("pairs", n, pair),
    }
    files = {f"{name}.parquet": write_table(out / f"{name}.parquet", name, table) for name, table in tables.items()}
    (out / "splits/default.json").write_text(make_split(rows, seed=0).to_json())
    arrays = {}
    for name, dtype, size in (("ecg", "int16", ECG_ITEM), ("cine", "uint8", CINE_ITEM), ("masks", "uint8", 0)):
        n_bytes = n * size * np.dtype(dtype).itemsize
        with (out / ARRAY_FILES[name]).open("wb") as stream:
            stream.truncate(n_bytes)
        arrays[name] = {"file": ARRAY_FILES[name], "dtype": dtype, "elements": n * size, "bytes": n_bytes}
    specs = tuple(LabelSpec(name, "regression", "ml") for name in labels)
    schema = CohortSchema("large", "simulated", "0", arrays=arrays, labels=specs, files=files)
    (out / "cohort.json").write_text(schema.to_json())
    ecg, cmr = ecg_pipeline("highpass"), cmr_pipeline("three_frames", size=image_size)
    _sparse_cache(out / f"cache/ecg-{ecg.fingerprint()[:16]}-float16", "float16", (n, 12, ecg.n_samples))
    _sparse_cache(out / f"cache/cmr-sax-{cmr.fingerprint()[:16]}", "uint8", (n, *cmr.shape))
    return out


def _sparse_cache(folder: Path, dtype: str, shape: tuple[int, ...]) -> None:
    folder.mkdir()
    open_memmap(folder / "data.npy", "w+", dtype=dtype, shape=shape).flush()
    (folder / "meta.json").write_text(json.dumps({"refused": {}}))
