"""A cohort with other labels: signals and images stay where they are, labels, splits and cohort.json are new."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ecgcmr.cohort.ingest_labels import SEXES, aggregate
from ecgcmr.cohort.schema import ARRAY_FILES, SCHEMA_FILE, CohortSchema, LabelSpec
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.tables import sha256
from ecgcmr.own_labels.recordings import unmatched
from ecgcmr.own_labels.request import FinetuneRequest
from ecgcmr.own_labels.table import OwnLabels

_RECORDING_NAMES = ("recording", "recording_id")
_OWN_FILES = ("labels.parquet", "recording_labels.parquet", "subjects.parquet")


def label_cohort(cohort: Cohort, own: OwnLabels | None, request: FinetuneRequest, out: Path) -> tuple[Path, list[str]]:
    """Write a cohort with the recordings of another one and own labels.

    Args:
        cohort: The cohort; it is not changed, and must stay where it is.
        own: The table, by subject number or pseudonym, or by recording number where its column is called `recording`;
            None keeps the labels of the cohort.
        request: Whether rows without a match are accepted.
        out: Folder of the new cohort; it appears whole or not at all.

    Returns:
        The folder, and what must be known about it.

    Raises:
        ValueError: A key is of nobody in the cohort; says how many, which and what to do.
    """
    if own is None:
        partial, files = _begin(cohort, out, ())
        return _finish(partial, out, replace(cohort.schema, files=files)), []
    by_recording = own.key_column.lower() in _RECORDING_NAMES
    known = cohort.recordings["recording"] if by_recording else cohort.subjects["subject"]
    numbers = _numbers(own.keys, cohort, by_recording)
    matched = np.isin(numbers, known.to_numpy())
    what = f"a {'recording' if by_recording else 'subject'} of {cohort.path}"
    if not matched.any():
        unmatched(own, matched, what, allow=False)
    notes = [unmatched(own, matched, what, request.allow_unmatched)]
    rows = np.flatnonzero(matched)
    partial, files = _begin(cohort, out, _OWN_FILES)
    specs = tuple(replace(spec, level="recording" if by_recording else "subject") for spec in own.specs)
    files |= _write_labels(cohort, own, (rows, numbers[rows]), specs, partial)
    groups, subjects = _subjects(cohort, own, rows, None if by_recording else numbers[rows])
    files["subjects.parquet"] = _write(partial / "subjects.parquet", subjects)
    schema = replace(
        cohort.schema,
        labels=specs,
        files=files,
        group_columns=tuple(dict.fromkeys((*cohort.schema.group_columns, *groups))),
        origin={"kind": "labelled", "of": dict(cohort.schema.origin)},
    )
    return _finish(partial, out, schema), [note for note in notes if note]


def _begin(cohort: Cohort, out: Path, anew: tuple[str, ...]) -> tuple[Path, dict[str, str]]:
    """A folder with links to all files but those that are written anew, and their hashes."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "arrays").mkdir(parents=True)
    (partial / "splits").mkdir()
    return partial, _link(cohort, partial, anew)


def _finish(partial: Path, out: Path, schema: CohortSchema) -> Path:
    (partial / SCHEMA_FILE).write_text(schema.to_json())
    partial.rename(out)
    return out


def _numbers(keys: list[str], cohort: Cohort, by_recording: bool) -> NDArray[np.int64]:
    """Number in the cohort of each key (n,), -1 for none."""
    if not by_recording and "pseudonym" in cohort.subjects:
        known = dict(zip(cohort.subjects["pseudonym"].astype(str), cohort.subjects["subject"], strict=True))
        found = np.array([known.get(key, -1) for key in keys], dtype=np.int64)
        if (found >= 0).any():
            return found
    return np.array([int(key) if key.isdecimal() and len(key) < 19 else -1 for key in keys], dtype=np.int64)


def _link(cohort: Cohort, folder: Path, anew: tuple[str, ...]) -> dict[str, str]:
    """Link what stays the same, and copy the splits; gives the hashes of cohort.json for both."""
    kept = {name: digest for name, digest in cohort.schema.files.items() if name not in anew}
    arrays = [name for name in ARRAY_FILES.values() if (cohort.path / name).is_file()]
    for name in (*kept, *arrays):
        source, target = (cohort.path / name).resolve(), folder / name
        if name.startswith("splits/"):
            shutil.copyfile(source, target)
        else:
            target.symlink_to(source)
    for path in (cohort.path / "splits").glob("*.json"):  # those that were added later
        if not (folder / "splits" / path.name).exists():
            shutil.copyfile(path, folder / "splits" / path.name)
    cache = cohort.path.resolve() / "cache"  # what is prepared for one serves the other
    if os.access(cohort.path, os.W_OK):
        cache.mkdir(exist_ok=True)
    if os.access(cache, os.W_OK):
        (folder / "cache").symlink_to(cache)
    return kept


def _write_labels(
    cohort: Cohort,
    own: OwnLabels,
    matched: tuple[NDArray[np.int64], NDArray[np.int64]],
    specs: tuple[LabelSpec, ...],
    folder: Path,
) -> dict[str, str]:
    rows, numbers = matched
    values = own.take(rows)
    everyone = cohort.subjects["subject"].to_numpy(dtype=np.int64)
    owners = numbers
    written = {}
    if specs[0].level == "recording":
        table = values.assign(recording=numbers).sort_values("recording")
        written["recording_labels.parquet"] = _write(folder / "recording_labels.parquet", table)
        owners = cohort.recordings.set_index("recording")["subject"].reindex(numbers).to_numpy(dtype=np.int64)
    place = pd.Series(np.arange(len(everyone)), index=everyone)
    of_subjects = aggregate(specs, values.reset_index(drop=True), place.reindex(owners).to_numpy(), len(everyone))
    of_subjects.insert(0, "subject", everyone)
    written["labels.parquet"] = _write(folder / "labels.parquet", of_subjects)
    return written


def _subjects(
    cohort: Cohort, own: OwnLabels, rows: NDArray[np.int64], numbers: NDArray[np.int64] | None
) -> tuple[list[str], pd.DataFrame]:
    """Subjects with what the table says of them, where the cohort does not know it; and the new group columns."""
    subjects = cohort.subjects.reset_index(drop=True)
    if numbers is None:
        return [], subjects
    groups = []
    for name in own.about:
        of_table = pd.Series(own.about[name].to_numpy()[rows], index=numbers)
        said = of_table.reindex(subjects["subject"]).fillna("").reset_index(drop=True)
        if name == "age_years":
            ages = pd.to_numeric(said, errors="coerce")
            subjects["age_years"] = subjects["age_years"].fillna(ages)
        elif name == "sex":
            known = subjects["sex"].fillna("")
            subjects["sex"] = known.where(known != "", said.map(lambda text: SEXES.get(text.lower(), text)))
        else:
            subjects[name] = said.astype(str)
        if name != "age_years":
            groups.append(str(name))
    return groups, subjects


def _write(path: Path, table: pd.DataFrame) -> str:
    arrow = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
    pq.write_table(arrow, path, compression="zstd")
    return sha256(path)
