"""simulate_cohort: a simulated paired cohort on disk; the same bytes for any number of workers and after any kill."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgcmr import __version__
from ecgcmr.cohort.chunks import ChunkWriter
from ecgcmr.cohort.ledger import LedgerRow
from ecgcmr.cohort.schema import CohortSchema
from ecgcmr.cohort.simulated_labels import label_specs
from ecgcmr.cohort.splits import make_split
from ecgcmr.cohort.writer import CohortWriter

if TYPE_CHECKING:
    from ecgcmr.simulation.design import Design

logger = logging.getLogger(__name__)

CINE_MODES = ("full", "mid", "mid3", "none")
CHUNK_SUBJECTS = {
    "full": 8,
    "mid": 32,
    "mid3": 32,
    "none": 32,
}  # a whole stack is 9 MiB a subject; a chunk is lost by a kill
CINE_DTYPE = "uint8"
Progress = Callable[[int, int], None]


def simulate_cohort(
    out: str | Path,
    n_subjects: int,
    seed: int,
    workers: int = 1,
    cine: str = "full",
    design: Design | None = None,
    progress: Progress | None = None,
    force: bool = False,
) -> Path:
    """Simulate subjects 0 ... n-1 and write them as a cohort with the default split.

    A subject is a function of (design, seed, subject) alone, so a larger cohort of the same seed begins with the same
    subjects. A killed run leaves OUT.partial and goes on when the same call is made again.

    Args:
        out: Folder of the cohort.
        n_subjects: Number of subjects.
        seed: Seed of the population and of the default split (70/10/20 by subject).
        workers: Processes; does not change a byte.
        cine: "full" (short-axis stack and four-chamber view with masks), "mid" (the same with the middle slice only),
            "mid3" (mid slice, three frames) or "none".
        design: Prevalences and nuisance scales; None for the default.
        progress: Called with (subjects done, subjects in all) after each chunk.
        force: Replace a finished cohort at `out`.

    Returns:
        The folder.

    Raises:
        ValueError: An argument out of range, or an unfinished run with other arguments.
        FileExistsError: `out` is finished already, or is no cohort.
    """
    from ecgcmr.simulation.design import Design

    if n_subjects < 1 or seed < 0 or workers < 1:
        raise ValueError(f"need subjects >= 1, seed >= 0, workers >= 1, got {n_subjects}, {seed}, {workers}")
    if cine not in CINE_MODES:
        raise ValueError(f"cine must be one of {CINE_MODES}, got {cine!r}")
    design = Design() if design is None else design
    origin = {
        "kind": "simulated",
        "seed": int(seed),
        "n_subjects": int(n_subjects),
        "cine": cine,
        "design": design.to_dict(),
    }
    size = CHUNK_SUBJECTS[cine]
    plan = {**origin, "version": __version__, "chunk_subjects": size}
    with CohortWriter(Path(out), plan, -(-n_subjects // size), CINE_DTYPE, force) as writer:
        for merged in _run_chunks(writer, origin, size, workers):
            if progress is not None:
                progress(min(n_subjects, merged * size), n_subjects)
        rows = writer.collect()
        first = rows["subjects"][0]  # measured numbers such as the body surface area are no groups
        groups = [name for name, value in first.items() if name != "subject" and not isinstance(value, float)]
        schema = CohortSchema(
            name=Path(out).name,
            provenance="simulated",
            created_with=__version__,
            labels=label_specs([name for name in rows["labels"][0] if name != "subject"]),
            group_columns=tuple(groups),
            origin=origin,
        )
        return writer.finish(rows, schema, [make_split(np.arange(n_subjects), seed)])


def _run_chunks(writer: CohortWriter, origin: dict[str, Any], size: int, workers: int) -> Iterator[int]:
    """Simulate what is missing and merge in order; yields the number of merged chunks after each step."""
    todo = writer.missing()
    if len(todo) < writer.n_chunks:
        logger.info(
            "going on with %s: %d of %d chunks are done", writer.partial, writer.n_chunks - len(todo), writer.n_chunks
        )
    yield writer.merge_ready()
    jobs = [(writer.chunk_folder(index), index * size, (index + 1) * size, origin) for index in todo]
    if workers == 1 or len(jobs) <= 1:
        for job in jobs:
            simulate_chunk(*job)
            yield writer.merge_ready()
        return
    from joblib import Parallel, delayed, parallel_config

    with parallel_config(backend="loky", inner_max_num_threads=1):  # workers x threads would fight for the cores
        pool = Parallel(n_jobs=min(workers, len(jobs)), return_as="generator_unordered", pre_dispatch="2*n_jobs")
        for _ in pool(delayed(simulate_chunk)(*job) for job in jobs):
            yield writer.merge_ready()


def simulate_chunk(folder: Path, start: int, stop: int, origin: dict[str, Any]) -> None:
    """Simulate subjects start ... stop-1 into the folder of a chunk; runs in a worker."""
    from ecgcmr.simulation.design import Design
    from ecgcmr.simulation.subject import simulate_subject

    design = Design.from_dict(origin["design"])
    with ChunkWriter(folder, CINE_DTYPE) as rows:
        for subject in range(start, min(origin["n_subjects"], stop)):
            made = simulate_subject(design, origin["seed"], subject, cine=origin["cine"])
            rows.add_subject(subject, _subject_fields(made.groups))
            row = rows.add_recording(made.ecg, subject, visit_days=0.0)
            rows.add_ledger(LedgerRow(f"subject {subject} ecg", "ecg", "kept", row=row))
            for cine in (made.sax, made.four_chamber):
                if cine is not None:
                    row = rows.add_study(cine, subject, visit_days=0.0)
                    rows.add_ledger(LedgerRow(f"subject {subject} {cine.view}", "cmr", "kept", row=row))
            rows.add_labels(subject, {**made.phenotypes, **made.diagnoses, **made.outcomes})
            rows.add_truth(subject, made.truth)


def _subject_fields(groups: dict[str, Any]) -> dict[str, Any]:
    """Group columns with the names that every cohort uses for sex, age and site."""
    fields = dict(groups)
    age = fields.pop("age_years", fields.pop("age", float("nan")))
    return {
        "sex": str(fields.pop("sex", "")),
        "age_years": float(age),
        "site": str(fields.pop("site", "")),
        **fields,
    }
