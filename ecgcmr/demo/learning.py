"""The stages that learn: each is one recipe, run by the same code as `scripts/pretrain.py`."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from ecgcmr.demo.context import DemoContext
from ecgcmr.study.stages import Report
from ecgcmr.training.config import RunConfig, load_config
from ecgcmr.training.progress import ProgressCallback, ProgressEvent
from ecgcmr.training.run import finetune, pretrain


def recipe(context: DemoContext, recipe_name: str, name: str, /, **values: Any) -> RunConfig:
    """Read one of the demo's recipes and fit it to this demo.

    Args:
        context: The demo.
        recipe_name: File in `ecgcmr/demo/recipes`, without its suffix.
        name: Name of the run.
        **values: Dotted keys, with `__` for the dot.
    """
    with as_file(files("ecgcmr.demo") / "recipes" / f"{recipe_name}.yaml") as path:
        config = load_config(path)
    changes = {key.replace("__", "."): value for key, value in values.items()}
    base = {"name": name, "out": str(context.run(name)), "seed": context.seed, "data.cohort": str(context.cohort)}
    return config.with_values(**{**base, **changes})


def simulate(context: DemoContext, report: Report) -> None:
    """Simulate the paired cohort: ECGs and three frames of the mid short-axis slice."""
    from ecgcmr.cohort.simulate import simulate_cohort

    if context.cohort.exists():
        return
    total = context.preset.n_subjects
    simulate_cohort(
        context.cohort,
        total,
        context.seed,
        workers=context.workers,
        cine="mid3",
        progress=lambda done, *_: report(done / total),
    )


def pretrain_ecg(context: DemoContext, report: Report) -> None:
    """Train the ECG masked autoencoder."""
    _pretrain(recipe(context, "ecg_mae", "ecg_mae", train__max_steps=context.preset.mae_steps), report)


def pretrain_cmr(context: DemoContext, report: Report) -> None:
    """Train the CMR encoder by SimCLR."""
    _pretrain(recipe(context, "cmr_simclr", "cmr_simclr", train__max_steps=context.preset.cmr_steps), report)


def align(
    context: DemoContext, report: Report, name: str, ecg_init: str | None, cohort: Path | None = None, **values: Any
) -> None:
    """Align the two encoders.

    Args:
        context: The demo.
        report: Told the progress.
        name: Name of the run.
        ecg_init: Run whose ECG encoder is the start; None starts from random weights.
        cohort: Another cohort than the demo's, for the control.
        **values: Other changes of the recipe, as `recipe` takes them.
    """
    config = recipe(
        context,
        "align",
        name,
        data__cohort=str(cohort or context.cohort),
        init__ecg=None if ecg_init is None else str(context.weights(ecg_init)),
        init__cmr=str(context.weights("cmr_simclr")),
        train__max_steps=context.preset.align_steps,
        **values,
    )
    _pretrain(config, report)


def align_shuffled(context: DemoContext, report: Report, name: str, **values: Any) -> None:
    """The control: the same alignment, with the same `values`, on pairs that do not belong together."""
    from ecgcmr.cohort.shuffle import shuffle_pairs
    from ecgcmr.cohort.store import Cohort

    shuffled = context.out / "cohort_shuffled"
    if not shuffled.exists():
        shuffle_pairs(Cohort.open(context.cohort), shuffled, context.seed)
    align(context, report, name, "ecg_mae", shuffled, **values)


def supervise(
    context: DemoContext,
    run: str,
    split: str,
    labels: tuple[str, ...],
    steps: int,
    report: Report | None = None,
    recipe_name: str = "supervised",
    **values: Any,
) -> None:
    """Train encoder and head on the labelled subjects of a split; nothing to do when the run is complete.

    Args:
        context: The demo.
        run: Name of the run folder.
        split: Name of the split.
        labels: Labels to learn.
        steps: Most optimizer steps.
        report: Told the progress.
        recipe_name: `supervised`, or `outcomes` for labels with follow-up.
        **values: Other changes of the recipe, as `recipe` takes them.
    """
    if context.weights(run).exists():
        return
    config = recipe(
        context,
        recipe_name,
        run,
        data__split=split,
        data__labels=list(labels),
        train__max_steps=steps,
        **values,
    )
    finetune(config, resume=context.run(run).exists(), progress=_share(report) if report else False)


def _pretrain(config: RunConfig, report: Report) -> None:
    if (config.folder / "weights").exists():
        return
    pretrain(config, resume=config.folder.exists(), progress=_share(report))


def _share(report: Report) -> ProgressCallback:
    def tell(event: ProgressEvent) -> None:
        report(event.done / max(event.total, 1))

    return tell
