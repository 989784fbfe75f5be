"""Time the subject bootstrap: 10,000 subjects x 2,000 draws x 20 metrics (target: within 20 s on 2 cores).

Run: `python benchmarks/bootstrap.py [--subjects 10000] [--draws 2000]`. The 20 metrics are all
of one measurement (7) and of one diagnosis (13); a decision curve of 50 thresholds and the survival metrics of one
outcome come on top. The naive column is scikit-learn called in a
loop for one draw, times the number of draws.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from ecgcmr.evaluation.bootstrap import bootstrap_metrics, draw_subjects
from ecgcmr.evaluation.decision import decision_curve
from ecgcmr.evaluation.metrics import metrics_for
from ecgcmr.evaluation.survival import Survival, bootstrap_survival

HORIZONS = (1.0, 2.0, 3.0, 5.0, 7.0)


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

    follow_up = rng.exponential(10 * np.exp(-score / 2))
    censoring = rng.uniform(3, 12, n)
    time_years, event = np.minimum(follow_up, censoring), (follow_up <= censoring).astype(float)
    risks = np.stack([1 - np.exp(-h / 10 * np.exp(score / 2)) for h in HORIZONS], axis=1)

    start = time.perf_counter()
    warm = draw_subjects(subjects[:50], 2, rng)
    few = slice(0, 50)
    bootstrap_metrics(metrics_for("binary"), (np.arange(50) % 2, chance[few]), subjects[few], warm, threshold=0.1)
    bootstrap_survival(Survival(time_years[few], event[few], score[few], subjects[few], risks[few], HORIZONS), warm)
    print(f"first call (compilation, or its cache)   {time.perf_counter() - start:7.2f} s")

    start = time.perf_counter()
    draws = draw_subjects(subjects, arguments.draws, rng)
    drawn = time.perf_counter()
    bootstrap_metrics(metrics_for("regression"), (volume, estimate), subjects, draws)
    regression = time.perf_counter()
    bootstrap_metrics(metrics_for("binary"), (disease, chance), subjects, draws, threshold=0.1)
    binary = time.perf_counter()
    decision_curve((disease, chance), subjects, draws)
    decision = time.perf_counter()
    found = bootstrap_survival(Survival(time_years, event, score, subjects, risks, HORIZONS), draws)
    end = time.perf_counter()
    print(f"draw {arguments.draws} x {n} subjects             {drawn - start:7.2f} s")
    print(f"7 metrics of a measurement               {regression - drawn:7.2f} s")
    print(f"13 metrics of a diagnosis                {binary - regression:7.2f} s")
    print(f"20 metrics in all, with the draws        {binary - start:7.2f} s")
    print(f"decision curve, 50 thresholds            {decision - binary:7.2f} s")
    print(f"{len(found):2d} metrics of an outcome in time         {end - decision:7.2f} s")

    rows = np.repeat(subjects, draws.counts[0])
    start = time.perf_counter()
    roc_auc_score(disease[rows], chance[rows])
    average_precision_score(disease[rows], chance[rows])
    once = time.perf_counter() - start
    print(f"scikit-learn in a loop, AUROC and AUPRC of a diagnosis (from one draw) {once * arguments.draws:7.0f} s")


if __name__ == "__main__":
    main()
