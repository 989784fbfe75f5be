"""Are released encoders worth more than the same network from scratch, with 50, 200 and all labels of real ECGs?

python scripts/released_study.py --cohort runs/release/ptbxl --arm weights/ecg_nano_zscored --out runs/release/study
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ecgcmr.demo.released import MACRO, ReleasedStudy, make_label_splits, score_arms
from ecgcmr.evaluation.results import read_results

RECIPE = Path(__file__).parents[1] / "configs" / "release" / "finetune_real.yaml"


def main() -> None:
    """Run the study; what is finished is not run again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", type=Path, required=True, help="cohort of real ECGs (see docs/real_ecg.md)")
    parser.add_argument("--arm", type=Path, action="append", required=True, help="weights folder; may be repeated")
    parser.add_argument("--out", type=Path, required=True, help="folder for predictions and results.json")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="run file of the fine-tuning")
    parser.add_argument("--counts", type=int, nargs="+", default=[50, 200, 0], help="labels; 0 stands for all")
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 150, 400], help="fine-tuning steps at each count")
    parser.add_argument("--seeds", type=int, default=5, help="label draws")
    parser.add_argument("--score", choices=("test", "val"), default="test", help="val: to choose settings by")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the run file")
    arguments = parser.parse_args()
    study = ReleasedStudy(
        arguments.cohort,
        arguments.out,
        arguments.recipe,
        {_name(path): path for path in arguments.arm},
        tuple(count or None for count in arguments.counts),
        tuple(range(arguments.seeds)),
        arguments.score,
        tuple(arguments.steps),
        overrides=tuple(arguments.set),
    )
    make_label_splits(study)
    path = score_arms(study)
    table = read_results(path)
    shown = table[table["target"] == MACRO]
    columns = ["arm", "protocol", "n_labels", "metric", "compared_to", "value", "lo", "hi"]
    print(shown[columns].round(3).to_string(index=False))
    print(f"\n{path}")


def _name(path: Path) -> str:
    return path.parent.name if path.name == "weights" else path.name


if __name__ == "__main__":
    main()
