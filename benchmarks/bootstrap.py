"""Time the subject bootstrap: 10,000 subjects x 2,000 draws x 20 metrics (target: within 20 s on 2 cores).

Run: `python benchmarks/bootstrap.py [--subjects 10000] [--draws 2000]`. The 20 metrics are those of one measurement
(5) and one diagnosis (7), and AUROC and AUPRC of four more diagnoses (8). The naive column is scikit-learn called in a
loop for one draw, times the number of draws.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from ecgcmr.evaluation.bootstrap import bootstrap_metrics, draw_subjects
from ecgcmr.evaluation.metrics import metrics_for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=2_000)
    arguments = parser.parse_args()
    n = arguments.subjects
    rng = np.random.default_rng(0)
    subjects = np.arange(n)
    volume = rng.normal(150, 30, n)
    estimate = volume + rng.normal(0, 20, n)
    score = rng.normal(size=n)
    disease = (rng.random(n) < 1 / (1 + np.exp(3 - score))).astype(float)
    chance = 1 / (1 + np.exp(3 - score))

    start = time.perf_counter()
    warm = draw_subjects(subjects[:50], 2, rng)
    bootstrap_metrics(["auroc"], (np.arange(50) % 2, score[:50]), subjects[:50], warm)
    print(f"first call (compilation, or its cache)   {time.perf_counter() - start:7.2f} s")

    start = time.perf_counter()
    draws = draw_subjects(subjects, arguments.draws, rng)
    drawn = time.perf_counter()
    bootstrap_metrics(metrics_for("regression"), (volume, estimate), subjects, draws)
    regression = time.perf_counter()
    bootstrap_metrics(metrics_for("binary"), (disease, chance), subjects, draws, threshold=0.1)
    binary = time.perf_counter()
    for _ in range(4):
        noisy = 1 / (1 + np.exp(-(score + rng.normal(size=n))))
        bootstrap_metrics(("auroc", "auprc"), (disease, noisy), subjects, draws)
    end = time.perf_counter()
    print(f"draw {arguments.draws} x {n} subjects             {drawn - start:7.2f} s")
    print(f"5 metrics of a measurement               {regression - drawn:7.2f} s")
    print(f"7 metrics of a diagnosis                 {binary - regression:7.2f} s")
    print(f"AUROC and AUPRC of 4 more diagnoses      {end - binary:7.2f} s")
    print(f"20 metrics in all                        {end - start:7.2f} s")

    rows = np.repeat(subjects, draws.counts[0])
    start = time.perf_counter()
    roc_auc_score(disease[rows], chance[rows])
    average_precision_score(disease[rows], chance[rows])
    once = time.perf_counter() - start
    print(f"scikit-learn in a loop, AUROC and AUPRC of 5 diagnoses (from one draw) {once * 5 * arguments.draws:7.0f} s")


if __name__ == "__main__":
    main()
