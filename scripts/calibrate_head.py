"""Give a head prediction intervals: split-conformal half-widths from subjects that it was not fitted on.

python scripts/calibrate_head.py --weights runs/release/ecg_nano_head/weights --cohort runs/release/simulated \
    --out runs/release/ecg_nano_head_intervals
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ecgcmr.cohort.dataset import PairedDataset
from ecgcmr.cohort.splits import open_split
from ecgcmr.cohort.store import Cohort
from ecgcmr.demo.arms import Predict
from ecgcmr.evaluation.embeddings import EmbedOptions, embed, input_length
from ecgcmr.hub import load_weights, save_weights
from ecgcmr.hub.card import Card
from ecgcmr.hub.intervals import interval_options


def main() -> None:
    """Predict the validation subjects from their first windows, take the quantiles, write the folder anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="weights folder with an ECG encoder and a head")
    parser.add_argument(
        "--cohort", type=Path, required=True, help="cohort with the labels; its `val` subjects are used"
    )
    parser.add_argument("--level", type=float, default=0.9, help="wanted coverage")
    parser.add_argument("--out", type=Path, required=True, help="the new weights folder")
    arguments = parser.parse_args()
    weights, cohort = load_weights(arguments.weights), Cohort.open(arguments.cohort)
    labels = weights.config["labels"]
    names = tuple(label["name"] for label in labels)
    data = PairedDataset(cohort, open_split(cohort).val, weights.ecg_pipeline, None, labels=names)
    options = EmbedOptions(crop_samples=input_length(weights), crop_starts=(0,))
    found = embed(weights, data, "ecg", options=options, projection=Predict(weights.modules["head"]))
    interval = interval_options(found.labels, found.values, labels, arguments.level)
    head_options = {**weights.config["head_options"], "interval": interval}
    card = Card.from_config(weights.config)
    save_weights(arguments.out, weights.modules, weights.ecg_pipeline, weights.cmr_pipeline, card, head_options)
    print(f"{arguments.out}: {arguments.level:.0%} intervals from {len(found.values):,} subjects")


if __name__ == "__main__":
    main()
