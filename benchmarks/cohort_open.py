"""What it costs to open a cohort, to read tables, and to make batches.

Run: python benchmarks/cohort_open.py [--subjects N]. The cohort is a stand-in in a temporary folder: 12 x 5000 int16
ECG and a 3 x 96 x 96 uint8 cine for each subject. Targets: open 5,000 subjects in milliseconds and below 10 MiB.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ecgcmr.cmr.cine import Cine
from ecgcmr.cohort.schema import CohortSchema, LabelSpec
from ecgcmr.cohort.splits import make_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.cohort.writer import CohortWriter
from ecgcmr.ecg.leads import LEADS
from ecgcmr.ecg.recording import EcgRecording


def write_cohort(out: Path, n: int) -> Path:
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(12, 5000)).astype(np.float32)
    pixels = rng.integers(0, 255, (1, 3, 96, 96), dtype=np.uint8)
    times = np.array([0.0, 150.0, 300.0])
    with CohortWriter(out, {"n": n}, -(-n // 100)) as writer:
        for index in writer.missing():
            with writer.chunk(index) as rows:
                for subject in range(index * 100, min(n, index * 100 + 100)):
                    rows.add_subject(subject, {"sex": "female", "age_years": 60.0, "site": "0"})
                    rows.add_recording(EcgRecording(samples, 500.0, LEADS), subject)
                    rows.add_study(Cine(pixels, (1.8, 1.8), 0.0, np.eye(4), times, "sax"), subject)
                    rows.add_labels(subject, {f"label_{k}": rng.normal() for k in range(90)})
            writer.merge_ready()
        specs = tuple(LabelSpec(f"label_{k}", "regression") for k in range(90))
        schema = CohortSchema("benchmark", "generated", "0", labels=specs)
        return writer.finish(writer.collect(), schema, [make_split(np.arange(n), 0)])


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def median_ms(action: Callable[[], object], repeats: int = 9) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def measure(path: Path, n: int) -> dict[str, float]:
    before = peak_mib()
    cohort = Cohort.open(path)
    result = {"open_ms": median_ms(lambda: Cohort.open(path)), "open_mib": peak_mib() - before}

    def read_tables() -> None:
        fresh = Cohort.open(path)
        _ = fresh.subjects, fresh.recordings, fresh.studies, fresh.labels

    before = peak_mib()
    result["open_and_all_tables_ms"] = median_ms(read_tables)
    result["all_tables_mib"] = peak_mib() - before
    cohort.ecg_block(np.arange(1))
    rng = np.random.default_rng(0)
    result["ecg_block_of_64_ms"] = median_ms(lambda: cohort.ecg_block(rng.integers(0, n, 64)))
    return result


def measure_batches(path: Path, n: int) -> dict[str, float]:
    from ecgcmr.cmr.preprocessing import named_pipeline as cmr_pipeline
    from ecgcmr.cohort.dataset import PairedDataset
    from ecgcmr.ecg.preprocessing import named_pipeline as ecg_pipeline

    start = time.perf_counter()
    labels = ["label_0", "label_1"]
    data = PairedDataset(
        Cohort.open(path), np.arange(n), ecg_pipeline("highpass"), cmr_pipeline("three_frames"), labels
    )
    prepare = time.perf_counter() - start
    start = time.perf_counter()
    data = PairedDataset(data.cohort, np.arange(n), data.ecg_pipeline, data.cmr_pipeline, labels)
    reopen = time.perf_counter() - start
    rng = np.random.default_rng(0)
    batch = median_ms(lambda: data.batch(rng.permutation(n)[:128]))
    return {
        "prepare_subjects_per_s": n / prepare,
        "dataset_from_cache_ms": 1e3 * reopen,
        "batch_of_128_ms": batch,
        "samples_per_s": 128e3 / batch,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=5000)
    parser.add_argument("--batches", type=int, default=1000, help="subjects for the batch part, 0 leaves it out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        path = write_cohort(Path(folder) / "cohort", options.subjects)
        result = {
            "subjects": options.subjects,
            "write_s": time.perf_counter() - start,
            **measure(path, options.subjects),
        }
    if options.batches:
        with tempfile.TemporaryDirectory() as folder:
            path = write_cohort(Path(folder) / "cohort", options.batches)
            result.update(measure_batches(path, options.batches))
    print(json.dumps({name: round(value, 2) for name, value in result.items()}, indent=2))


if __name__ == "__main__":
    main()
