"""`ecgcmr demo`: the stages in their order."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path

from rich.console import Console

from ecgcmr.demo.context import SHUFFLED, DemoContext, open_context
from ecgcmr.study.stages import Report, Stage, run_stages
from ecgcmr.training.signals import RunInterrupted


def run_demo(out: Path, preset: str, seed: int = 0, workers: int = 0, console: Console | None = None) -> Path:
    """Run the whole job on a simulated cohort.

    Args:
        out: Folder for the cohort, runs, predictions, results.json, report.html and, in `evaluation/`, what
            `ecgcmr evaluate` writes of the fine-tuned model, with pages that the report links to.
        preset: `quick`, `standard` or `full`.
        seed: Seed of the whole demo.
        workers: Processes that simulate; 0 takes one for each core.
        console: Where progress is shown.

    Returns:
        The report.

    Raises:
        ValueError: If the preset is unknown or `out` holds something else.
        KeyboardInterrupt: After Ctrl-C; what was learned so far is on disk.
    """
    console = console or Console()
    context = open_context(out, preset, seed, workers or os.cpu_count() or 1)
    logger = logging.getLogger("ecgcmr")
    level = logger.level
    logger.setLevel(logging.ERROR)  # one bar tells it all; details are in each run's train.log
    try:
        run_stages(demo_stages(context), out, console)
    except RunInterrupted as interrupted:  # its checkpoint is written; to a user this is one Ctrl-C like any other
        raise KeyboardInterrupt from interrupted
    finally:
        logger.setLevel(level)
    console.print(f"\nreport   {out / 'report.html'}\nresults  {out / 'results.json'}", highlight=False, soft_wrap=True)
    console.print(f"weights  {context.weights('mae_aligned')}", highlight=False, soft_wrap=True)
    return out / "report.html"


def demo_stages(context: DemoContext) -> list[Stage]:
    """The stages; shares are seconds of a standard demo on two cores."""
    from ecgcmr.demo import arms, compare, evaluating, lanes, learning, report

    def simulate(tell: Report) -> None:
        learning.simulate(context, tell)
        arms.make_label_splits(context)

    def probe_all(tell: Report) -> None:
        for number, arm in enumerate(context.arms()):
            tell(number / len(context.arms()))
            arms.probe_arm(context, arm)

    def tune_pretrained(tell: Report) -> None:
        tuned = [arm for arm in context.arms() if arm.modality == "ecg"]
        for number, arm in enumerate(tuned):
            arms.finetune_arm(context, arm, partial(_within, tell, number, len(tuned)))

    def align_shuffled(tell: Report) -> None:
        learning.align_shuffled(context, tell, SHUFFLED.key)

    stages = [
        Stage("simulate", "simulate paired hearts", 90, simulate),
        Stage("learn", "pretrain, align, train the rival", 520, lambda tell: lanes.learn(context, tell)),
        Stage("probe", "probe the encoders", 100, probe_all),
        Stage("tune", "fine-tune on all labels", 70, lambda tell: lanes.learn(context, tell, lanes.TUNING)),
        Stage("evaluate", "evaluate the fine-tuned model", 40, lambda tell: evaluating.evaluate_main(context, tell)),
        Stage("compare", "compare with intervals", 20, lambda tell: compare.compare(context, tell)),
        Stage("report", "write the report", 10, lambda tell: report.write_report(context)),
    ]
    if context.preset.shuffled_control:
        stages.insert(2, Stage("shuffled", "align shuffled pairs (control)", 150, align_shuffled))
    if context.preset.finetune_pretrained:
        stages.insert(-4, Stage("finetune", "fine-tune the encoders", 500, tune_pretrained))
    return stages


def _within(tell: Report, number: int, total: int, fraction: float) -> None:
    tell((number + fraction) / total)
