"""Whole ingest of WFDB records, quality checks included: records a second, and the share of each step.

    OMP_NUM_THREADS=1 python benchmarks/ingest.py [--json]

On a busy machine the wall clock tells little: `processor_ms` is the time that all processes of the ingest were running,
and `ratio_to_target_idle` what two processors would reach with nothing else to do.

Makes records of 12 leads x 5,000 samples (format 16, 500 Hz) with beats, wander and noise, ingests them with one and
with all processors, and does each step of the work alone on one of them. Ratios are within this one run.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ecgcmr.cohort.chunks import ChunkWriter
from ecgcmr.cohort.ingest import ingest
from ecgcmr.cohort.ingest_options import IngestOptions
from ecgcmr.ecg.leads import LEADS, to_canonical
from ecgcmr.ecg.quality import check_ecg
from ecgcmr.ecg.readers import open_ecg
from ecgcmr.ecg.recording import EcgRecording

TARGET_PER_S = 300.0  # on two processors
DISTINCT = 32  # different signals; further records are other names for the same bytes


def ecg_uv(rng: np.random.Generator, n_samples: int = 5000, rate_hz: float = 500.0) -> np.ndarray:
    """Microvolts (12, T) with QRS, T waves, wander and noise; limb leads obey Einthoven's law."""
    t = np.arange(n_samples) / rate_hz
    phase = (t * rng.uniform(0.9, 1.5) + rng.uniform()) % 1.0
    qrs, wave = np.exp(-0.5 * ((phase - 0.3) / 0.012) ** 2), np.exp(-0.5 * ((phase - 0.6) / 0.05) ** 2)
    leads = rng.uniform(0.4, 1.5, (8, 1)) * 1000 * qrs + rng.uniform(0.1, 0.3, (8, 1)) * 1000 * wave
    leads = np.rint(leads + 60 * np.sin(2 * np.pi * 0.25 * t) + rng.normal(0, 12, (8, n_samples)))
    one, two = leads[0], leads[1]
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return np.concatenate([np.stack(limb), leads[2:]])


def write_records(folder: Path, n: int, seed: int = 0) -> None:
    """Write n records in folders of a thousand."""
    rng = np.random.default_rng(seed)
    bodies = []
    for k in range(DISTINCT):
        data = folder / f"signal{k:02d}.bin"
        data.parent.mkdir(parents=True, exist_ok=True)
        np.rint(ecg_uv(rng)).astype("<i2").T.tofile(data)
        bodies.append(data)
    for k in range(n):
        name, place = f"r{k:06d}", folder / f"{k // 1000:03d}"
        place.mkdir(exist_ok=True)
        os.link(bodies[k % DISTINCT], place / f"{name}.dat")
        lines = [f"{name} 12 500 5000", *(f"{name}.dat 16 1000(0)/mV 16 0 0 0 0 {lead}" for lead in LEADS)]
        (place / f"{name}.hea").write_text("\n".join(lines) + "\n")
    for body in bodies:
        body.unlink()


def processor_s() -> float:
    """Processor time of this process and its children so far [s]."""
    own, tick = os.getpid(), 1 / os.sysconf("SC_CLK_TCK")
    total = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(folder.name) == own or int(fields[1]) == own:
            total += (int(fields[11]) + int(fields[12])) * tick
    return total


def steps(folder: Path, n: int) -> dict[str, float]:
    """CPU time of each step for one record on one processor [ms]."""
    paths = sorted(folder.rglob("*.hea"))[:n]
    done: dict[str, float] = {}

    def timed(name: str, work: Callable[[], list[EcgRecording]]) -> list[EcgRecording]:
        begin = time.process_time()
        result = work()
        done[name] = 1e3 * (time.process_time() - begin) / len(paths)
        return result

    check_ecg(to_canonical(open_ecg(paths[0])))  # compile
    read = timed("open_ecg", lambda: [open_ecg(path) for path in paths])
    ordered = timed("to_canonical", lambda: [to_canonical(recording) for recording in read])

    def check() -> list[EcgRecording]:
        for recording in ordered:
            check_ecg(recording)
        return ordered

    def write() -> list[EcgRecording]:
        with tempfile.TemporaryDirectory() as place, ChunkWriter(Path(place) / "c") as rows:
            for recording in ordered:
                rows.add_recording(recording, 0)
        return ordered

    timed("check_ecg", check)
    timed("pack and write", write)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    found: dict[str, float] = {"records": arguments.records}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "ecg"
        write_records(folder, arguments.records)
        for name, workers in (("warm", 1), ("one", 1), ("warm", arguments.workers), ("all", arguments.workers)):
            begin, busy = time.perf_counter(), processor_s()
            report = ingest(IngestOptions(out=Path(place) / "out", ecg=folder, workers=workers, force=True))
            assert report.kept == {"ecg": arguments.records}, report
            found[f"{name}_per_s"] = arguments.records / (time.perf_counter() - begin)
            found["processor_ms"] = 1e3 * (processor_s() - busy) / arguments.records
        parts = steps(folder, 200)
    del found["warm_per_s"]
    found["ratio_to_target"] = found["all_per_s"] / TARGET_PER_S
    found["ratio_to_target_idle"] = 2e3 / found["processor_ms"] / TARGET_PER_S
    found["ratio_workers"] = found["all_per_s"] / found["one_per_s"]
    total = sum(parts.values())
    found |= {f"ms_{name.replace(' ', '_')}": value for name, value in parts.items()}
    found |= {f"ratio_of_work_{name.replace(' ', '_')}": value / total for name, value in parts.items()}
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    print(f"{found['one_per_s']:.0f} records/s with 1 worker, {found['all_per_s']:.0f} with {arguments.workers}")
    print(
        f"{found['processor_ms']:.2f} ms of processor time a record: {2e3 / found['processor_ms']:.0f} records/s on 2"
    )
    for name, value in parts.items():
        print(f"  {name:16s} {value:6.2f} ms a record, {value / total:4.0%} of the work")


if __name__ == "__main__":
    main()
