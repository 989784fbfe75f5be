"""Write the model card of one release: fields and measured numbers, as YAML for `ecgcmr weights pack --card`.

python scripts/release_cards.py --weights runs/release/ecg_nano_mae/weights --name ecg_nano_mae \
    --simulated runs/release/simulated --out runs/release/cards/ecg_nano_mae.yaml
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.demo.release_metrics import real_metrics, simulated_metrics
from ecgcmr.evaluation.results import read_results
from ecgcmr.hub.folder import write_text

USE = (
    "A starting point for fine-tuning on own labels, a test bench for methods and software, and teaching. Embeddings "
    "of real ECGs are research features, nothing else."
)
LIMITS = (
    "The encoder has seen simulated hearts{real}. Its phenotypes and diagnoses, where it has any, are those of the "
    "simulator: on an ECG of a person they are wrong in unknown ways. Standard 12-lead ECGs at rest only; adults; no "
    "pacing, no children, no exercise. Groups, devices and sites other than the simulated ones were not tested."
)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="weights folder to measure")
    parser.add_argument("--name", required=True, help="name of the release")
    parser.add_argument(
        "--simulated", type=Path, required=True, help="the simulated cohort, with its held-out subjects"
    )
    parser.add_argument("--study", type=Path, nargs="*", default=(), help="results.json of scripts/released_study.py")
    parser.add_argument("--no-simulated-metrics", action="store_true", help="the encoder reads z-scored leads")
    parser.add_argument("--train-subjects", type=int, default=4000, help="training subjects of the probes")
    parser.add_argument("--test-subjects", type=int, help="held-out simulated subjects to score; all when left out")
    parser.add_argument("--bf16", action="store_true", help="compute the embeddings in bfloat16")
    parser.add_argument("--out", type=Path, required=True, help="YAML file to write")
    arguments = parser.parse_args()
    zscored = arguments.no_simulated_metrics
    n_train = len(open_split(Cohort.open(arguments.simulated)).train)
    trained_on = f"{n_train:,} simulated subjects (seed 2026)"
    real = " and 1,080 real ECG subjects of one data set, whose leads were z-scored" if zscored else " only"
    metrics = []
    if not zscored:
        metrics += simulated_metrics(
            arguments.weights,
            arguments.simulated,
            arguments.train_subjects,
            arguments.test_subjects,
            "bf16" if arguments.bf16 else "fp32",
        )
    for path in arguments.study:
        metrics += real_metrics(read_results(path), arguments.name)
    card = {
        "name": arguments.name,
        "license": "CC-BY-4.0" if zscored else "MIT",
        "provenance": "simulated + public: PTB-XL sample, folds 1-7 (CC BY 4.0, doi:10.13026/kfzx-aw45)"
        if zscored
        else "simulated",
        "trained_on": trained_on
        + (", then 1,080 subjects of a PTB-XL sample (folds 1-6, fold 7 selects), without labels" if zscored else ""),
        "command": "scripts/release_weights.sh",
        "intended_use": USE,
        "limits": LIMITS.format(real=real),
        "metrics": metrics,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(arguments.out, yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=120))
    print(f"{arguments.out}: {len(metrics)} numbers")


if __name__ == "__main__":
    main()
