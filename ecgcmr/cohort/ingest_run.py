"""Running the chunks of an ingest: processes or a cluster, and what happens when one of them dies."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ecgcmr.cohort.ingest_guard import mark_path, marked_item, note_death
from ecgcmr.cohort.ingest_options import IngestOptions
from ecgcmr.cohort.ingest_plan import Item
from ecgcmr.cohort.ingest_read import ReadOptions, read_chunk
from ecgcmr.cohort.writer import CohortWriter

logger = logging.getLogger(__name__)

Job = tuple[Path, Sequence[Item], ReadOptions, str]
_DEATHS = ("TerminatedWorkerError", "BrokenProcessPool", "KilledWorker", "WorkerDiedException")


def run_chunks(writer: CohortWriter, job: Callable[[int], Job], options: IngestOptions) -> Iterator[int]:
    """Read every chunk that is missing and merge in order; yields the number of items that were read in each step.

    A chunk in which a worker died is read again by a process of its own: whatever kills that one too goes into the
    ledger, and everything else of the chunk is read.

    Args:
        writer: The open writer.
        job: Number of a chunk -> arguments of `read_chunk`.
        options: Workers, backend and time limit.

    Raises:
        RuntimeError: Workers die before they begin to read.
    """
    writer.merge_ready()
    suspects = [index for index in writer.missing() if mark_path(writer.chunk_folder(index)).exists()]
    tries = 0
    while writer.missing():
        for index in suspects:
            yield _alone(job(index), options.time_limit_s)
            writer.merge_ready()
        todo = writer.missing()
        before = len(todo)
        try:
            for count in _pool((job(index) for index in todo), len(todo), options):
                writer.merge_ready()
                yield count
            return
        except Exception as error:
            if type(error).__name__ not in _DEATHS:
                raise
            logger.warning("a worker died; looking for the file that it was reading")
        writer.merge_ready()
        suspects = [index for index in writer.missing() if mark_path(writer.chunk_folder(index)).exists()]
        tries = 0 if suspects or len(writer.missing()) < before else tries + 1
        if tries == 3:
            raise RuntimeError("workers die before they begin to read: is there enough memory? try fewer --workers")


def _pool(jobs: Iterable[Job], count: int, options: IngestOptions) -> Iterator[int]:
    """Run jobs by joblib; at most two jobs for each worker wait."""
    from joblib import Parallel, delayed

    if count == 0:
        return
    workers = min(options.workers, count)
    if options.backend == "loky" and workers == 1:
        yield from _one_worker(jobs)
        return
    with _backend(options):
        n_jobs = -1 if options.backend == "dask" else workers
        pool = Parallel(n_jobs=n_jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
        yield from pool(delayed(read_chunk)(*job) for job in jobs)


@contextlib.contextmanager
def _backend(options: IngestOptions) -> Iterator[None]:
    from joblib import parallel_config

    if options.backend == "loky":
        with parallel_config(backend="loky", inner_max_num_threads=1):
            yield
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ValueError("--backend dask needs dask.distributed: pip install 'ecgcmr[cluster]'") from error
    try:
        client = Client(options.scheduler, timeout="20s", set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"--scheduler {options.scheduler}: no dask scheduler answers there ({error}); expected an address such as "
            "tcp://HOST:8786"
        ) from error
    with client, client.as_current(), parallel_config(backend="dask", wait_for_workers_timeout=60):
        yield


def _one_worker(jobs: Iterable[Job]) -> Iterator[int]:
    """One process beside this one: a reader that crashes must not take the run with it."""
    executor = _single()
    try:
        for job in jobs:
            yield executor.submit(read_chunk, *job).result()
    except Exception:
        _single.cache_clear()  # it may be dead; the next one begins anew
        raise


@lru_cache(maxsize=1)
def _single() -> Any:
    """The process of runs with one worker; it is kept, because starting it takes a second, and ends when idle."""
    from joblib.externals.loky import ProcessPoolExecutor

    return ProcessPoolExecutor(max_workers=1, timeout=60, env={"OMP_NUM_THREADS": "1"})


def _alone(job: Job, limit_s: float) -> int:
    """Read one chunk by a process of its own, again and again without the items that kill it; returns its items."""
    chunk, items = job[0], job[1]
    mark_path(chunk).unlink(missing_ok=True)
    for _ in range(len(items) + 2):
        try:
            return next(_one_worker([job]))
        except Exception as error:
            if type(error).__name__ not in _DEATHS:
                raise
            died = time.time()
        item = marked_item(chunk)
        if item is not None:
            note_death(chunk, item, died - mark_path(chunk).stat().st_mtime, limit_s)
            logger.warning("%s ended the process that read it", items[item].name)
    raise RuntimeError(f"chunk {chunk.name} kills its process in every try")
