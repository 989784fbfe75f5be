"""What comes of a run: predictions and results of the held-out subjects, the page, and the weights with their card."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ecgcmr.evaluation.evaluate import ABOUT, evaluate_weights
from ecgcmr.evaluation.evaluated import headline_table, read_evaluation
from ecgcmr.evaluation.target_scores import PRIMARY
from ecgcmr.hub.pack import pack
from ecgcmr.own_labels.parts import SPLIT
from ecgcmr.own_labels.request import Bar, FinetuneRequest, run_name

_TITLES = {"r2": "R²", "auroc": "AUROC", "harrell_c": "Harrell's C"}


def evaluate_run(request: FinetuneRequest, run: Path, cohort: Path, bar: Bar | None) -> Path:
    """Write predictions, results and the page of the subjects to test on, where they are not there yet.

    Returns:
        The folder of the evaluation.
    """
    out = request.out / "evaluation"
    if not (out / ABOUT).is_file():
        with bar("predicting", "recordings") if bar else nullcontext() as update:
            evaluate_weights(
                run / "weights", cohort, SPLIT, out, progress=update, seed=request.seed, **request.evaluation
            )
    if not (out / "report.html").is_file():
        from ecgcmr.report.evaluation_page import write_evaluation_report

        write_evaluation_report(out)
    return out


def pack_run(request: FinetuneRequest, run: Path, evaluation: Path, test: int, say: Callable[[str], None]) -> Path:
    """Write the weights folder: encoder and head, with the held-out numbers on its card.

    Args:
        request: The request.
        run: Run folder.
        evaluation: Folder of the evaluation.
        test: Subjects to test on.
        say: Gets a sentence for each of the first numbers.
    """
    for row in headline_table(evaluation)[:20]:
        texts = [f"{title} {value}" for title, value in row.items() if title not in ("target", "metric")]
        say(f"{row['target']}, {_TITLES.get(row['metric'], row['metric'])} on {test} subjects: {'; '.join(texts)}")
    out = request.out / "weights"
    if not (out / "config.json").is_file():
        pack([run / "weights"], out, card={"name": run_name(request.out), "metrics": card_metrics(evaluation)})
    return out


def card_metrics(evaluation: Path) -> list[dict[str, Any]]:
    """The first metric of each target on the test subjects, as metrics of a card."""
    found = read_evaluation(evaluation)
    arm = found.arm("model")
    metrics = []
    for target in found.about["targets"]:
        metric = PRIMARY[target["kind"]]
        rows = found.results
        rows = rows[(rows["arm"] == arm) & (rows["target"] == target["name"]) & (rows["metric"] == metric)]
        if rows.empty or not math.isfinite(rows["value"].iloc[0]):
            continue
        one = rows.iloc[0]
        entry = {
            "name": f"{_TITLES.get(metric, metric)} of {target['name']}",
            "value": round(float(one["value"]), 4),
            "n": int(one["n_subjects"]),
            "where": "held-out subjects",
        }
        if math.isfinite(one["lo"]) and math.isfinite(one["hi"]):
            entry |= {"lo": round(float(one["lo"]), 4), "hi": round(float(one["hi"]), 4)}
        metrics.append(entry)
    return metrics
