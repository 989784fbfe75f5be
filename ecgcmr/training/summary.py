"""What a run says at its end: summary.json and the card of its weights."""

from __future__ import annotations

from typing import Any

from ecgcmr.cohort.mixture import AnyDataset, MixedDataset
from ecgcmr.hub.card import Card, Metric, metrics_of_run
from ecgcmr.objectives.facts import DataFacts
from ecgcmr.training.loop import Trainer
from ecgcmr.training.sources import Source, data_identity, joint_provenance
from ecgcmr.training.versions import versions


def summarize(trainer: Trainer, facts: DataFacts) -> dict[str, Any]:
    """Give the content of summary.json."""
    position, config = trainer.position, trainer.config
    samples = position.step * trainer.global_batch
    parameters = list(trainer.objective.parameters())
    return {
        "status": "finished",
        "name": config.name,
        "objective": config.objective.name,
        "steps": position.step,
        "steps_planned": trainer.total_steps,
        "epochs": position.epoch,
        "stopped_early": trainer.stopping.should_stop,
        "skipped_steps": position.skipped,
        "best": {
            "monitor": config.train.monitor,
            "value": trainer.stopping.best,
            "epoch": position.best_epoch or None,
        },
        "parameters": sum(p.numel() for p in parameters),
        "parameters_trained": sum(p.numel() for p in parameters if p.requires_grad),
        "train_items": len(trainer.feeds.train),
        "val_items": len(trainer.feeds.val) if trainer.feeds.val is not None else 0,
        "global_batch": trainer.global_batch,
        "processes": trainer.accelerator.num_processes,
        "precision": config.train.precision,
        "lr": trainer.schedule.lr,
        "facts": facts.to_dict(),
        "seconds": round(position.seconds, 2),
        "samples_per_second": round(samples / max(position.seconds, 1e-9), 1),
        # Of the training steps since the last start of the run, on the main process.
        "wait_share": round(trainer.waiting.share, 4),
        "versions": versions(),
    }


def make_card(trainer: Trainer, source: Source) -> Card:
    """Give what the exported weights say about themselves."""
    config, provenance = trainer.config, joint_provenance(source)
    simulated = provenance == "simulated"
    train = trainer.feeds.train
    of_whom = f"{len(train)} items of {len(train.unique_subjects)} subjects"
    metrics = {}
    if trainer.stopping.best is not None:
        metrics = {f"validation {config.train.monitor}": trainer.stopping.best}
    return Card(
        name=config.name,
        stage=config.objective.name,
        license=config.license or ("MIT" if simulated else "not stated"),
        provenance=provenance,
        trained_on=f"{of_whom} of {_cohorts(train, source)}",
        metrics=tuple(Metric.model_validate(row) for row in metrics_of_run(metrics)),
        run={**data_identity(source), "seed": config.seed, "steps": trainer.position.step},
    )


def _cohorts(train: AnyDataset, source: Source) -> str:
    """Name the cohorts that the items are from."""
    if not isinstance(train, MixedDataset):
        return f"the cohort {source.cohorts[0].cohort.schema.name!r}"
    sizes = zip(train.names, train.source_sizes, strict=True)
    return "the cohorts " + " and ".join(f"{name!r} ({size} items)" for name, size in sizes)
