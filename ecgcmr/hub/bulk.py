"""From many files to one table on disk: in parts, so that a killed run goes on where it stopped.

While a run lasts, its parts lie in a hidden folder beside the table: `plan.json` says what the run is, each part is a
parquet file and a JSON file with what failed, which is written last. At the end they become the table, by one rename.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ecgcmr.cohort.locks import FolderLock
from ecgcmr.ecg.leads import LEADS
from ecgcmr.hub.folder import write_text
from ecgcmr.hub.inputs import Declared, EcgInputs
from ecgcmr.hub.model import LoadedModel
from ecgcmr.hub.stream import Failed, Row, StreamOptions
from ecgcmr.hub.tables import Verb, ledger

ITEMS_OF_A_PART = 2048
_FAILED_COLUMNS = ("item", "reason", "detail")


@dataclass(frozen=True)
class BulkReport:
    """What a run wrote.

    Attributes:
        rows: Rows of the table.
        failed: Items without a row: {item, reason, detail}.
        reduced: Rows from fewer than twelve leads.
        ignored: Files of folders that were passed over, by suffix.
        resumed: Items that an earlier, killed run had done.
        files: What was written.
    """

    rows: int
    failed: list[dict[str, str]]
    reduced: int
    ignored: dict[str, int]
    resumed: int
    files: list[Path]


def write_table(
    model: LoadedModel,
    verb: Verb,
    sources: Sequence[str | Path],
    out: str | Path,
    declared: Declared | None = None,
    options: StreamOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
    force: bool = False,
    items_of_a_part: int = ITEMS_OF_A_PART,
) -> BulkReport:
    """Embed or predict files, folders or cohorts into a table on disk.

    Beside the table lie `OUT.failed.csv`, when something gave no row, and for CSV `OUT.about.json` with the model and
    the units, which parquet holds itself (`pandas.read_parquet(OUT).attrs`).

    Args:
        model: The model.
        verb: "embed" or "predict".
        sources: Files, folders, cohorts.
        out: The table, .parquet or .csv.
        declared: Rate, leads and unit for files that do not state them.
        options: How to cut and batch; see `StreamOptions`.
        progress: Called with (done, total) items.
        force: Replace a table that is there.
        items_of_a_part: Items after which what is done is kept on disk.

    Raises:
        FileExistsError: The table is there and `force` is not given.
        BlockingIOError: Another process is writing it.
        ValueError: Another suffix, nothing to read, or options that do not suit the model.
        OSError: It cannot be written; a table that was there before is untouched.
    """
    out, options = Path(out), options or StreamOptions()
    if out.suffix not in (".parquet", ".csv"):
        raise ValueError(f"{out}: tables are written as .parquet or .csv")
    if out.exists() and not force:
        raise FileExistsError(f"{out} exists; use --force to replace it, or choose another name")
    inputs = EcgInputs([str(source) for source in sources], declared)
    maker = model.table_maker(verb, options, inputs.from_cohort)
    model.results(verb, inputs, options)  # refuses what does not suit the model before anything is written
    out.parent.mkdir(parents=True, exist_ok=True)
    parts = out.with_name(f".{out.name}.parts")
    locked = out.with_name(f".{out.name}.lock")
    lock = FolderLock(locked)
    lock.acquire(busy=f"{out} is being written by another process")
    try:
        done = _resume(parts, _plan(model, verb, inputs, declared, options, items_of_a_part))
        skip = done * items_of_a_part
        for number, part in enumerate(model.results(verb, inputs, options, items_of_a_part, skip), done):
            rows = [one for one in part if isinstance(one, Row)]
            table = pa.Table.from_pandas(maker.frame(rows), preserve_index=False)
            pq.write_table(table, parts / f"{number:06d}.parquet")
            failed = ledger([one for one in part if isinstance(one, Failed)])
            items = len({id(one.item) for one in part})
            told = {"failed": failed, "reduced": sum(len(row.leads) < len(LEADS) for row in rows)}
            write_text(parts / f"{number:06d}.json", json.dumps(told))
            if progress is not None:
                progress(number * items_of_a_part + items, max(inputs.total, number * items_of_a_part + items))
        report = _finish(parts, out, maker.attrs, dict(inputs.ignored), skip)
    finally:
        locked.unlink(missing_ok=True)  # while it is held: who waits for it will see that it is gone
        lock.release()
    return report


def _plan(
    model: LoadedModel,
    verb: Verb,
    inputs: EcgInputs,
    declared: Declared | None,
    options: StreamOptions,
    items_of_a_part: int,
) -> str:
    """Text that is the same for two runs that compute the same: weights, options, and the files as they are now."""
    files = hashlib.sha256()
    for path in inputs.files:
        about = path.stat() if path.exists() else None
        files.update(f"{path}\0{about and (about.st_size, about.st_mtime_ns)}\n".encode())
    config = model.config
    only = None if options.only_leads is None else list(options.only_leads)
    plan = {
        "verb": verb,
        "weights": config["sha256"],
        "head": config.get("head_from"),
        "head_options": config.get("head_options"),
        "dtype": model.dtype,
        "declared": (declared or Declared()).given(),
        "options": [options.windows, options.aggregate, options.short, only],
        "files": files.hexdigest(),
        "items_of_a_part": items_of_a_part,
    }
    if options.covariates is not None:
        values = pd.DataFrame(options.covariates, index=[0] if isinstance(options.covariates, dict) else None)
        plan["covariates"] = hashlib.sha256(values.to_csv().encode()).hexdigest()
    return json.dumps(plan, sort_keys=True)


def _resume(parts: Path, plan: str) -> int:
    """Number of parts that an earlier run of the same plan finished; parts of another plan are removed."""
    stored = parts / "plan.json"
    if not stored.is_file() or stored.read_text() != plan:
        if parts.exists():
            shutil.rmtree(parts)
        parts.mkdir()
        write_text(stored, plan)
    done = 0
    while (parts / f"{done:06d}.json").is_file():
        done += 1
    return done


def _finish(parts: Path, out: Path, attrs: dict[str, Any], ignored: dict[str, int], skip: int) -> BulkReport:
    """Put the parts together; the table appears by a rename when it is whole, and not at all when it has no row."""
    told = [json.loads(path.read_text()) for path in sorted(parts.glob("[0-9]*.json"))]
    failed = [row for part in told for row in part["failed"]]
    files = [path for path in sorted(parts.glob("[0-9]*.parquet")) if pq.read_metadata(path).num_rows]
    rows = sum(pq.read_metadata(path).num_rows for path in files)
    failed_path, about_path = out.with_name(f"{out.name}.failed.csv"), out.with_name(f"{out.name}.about.json")
    written: list[Path] = []
    if rows:
        whole = parts / "whole"
        _concatenate(files, whole, out.suffix, attrs)
        whole.replace(out)
        written.append(out)
        if out.suffix == ".csv":
            write_text(about_path, json.dumps(attrs, indent=1) + "\n")
            written.append(about_path)
    if failed:
        text = io.StringIO()
        table = csv.DictWriter(text, _FAILED_COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(failed)
        write_text(failed_path, text.getvalue())
        written.append(failed_path)
    else:
        failed_path.unlink(missing_ok=True)  # of an earlier run: it would speak of the new table
    shutil.rmtree(parts)
    return BulkReport(rows, failed, sum(part["reduced"] for part in told), ignored, skip, written)


def _concatenate(files: Sequence[Path], whole: Path, suffix: str, attrs: dict[str, Any]) -> None:
    schema = pq.read_schema(files[0])
    # where pandas looks for the attributes of a table
    schema = schema.with_metadata({**(schema.metadata or {}), b"PANDAS_ATTRS": json.dumps(attrs).encode()})
    writer: Any = pq.ParquetWriter(whole, schema) if suffix == ".parquet" else pyarrow.csv.CSVWriter(whole, schema)
    with writer:
        for path in files:
            writer.write_table(pq.read_table(path).cast(schema))
