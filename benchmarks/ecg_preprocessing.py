"""ECG preprocessing: the reference arithmetic against ours, interleaved in one run on one thread.

    OMP_NUM_THREADS=1 python benchmarks/ecg_preprocessing.py

The reference arithmetic is written anew from its description (clip, sparse asymmetric least squares lead by lead,
group-wise z-score, in loops). Times are CPU times of the one thread. The run ends with the largest difference between
the two results.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import spsolve

from ecgcmr.ecg.preprocessing import NAMED_PIPELINES, named_pipeline

Array = NDArray[np.float64]


def reference_baseline(y: Array, lam: float = 1e7, p: float = 0.3, n_iter: int = 5) -> Array:
    """Asymmetric least squares of one lead by a general sparse solver."""
    n = len(y)
    difference = sparse.diags_array([1.0, -2.0, 1.0], offsets=[0, -1, -2], shape=(n, n - 2))
    penalty = lam * difference.dot(difference.transpose())
    w = np.ones(n)
    for _ in range(n_iter):
        z = spsolve((sparse.diags_array(w) + penalty).tocsc(), w * y)
        w = p * (y > z) + (1 - p) * (y < z)
    return z


def reference_chain(samples_LT: NDArray[np.floating]) -> NDArray[np.float32]:
    """Clip, baseline and group-wise z-score of one recording."""
    x = np.nan_to_num(np.asarray(samples_LT, np.float64))
    s = np.std(x)
    x = np.clip(x, -4 * s, 4 * s)
    for lead in range(len(x)):
        x[lead] = x[lead] - reference_baseline(x[lead])
    start = 0
    for stop in (3, 6, 12):
        group = x[start:stop]
        x[start:stop] = (group - np.mean(group)) / np.sqrt(np.var(group) + 1e-12)
        start = stop
    return x.astype(np.float32)


def synthetic_recordings(n: int, seed: int = 0) -> NDArray[np.float32]:
    """Recordings (n, 12, 5000) [mV]: beats of random width, wander and noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(5000) / 500.0
    phase = (t * rng.uniform(0.9, 1.6, (n, 1, 1)) + rng.uniform(0, 1, (n, 1, 1))) % 1.0
    beats = rng.normal(0, 1, (n, 12, 1)) * np.exp(-0.5 * ((phase - 0.3) / 0.015) ** 2)
    beats += rng.normal(0, 0.3, (n, 12, 1)) * np.exp(-0.5 * ((phase - 0.6) / 0.05) ** 2)
    wander = rng.normal(0, 0.3, (n, 12, 1)) * np.sin(2 * np.pi * 0.25 * t + rng.uniform(0, 6.28, (n, 12, 1)))
    return (beats + wander + rng.normal(0, 0.02, (n, 12, 5000))).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds; each gives one ratio")
    parser.add_argument("--records", type=int, default=16, help="recordings of ours in each round")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    ecg = synthetic_recordings(arguments.records)
    ours = named_pipeline("reference")
    others = [named_pipeline(name) for name in NAMED_PIPELINES if name != "reference"]
    for pipeline in (ours, *others):
        pipeline.apply_batch(ecg[:1], 500.0)  # compile
    seconds: dict[str, list[float]] = {"reference arithmetic": [], **{p.name: [] for p in (ours, *others)}}
    difference = 0.0
    for k in range(arguments.rounds):
        row = k % len(ecg)
        begin = time.process_time()
        expected = reference_chain(ecg[row])
        seconds["reference arithmetic"].append(time.process_time() - begin)
        for pipeline in (ours, *others):
            begin = time.process_time()
            result = pipeline.apply_batch(ecg, 500.0)
            seconds[pipeline.name].append((time.process_time() - begin) / len(ecg))
            if pipeline is ours:
                difference = max(difference, float(np.abs(result[row] - expected).max()))
    base = np.array(seconds["reference arithmetic"])
    for name, values in seconds.items():
        ms, ratio = 1e3 * np.array(values), base / np.array(values)
        print(
            f"{name:22s} {np.median(ms):8.3f} ms a recording [{ms.min():.3f}, {ms.max():.3f}]"
            f"   ratio {np.median(ratio):7.1f} [{ratio.min():.1f}, {ratio.max():.1f}]"
        )
    print(f"largest difference of the reference chain (z units): {difference:.2e}")


if __name__ == "__main__":
    main()
