"""CohortWriter: chunks in, one cohort out; atomic, resumable, with rows in the same order for any number of workers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from ecgcmr.cohort.array_content import ArrayContent, item_size
from ecgcmr.cohort.chunks import ARRAY_NAMES, ROW_TABLES, ROWS_FILE, ChunkWriter, Rows, plain
from ecgcmr.cohort.locks import FolderLock
from ecgcmr.cohort.schema import ARRAY_FILES, REQUIRED_TABLES, SCHEMA_FILE, CohortSchema
from ecgcmr.cohort.splits import Split
from ecgcmr.cohort.tables import sha256, write_stream, write_table

_PLAN, _STATE, _LOCK = "plan.json", "state.json", "writer.lock"
PART_FILE, REPORT_FILE, ABOUT_FOLDER = "part.json", "report.json", "about"
_FINISHED = {SCHEMA_FILE: "cohort", PART_FILE: "part of a cohort", REPORT_FILE: "report"}
_SCAFFOLDING = ("chunks", "rows", ABOUT_FOLDER)


class CohortWriter:
    """Builds OUT in OUT.partial and renames it at the end.

    Chunks may be written in any order, by any process; they are appended to the packed arrays strictly in the order of
    their numbers. A killed run leaves OUT.partial; a writer with an equal plan goes on behind the last whole chunk.

    Args:
        out: Folder of the finished cohort.
        plan: Everything that decides the content, as plain JSON values.
        n_chunks: Number of chunks.
        cine_dtype: "uint8" or "uint16".
        force: Replace a finished cohort at `out`, and forget an unfinished run with another plan.

    Raises:
        FileExistsError: `out` is a finished cohort (without `force`) or a folder that is no cohort.
        ValueError: OUT.partial was begun with another plan (without `force`).
        BlockingIOError: Another process is writing the same cohort.
    """

    def __init__(
        self, out: Path, plan: Mapping[str, Any], n_chunks: int, cine_dtype: str = "uint8", force: bool = False
    ) -> None:
        self.out = Path(out)
        self.partial = self.out.with_name(self.out.name + ".partial")
        self.n_chunks = n_chunks
        self.cine_dtype = cine_dtype
        self._plan = json.loads(json.dumps({**plan, "n_chunks": n_chunks, "cine_dtype": cine_dtype}, default=plain))
        check_target(self.out, force)
        self._force = force
        self._lock = FolderLock(self.partial / _LOCK)
        self._merged = 0
        self._elements = dict.fromkeys(ARRAY_NAMES, 0)

    def __enter__(self) -> CohortWriter:
        self.partial.mkdir(parents=True, exist_ok=True)
        self._lock.acquire(f"{self.partial} is being written by another process; wait for it, or choose another folder")
        try:
            self._begin_or_resume()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def _begin_or_resume(self) -> None:
        plan_path = self.partial / _PLAN
        old = json.loads(plan_path.read_text()) if plan_path.is_file() else None
        if old is not None and old != self._plan:
            if not self._force:
                different = sorted(key for key in old.keys() | self._plan.keys() if old.get(key) != self._plan.get(key))
                raise ValueError(
                    f"{self.partial} is an unfinished run with other arguments ({', '.join(different)} differ); repeat "
                    "that command to finish it, use --force to throw it away, or choose another --out"
                )
            old = None
        if old is None:
            for entry in self.partial.iterdir():
                if entry.name != _LOCK:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            _write_atomic(plan_path, json.dumps(self._plan, indent=2, sort_keys=True))
        for folder in ("chunks", "rows", "arrays", "splits"):
            (self.partial / folder).mkdir(exist_ok=True)
        for left in (self.partial / "chunks").glob("*.tmp"):  # of workers that were killed
            shutil.rmtree(left, ignore_errors=True)
        state_path = self.partial / _STATE
        if state_path.is_file():
            state = json.loads(state_path.read_text())
            self._merged, self._elements = state["merged"], state["elements"]
        for name in ARRAY_NAMES:  # cut off what a killed run appended behind the last recorded chunk
            with (self.partial / ARRAY_FILES[name]).open("ab") as stream:
                stream.truncate(self._elements[name] * item_size(name, self.cine_dtype))

    def chunk_folder(self, index: int) -> Path:
        """Folder of a chunk; hand it to a worker together with `cine_dtype`."""
        return self.partial / "chunks" / f"{index:06d}"

    def chunk(self, index: int) -> ChunkWriter:
        """A writer for chunk `index`, as a context manager."""
        return ChunkWriter(self.chunk_folder(index), self.cine_dtype)

    def missing(self) -> list[int]:
        """Chunks that no run has finished yet."""
        return [index for index in range(self._merged, self.n_chunks) if not self.chunk_folder(index).is_dir()]

    @property
    def n_merged(self) -> int:
        """Number of chunks that are in the arrays."""
        return self._merged

    def merge_ready(self) -> int:
        """Append every chunk that is next in order and whole; returns the number of merged chunks so far."""
        while self._merged < self.n_chunks and self.chunk_folder(self._merged).is_dir():
            folder = self.chunk_folder(self._merged)
            shutil.copyfile(folder / ROWS_FILE, self.partial / "rows" / f"{self._merged:06d}.json")
            elements = json.loads((folder / ROWS_FILE).read_text())["elements"]
            for name in ARRAY_NAMES:
                with (
                    (folder / f"{name}.bin").open("rb") as source,
                    (self.partial / ARRAY_FILES[name]).open("ab") as sink,
                ):
                    shutil.copyfileobj(source, sink, 1 << 22)
                self._elements[name] += elements[name]
            self._merged += 1
            _write_atomic(self.partial / _STATE, json.dumps({"merged": self._merged, "elements": self._elements}))
            shutil.rmtree(folder)
        return self._merged

    def iter_rows(self) -> Iterator[Rows]:
        """Rows of one chunk after the other, with global row numbers and offsets."""
        assert self._merged == self.n_chunks, f"{self._merged} of {self.n_chunks} chunks are merged"
        base = dict.fromkeys(ARRAY_NAMES, 0)
        first = {"ecg": 0, "cmr": 0}
        for index in range(self.n_chunks):
            content = json.loads((self.partial / "rows" / f"{index:06d}.json").read_text())
            rows: Rows = {name: content["rows"].get(name, []) for name in ROW_TABLES}
            counts = {"ecg": len(rows["recordings"]), "cmr": len(rows["studies"])}
            for name, new in rows.items():
                for row in new:
                    _shift(name, row, base, first)
            yield rows
            for name, count in content["elements"].items():
                base[name] += count
            first = {kind: first[kind] + counts[kind] for kind in first}

    def collect(self) -> Rows:
        """All rows with global row numbers and offsets, in chunk order."""
        rows: Rows = {name: [] for name in ROW_TABLES}
        for new in self.iter_rows():
            for name, found in new.items():
                rows[name].extend(found)
        return rows

    def finish(
        self,
        tables: Mapping[str, Any],
        schema: CohortSchema,
        splits: Iterable[Split],
        content: ArrayContent | None = None,
    ) -> Path:
        """Write the tables, the splits and cohort.json, then give the cohort its name.

        Args:
            tables: What `collect` gave, possibly changed; or, for some, an Arrow table or an iterator of them.
            schema: Name, provenance, labels, groups and origin; arrays and files are filled in here.
            splits: The splits to store.
            content: What the arrays hold, when recordings and studies come as iterators that note it.

        Returns:
            The folder of the finished cohort.
        """
        files: dict[str, str] = {}
        for name in (*ROW_TABLES, "pairs"):
            rows, path = tables.get(name, []), self.partial / f"{name}.parquet"
            if isinstance(rows, Iterator):
                files[path.name] = write_stream(path, rows)
            elif len(rows) or name in REQUIRED_TABLES:
                files[path.name] = write_table(path, name, rows)
        for split in splits:
            path = self.partial / "splits" / f"{split.name}.json"
            path.write_text(split.to_json())
            files[f"splits/{split.name}.json"] = sha256(path)
        for name in ARRAY_NAMES:
            with (self.partial / ARRAY_FILES[name]).open("rb") as stream:
                os.fsync(stream.fileno())
        if content is None:
            content = ArrayContent()
            for name in ("recordings", "studies"):
                content.add(name, tables[name])
        full = replace(schema, arrays=content.describe(self._elements, self.cine_dtype), files=files)
        _write_atomic(self.partial / SCHEMA_FILE, full.to_json())
        return self._publish()

    def finish_report(self, ledger: Any, summary: str) -> Path:
        """Give a folder with a ledger and a summary its name: no arrays, no cohort."""
        write_table(self.partial / "ledger.parquet", "ledger", ledger)
        _write_atomic(self.partial / REPORT_FILE, summary)
        return self._publish((*_SCAFFOLDING, "arrays", "splits"))

    def finish_part(self, facts: Mapping[str, Any]) -> Path:
        """Give a part of a cohort its name: packed arrays and rows, to be merged with the other parts."""
        part = {**facts, "plan": self._plan, "elements": self._elements}
        _write_atomic(self.partial / PART_FILE, json.dumps(part, indent=2, sort_keys=True))
        return self._publish(("chunks", "splits"))

    def append_part(self, part: Path) -> None:
        """Append all chunks of a finished part; they must be next in order."""
        facts = json.loads((part / PART_FILE).read_text())
        for index in range(facts["plan"]["n_chunks"]):
            target = self.partial / "rows" / f"{self._merged + index:06d}.json"
            shutil.copyfile(part / "rows" / f"{index:06d}.json", target)
        for name in ARRAY_NAMES:
            with (part / ARRAY_FILES[name]).open("rb") as source, (self.partial / ARRAY_FILES[name]).open("ab") as sink:
                shutil.copyfileobj(source, sink, 1 << 22)
            self._elements[name] += facts["elements"][name]
        self._merged += facts["plan"]["n_chunks"]
        _write_atomic(self.partial / _STATE, json.dumps({"merged": self._merged, "elements": self._elements}))

    def _publish(self, scaffolding: Iterable[str] = _SCAFFOLDING) -> Path:
        old = self.out.with_name(self.out.name + ".replaced")
        if self.out.is_dir() and any(self.out.iterdir()):
            shutil.rmtree(old, ignore_errors=True)
            self.out.rename(old)
        self.partial.rename(self.out)
        # only now the scaffolding: a run killed before the rename still finds all that it needs to go on
        for name in scaffolding:
            shutil.rmtree(self.out / name, ignore_errors=True)
        for name in (_STATE, _PLAN, _LOCK):
            (self.out / name).unlink(missing_ok=True)
        shutil.rmtree(old, ignore_errors=True)
        return self.out

    def discard(self) -> None:
        """Remove OUT.partial, for a run that found nothing to keep."""
        shutil.rmtree(self.partial, ignore_errors=True)


def check_target(out: Path, force: bool) -> None:
    """Refuse to overwrite a finished cohort, and always refuse to overwrite something else.

    Raises:
        FileExistsError: Says what stands there and what to do.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    kind = next((kind for file, kind in _FINISHED.items() if (out / file).is_file()), None)
    if kind is None:
        raise FileExistsError(f"{out} exists and is no cohort; it will not be touched: choose another --out")
    if not force:
        raise FileExistsError(f"{out} is a finished {kind}; use --force to replace it, or choose another --out")


def _shift(table: str, row: dict[str, Any], base: Mapping[str, int], first: Mapping[str, int]) -> None:
    """Move a row of a chunk to its place in the cohort."""
    if table == "recordings":
        row["recording"] += first["ecg"]
        row["offset"] += base["ecg"]
    elif table == "studies":
        row["study"] += first["cmr"]
        row["offset"] += base["cine"]
        row["mask_offset"] += base["masks"] if row["mask_offset"] >= 0 else 0
    elif table == "recording_labels":
        row["recording"] += first["ecg"]
    elif table == "ledger" and row["row"] >= 0:
        row["row"] += first[row["kind"]]


def _write_atomic(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)
