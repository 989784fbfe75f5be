"""What do simulated hearts teach an encoder about real ECGs? Compares five encoders on fold 8 of a PTB-XL sample.

python scripts/real_ecg_study.py --real runs/real_ecg/ptbxl --simulated runs/real_ecg/simulated --out runs/real_ecg
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ecgcmr.demo.real_ecg import RealStudy, evaluate_arms, pretrain_arms
from ecgcmr.evaluation.results import read_results

CONFIGS = Path(__file__).parents[1] / "configs" / "real_ecg"


def main() -> None:
    """Run the study; what is finished is not run again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True, help="cohort of real ECGs (see docs/real_ecg.md)")
    parser.add_argument("--simulated", type=Path, required=True, help="simulated cohort with pairs")
    parser.add_argument("--out", type=Path, default=Path("runs/real_ecg"), help="folder for the runs and results.json")
    parser.add_argument("--seeds", type=int, default=3, help="fine-tuning runs of each arm")
    parser.add_argument("--steps", type=int, default=None, help="cut every training short (to try the script)")
    arguments = parser.parse_args()
    seeds = tuple(range(arguments.seeds))
    study = RealStudy(arguments.real, arguments.simulated, arguments.out, CONFIGS, seeds, arguments.steps)
    pretrain_arms(study)
    path = evaluate_arms(study)
    table = read_results(path)
    shown = table[table["seed"].isna() & table["metric"].isin(["auroc", "auroc_diff"])]
    print(shown[["arm", "protocol", "target", "metric", "value", "lo", "hi"]].round(3).to_string(index=False))
    print(f"\n{path}")


if __name__ == "__main__":
    main()
