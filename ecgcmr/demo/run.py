"""`ecgcmr demo`: the stages in their order."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console

from ecgcmr.demo.context import SCRATCH, SHUFFLED, DemoContext, open_context
from ecgcmr.demo.stages import Report, Stage, run_stages
from ecgcmr.training.signals import RunInterrupted


def run_demo(out: Path, preset: str, seed: int = 0, workers: int = 0, console: Console | None = None) -> Path:
    """Run the whole job on a simulated cohort.

    Args:
        out: Folder for the cohort, runs, predictions, results.json and report.html.
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
    logging.getLogger("ecgcmr").setLevel(logging.ERROR)  # one bar tells it all; details are in each run's train.log
    try:
        run_stages(demo_stages(context), out, console)
    except RunInterrupted as interrupted:  # its checkpoint is written; to a user this is one Ctrl-C like any other
        raise KeyboardInterrupt from interrupted
    console.print(f"\nreport   {out / 'report.html'}\nresults  {out / 'results.json'}", highlight=False, soft_wrap=True)
    console.print(f"weights  {context.weights('mae_aligned')}", highlight=False, soft_wrap=True)
    return out / "report.html"


def demo_stages(context: DemoContext) -> list[Stage]:
    """The stages; shares are seconds of a standard demo on two cores."""
    from ecgcmr.demo import arms, compare, learning, report

    def probe_all(tell: Report) -> None:
        arms.make_label_splits(context)
        for number, arm in enumerate(context.arms()):
            tell(number / len(context.arms()))
            arms.probe_arm(context, arm)

    def tune_all(tell: Report) -> None:
        tuned = [SCRATCH]
        if context.preset.finetune_pretrained:
            tuned += [arm for arm in context.arms() if arm.modality == "ecg"]
        for number, arm in enumerate(tuned):
            arms.finetune_arm(context, arm, partial(_tell_part, tell, number, len(tuned)))

    def align(name: str, init: str | None) -> Callable[[Report], None]:
        return lambda tell: learning.align(context, tell, name, init)

    def align_shuffled(tell: Report) -> None:
        learning.align_shuffled(context, tell, SHUFFLED.key)

    stages = [
        Stage("simulate", "simulate paired hearts", 90, lambda tell: learning.simulate(context, tell)),
        Stage("ecg_mae", "pretrain the ECG encoder", 150, lambda tell: learning.pretrain_ecg(context, tell)),
        Stage("cmr_simclr", "pretrain the CMR encoder", 40, lambda tell: learning.pretrain_cmr(context, tell)),
        Stage("mae_aligned", "align both", 150, align("mae_aligned", "ecg_mae")),
        Stage("aligned", "align without the MAE", 150, align("aligned", None)),
        Stage("probe", "probe the encoders", 60, probe_all),
        Stage("finetune", "train the rival from scratch", 120, tune_all),
        Stage("compare", "compare with intervals", 20, lambda tell: compare.compare(context, tell)),
        Stage("report", "write the report", 10, lambda tell: report.write_report(context)),
    ]
    if context.preset.shuffled_control:
        stages.insert(5, Stage("shuffled", "align shuffled pairs (control)", 90, align_shuffled))
    return stages


def _tell_part(tell: Report, number: int, total: int, share: float) -> None:
    tell((number + share) / total)
